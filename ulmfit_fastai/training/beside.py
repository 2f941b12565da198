"""What runs beside the loop: callbacks of the user's, and fastai's Recorder, over stages, phases and resumes.

A callback keeps its memory: what its `state_dict` gives, or its attributes of plain values that aren't arguments of its
`__init__`. It goes into the checkpoint, and comes back with the batch it belongs to.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.callback.progress import CSVLogger
from fastai.learner import AvgSmoothLoss, Learner, Recorder, ValueMetric
from torch import Tensor

from .._errors import UlmfitError
from .callbacks import EpochSums, Position

ONLY_WATCH = {
    "fastai.callback.progress.ProgressCallback", "fastai.callback.progress.ShowGraphCallback",
    "fastai.callback.progress.CSVLogger", "fastai.callback.tensorboard.TensorBoardCallback",
    "fastai.callback.tensorboard.TensorBoardProjectorCallback", "fastai.callback.wandb.WandbCallback",
    "fastai.callback.neptune.NeptuneCallback", "fastai.callback.comet.CometCallback",
    "fastai.callback.azureml.AzureMLCallback", "fastai.callback.tracker.EarlyStoppingCallback",
    "fastai.callback.tracker.TerminateOnNaNCallback"}
"""fastai's callbacks that change no number of a training, but for ending it, which is noted when it happens."""

FINE = (bool, int, float, str, type(None))
_NOT_PLAIN = object()


def as_callbacks(cbs: Any) -> tuple[Callback, ...]:
    """What a user gives as `cbs`: one callback or several, each an instance or, as in fastai, a class.

    Raises:
        UlmfitError: something else is among them.
    """
    given = () if cbs is None else tuple(cbs) if isinstance(cbs, Iterable) and not isinstance(cbs, type) else (cbs,)
    made = tuple(cb() if isinstance(cb, type) and issubclass(cb, Callback) else cb for cb in given)
    for cb in made:
        if not isinstance(cb, Callback):
            raise UlmfitError(f"expected fastai callbacks, found {cb!r}", field="cbs", found=cb,
                              advice="give `cbs=` a list of them")
    return made


def note_callbacks(run: dict[str, Any], cbs: Sequence[Callback]) -> None:
    """Write into run.json which callbacks were there, and warn of those that may have changed the training.

    One of your own that changes nothing says so by a class attribute `only_watches = True`.
    """
    names = {cb: f"{type(cb).__module__}.{type(cb).__qualname__}" for cb in cbs}
    if names:
        run["callbacks"] = list(dict.fromkeys((*run.get("callbacks", ()), *names.values())))
    acting = [type(cb).__qualname__ for cb, name in names.items()
              if name not in ONLY_WATCH and not getattr(type(cb), "only_watches", False)]
    if acting:
        warn(run, f"Trained with callbacks that the recipe doesn't hold, and that may have changed the training: "
                  f"{', '.join(acting)}")


def warn(run: dict[str, Any], text: str) -> None:
    """Add what must be said beside the result, once."""
    warnings = run.setdefault("warnings", [])
    if text not in warnings:
        warnings.append(text)


# Memory


def _plain(value: Any) -> Any:
    """A value as a checkpoint holds it, or `_NOT_PLAIN`."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Tensor):
        return value.detach().cpu().as_subclass(Tensor).clone()
    if type(value) in (list, tuple):
        items = [_plain(one) for one in value]
        return _NOT_PLAIN if any(one is _NOT_PLAIN for one in items) else type(value)(items)
    if type(value) is dict:
        made = {key: _plain(one) for key, one in value.items()}
        fine = all(type(key) in FINE for key in made) and not any(one is _NOT_PLAIN for one in made.values())
        return made if fine else _NOT_PLAIN
    return value if type(value) in FINE else _NOT_PLAIN


def memory_of(cb: Callback) -> dict[str, Any]:
    """What a callback has to know again when a training goes on."""
    if hasattr(type(cb), "state_dict") and hasattr(type(cb), "load_state_dict"):
        return cb.state_dict()
    own = {"learn", "run", *inspect.signature(type(cb).__init__).parameters}
    found = {name: _plain(value) for name, value in vars(cb).items() if name not in own and not name.startswith("__")}
    return {name: value for name, value in found.items() if value is not _NOT_PLAIN}


def remind(cb: Callback, memory: dict[str, Any]) -> None:
    """Give a callback what `memory_of` took."""
    if hasattr(type(cb), "state_dict") and hasattr(type(cb), "load_state_dict"):
        cb.load_state_dict(memory)
        return
    for name, value in memory.items():
        setattr(cb, name, _plain(value))


class Memories:
    """The memories of a user's callbacks, by number and class: others that come later start without one."""

    def __init__(self, cbs: Sequence[Callback]) -> None:
        self.by_name = {f"{number} {type(cb).__qualname__}": cb for number, cb in enumerate(cbs)}

    def now(self) -> dict[str, dict[str, Any]]:
        """All memories, for a checkpoint."""
        return {name: memory_of(cb) for name, cb in self.by_name.items()}

    def give_back(self, memories: dict[str, dict[str, Any]]) -> None:
        """Give each callback its own."""
        for name, memory in memories.items():
            if name in self.by_name:
                remind(self.by_name[name], memory)

    def append_to_logs(self) -> None:
        """fastai's CSVLogger begins its file anew with each fit, of which every stage is one: let it go on."""
        for cb in self.by_name.values():
            if isinstance(cb, CSVLogger):
                cb.append = True


class InPlace(Callback):
    """Shows a resumed stage to the callbacks beside the loop as if it had never stopped.

    fastai counts batches from the first that it reads, and sends the events of epochs that it skips: here a batch has
    its number in the epoch, and the others hear nothing of an epoch that is done already.
    """

    order = -10_000  # before all others

    def __init__(self, position: Position, others: Sequence[Callback]) -> None:
        self.first_epoch, self.first_batch, self.others = position.epoch, position.batch, others
        self.hushed: list[Callback] = []

    def hush(self) -> None:
        """Silence the others until the first epoch that isn't done."""
        self.hushed = [cb for cb in self.others if cb.run] if self.first_epoch else []
        for cb in self.hushed:
            cb.run = False

    def before_epoch(self) -> None:
        if self.learn.epoch == self.first_epoch:
            for cb in self.hushed:
                cb.run = True

    def before_train(self) -> None:
        if self.learn.epoch == self.first_epoch:
            self.learn.train_iter = self.first_epoch * len(self.learn.dls.train) + self.first_batch

    def before_batch(self) -> None:
        if self.learn.training and self.learn.epoch == self.first_epoch:
            if self.learn.iter == 0:
                self.learn.pct_train += self.first_batch / (len(self.learn.dls.train) * self.learn.n_epoch)
            self.learn.iter += self.first_batch


class Reminder(Callback):
    """Gives callbacks their memory of the middle of a stage, after `before_fit` made them begin it anew."""

    order = 10_000  # after all others

    def __init__(self, memories: Memories, kept: dict[str, dict[str, Any]], in_place: InPlace) -> None:
        self.memories, self.kept, self.place = memories, kept, in_place

    def before_fit(self) -> None:
        self.memories.give_back(self.kept)
        self.place.hush()


# The Recorder


class _SmoothLoss(AvgSmoothLoss):
    """fastai's smooth loss, which stays on the device: nothing waits for a batch."""

    val: Tensor

    def accumulate(self, learn: Learner) -> None:
        self.count += 1
        loss = learn.loss.detach().float().mean()
        self.val = torch.lerp(loss, self.val.to(loss.device), self.beta)


class PhaseRecorder(Recorder):
    """fastai's Recorder over the stages of a phase, one after the other, and over a resume.

    Its validation loss is the exact mean that history.csv has. `hps` is there too, for `plot_sched`.
    """

    name = "recorder"

    def __init__(self, sums: EpochSums) -> None:
        super().__init__()
        self.smooth_loss, self.loss = _SmoothLoss(), ValueMetric(sums.held_out_loss, "valid_loss")
        self.kept: dict[str, Any] = {}

    def before_fit(self) -> None:
        super().before_fit()
        kept = self.kept
        self.losses, self.lrs = list(kept.get("losses", ())), list(kept.get("lrs", ()))
        self.hps = {"lr": self.lrs, "mom": list(kept.get("moms", ()))}
        self.iters, self.values = list(kept.get("iters", ())), list(kept.get("values", ()))
        self.smooth_loss.count, self.smooth_loss.val = len(self.losses), torch.tensor(kept.get("smooth", 0.0))

    def after_batch(self) -> None:
        super().after_batch()
        if self.learn.training and len(self.learn.yb):
            self.hps["mom"].append(self.learn.opt.hypers[-1]["mom"])

    def after_epoch(self) -> None:
        super().after_epoch()
        self.losses[:] = _read_back(self.losses)

    def after_fit(self) -> None:
        self.kept = self.state()

    def state(self) -> dict[str, Any]:
        """What was recorded, in plain numbers."""
        return {"losses": _read_back(self.losses), "lrs": list(self.lrs), "moms": list(self.hps["mom"]),
                "iters": list(self.iters), "values": [list(row) for row in self.values],
                "smooth": float(self.smooth_loss.val), "names": list(self.metric_names)}


def _read_back(losses: list[Any]) -> list[float]:
    """Losses as numbers; those of the epoch, which wait on the device, in one transfer."""
    first = next((i for i, loss in enumerate(losses) if isinstance(loss, Tensor)), len(losses))
    return losses[:first] + (torch.stack(losses[first:]).cpu().tolist() if first < len(losses) else [])


def show_record(learn: Learner, record: dict[str, Any]) -> None:
    """Let the Recorder of a Learner show the training of `record`: `plot_loss`, `plot_sched`, `values`."""
    recorder = learn.recorder
    recorder.losses, recorder.lrs, recorder.iters = record["losses"], record["lrs"], record["iters"]
    recorder.hps = {"lr": record["lrs"], "mom": record["moms"]}
    recorder.values, recorder.metric_names = record["values"], record["names"]
