"""The report's account of the mistakes: confusion, calibration, and the wrong answers given with most confidence."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..results import figures
from ..results.result import Result
from .page import IN_PAGE, details, figure_html, pairs, share, table_html, text

if TYPE_CHECKING:
    from ..predict.explanation import Explanation

LONG_TEXT = 900  # characters of a text that are shown before the reader has to open the rest
FEW_CLASSES = 4  # up to which the confusion matrix fits half the page's width
MANY_CLASSES = 20  # beyond, the confusion matrix is no longer read as a whole: the worst pairs are listed


def where_it_errs(result: Result, texts: dict[str, str] | None, n: int,
                  explain: Callable[[str, str], Explanation | None] | None) -> str:
    """That part of the page; `explain(text, class)` says which words led to the class, or None."""
    if not result.probs:
        return ""
    table, error = result.calibration(), result.calibration_error()
    drawing = figure_html(figures.reliability_figure(table, error, palette=IN_PAGE, size=(4.6, 3.2)), "calibration",
                          alt=f"reliability diagram, expected calibration error {100 * error:.1f} %")
    gap = _mean_gap(table)
    sure = "too sure of itself" if gap > 0.005 else "too modest" if gap < -0.005 else "about right"
    calibrated = (f'<h3>How far to trust the probabilities</h3>{drawing}<p class="lead below">On the diagonal, '
                  "90 % sure means right nine times in ten. Mean distance from it (expected calibration error): "
                  f"{100 * error:.1f} %; on the whole the classifier is {sure}.</p>")
    wrong = result.mistakes(n)
    parts = ["<h2>Where it errs</h2>"]
    if len(result.directions) > 1:
        parts.append(f'<p class="lead">{_agreement(result)}</p>')
    confusion = f"<h3>Confusion</h3>{_confusion(result)}"
    if len(result.classes) <= FEW_CLASSES:
        parts.append(pairs([confusion + _per_class(result), calibrated]))
    else:  # a larger matrix takes the page's width
        parts += [f'<div class="card">{confusion}</div>', pairs([f"<h3>By class</h3>{_per_class(result)}", calibrated])]
    if len(wrong):
        if texts is None:
            shown = _listed(wrong)
            lead = " Their texts are left out: <code>write_report(folder, dataset=…, show_texts=True)</code>."
        else:
            why = [explain(texts.get(row["id"], ""), row["predicted"]) if explain else None
                   for _, row in wrong.iterrows()]
            shown = "".join(_mistake(row, texts, one) for (_, row), one in zip(wrong.iterrows(), why))
            lead = (" Words in blue spoke for the answer given, words in orange against it; dotted ones the classifier "
                    "doesn't know." if any(why) else "")
        parts.append('<div class="card"><h3>Most confident mistakes</h3><p class="lead">The wrong answers the '
                     f"classifier was surest of: hard cases, and sometimes wrong labels.{lead}</p>{shown}</div>")
    return "".join(parts)


def _agreement(result: Result) -> str:
    forward, backward = (result.probabilities(d).argmax(axis=1) for d in result.directions[:2])
    differ = 100 * float((forward != backward).mean())
    both = int(((forward == backward) & (forward != result.labels)).sum())
    return (f"Forward and backward disagree on {differ:.1f} % of the texts, and both give the same wrong answer on "
            f"{both:,}: those no average can mend.")


def _mean_gap(table: pd.DataFrame) -> float:
    """Mean confidence minus accuracy: above 0, the classifier is too sure."""
    return float(((table["confidence"] - table["accuracy"]) * table["n"]).sum() / max(table["n"].sum(), 1))


def _confusion(result: Result) -> str:
    """The matrix, shaded by the share of its row: right answers in one colour, mistakes in another."""
    counts = result.confusion()
    if len(counts) > MANY_CLASSES:
        return _worst_pairs(counts)
    numbers = counts.to_numpy(np.int64)
    of_row = numbers / np.maximum(numbers.sum(axis=1, keepdims=True), 1)
    head = '<tr><td class="corner"></td>' + "".join(f"<th>{text(c)}</th>" for c in counts.columns) + "</tr>"
    lines = []
    for i, label in enumerate(counts.index):
        cells = "".join(_cell(numbers[i, j], of_row[i, j], right=i == j) for j in range(len(counts)))
        lines.append(f'<tr><th scope="row">{text(label)}</th>{cells}</tr>')
    return (f'<div class="scroll"><table class="matrix">{head}{"".join(lines)}</table></div>'
            '<p class="lead below">A row a true class, a column a predicted one; shares are of the row.</p>')


def _cell(n: int, of_row: float, *, right: bool) -> str:
    # Mistakes are rare: their shade grows with the root of the share, so that 1 % is not invisible.
    shade = of_row if right else float(np.sqrt(of_row))
    return (f'<td class="{"right" if right else "wrong"}" style="--share:{shade:.3f}">{n:,}'
            f"<small>{100 * of_row:.1f} %</small></td>")


def _worst_pairs(counts: pd.DataFrame, most: int = 15) -> str:
    numbers = counts.to_numpy(np.int64)
    wrong = sorted(((int(numbers[i, j]), i, j) for i, j in np.argwhere(numbers) if i != j), reverse=True)
    rows = [(text(counts.index[i]), text(counts.columns[j]), f"{n:,}") for n, i, j in wrong[:most]]
    return table_html(("label", "predicted as", "texts"), rows, right=[2])


def _per_class(result: Result) -> str:
    rows = [(text(name), *(share(row[key]) for key in ("precision", "recall", "f1")), f"{int(row['n']):,}")
            for name, row in result.per_class().iterrows()]
    return table_html(("class", "precision", "recall", "F1", "texts"), rows, right=range(1, 5))


def _listed(wrong: pd.DataFrame) -> str:
    rows = [(text(row["id"]), text(row["label"]), text(row["predicted"]), f"{100 * row['confidence']:.2f} %")
            for _, row in wrong.iterrows()]
    return table_html(("id", "label", "predicted", "probability"), rows, right=[3])


def _mistake(row: pd.Series, texts: dict[str, str], why: Explanation | None) -> str:
    sure = f"{100 * row['confidence']:.2f} %"
    what = (f'<p class="what"><span>predicted <b>{text(row["predicted"])}</b> with {sure}</span>'
            f'<span>label <b>{text(row["label"])}</b></span><span>{text(row["id"])}</span></p>')
    full = texts.get(row["id"], "")
    if len(full) <= LONG_TEXT:
        return f'<div class="mistake">{what}<p>{why.marked() if why else _lines(full)}</p></div>'
    if why:
        words = np.searchsorted(np.cumsum([len(word.before + word.text) for word in why.words]), LONG_TEXT)
        shown, hidden = why.marked(last=int(words)), why.marked(first=int(words))
    else:
        cut = full.rfind(" ", 0, LONG_TEXT)
        cut = cut if cut > LONG_TEXT // 2 else LONG_TEXT
        shown, hidden = _lines(full[:cut]), _lines(full[cut:])
    rest = details("the rest", f"<p>{hidden}</p>", aside=f"of {len(full):,} characters")
    return f'<div class="mistake">{what}<p>{shown} …</p>{rest}</div>'


def _lines(raw: str) -> str:
    """A text made safe, with the one tag that IMDb's reviews hold, <br />, taken as what it means."""
    return re.sub(r"(?:\s*&lt;br\s*/?&gt;)+\s*|\n+", "<br>", text(raw))
