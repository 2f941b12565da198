"""One HTML page a run: the result beside the paper, what led to it, and what it was made with.

The page opens offline, needs no script, follows the reader's light or dark theme and fits a phone.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import UlmfitError
from .._files import write_text_atomic
from .._words import duration, without_secrets
from ..paper import TASKS
from ..results import figures
from ..results.comparison import NAMES, meets_the_paper, title_of
from ..results.result import Result
from .errors import where_it_errs
from .page import IN_PAGE, figure_html, number, render
from .several_classes import mean_error_interval, of_numbers, of_several_classes
from .training import cost, curves, device_of

if TYPE_CHECKING:
    from ..texts.dataset import Dataset
    from .words import Explain


def write_report(folder: str | os.PathLike, *, dataset: Dataset | None = None, show_texts: bool | None = None,
                 mistakes: int = 12, explain: Explain | bool = True) -> Path:
    """Write `folder`/report.html and return its path; also for a run that stopped half-way.

    Args:
        folder: the run folder.
        dataset: what was run on; gives the texts of the most confident mistakes.
        show_texts: None shows them for your own and for synthetic texts, but not for the paper's data sets, whose texts
            don't belong into files that are passed on or committed; True and False decide otherwise.
        mistakes: how many are listed.
        explain: where texts are shown, and the folder still holds the classifiers, True marks the words that led to
            each mistake; a function of yours (text, class) may take its place.

    Raises:
        UlmfitError: `folder` is no run, `dataset` another one than the run's, or not given where texts are to be shown.
    """
    result = Result.load(folder)
    texts = _texts(result, dataset, show_texts)
    why = None if isinstance(explain, bool) else explain
    if explain is True and texts:
        from .words import explainer  # torch, only where it is needed

        why = explainer(result)
    page = report_html(result, texts=texts, mistakes=mistakes, explain=why)
    return write_text_atomic(Path(folder) / "report.html", page)


def report_html(result: Result, *, texts: dict[str, str] | None = None, mistakes: int = 12,
                explain: Explain | None = None) -> str:
    """The page of a run as a string.

    Args:
        texts: id of the test set -> what is shown of a mistake; None: no texts.
        mistakes: how many are listed, the most confident first.
        explain: (text, class) -> the words that led there, as an `Explanation`.
    """
    recipe, readable = _recipe(result)
    asked, own = (texts, mistakes, explain), not meets_the_paper(result)
    held = result.held_out
    return render("page.html.jinja", result=result, title=title_of(result.task), names=NAMES,
                  own=own, where="held-out" if own and result.evaluated == "validation" else result.evaluated,
                  off=mean_error_interval(held) if held is not None and held.kind == "regression" else None,
                  main=result.scores[result.headline] if result.headline else None, epochs=_progress(result),
                  tiles=_tiles(result), among=_comparison(result), **curves(result),
                  errs=where_it_errs(result, *asked), several=of_several_classes(result, *asked),
                  numbers=of_numbers(result, *asked), **cost(result), facts=_facts(result),
                  raw=recipe, readable=readable)


def _texts(result: Result, dataset: Dataset | None, show: bool | None) -> dict[str, str] | None:
    """id -> text of the test set, or None where texts are not to be shown."""
    if show and dataset is None:
        raise UlmfitError("show_texts needs the texts: give the run's `dataset`, since a run folder doesn't hold them.")
    if dataset is None:
        return None
    expected = result.data.get("fingerprint")
    if expected and dataset.fingerprint != expected:
        raise UlmfitError(f"{result.folder} was run on other texts (fingerprint {expected}) than this dataset "
                          f"({dataset.fingerprint}): give the one it was run on, or none.")
    if show is False or (show is None and not dataset.synthetic and dataset.name in TASKS):
        return None
    return dict(zip(dataset.df["id"].astype(str), dataset.df["text"].astype(str), strict=True))


def _tiles(result: Result) -> list[tuple[str, str]]:
    """The smaller numbers beside the big one."""
    if result.headline is None:
        return []
    main = result.scores[result.headline]
    tiles = [(NAMES[name], _main_number(result.scores[name])) for name in result.directions if name != result.headline]
    verdict = result.verdict
    if verdict.paper is not None:
        where = verdict.paper.where.split(",")[0]
        derived = ", derived for one direction" if verdict.paper.mark == "D" else ""
        tiles.append((f"error in the paper, {where}{derived}", f"{verdict.paper.value:g} %"))
    for record in (result.run.get("baselines") or [])[:2]:
        tiles.append((f"{record['name']}, same labels", _main_number(record)))
    tiles += [(title, number(main[name], 4)) for name, title in (("macro_f1", "macro F1"), ("micro_f1", "micro F1"),
                                                                 ("r2", "R²")) if main.get(name) is not None]
    tiles += [("root mean squared error", f"{main['rmse']:.4g}")] if "rmse" in main else []
    if result.seconds:
        tiles.append(("the whole run", duration(result.seconds)))
    return tiles


def _main_number(scores: dict[str, Any]) -> str:
    """The error, of numbers the mean absolute error."""
    return f"{scores['error']:.2f} %" if "error" in scores else f"{scores['mae']:.4g}"


def _comparison(result: Result) -> dict[str, Any]:
    """Two drawings of one table, for wide and for narrow windows."""
    table = result.table()
    if result.error is None or len(table) < 2:
        return {}
    alt = "; ".join(f"{row['what']}: {row['error']:.2f} %" for _, row in table.iterrows())
    wide, narrow = (figures.comparison_figure(table, palette=IN_PAGE, width=width) for width in (8.6, 4.3))
    return {"title": "Beside the paper and others" if set(table["kind"]) & {"paper", "elsewhere"} else "Side by side",
            "wide": figure_html(wide, "among", alt=alt, css="wide-only"),
            "narrow": figure_html(narrow, "among-narrow", alt=alt, css="narrow-only")}


def _facts(result: Result) -> list[tuple[str, str | None]]:
    """What the run was made with; the page leaves out what is not known."""
    run, data = result.run, result.data
    command = run.get("command")
    counts = ", ".join(f"{n:,} {split}" for split, n in (data.get("counts") or {}).items())
    return [("data", f"{data.get('name', '?')} ({counts})"), ("source", data.get("source")),
            ("fingerprint of the data", data.get("fingerprint")), ("protocol", _protocol(result)),
            ("vocabulary", f"{data['vocabulary']:,} words" if data.get("vocabulary") else None),
            ("starting weights", _weights(run.get("weights"))), ("seeds", _joined(run.get("seeds"))),
            ("device", device_of(result)), ("recipe", run.get("recipe_hash")),
            ("command", without_secrets(" ".join(map(str, command)) if isinstance(command, list) else command or "")),
            ("started", run.get("started")), ("finished", run.get("finished")),
            ("versions", ", ".join(f"{name} {value}" for name, value in (run.get("versions") or {}).items()))]


def _recipe(result: Result) -> tuple[str, str | None]:
    """As JSON, and as it prints: None for a recipe of another version, which this one can't read."""
    raw = json.dumps(result.recipe_dict, indent=2, ensure_ascii=False)
    try:
        return raw, repr(result.recipe)
    except (ValueError, TypeError, KeyError):
        return raw, None


def _protocol(result: Result) -> str:
    if result.protocol == "tutorial":
        return "tutorial: test texts in the language model's training, the test set as validation set"
    if result.held_out is not None and not meets_the_paper(result):
        return "clean: the held-out texts come out of the labelled ones, and nothing is trained on them"
    return "clean: no test text is seen before the end, validation texts come out of the training set"


def _weights(weights: Any) -> str | None:
    if not isinstance(weights, dict):
        return _joined(weights)
    said = []
    for direction, one in weights.items():
        if not isinstance(one, dict):
            said.append(f"{direction}: {one}")
            continue
        kept = f" ({one['words_kept']:,} of {one['words']:,} words known)" if one.get("words_kept") else ""
        said.append(f"{direction}: {one.get('name', '?')}{kept}")
    return "; ".join(said) or None


def _progress(result: Result) -> tuple[int, int]:
    """Epochs done and epochs planned, over all directions and phases."""
    done = sum(stage.get("epochs_done") or 0 for stage in result.run.get("stages") or [])
    try:
        recipe = result.recipe
        planned = sum(phase.epochs for name in recipe.phases if (phase := recipe.phase(name)) is not None)
        return done, planned * len(recipe.directions)
    except (ValueError, TypeError, KeyError):
        return done, sum(stage.get("epochs") or 0 for stage in result.run.get("stages") or [])


def _joined(value: Any) -> str | None:
    return None if value is None else ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
