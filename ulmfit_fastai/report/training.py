"""The report's account of the training: rates and unfreezing, losses, time and memory."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from ..results import figures
from ..results.curve_figures import steps_figure
from ..results.recorder import read_record, record_file
from ..results.result import Result
from .page import IN_PAGE, figure_html, number, share


def curves(result: Result) -> dict[str, Any]:
    """What training.html.jinja shows: drawings of rates and losses, with headings, and every epoch's numbers."""
    present = set(result.rates["phase"]) | set(result.history["phase"])
    phases = [phase for phase in figures.PHASES if phase in present]
    return {"rates": _rates(result.rates, phases), "losses": _losses(result, phases),
            "by_step": any(_records(result, phase) for phase in phases),
            "history": _epochs(result.history)}


def _rates(rates: pd.DataFrame, phases: list[str]) -> list[tuple[str, Markup]]:
    draw = partial(figures.rates_figure, palette=IN_PAGE, size=(4.6, 3.4), title="")
    return [(f"{figures.show_name(phase)}, {direction}",
             figure_html(draw(rows, phase), f"rates-{n}-{phase}", alt=_rates_in_words(rows, phase)))
            for n, (direction, part) in enumerate(_distinct_rates(rates)) for phase in phases
            if len(rows := part[part["phase"] == phase])]


def _losses(result: Result, phases: list[str]) -> list[tuple[str, Markup]]:
    """By step where the folder has what the Recorder saw, with a language model's perplexity; otherwise by epoch."""
    draw, cards = partial(figures.losses_figure, palette=IN_PAGE, size=(4.6, 2.7), title=""), []
    for phase in phases:
        rows = result.history[result.history["phase"] == phase]
        records, heading = _records(result, phase), figures.show_name(phase)
        if records:
            cards.append((heading, _steps(result, records, phase, _losses_in_words(rows))))
            if phase != "classifier":
                cards.append((f"{heading}: perplexity", _steps(result, records, phase, _perplexity_in_words(rows),
                                                               perplexity=True)))
        elif len(rows):
            cards.append((heading, figure_html(draw(rows, phase), f"losses-{phase}", alt=_losses_in_words(rows))))
    return cards


def _records(result: Result, phase: str) -> dict[str, dict[str, Any]]:
    """Direction -> what the Recorder saw of a finished phase."""
    directions = dict.fromkeys(result.history.loc[result.history["phase"] == phase, "direction"])
    found = {direction: read_record(record_file(result.folder, phase, direction)) for direction in directions}
    return {direction: record for direction, record in found.items() if record is not None}


def _steps(result: Result, records: dict[str, dict[str, Any]], phase: str, alt: str, *,
           perplexity: bool = False) -> Markup:
    # Among a sample of the words the loss is lower: no perplexity of the texts.
    sampled = ((result.recipe_dict.get(phase) or {}).get("sampled_words")) is not None
    figure = steps_figure(records, phase, perplexity=perplexity, training=not (perplexity and sampled), palette=IN_PAGE)
    return figure_html(figure, f"{'perplexity' if perplexity else 'steps'}-{phase}", alt=alt)


def _perplexity_in_words(part: pd.DataFrame) -> str:
    """Where each direction's perplexity ended."""
    ends = [(direction, pd.to_numeric(rows["valid_loss"], errors="coerce").dropna())
            for direction, rows in part.groupby("direction", sort=False)]
    return "; ".join(f"{d}: perplexity {np.exp(v.iloc[-1]):.1f}" for d, v in ends if len(v)) or "perplexity"


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


def _epochs(history: pd.DataFrame) -> list[tuple[Any, ...]]:
    """direction, phase, stage, epoch, losses, perplexity (of a language model), accuracy."""
    losses = pd.to_numeric(history["valid_loss"], errors="coerce")
    return [(row["direction"], row["phase"], row["stage"], row["epoch"], number(row["train_loss"], 3),
             number(row["valid_loss"], 3), "" if row["phase"] == "classifier" else number(np.exp(loss), 1),
             share(row["accuracy"])) for (_, row), loss in zip(history.iterrows(), losses, strict=True)]


def cost(result: Result) -> dict[str, Any]:
    """What cost.html.jinja shows; `in_stages` leaves out what lies between them: data, the baseline, the test set.

    It may be more than the run took, whose directions trained side by side; `in_one_direction` may not.
    """
    stages = result.run.get("stages") or []
    seconds = [stage.get("seconds") or 0.0 for stage in stages]
    by_direction = [sum(took for stage, took in zip(stages, seconds, strict=True) if stage["direction"] == direction)
                    for direction in {stage["direction"] for stage in stages}]
    return {"stages": stages, "in_stages": sum(seconds), "longest": max(seconds, default=0.0) or 1.0,
            "in_one_direction": max(by_direction, default=0.0),
            "device": device_of(result), "on_gpu": (result.run.get("device") or {}).get("type") == "cuda"}


def device_of(result: Result) -> str:
    """The machine's name, for a CPU with its threads."""
    device = result.run.get("device")
    if not isinstance(device, dict):
        return str(device or "an unknown device")
    n = device.get("threads") if device.get("type") == "cpu" else None
    threads = f", {n} thread{'' if n == 1 else 's'}" if n else ""
    return f"{device.get('name') or device.get('type')}{threads}"
