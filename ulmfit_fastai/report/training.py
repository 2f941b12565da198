"""The report's account of the training: rates and unfreezing, losses, time and memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from .._words import duration
from ..results import figures
from ..results.result import Result
from .page import IN_PAGE, details, figure_html, number, pairs, share, table_html, text


def training(result: Result) -> str:
    rates, history = result.rates, result.history
    phases = [p for p in figures.PHASES if p in set(rates["phase"]) | set(history["phase"])]
    if not phases:
        return ""
    cards = []
    for number_of, (direction, part) in enumerate(_distinct_rates(rates)):
        for phase in phases:
            rows = part[part["phase"] == phase]
            if len(rows):
                name = f"rates-{number_of}-{phase}"
                drawing = figures.rates_figure(rows, phase, palette=IN_PAGE, size=(4.6, 3.4), title="")
                cards.append(f"<h3>{figures.show_name(phase)}, {text(direction)}</h3>"
                             + figure_html(drawing, name, alt=_rates_in_words(rows, phase)))
    losses = []
    for phase in phases:
        part = history[history["phase"] == phase]
        if len(part):
            drawing = figures.losses_figure(part, phase, palette=IN_PAGE, size=(4.6, 2.7), title="")
            losses.append(f"<h3>{figures.show_name(phase)}</h3>"
                          + figure_html(drawing, f"losses-{phase}", alt=_losses_in_words(part)))
    body = ""
    if cards:
        body += ('<h2>Rates and unfreezing</h2><p class="lead">The learning rate of every layer group while it trains, '
                 "and below it the steps in which it does. A dot: a group is unfrozen; a dotted line: a stage "
                 f"begins.</p>{pairs(cards)}")
    if losses:
        body += ('<h2>Losses</h2><p class="lead">Per epoch, on the training texts (with dropout) and on the held-out '
                 f"ones.</p>{pairs(losses)}{_history(history)}")
    return body


def _distinct_rates(rates: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Each direction's rates; two directions with the same rates are drawn once."""
    parts = [(d, rates[rates["direction"] == d].drop(columns="direction")) for d in dict.fromkeys(rates["direction"])]
    if len(parts) == 2 and np.array_equal(parts[0][1].to_numpy(str), parts[1][1].to_numpy(str)):
        return [("both directions", parts[0][1])]
    return parts


def _rates_in_words(rows: pd.DataFrame, phase: str) -> str:
    """Which group opens at which step, for those who cannot see the drawing."""
    on = rows[rows["trainable"].astype(bool)]
    names = figures.group_names(phase, rows["group"].nunique())
    starts = on.groupby("group")["step"].min()
    said = ", ".join(f"{names[int(group)]} from step {step}" for group, step in sorted(starts.items(), reverse=True))
    return f"{figures.show_name(phase)}: {said}"


def _losses_in_words(part: pd.DataFrame) -> str:
    """Where each direction's validation loss began and ended."""
    said = []
    for direction, rows in part.groupby("direction", sort=False):
        values = pd.to_numeric(rows["valid_loss"], errors="coerce").dropna()
        if len(values):
            said.append(f"{direction}: validation loss from {values.iloc[0]:.3f} to {values.iloc[-1]:.3f}")
    return "; ".join(said) or "losses"


def _history(history: pd.DataFrame) -> str:
    lm = [f"{np.exp(v):.1f}" if p != "classifier" and v == v else ""
          for p, v in zip(history["phase"], pd.to_numeric(history["valid_loss"], errors="coerce"), strict=True)]
    rows = [(text(row["direction"]), text(row["phase"]), text(row["stage"]), text(row["epoch"]),
             number(row["train_loss"], 3), number(row["valid_loss"], 3), perplexity, share(row["accuracy"]))
            for (_, row), perplexity in zip(history.iterrows(), lm, strict=True)]
    head = ("direction", "phase", "stage", "epoch", "training loss", "validation loss", "perplexity", "accuracy")
    return ('<div class="card" style="margin-top:16px">'
            + details("Every epoch in numbers", table_html(head, rows, right=range(3, 8)), aside=f"{len(rows)} epochs")
            + "</div>")


def cost(result: Result) -> str:
    stages = result.run.get("stages") or []
    if not stages:
        return ""
    longest = max((stage.get("seconds") or 0.0 for stage in stages), default=0.0) or 1.0
    lines, before = [], None
    for stage in stages:
        here = (stage["direction"], stage["phase"])
        if here != before:
            measure = "accuracy" if stage["phase"] == "classifier" else "perplexity"
            group = f"{stage['direction']} · {figures.show_name(stage['phase']).split(' · ')[-1]} ({measure})"
            lines.append(f'<tr class="part"><td colspan="6">{text(group)}</td></tr>')
            before = here
        lines.append(_stage_row(stage, longest))
    head = ('<th>stage</th><th class="r">epochs</th><th class="r">time</th><th class="r roomy">validation loss</th>'
            '<th class="r">reached</th><th class="r">memory</th>')
    where = "on the GPU" if (result.run.get("device") or {}).get("type") == "cuda" else "of the process"
    body = "".join(lines)
    return (f'<h2>Time and memory</h2><p class="lead">{duration(seconds_of(result))} in all stages together, on '
            f"{text(device_of(result))}. Memory is the peak {where} up to the end of the stage.</p>"
            f'<div class="card"><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
            "</div></div>")


def _stage_row(stage: dict[str, Any], longest: float) -> str:
    metrics, seconds = stage.get("metrics") or {}, stage.get("seconds") or 0.0
    if metrics.get("accuracy") is not None:
        reached = share(metrics["accuracy"])
    elif metrics.get("perplexity") is not None:
        reached = f"{metrics['perplexity']:.1f}"
    else:
        reached = text(stage.get("status", ""))
    memory = stage.get("peak_memory_mb")
    done, planned = stage.get("epochs_done", 0), stage.get("epochs")
    epochs = f"{done}" if done == planned else f"{done} of {planned}"
    return (f'<tr><td class="name">{text(stage["stage"])}</td><td class="r">{epochs}</td>'
            f'<td class="r bar">{duration(seconds)}<i style="width:{100 * seconds / longest:.0f}%"></i></td>'
            f'<td class="r roomy">{number(metrics.get("valid_loss"), 3)}</td><td class="r">{reached}</td>'
            f'<td class="r">{f"{memory / 1024:.1f} GB" if memory else ""}</td></tr>')


def device_of(result: Result) -> str:
    device = result.run.get("device")
    if not isinstance(device, dict):
        return str(device or "an unknown device")
    n = device.get("threads") if device.get("type") == "cpu" else None
    threads = f", {n} thread{'' if n == 1 else 's'}" if n else ""
    return f"{device.get('name') or device.get('type')}{threads}"


def seconds_of(result: Result) -> float:
    return sum(stage.get("seconds") or 0.0 for stage in result.run.get("stages") or [])
