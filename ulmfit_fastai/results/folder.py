"""The run folder: run.json, the tables and the state file, each whole at any moment, and one process at a time."""

from __future__ import annotations

import csv
import io
import logging
import os
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .._errors import UlmfitError
from .._files import (
    clear_left_behind,
    digests_of,
    disk_full_is_said,
    expanded,
    read_json,
    refuse_damaged,
    sealed,
    write_json_atomic,
    write_text_atomic,
)
from .._schema import CONFIG, RUN, checked, read_checked
from ..recipe.find import completed, same_recipe
from .environment import now

log = logging.getLogger(__name__)

SCHEMA = 1
HISTORY = ("direction", "phase", "stage", "epoch", "train_loss", "valid_loss", "accuracy", "seconds", "lr_last")
RATES = ("direction", "phase", "step", "stage", "group", "lr", "trainable")


ANOTHER_PLACE = "choose another `out=`"
ANOTHER_PLACE_OR_ANEW = f"{ANOTHER_PLACE}, or `resume=False` to start anew"


class RunMismatch(UlmfitError):
    """The folder holds a run of another recipe or other data."""


class FolderInUse(UlmfitError):
    """Another process works in the folder."""


class RunFolder:
    """One run on disk: run.json and the tables beside it.

    Whatever is in the folder at any moment is whole: see `_files`.

    Attributes:
        path: the folder.
        run: the content of run.json.
        history: a row an epoch, with the columns `HISTORY`.
        rates: a row a layer group at the steps that were sampled, with the columns `RATES`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = expanded(path)
        self.run: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.rates: list[dict[str, Any]] = []
        self._lock: FileLock | None = None

    @property
    def state_file(self) -> Path:
        """The checkpoint within a phase; not there between two phases."""
        return self.path / "state" / "state.pt"

    def weights_file(self, phase: str, direction: str) -> Path:
        """Where the weights that a phase ends with are kept; `phase` is 'pretrain', 'lm' or 'classifier'."""
        return self.path / f"{phase}_{direction}.safetensors"

    def open(self, header: dict[str, Any], *, resume: bool = True) -> bool:
        """Start the run, or go on with the one that is here.

        Args:
            header: what run.json says from the start; must hold `recipe` (dict), `recipe_hash` and `data` (with
                `fingerprint`).
            resume: False moves an earlier run aside, and deletes nothing.

        Returns:
            True when something was here to go on with.

        Raises:
            RunMismatch: the folder holds another run.
            FolderInUse: another process works in it.
            UlmfitError: it holds something else, or it can't be made.
        """
        found = self.path / "run.json"
        self._alone()
        for place in (self.path, self.state_file.parent) if self.state_file.parent.is_dir() else ():
            clear_left_behind(place, seconds=0)  # nobody else is at work here
        if found.exists() and not resume:
            self._move_aside()
        if found.exists():
            self._alone()  # another process may have made it since
            self.read()
            if self._is_this(header):
                self._say_other_versions(header)
                return True
            return self._begin(header)
        self._refuse_another_use()
        try:
            (self.path / "state").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UlmfitError(f"cannot make the run folder {self.path}: {error}", path=self.path,
                              advice=ANOTHER_PLACE) from error
        self._alone()
        return self._begin(header)

    def compare(self, header: dict[str, Any]) -> None:
        """RunMismatch where `open` with this header would raise it; writes nothing."""
        if (self.path / "run.json").exists():
            self.read()
            self._is_this(header)
        else:
            self._refuse_another_use()

    def _begin(self, header: dict[str, Any]) -> bool:
        self.history, self.rates = [], []
        self.run = {"schema": SCHEMA, "status": "running", "started": now(), "finished": None, "stages": [],
                    "metrics": {}, "baselines": [], "warnings": [], "sessions": [], **header}
        self.save()
        return False

    def _is_this(self, header: dict[str, Any]) -> bool:
        """Whether this run is that of the header. Another one is refused, unless it has trained nothing yet."""
        try:
            self._same(header)
        except RunMismatch:
            if has_begun(self.path, self.run):
                raise
            log.info("%s held a run that had trained nothing yet: it gives way to this one", self.path)
            return False
        return True

    def _refuse_another_use(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UlmfitError(f"{self.path}: expected a folder, or a place for one, found a file", path=self.path,
                              advice=ANOTHER_PLACE)
        strange = [] if not self.path.exists() else sorted(
            path.name for path in self.path.iterdir() if path.name not in ("state", "report.html"))
        if strange:
            raise UlmfitError(f"{self.path}: expected an empty folder or a run of ours, found {', '.join(strange[:3])}",
                              path=self.path, advice=ANOTHER_PLACE)

    def _alone(self) -> None:
        """Refuse a folder that another process is working in; the system frees the lock however that process ends."""
        if self._lock is not None or not (self.path / "state").is_dir():
            return
        lock = FileLock(os.path.realpath(self.path / "state" / "lock"), thread_local=False, is_singleton=True,
                        fallback_to_soft=False)  # a soft lock, a file alone, would outlive a killed process
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise FolderInUse(f"{self.path}: another process is running in this folder", path=self.path,
                              advice=f"wait for it to end, or {ANOTHER_PLACE}") from None
        except OSError as error:  # a file system without locks, or a folder to read only: its first write says the rest
            log.debug("%s cannot be locked: %s", self.path, error)
            return
        self._lock = lock

    @property
    def is_in_use(self) -> bool:
        """Whether another process works in the folder now."""
        held = self._lock
        try:
            self._alone()
        except FolderInUse:
            return True
        if held is None and self._lock is not None:
            self._lock.release()  # not by force: another object of this process may hold it too
            self._lock = None
        return False

    def release(self) -> None:
        """Let another process, or another folder object, work in it."""
        if self._lock is not None:
            self._lock.release(force=True)
            self._lock = None

    def _move_aside(self) -> None:
        aside = self.path.with_name(f"{self.path.name}.before-{time.strftime('%Y%m%d-%H%M%S')}")
        self.release()  # Windows moves no folder with an open file in it
        self.path.rename(aside)
        log.warning("the earlier run in %s was moved to %s", self.path, aside)

    def read(self) -> RunFolder:
        """Read what is there, and return itself.

        Raises:
            UlmfitError: it is no run folder, or one of its files is damaged.
        """
        if not (self.path / "run.json").exists():
            raise UlmfitError(f"{self.path} is not a run folder: it holds no run.json")
        self.run = read_json(self.path / "run.json")
        if not isinstance(self.run, dict) or "schema" not in self.run:
            raise UlmfitError(f"{self.path / 'run.json'} is not the record of a run: expected an object with 'schema'",
                              path=self.path / "run.json", advice=f"restore it, or {ANOTHER_PLACE}")
        if self.run["schema"] == SCHEMA:
            checked(self.run, RUN, self.path / "run.json")
        self.history = self._read_csv("history.csv")
        self.rates = self._read_csv("rates.csv")
        return self

    def _same(self, header: dict[str, Any]) -> None:
        """RunMismatch unless the run that is here is the one of the header."""
        if self.run.get("schema") != SCHEMA:
            raise RunMismatch(f"{self.path}: expected a run.json of schema {SCHEMA}, found {self.run.get('schema')!r}",
                              path=self.path, expected=SCHEMA, found=self.run.get("schema"),
                              advice=ANOTHER_PLACE_OR_ANEW)
        lacking = [name for name in ("recipe", "recipe_hash", "data", "status", "stages") if name not in self.run]
        if lacking:
            raise RunMismatch(f"{self.path / 'run.json'} is damaged: it lacks {', '.join(lacking)}",
                              path=self.path / "run.json", advice=ANOTHER_PLACE_OR_ANEW)
        if not has_recipe(self.run, header["recipe"], header["recipe_hash"]):
            theirs, ours = _flat(completed(self.run["recipe"])), _flat(header["recipe"])
            fields = [k for k in sorted({*theirs, *ours} - {"name"}) if theirs.get(k) != ours.get(k)]
            shown = ", ".join(f"{k}: {theirs.get(k)!r} there, {ours.get(k)!r} here" for k in fields[:4])
            raise RunMismatch(f"{self.path} holds a run of another recipe ({shown})", path=self.path,
                              advice=ANOTHER_PLACE_OR_ANEW)
        theirs, ours = self.run["data"]["fingerprint"], header["data"]["fingerprint"]
        if theirs != ours:
            raise RunMismatch(f"{self.path} holds a run on other texts (fingerprint {theirs}, these have {ours})",
                              path=self.path, expected=ours, found=theirs, advice=ANOTHER_PLACE)
        refuse_other_identity(self.path, self.run, header.get("identity", {}))

    def _say_other_versions(self, header: dict[str, Any]) -> None:
        """Warn that a run goes on under other versions than its last session had: its numbers may be others."""
        if self.run["status"] == "finished":
            return
        last = (self.run.get("sessions") or [{}])[-1].get("versions") or self.run.get("versions") or {}
        now_here = header.get("versions", {})
        other = [f"{name} {last[name]} there, {now_here[name]} here" for name in ("torch", "fastai", "ulmfit_fastai")
                 if name in last and name in now_here and last[name] != now_here[name]]
        if other:
            log.warning("%s goes on under other versions (%s): its numbers may differ from those of one sitting",
                        self.path, ", ".join(other))

    def save(self) -> None:
        """Write run.json.

        Raises:
            OSError: the disk is full; the file of before stays.
        """
        with disk_full_is_said(self.path):
            write_json_atomic(self.path / "run.json", sealed(self.run))

    def save_tables(self) -> None:
        """Write history.csv and rates.csv; like `save` in all else."""
        with disk_full_is_said(self.path):
            write_text_atomic(self.path / "history.csv", _csv(HISTORY, self.history))
            write_text_atomic(self.path / "rates.csv", _csv(RATES, self.rates))

    def stage(self, direction: str, phase: str, stage: str, epochs: int) -> dict[str, Any]:
        """The record of a stage in run.json, made at its first use."""
        for record in self.run["stages"]:
            if (record["direction"], record["phase"], record["stage"]) == (direction, phase, stage):
                return record
        record = {"direction": direction, "phase": phase, "stage": stage, "status": "running", "epochs_done": 0,
                  "epochs": epochs, "seconds": 0.0, "metrics": {}, "peak_memory_mb": 0.0}
        self.run["stages"].append(record)
        return record

    def phase_done(self, direction: str, phase: str) -> bool:
        """Whether a phase is finished, so that its weights are kept."""
        return f"{direction}/{phase}" in self.run.get("phases_done", [])

    def mark_phase(self, direction: str, phase: str) -> None:
        """Note in run.json that a phase is finished."""
        self.run.setdefault("phases_done", []).append(f"{direction}/{phase}")
        self.note_digests(f"{phase}_{direction}.safetensors", f"{phase}_{direction}.vocab.json", "vocab.json",
                          f"state/validation_{direction}.npy", f"state/test_{direction}.npy")
        self.save()

    def note_digests(self, *names: str) -> None:
        """Keep what these files hold now, as far as they are there, to be compared when they are read."""
        self.run.setdefault("digests", {}).update(digests_of(self.path, names))

    def refuse_damaged(self, *names: str) -> None:
        """UlmfitError naming the file, of these or of all, that isn't what it was when it was written."""
        refuse_damaged(self.path, self.run.get("digests"), "run.json", names or None)

    def _read_csv(self, name: str) -> list[dict[str, Any]]:
        path = self.path / name
        if not path.exists():
            return []
        try:
            with open(path, newline="", encoding="utf8") as handle:
                return list(csv.DictReader(handle))
        except (UnicodeDecodeError, csv.Error) as error:
            raise UlmfitError(f"{path} is damaged: expected CSV, found {error}; delete it and run again") from error


def has_begun(path: Path, run: dict[str, Any]) -> bool:
    """Whether anything has come of a run, as run.json records it, that another one may not take the place of."""
    stages = run.get("stages")
    if run.get("status") not in ("running", "stopped") or not isinstance(stages, list) or run.get("phases_done"):
        return True
    trained = any(not isinstance(stage, dict) or stage.get("epochs_done") != 0 for stage in stages)
    return trained or (path / "state" / "state.pt").exists()


IDENTITY = {"lang": "the language that splits the texts", "pieces": "the SentencePiece model",
            "kind": "the kind of labels", "label_delim": "what separates labels", "weights": "the starting weights",
            "sample_weight": "the weights of the texts (a digest)"}
"""What a run depends on besides its recipe and its texts, as run.json has it under 'identity'."""


def refuse_other_identity(path: Path, run: dict[str, Any], ours: dict[str, Any]) -> None:
    """RunMismatch where what a run depends on besides recipe and texts is known of both, and differs.

    A run from before it was written down is taken for what its config.json and its labels say, and for any weights.
    """
    theirs = identity_of(path, run)
    for name, meant in IDENTITY.items():
        there, here = theirs.get(name), ours.get(name)
        if name == "weights":
            both = sorted({*(there or {})} & {*(here or {})})
            there, here = ([(direction, (known or {})[direction]) for direction in both] for known in (there, here))
        if name in theirs and name in ours and there != here:
            raise RunMismatch(f"{path} holds a run with another {name}: {meant} is {there!r} there, {here!r} here",
                              path=path, field=name, expected=here, found=there, advice=ANOTHER_PLACE_OR_ANEW)


def identity_of(path: Path, run: dict[str, Any]) -> dict[str, Any]:
    """What run.json says under 'identity', or what can be known of it where an earlier version wrote the folder."""
    if isinstance(run.get("identity"), dict):
        return {"sample_weight": None, **run["identity"]}
    labels = run["data"].get("labels") or {}
    known: dict[str, Any] = {"sample_weight": None, **({"kind": labels["kind"]} if "kind" in labels else {})}
    if (path / "config.json").exists():
        lang = read_checked(path / "config.json", CONFIG).get("lang")
        known |= {"lang": lang} if isinstance(lang, str) and not lang.endswith(".model") else {}
    return known


def has_recipe(run: dict[str, Any], recipe: dict[str, Any], recipe_hash: str) -> bool:
    """Whether a run, as run.json records it, is of this recipe, whatever rule its hash was made by.

    The recipes decide. Where these can't be read, as those of pretraining, they or their hashes must be equal.
    """
    same = same_recipe(run.get("recipe"), recipe)
    if same is None:
        return recipe_hash == run.get("recipe_hash") or recipe == run.get("recipe")
    return same


def _csv(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _flat(data: Any, name: str = "") -> dict[str, Any]:
    """A nested dict as dotted names, for saying where two recipes differ."""
    if isinstance(data, dict):
        return {k: v for key, value in data.items() for k, v in _flat(value, f"{name}.{key}".strip(".")).items()}
    if isinstance(data, list):
        return {k: v for i, value in enumerate(data) for k, v in _flat(value, f"{name}[{i}]").items()}
    return {name: data}
