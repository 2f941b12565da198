"""What `fit` trains on, and the model that its run came to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .._errors import UlmfitError
from .._files import refuse_damaged
from .._schema import RUN, read_checked
from ..batches.targets import Target
from ..model.weights import Classifier
from ..predict.config import Config, about
from ..predict.text_model import TextModel
from ..recipe.recipe import Recipe
from ..results.recorder import read_record, record_file
from ..texts.dataset import Dataset
from ..tokens.ids import TokenIds
from ..training.processes import processes
from ..training.session import Stopped
from ..training.starting import OpenedWeights


class Unfinished(UlmfitError, Stopped):
    """The time budget ended before the training did; the same call of `fit` goes on with it."""


@dataclass(frozen=True, eq=False)
class Work:
    """What `fit` trains on, ready to run."""

    dataset: Dataset
    ids: TokenIds
    recipe: Recipe
    config: Config
    opened: OpenedWeights


def records_of(folder: Path, directions: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """By direction, what fastai's Recorder saw of the classifier's training; only a run's folder has it."""
    found = {direction: read_record(record_file(folder, "classifier", direction)) for direction in directions}
    return {direction: record for direction, record in found.items() if record is not None}


def refuse_unfinished(folder: Path, *, kept: bool) -> dict[str, Any]:
    """The run.json of a run that came to its end; `Unfinished` for another."""
    done = read_checked(folder / "run.json", RUN)
    if done["status"] != "finished":
        go_on = (f"everything so far is in {folder}: the same command, or the same call of fit, goes on with it" if kept
                 else "nothing was kept: give `out=` a folder, from which the same call goes on")
        raise Unfinished("stopped in good order before the end", path=folder, advice=go_on)
    return done


def trained_model(folder: Path, work: Work, *, device: str | None, kept: bool) -> TextModel:
    """The model of a run that `fit` made."""
    done = refuse_unfinished(folder, kept=kept)
    gone = [f"classifier_{d}.safetensors" for d in work.config.directions
            if not (folder / f"classifier_{d}.safetensors").is_file()]
    if gone:
        raise UlmfitError(f"{folder} holds this run, finished, but {gone[0]} is not there any more", path=folder,
                          advice="restore the file, or start anew with `resume=False`")
    refuse_damaged(folder, done.get("digests"), "run.json")
    target = Target.from_record(done["data"]["labels"], work.config.target.classes)  # with the scale of numbers
    config = replace(work.config, target=target, data=about(done))
    classifiers = {direction: Classifier.load(folder / f"classifier_{direction}.safetensors",
                                              vocab=folder / "vocab.json") for direction in config.directions}
    return TextModel(config, work.recipe, classifiers, metrics=done["metrics"], device=device)


def report_of(folder: Path, dataset: Dataset) -> None:
    """Write the run's report, with texts of this dataset; once, since the same fit again changes nothing."""
    page = folder / "report.html"
    done = page.exists() and page.stat().st_mtime >= (folder / "run.json").stat().st_mtime
    if done or not processes().leads:
        return
    from ..report.report import write_report  # matplotlib, only where it is needed

    write_report(folder, dataset=dataset)
