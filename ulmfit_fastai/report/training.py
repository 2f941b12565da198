"""The report's account of the training: rates and unfreezing, losses, time and memory."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from ..results import figures
from ..results.result import Result
from .page import IN_PAGE, figure_html, number, share


def curves(result: Result) -> dict[str, Any]:
    """What training.html.jinja shows: drawings of rates and losses, with headings, and every epoch's numbers."""
    present = set(result.rates["phase"]) | set(result.history["phase"])
    phases = [phase for phase in figures.PHASES if phase in present]
    return {"rates": _rates(result.rates, phases), "losses": _losses(result.history, phases),
            "history": _epochs(result.history)}


def _rates(rates: pd.DataFrame, phases: list[str]) -> list[tuple[str, Markup]]:
    draw = partial(figures.rates_figure, palette=IN_PAGE, size=(4.6, 3.4), title="")
    return [(f"{figures.show_name(phase)}, {direction}",
             figure_html(draw(rows, phase), f"rates-{n}-{phase}", alt=_rates_in_words(rows, phase)))
            for n, (direction, part) in enumerate(_distinct_rates(rates)) for phase in phases
            if len(rows := part[part["phase"] == phase])]


def _losses(history: pd.DataFrame, phases: list[str]) -> list[tuple[str, Markup]]:
    draw = partial(figures.losses_figure, palette=IN_PAGE, size=(4.6, 2.7), title="")
    return [(figures.show_name(phase), figure_html(draw(rows, phase), f"losses-{phase}", alt=_losses_in_words(rows)))
            for phase in phases if len(rows := history[history["phase"] == phase])]


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
    """What cost.html.jinja shows; `in_stages` leaves out what lies between them: data, the baseline, the test set."""
    stages = result.run.get("stages") or []
    seconds = [stage.get("seconds") or 0.0 for stage in stages]
    return {"stages": stages, "in_stages": sum(seconds), "longest": max(seconds, default=0.0) or 1.0,
            "device": device_of(result), "on_gpu": (result.run.get("device") or {}).get("type") == "cuda"}


def device_of(result: Result) -> str:
    """The machine's name, for a CPU with its threads."""
    device = result.run.get("device")
    if not isinstance(device, dict):
        return str(device or "an unknown device")
    n = device.get("threads") if device.get("type") == "cpu" else None
    threads = f", {n} thread{'' if n == 1 else 's'}" if n else ""
    return f"{device.get('name') or device.get('type')}{threads}"
