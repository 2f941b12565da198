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
from .._words import duration
from ..paper import TASKS
from ..results import figures
from ..results.comparison import NAMES, title_of
from ..results.result import Result
from .errors import where_it_errs
from .page import IN_PAGE, details, document, figure_html, text
from .training import cost, device_of, seconds_of, training

if TYPE_CHECKING:
    from ..texts.dataset import Dataset
    from .words import Explain


def write_report(folder: str | os.PathLike, *, dataset: Dataset | None = None, show_texts: bool | None = None,
                 mistakes: int = 12, explain: Explain | bool = True) -> Path:
    """Write `folder`/report.html and return its path; also for a run that stopped half-way.

    `dataset` gives the texts of the most confident mistakes. `show_texts=None` shows them for your own and for
    synthetic texts, but not for the paper's data sets, whose texts don't belong into files that are passed on or
    committed; True and False decide otherwise. Where texts are shown, and the folder still holds the classifiers,
    `explain=True` marks the words that led to each mistake; a function of yours (text, class) may take its place.
    Raises ValueError if `folder` is no run, or `dataset` another one than the run's.
    """
    result = Result.load(folder)
    texts = _texts(result, dataset, show_texts)
    why = explain if not isinstance(explain, bool) else _explainer(result) if explain and texts else None
    page = report_html(result, texts=texts, mistakes=mistakes, explain=why)
    return write_text_atomic(Path(folder) / "report.html", page)


def report_html(result: Result, *, texts: dict[str, str] | None = None, mistakes: int = 12,
                explain: Explain | None = None) -> str:
    """The page as a string; `texts` maps ids of the test set to what is to be shown, `explain` says why."""
    parts = [_header(result), _comparison(result), training(result), where_it_errs(result, texts, mistakes, explain),
             cost(result), _made_with(result)]
    title = f"ULMFiT on {title_of(result.task)}: " + (
        f"{result.error:.2f} % error" if result.error is not None else result.status)
    return document(title, "\n".join(part for part in parts if part))


def _explainer(result: Result) -> Explain | None:
    from .words import explainer

    return explainer(result)


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


def _header(result: Result) -> str:
    recipe = result.recipe_dict
    facts = [f"<b>{text(title_of(result.task))}</b>", f"preset <b>{text(recipe.get('name', '?'))}</b>",
             f"protocol <b>{text(result.protocol)}</b>", text(" and ".join(recipe.get("directions") or ["?"]))]
    finished = result.run.get("finished") or result.run.get("started")
    if finished:
        facts.append(text(str(finished)[:10]))
    if result.error is None or result.interval is None or result.headline is None:
        done, planned = _progress(result)
        how_far = f"{text(result.status)} after {done} of {planned} epochs"
        middle = ('<span class="number words">Not finished</span><span class="explain">'
                  f"<b>{how_far}</b>the same command goes on with it</span>")
    else:
        low, high = result.interval
        scores = result.scores[result.headline]
        middle = (f'<span class="number">{result.error:.2f}<small>%</small></span><span class="explain">'
                  f"<b>{text(result.evaluated)} error, {text(NAMES[result.headline])}</b>"
                  f"95 % interval {low:.2f} to {high:.2f}<br>"
                  f"{scores['wrong']:,} of {scores['n']:,} texts wrong</span>")
    return (f'<p class="eyebrow">ULMFiT · {" · ".join(facts)}</p>\n<h1 class="hero">{middle}</h1>\n'
            + _verdict(result) + _caveats(result) + _tiles(result))


def _verdict(result: Result) -> str:
    if result.error is None:
        return ""
    verdict = result.verdict
    tone = {"reproduced": "good", "within tolerance": "good", "short": "bad"}.get(verdict.status, "calm")
    return f'<div class="verdict {tone}"><b>{text(verdict.status.capitalize())}</b>{text(verdict.text)}</div>'


def _caveats(result: Result) -> str:
    said = result.caveats if result.status == "finished" else result.caveats[1:]  # the first is the page's headline
    if not said:
        return ""
    items = "".join(f"<li>{text(caveat)}</li>" for caveat in said)
    return f'<div class="note"><b>Keep in mind</b><ul>{items}</ul></div>'


def _tiles(result: Result) -> str:
    """The smaller numbers beside the big one."""
    if result.error is None or result.headline is None:
        return ""
    tiles = [(NAMES[name], f"{result.errors[name]:.2f} %") for name in result.directions if name != result.headline]
    verdict = result.verdict
    if verdict.paper is not None:
        where = verdict.paper.where.split(",")[0]
        derived = ", derived for one direction" if verdict.paper.mark == "D" else ""
        tiles.append((f"the paper, {where}{derived}", f"{verdict.paper.value:g} %"))
    for record in (result.run.get("baselines") or [])[:2]:
        tiles.append((f"{record['name']}, same labels", f"{record['error']:.2f} %"))
    tiles.append(("macro F1", f"{result.scores[result.headline]['macro_f1']:.4f}"))
    seconds = seconds_of(result)
    if seconds:
        tiles.append(("training, all stages", duration(seconds)))
    cells = "".join(f'<div class="tile"><span>{text(name)}</span><b>{text(value)}</b></div>' for name, value in tiles)
    return f'<div class="tiles">{cells}</div>'


def _comparison(result: Result) -> str:
    table = result.table()
    if result.error is None or len(table) < 2:
        return ""
    alt = "; ".join(f"{row['what']}: {row['error']:.2f} %" for _, row in table.iterrows())
    wide = figure_html(figures.comparison_figure(table, palette=IN_PAGE, width=8.6), "among", alt=alt, css="wide-only")
    narrow = figure_html(figures.comparison_figure(table, palette=IN_PAGE, width=4.3), "among-narrow", alt=alt,
                         css="narrow-only")
    lead = (f"{result.evaluated.capitalize()} error, lower is better. Bars are 95 % intervals: they count the sampling "
            "of the texts, not the spread over seeds.")
    title = "Beside the paper and others" if set(table["kind"]) & {"paper", "elsewhere"} else "Side by side"
    return f'<h2>{title}</h2><p class="lead">{text(lead)}</p><div class="card">{wide}{narrow}</div>'


def _made_with(result: Result) -> str:
    run, data = result.run, result.data
    command = run.get("command")
    counts = ", ".join(f"{n:,} {split}" for split, n in (data.get("counts") or {}).items())
    facts = [("data", f"{data.get('name', '?')} ({counts})"), ("source", data.get("source")),
             ("fingerprint of the data", data.get("fingerprint")), ("protocol", _protocol(result)),
             ("vocabulary", f"{data['vocabulary']:,} words" if data.get("vocabulary") else None),
             ("starting weights", _weights(run.get("weights"))), ("seeds", _joined(run.get("seeds"))),
             ("device", device_of(result)), ("recipe", run.get("recipe_hash")),
             ("command", " ".join(map(str, command)) if isinstance(command, list) else command),
             ("started", run.get("started")), ("finished", run.get("finished")),
             ("versions", ", ".join(f"{name} {value}" for name, value in (run.get("versions") or {}).items()))]
    listed = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in facts if value)
    return (f'<h2>What it was made with</h2><div class="card"><dl class="facts">{listed}</dl></div>'
            f'<div class="card">{_recipe(result)}</div>'
            "<footer>Written by ulmfit_fastai from the run folder, which holds predictions, curves and weights. The "
            'method: Howard &amp; Ruder 2018, <a href="https://arxiv.org/abs/1801.06146">Universal Language Model '
            "Fine-tuning for Text Classification</a>.</footer>")


def _recipe(result: Result) -> str:
    raw = json.dumps(result.recipe_dict, indent=2, ensure_ascii=False)
    try:
        readable = repr(result.recipe)
    except (ValueError, TypeError, KeyError):  # a recipe of another version: shown as it stands in run.json
        return details("The recipe", f"<pre>{text(raw)}</pre>")
    name = result.recipe_dict.get("name", "")
    return (details("The recipe", f"<pre>{text(readable)}</pre>", aside=str(name))
            + details("The recipe as JSON", f"<pre>{text(raw)}</pre>", aside="to edit and run again"))


def _protocol(result: Result) -> str:
    if result.protocol == "tutorial":
        return "tutorial: test texts in the language model's training, the test set as validation set"
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
