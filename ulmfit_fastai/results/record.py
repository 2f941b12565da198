"""A run folder's files, read and checked: run.json, the predictions against it, the tables."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .._errors import UlmfitError
from .._files import read_json, refuse_damaged
from .._schema import RUN, checked
from ..recipe.parts import DIRECTIONS
from .folder import SCHEMA

log = logging.getLogger(__name__)


def seconds_of(run: dict[str, Any]) -> float:
    """Seconds of all sessions of the run of a run.json, and of the language models that it took from other runs."""
    taken = dict.fromkeys(run.get("language_model_of") or {}, ("pretrain", "lm"))
    taken |= run.get("language_model_phases") or {}
    others = sum(stage["seconds"] for stage in run.get("stages", [])
                 if stage["phase"] in taken.get(stage["direction"], ()))
    return sum(session.get("seconds", 0.0) for session in run.get("sessions", [])) + others


def read_run(folder: Path) -> dict[str, Any]:
    """run.json, checked as far as everything else relies on it."""
    if not folder.is_dir():
        raise UlmfitError(f"{folder} is no folder: expected a run folder", path=folder,
                          advice="give one that was the `out=` of a run")
    path = folder / "run.json"
    if not path.exists():
        raise UlmfitError(f"{folder} is not a run folder: it holds no run.json. Found: "
                          f"{', '.join(sorted(p.name for p in folder.iterdir())[:5]) or 'nothing'}.")
    run = read_json(path)
    if not isinstance(run, dict) or "schema" not in run:
        raise UlmfitError(f"{path} is not the record of a run: expected an object with 'schema'.")
    if run["schema"] != SCHEMA:
        raise UlmfitError(f"{path} has schema {run['schema']!r}, this version of ulmfit_fastai reads {SCHEMA}: "
                          "use the version that made the run (see 'versions' in the file).")
    checked(run, RUN, path)
    if run.get("status") == "finished":  # until then the tables are still written to
        refuse_damaged(folder, run.get("digests"), "run.json", ("predictions.csv", "history.csv", "rates.csv"))
        for name in ("history.csv", "rates.csv"):
            if name in (run.get("digests") or {}) and not (folder / name).exists():
                log.warning("%s is missing: nothing is known of the run's %s", folder / name,
                            "epochs" if name == "history.csv" else "learning rates")
    if run.get("status") not in ("finished", "running", "stopped"):
        raise UlmfitError(f"{path}: expected status finished, running or stopped, found {run.get('status')!r}.")
    return run


def scores_of(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Metrics of the evaluated set: each direction's, and the average's when there are two."""
    metrics = run.get("metrics") or {}
    if (run.get("recipe") or {}).get("evaluate") == "validation":
        metrics = metrics.get("validation") or {}
    names = [name for name in DIRECTIONS if name in metrics]
    if len(names) > 1 and "averaged" in metrics:
        names.append("averaged")
    return {name: metrics[name] for name in names}


def evaluates_test(run: dict[str, Any]) -> bool:
    """Whether the run is measured on the test set; the paper's analyses leave that alone."""
    return (run.get("recipe") or {}).get("evaluate", "test") == "test"


def check_predictions(folder: Path, run: dict[str, Any], frame: pd.DataFrame, probs: dict[str, np.ndarray]) -> None:
    """Refuse predictions that are not those run.json counted: half a file, or another run's."""
    errors = scores_of(run)
    if run["status"] != "finished" or not errors or not evaluates_test(run):
        return
    metrics = errors["averaged"] if "averaged" in errors else next(iter(errors.values()))
    wrong = int((frame["label"] != frame["predicted"]).sum())
    if (len(frame), wrong) != (metrics["n"], metrics["wrong"]):
        raise UlmfitError(
            f"{folder}: predictions.csv has {len(frame)} rows, {wrong} of them wrong; run.json counted {metrics['n']} "
            f"and {metrics['wrong']}. The files are not of one run, or one was changed or cut short.")
    if set(errors) - {"averaged"} != set(probs):
        raise UlmfitError(f"{folder}: predictions.csv has the directions {sorted(probs)}, run.json {sorted(errors)}.")


def read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """history.csv or rates.csv; empty with the right columns when it is not there yet."""
    if not path.exists() or path.stat().st_size == 0:
        return pd.DataFrame(columns=list(columns))
    frame = pd.read_csv(path, dtype={"stage": str, "direction": str, "phase": str}, keep_default_na=False,
                        na_values={name: ["", "nan", "None"] for name in columns if name not in ("stage", "group")})
    missing = [name for name in columns if name not in frame]
    if missing:
        raise UlmfitError(f"{path} is damaged: expected the columns {', '.join(columns)}; missing "
                          f"{', '.join(missing)}.")
    if "trainable" in frame:
        frame["trainable"] = frame["trainable"].astype(str).str.lower().isin(("true", "1", "1.0"))
    return frame
