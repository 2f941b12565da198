"""The command line: `ulmfit-fastai COMMAND`, one small function for each command and one table of them at the end.

A command is a function from the parsed arguments to an exit code; the first line of its docstring is its line in
`ulmfit-fastai --help`, the rest is what `ulmfit-fastai COMMAND --help` says. To add one, write the function and give it
a row in `COMMANDS`; those of the paper's experiments are in experiments.py, those for your own texts in texts.py, the
others in commands.py. Nothing heavy is imported before a command runs, so that help comes at once.

Exit codes: 0 done, 1 done but short of what was asked (`check`, `doctor`), 2 wrong input, 3 stopped by the time
budget (the same command goes on), 130 interrupted.
"""

from __future__ import annotations

import argparse
import inspect
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout

from .._errors import UlmfitError
from .._processes import leads, several
from .._progress import without_bars
from .._version import __version__
from .._words import visible
from .cache import cache
from .commands import average, check, demo, doctor, imdb, pretrain, recipe, report
from .completion import COMPLETION
from .experiments import EXPERIMENTS
from .help import Help
from .models import MODELS
from .options import (
    COMMON,
    CORPUS,
    DEVICE,
    DIRECTIONS,
    DRY_RUN,
    JSON,
    LM_FROM,
    NO_RESUME,
    PARALLEL,
    PRESET_HELP,
    PRETRAIN_SET,
    SEED,
    SET,
    TASK,
    TIME_BUDGET,
    WEIGHTS,
    Command,
    encoding,
    option,
    out,
)
from .texts import TEXTS

logger = logging.getLogger(__name__)

TOGETHER = ("demo", "imdb", "reproduce", "train", "pretrain")
"""The commands that several processes run together."""

COMMANDS = (
    Command("demo", demo, (out("runs/demo"), DEVICE, JSON)),
    Command("imdb", imdb, (
        option("--preset", default="fastai", metavar="NAME", help=f"{PRESET_HELP} (default: %(default)s)"),
        option("--data", metavar="PATH", help="IMDb, as a folder or .tgz, in fastai's or Stanford's layout (default: "
                                              "fastai's cache, or its download of 144 MB)"),
        CORPUS, out("runs/imdb"),
        option("--direction", choices=DIRECTIONS, help="language models to use (default: the recipe's)"),
        WEIGHTS, LM_FROM, DEVICE, PARALLEL, TIME_BUDGET, DRY_RUN, NO_RESUME, SEED, SET, JSON)),
    *TEXTS,
    *MODELS,
    *EXPERIMENTS,
    Command("check", check, (option("runs", nargs="+", metavar="RUN", help="run folder"), JSON)),
    Command("average", average, (
        option("runs", nargs="+", metavar="RUN", help="run folder, of one direction or both"),
        option("--out", default="runs/both", metavar="FOLDER",
               help="folder for the averaged predictions and their report: a new one, or an average to be made anew "
                    "(default: %(default)s)"), JSON)),
    Command("cache", cache, (option("--clear", action="store_true", help="remove them"), JSON)),
    Command("doctor", doctor, (
        option("--for", dest="purpose", choices=("texts", "imdb"), default="texts",
               help="what is looked at, and what the exit code is about: the demo and your own texts, or `imdb`, with "
                    "the data and weights that it downloads (default: %(default)s)"),
        option("--offline", action="store_true", help="don't try the network"), JSON)),
    Command("report", report, (
        option("runs", nargs="+", metavar="RUN", help="run folder; several are compared on one page"),
        option("--texts", nargs="?", const="", metavar="PATH",
               help="show texts too, from the run's data in PATH (default: fastai's cache)"),
        option("--out", metavar="FILE", help="the page of several runs (default: comparison.html)"), JSON)),
    Command("recipe", recipe, (
        option("names", nargs="*", metavar="NAME", help="one recipe, or `diff` and two"), TASK,
        option("--json", action="store_true", help="as JSON, to be edited and given as --preset"),
        option("--fields", action="store_true", help="every field that --set takes: name, type, default (with NAME: "
                                                     "its value there) and what it is"))),
    Command("pretrain", pretrain, (
        option("corpus", metavar="CORPUS", help="file or folder to learn from"),
        option("--size", choices=("small", "full"), default="small",
               help="small: what two CPU cores can do; full: the paper's 400/1152/3 (default: %(default)s)"),
        option("--direction", choices=DIRECTIONS, help="language models to train (default: forward)"),
        option("--lang", default="en", metavar="CODE", help="the corpus's language, as spaCy calls it (default: en)"),
        option("--tokenizer", choices=("spacy", "sentencepiece"), default="spacy",
               help="what splits texts: words by spaCy's rules, or pieces learnt from the corpus, for languages whose "
                    "words are long or not apart (default: %(default)s)"),
        option("--text", metavar="COLUMN", help="column, or key, of the texts in a table (default: text)"),
        option("--encoding", type=encoding, metavar="NAME", help="of the corpus, such as cp1252 (default: utf-8)"),
        option("--valid", metavar="PATH", help="texts to measure perplexity on (default: a part of the corpus)"),
        option("--evaluate", metavar="PATH", action="append", default=[],
               help="more texts whose perplexity is measured at the end; may be given several times"),
        option("--weights", metavar="NAME",
               help="language model to go on from: wiki-small, english-small, wt103 (downloaded if need be), a run "
                    "folder or a weights file (default: none; it starts from random numbers)"),
        out("runs/pretrain"), DEVICE, TIME_BUDGET, NO_RESUME, SEED, PRETRAIN_SET, JSON)),
    COMPLETION,
)


def build_parser(commands: Sequence[Command] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of the whole command line, made from the table.

    Args:
        commands: a row a command; the first line of its function's docstring is its help.

    Returns:
        A parser whose result has `run_command`, the function of the command that was given, and itself as `parser`.
    """
    parser = argparse.ArgumentParser(
        prog="ulmfit-fastai", formatter_class=Help,
        description="ULMFiT (Howard & Ruder 2018) on fastai v2: from texts to a result checked against the paper.",
        epilog="start here:\n  ulmfit-fastai demo      everything once, on synthetic reviews\n"
               "  ulmfit-fastai doctor    is this machine ready?\n\n"
               "exit codes: 0 done, 1 short of what was asked, 2 wrong input, 3 stopped by the time budget (the same "
               "command goes on), 130 interrupted\n\n"
               "`ulmfit-fastai COMMAND --help` explains a command, with examples; `ulmfit-fastai recipe --fields` "
               "lists all that --set takes.")
    parser.add_argument("--version", action="version", version=f"ulmfit-fastai {__version__}")
    lines = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="command")
    for command in commands:
        summary, _, details = inspect.cleandoc(command.run.__doc__ or "").partition("\n")
        line = lines.add_parser(command.name, help=summary, description=f"{summary}\n{details}".strip(),
                                formatter_class=Help)
        for item in (*command.options, *COMMON):
            line.add_argument(*item.flags, **item.settings)
        line.set_defaults(run_command=command.run, parser=parser)
    return parser


class _Visible(logging.Formatter):
    """Log lines without control characters, which names in the user's data may hold."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(visible, super().format(record).split("\n")))


def set_up_logging(args: argparse.Namespace) -> None:
    """Send the package's log to stderr, as plain lines; a plan that was asked for is no noise."""
    quiet = args.quiet and not getattr(args, "dry_run", False)
    handler = logging.StreamHandler()
    handler.setFormatter(_Visible("%(message)s"))
    package_logger = logging.getLogger(__package__.partition(".")[0])
    package_logger.handlers = [handler]
    package_logger.setLevel(logging.DEBUG if args.verbose else logging.WARNING if quiet else logging.INFO)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a user's error is one message, not a traceback.

    Args:
        argv: the words behind the program's name; None: those of this process.

    Returns:
        The exit code: 0 done, 1 short of what was asked, 2 wrong input, 3 stopped by the time budget, 130 interrupted.
    """
    prepare_streams()
    with open(os.devnull, "w") as nothing:
        if leads():
            return _run(build_parser().parse_args(argv))
        with redirect_stderr(nothing):  # what is wrong in a command, the leader of several processes says
            args = build_parser().parse_args(argv)
        with redirect_stdout(nothing):
            return _run(args)


def _run(args: argparse.Namespace) -> int:
    set_up_logging(args)
    with without_bars(args.quiet or args.no_progress):
        return _guarded(args)


def _guarded(args: argparse.Namespace) -> int:
    """The command's exit code; what goes wrong is said in one message."""
    try:
        refuse_empty(args)
        if several() and args.command not in TOGETHER:
            raise UlmfitError(f"{args.command} works in one process; what several do together is "
                              f"{', '.join(TOGETHER)}")
        return args.run_command(args)
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to go on where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` closed our output: nothing is wrong, and nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except AssertionError:  # a fault of ours, which its traceback has to say
        raise
    except Exception as error:  # whatever it is, one message says it
        if args.traceback:
            raise
        if not several() or speaks():
            hint = "" if isinstance(error, TO_PUT_RIGHT) else "\n(--traceback shows where)"
            print(f"ulmfit-fastai: {visible(describe(error))}{hint}", file=sys.stderr)
        return 2


TO_PUT_RIGHT = (UlmfitError, OSError, MemoryError)
"""What the user can put right by what is said; of anything else it helps to know where in the program it is."""


def speaks() -> bool:
    """Whether this is the process of several that reports its error."""
    from ..training import processes

    return processes.speaks()


def prepare_streams() -> None:
    """Let words through to any console: what it can't show becomes an escape, and a closed one takes nothing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


PATHS = ("out", "data", "corpus", "lm_from", "file", "model", "run", "preset", "weights", "lang", "unlabelled",
         "valid", "train_part", "rows", "kinds", "labels", "label", "html")
"""Arguments that an empty word, as of a variable that isn't set, is not taken for."""
POSITIONAL = ("file", "model", "run")
"""Of these the ones without dashes."""


def refuse_empty(args: argparse.Namespace) -> None:
    """Refuse empty words, and a working folder that is gone, before anything is done."""
    for name in PATHS:
        given = getattr(args, name, None)
        if given == "" or isinstance(given, list) and "" in given:
            said = name.upper() if name in POSITIONAL else f"--{name.replace('_', '-')}"
            raise UlmfitError(f"{said} is empty: is a variable of the shell not set?", field=name)
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UlmfitError("the folder that this command was given in is not there any more; cd to another") from None
    given = getattr(args, "device", None)
    if given is not None:
        from ..model.devices import named_device

        named_device(given)


def describe(error: Exception) -> str:
    """The error's own message, its advice in the shell's words; its kind in front where that would say too little."""
    if isinstance(error, UlmfitError):
        return error.in_shell_words
    if isinstance(error, RecursionError):
        return "something is nested too deep to be read: lists within lists, in a file or a value"
    if isinstance(error, MemoryError):
        return "there is not enough memory for this"
    return str(error) if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: {error}"
