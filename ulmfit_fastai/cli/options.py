"""What the commands of the command line have in common: options, how their values are read, how a result is shown."""

from __future__ import annotations

import argparse
import codecs
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._errors import UlmfitError
from .._words import visible
from ..paper import TASKS
from ..recipe import parts

DIRECTIONS: dict[str, tuple[str, ...]] = {name: (name,) for name in parts.DIRECTIONS} | {"both": parts.DIRECTIONS}


def seconds(text: str) -> float:
    """Seconds in a duration such as `90m`, `2h`, `1h30m`, `45s` or a plain number of seconds."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().lower())
    if not match or not any(match.groups()):
        raise argparse.ArgumentTypeError(f"expected a duration such as 90m, 2h, 1h30m or 5400, found {text!r}")
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    total = hours * 3600 + minutes * 60 + rest
    if total <= 0:
        raise argparse.ArgumentTypeError(f"expected a duration above zero, found {text!r}")
    return total


def setting(text: str) -> tuple[str, Any]:
    """Name and value of `classifier.bs=32`; the value is read as JSON or Python's None, True, False, else as a word."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise argparse.ArgumentTypeError(f"expected FIELD=VALUE such as classifier.bs=32, found {text!r}")
    if value.strip() in ("None", "True", "False"):  # as messages and `recipe` print them
        return name.strip(), {"None": None, "True": True, "False": False}[value.strip()]
    try:
        return name.strip(), json.loads(value)
    except ValueError:  # no JSON, or a number of thousands of digits
        return name.strip(), value
    except RecursionError:
        raise argparse.ArgumentTypeError(f"{name.strip()}: lists within lists, too deep to read") from None


@dataclass(frozen=True)
class Option:
    """One argument of a command: the flags, or the name of a positional one, and what argparse is told about it."""

    flags: tuple[str, ...]
    settings: dict[str, Any]


def option(*flags: str, **settings: Any) -> Option:
    return Option(flags, settings)


def encoding(name: str) -> str:
    """The name of a text encoding that Python knows."""
    try:
        known = codecs.lookup(name).name
        bytes(4).decode(name)  # rot13, hex and base64 are known too, but no encodings of text
    except (LookupError, ValueError):
        raise argparse.ArgumentTypeError(f"expected utf-8, cp1252, utf-16, gb18030 or the like, found {name}") from None
    return "utf-8-sig" if known == "utf-8" else known  # a mark at the start, which spreadsheets write, is no text


def separator(mark: str) -> str:
    """A single character that stands between cells; a tab also by its name."""
    found = {"tab": "\t", "\\t": "\t"}.get(mark, mark)
    if len(found) != 1 or found in '"\r\n':
        raise argparse.ArgumentTypeError(f"expected one character such as ; or tab, found {mark!r}")
    return found


def out(default: str) -> Option:
    return option("--out", default=default, metavar="FOLDER",
                  help="run folder: everything the run makes, and what it goes on from (default: %(default)s)")


DEVICE = option("--device", metavar="NAME", help="cpu, cuda, cuda:1 or mps (default: the best one there is)")
PARALLEL = option("--parallel", action=argparse.BooleanOptionalAction, default=None,
                  help="train both directions at once on a CPU, each with half of the threads (default: where that is "
                       "faster)")
SEED = option("--seed", type=int, metavar="N", help="seed of everything random (default: the recipe's)")
SET = option("--set", dest="settings", type=setting, action="append", default=[], metavar="FIELD=VALUE",
             help="change one field of the recipe, e.g. classifier.bs=32; may be given several times "
                  "(`ulmfit-fastai recipe --fields` lists all fields)")
PRETRAIN_SET = option("--set", dest="settings", type=setting, action="append", default=[], metavar="FIELD=VALUE",
                      help="change one setting of pretraining, e.g. bs=32; may be given several times "
                           "(`ulmfit-fastai recipe --fields pretrain` lists them)")
PRESET_HELP = "recipe to follow: a name, a JSON file that `recipe NAME --json` wrote, or a run folder"
TIME_BUDGET = option("--time-budget", type=seconds, metavar="TIME",
                     help="stop in good order after this long (90m, 2h, 5400); the same command goes on")
NO_RESUME = option("--no-resume", action="store_true", help="start anew even if the run folder holds a run")
DRY_RUN = option("--dry-run", action="store_true",
                 help="say what would be done and how long it would take here, and stop there")
TASK = option("--task", choices=tuple(TASKS), default="imdb", help="data set the recipe is for (default: %(default)s)")
CORPUS = option("--corpus", metavar="PATH",
                help="general text for a recipe that pretrains (paper, scripts): a file, a folder, or wikitext-103")
LM_FROM = option("--lm-from", metavar="RUN", nargs="+",
                 help="take the fine-tuned language models of this run, or of several (one may have the forward and "
                      "another the backward one), instead of making the same again: to try another classifier or "
                      "number of labels in minutes")
SEP = option("--sep", type=separator, metavar="MARK", help="what separates the cells of CSV, such as ';' or tab "
                                                           "(default: a comma, or what the header has instead)")
NO_HEADER = option("--no-header", action="store_true", help="the first row of CSV is one like the others: columns are "
                                                            "called 0, 1, ...")
FORMAT = option("--format", choices=("csv", "tsv", "jsonl", "json", "parquet", "txt"),
                help="format of FILE where its name doesn't tell it, as that of standard input (FILE -)")
WEIGHTS = option("--weights", metavar="NAME",
                 help="language model to start from: wiki-small, english-small, wt103 (downloaded if need be), none, a "
                      "run folder or a weights file (default: the recipe's)")
JSON = option("--json", action="store_true", help="the result as JSON")
COMMON = (
    option("-v", "--verbose", action="store_true", help="say more while running"),
    option("-q", "--quiet", action="store_true", help="say only what is wrong, and the result"),
    option("--no-progress", action="store_true", help="show no progress bars"),
    option("--traceback", action="store_true", help="show the Python traceback of an error"),
)


def given(args: argparse.Namespace) -> dict[str, Any]:
    """Fields that `--set`, `--seed`, `--weights` and `--direction` change; one given in two ways is refused."""
    direction = getattr(args, "direction", None)
    changed: dict[str, Any] = {name: value for name in ("seed", "weights")
                               if (value := getattr(args, name, None)) is not None}
    changed |= {} if direction is None else {"directions": DIRECTIONS[direction]}
    for name, value in args.settings:
        value = tuple(value) if name == "directions" and isinstance(value, list) else value
        if name in changed and changed[name] != value:
            raise UlmfitError(f"{name} is given twice: {changed[name]!r} and {value!r}", field=name)
        changed[name] = value
    return changed


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """The same for a recipe: names and types are checked at once, before anything is read or even imported.

    `directions` is always there for a command that has `--direction`: None leaves the recipe's own.
    """
    from ..recipe.settings import check_settings

    changed = given(args)
    check_settings(changed)
    return {"directions": None, **changed} if hasattr(args, "direction") else changed


@dataclass(frozen=True)
class Command:
    """A row of the table: the word typed, the function it calls, the arguments it takes."""

    name: str
    run: Callable[[argparse.Namespace], int]
    options: tuple[Option, ...]


STOPPED = 3
"""Exit code of a run that its time budget ended before the end."""


def say(*words: Any, sep: str = " ") -> None:
    """Print words for people, without the control characters that names in their data may hold."""
    print("\n".join(map(visible, sep.join(map(str, words)).split("\n"))))
