"""A trained classifier that predicts, in memory and as a folder: safetensors, words and settings, no code.

    config.json                      what the outputs mean: kind, classes, text columns, language
    recipe.json                      how it was trained, and the sizes of its layers
    vocab.json                       the words
    classifier_<direction>.safetensors
    metrics.json, README.md          what it reached, and a model card

A finished run folder holds the same weights and words, and `TextModel.load` reads it too.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._errors import UlmfitError
from .._files import (
    digests_of,
    expanded,
    read_json,
    refuse_damaged,
    sealed,
    write_bytes_atomic,
    write_json_atomic,
    write_text_atomic,
)
from .._schema import METRICS, RECIPE, RUN, checked, read_checked
from .._words import shown
from ..batches.targets import Target
from ..model.autocast import computing_in
from ..model.devices import named_device
from ..model.layers import build_classifier
from ..model.precision import resolve
from ..model.weights import Classifier
from ..recipe.recipe import Recipe
from ..results.folder import identity_of
from ..results.metrics import mean_over_directions
from ..texts.values import text_of
from ..tokens.ids import UNK
from ..tokens.pieces import FILE_NAME as PIECES_FILE
from ..tokens.pieces import is_model, model_digest
from ..tokens.stream import tokenize
from .config import Config, about
from .explanation import Explanation
from .int8 import int8_copy
from .integrated_gradients import explain
from .outputs import predict_rows

log = logging.getLogger(__name__)

CHUNK_TEXTS, CHUNK_CHARS = 4096, 4_000_000
"""Texts that are tokenised, sorted by length and predicted together: bounds memory, however many there are."""


class TextModel:
    """Classifiers of one or both directions over the same words, ready to predict.

    The models compute in fp32 whatever they were trained in, unless another `precision` is asked for: so a text's
    probabilities depend neither on the machine's number formats nor on the texts beside it, and are those of `learner`
    and `export`. Any number of threads may share one: they compute one after another, since an LSTM keeps its state in
    its module.

    Args:
        config: what the outputs mean, and what splits the texts.
        recipe: how they were trained; gives the sizes of the layers.
        classifiers: direction -> weights and words.
        metrics: what they reached, as run.json has it.
        device: where they compute; None: the best there is.
        int8: on a CPU, their LSTMs multiply 8-bit integers: faster and smaller, for predictions only (see int8.py).
        precision: 'fp32'; 'bf16' or, on GPUs, 'fp16': faster where the hardware multiplies it, and a probability
            changes in its third digit (of a large model in the second), a little with the texts beside it too; 'auto':
            what is fast here.

    Attributes:
        models: direction -> fastai classifier module on `device`, in evaluation mode.
        vocab: the `Vocabulary` of all of them.

    Raises:
        UlmfitError: weights that don't fit the model of the recipe.
    """

    def __init__(self, config: Config, recipe: Recipe, classifiers: dict[str, Classifier], *,
                 metrics: dict[str, Any] | None = None, device: str | torch.device | None = None,
                 int8: bool = False, precision: str = "fp32") -> None:
        self.config, self.recipe, self.metrics, self.int8 = config, recipe, metrics or {}, int8
        self._said_unknown = False
        self.device = named_device("cpu" if device is None and int8 else device)
        self.precision = self._resolved(precision)
        self.vocab = next(iter(classifiers.values())).vocab
        self._one_at_a_time = threading.RLock()
        self.models = {direction: self._build(saved) for direction, saved in classifiers.items()}

    def _resolved(self, precision: str) -> str:
        """The type that is meant on this device: 'fp32', 'bf16' or 'fp16'."""
        if self.int8:
            if precision not in ("fp32", "auto"):
                raise UlmfitError(f"a model in int8 doesn't compute in {precision}", field="precision",
                                  found=precision, advice="leave out `precision=`, or `int8=`")
            return "fp32"
        fast = self.recipe.fast or self.device.type != "cpu"
        return resolve(precision if fast or precision != "auto" else "fp32", self.device)

    @property
    def target(self) -> Target:
        """What the outputs are."""
        return self.config.target

    @property
    def bptt(self) -> int:
        """Tokens of a chunk, as in training."""
        return self.recipe.classifier.bptt

    def _build(self, saved: Classifier) -> torch.nn.Module:
        phase = self.recipe.classifier
        with torch.device("meta"):  # neither memory nor random numbers, of which a thread that trains has need
            model = build_classifier(len(self.vocab), self.target.n_out, self.recipe.model, bptt=phase.bptt,
                                     max_len=phase.max_len, fast=self.recipe.fast)
        refuse_other_shapes(model, saved)
        model = model.to_empty(device="cpu")
        model.load_state_dict(saved.state)
        model = model.to(self.device).eval()
        return int8_copy(model) if self.int8 else model

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_one_at_a_time"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({"precision": "fp32", **state}, _one_at_a_time=threading.RLock())

    # Predicting

    def numbers(self, texts: Sequence[str]) -> list[list[int]]:
        """Texts as word numbers, a list for each; tokenised in this process, since to start others takes longer."""
        split = tokenize(texts, self.config.lang, n_workers=1) if len(texts) else []
        return [self.vocab.encode(tokens) for tokens in split]

    def outputs_of_ids(self, ids: Sequence[Sequence[int]], direction: str, *, precision: str | None = None
                       ) -> np.ndarray:
        """One direction's probabilities (or numbers) of numbered texts, float32 (texts, outputs)."""
        kind = self.precision if precision is None else self._resolved(precision)
        with self._one_at_a_time, computing_in(kind, self.models[direction], self.device):
            return predict_rows(self.models[direction], ids, np.arange(len(ids)), direction=direction, bptt=self.bptt,
                                device=self.device, target=self.target)

    def outputs(self, texts: Sequence[str], *, precision: str | None = None) -> np.ndarray:
        """Probabilities of texts, or numbers for regression, both directions averaged.

        Args:
            precision: as of the model; None: the model's.

        Returns:
            float64 (texts, outputs), in the order of the texts; columns as `target.classes`. NaN for an empty text.
        """
        parts = list(self.stream(texts, precision=precision))
        return np.concatenate(parts) if parts else np.empty((0, self.target.n_out))

    def stream(self, texts: Iterable[Any], *, precision: str | None = None) -> Iterator[np.ndarray]:
        """The outputs of any number of texts in their order, in bounded memory.

        Yields:
            float64 (texts, outputs) of the next texts, some thousands at a time; NaN where one is empty or missing.
        """
        for chunk in chunks(map(text_of, texts)):
            filled = [row for row, text in enumerate(chunk) if text.strip()]
            found = np.full((len(chunk), self.target.n_out), np.nan)
            if filled:
                found[filled] = self._of_words(self.numbers([chunk[row] for row in filled]), precision)
            yield found

    def _of_words(self, ids: list[list[int]], precision: str | None) -> np.ndarray:
        """The outputs of numbered texts, both directions averaged, float64 (texts, outputs)."""
        unknown, words = sum(text.count(UNK) for text in ids), sum(len(text) - 1 for text in ids)  # each has xxbos
        if unknown > words / 2 and not self._said_unknown:
            self._said_unknown = True
            log.warning("%.0f %% of the words of these texts are unknown to the model: are they of another language or "
                        "field, or not the texts?", 100 * unknown / words)
        outputs = {d: self.outputs_of_ids(ids, d, precision=precision).astype(np.float64) for d in self.models}
        return mean_over_directions(outputs, self.target.kind)

    def explain(self, text: str, *, towards: str | None = None, steps: int = 32) -> Explanation:
        """Which words moved the decision on one text.

        Args:
            towards: the class to explain; None: the predicted one.
            steps: points of the integral, see `explain` of this room.

        Raises:
            UlmfitError: an empty text, an unknown class, or a model in int8.
        """
        models = self.as_trained("explain")
        with self._one_at_a_time:
            return explain(models, text, vocab=self.vocab, target=self.target, towards=towards, bptt=self.bptt,
                           lang=self.config.lang, steps=steps)

    def as_trained(self, purpose: str) -> dict[str, torch.nn.Module]:
        """The models, for a purpose that needs their weights as they were trained.

        Raises:
            UlmfitError: the weights are in int8; the message names the `purpose`.
        """
        if self.int8:
            raise UlmfitError(f"{purpose} needs the weights as they were trained: load the model without int8, which "
                              "is for predictions only")
        return self.models

    # Files

    def save(self, folder: str | Path, *, card: str) -> Path:
        """Write the model's folder and return its path.

        Args:
            folder: a new or empty folder, or an earlier model's, which is replaced.
            card: the text of its README.md, see `model_card`.

        Raises:
            UlmfitError: the folder holds something else, or the model is in int8.
        """
        models, folder = self.as_trained("save"), expanded(folder)
        if folder.exists() and not folder.is_dir():
            raise UlmfitError(f"{folder}: expected a folder, or a place for one, found a file")
        folder.mkdir(parents=True, exist_ok=True)
        strange = sorted(p.name for p in folder.iterdir() if p.name not in self._own_files(folder))
        if strange and not (folder / "config.json").exists():
            raise UlmfitError(f"{folder}: expected an empty folder or an earlier model, found "
                              f"{', '.join(strange[:3])}; choose another folder")
        for direction, model in models.items():
            saved = Classifier.from_model(model, self.vocab, self.target.names, direction=direction,
                                          meta={"name": self.recipe.name, "recipe_hash": self.recipe.hash})
            saved.save(folder / f"classifier_{direction}.safetensors", vocab_path=folder / "vocab.json")
        self.describe(folder, card=card)
        return folder

    def describe(self, folder: Path, *, card: str) -> None:
        """Write everything but weights and words: a run folder has those already."""
        write_json_atomic(folder / "recipe.json", self.recipe.to_dict())
        write_json_atomic(folder / "metrics.json", self.metrics)
        write_text_atomic(folder / "README.md", card)
        config = self.config
        if is_model(config.lang):  # goes with the weights: new texts have to be split by the very same pieces
            if Path(config.lang).resolve() != (folder / PIECES_FILE).resolve():
                write_bytes_atomic(folder / PIECES_FILE, Path(config.lang).read_bytes())
            config = replace(config, lang=PIECES_FILE)
        files = sorted(f"classifier_{direction}.safetensors" for direction in self.models)
        config = replace(config, digests=digests_of(folder, (*files, "vocab.json", "recipe.json", "metrics.json",
                                                             PIECES_FILE)))
        write_json_atomic(folder / "config.json", sealed(config.to_dict()))

    def _own_files(self, folder: Path) -> set[str]:
        return {"config.json", "recipe.json", "metrics.json", "vocab.json", "README.md", PIECES_FILE, ".git",
                ".gitattributes",
                *(path.name for path in folder.glob("classifier_*.safetensors"))}

    @classmethod
    def load(cls, folder: str | Path, *, device: str | torch.device | None = None, int8: bool = False,
             precision: str = "fp32") -> TextModel:
        """Read a saved model or a finished run folder; reads JSON and safetensors and executes nothing.

        Raises:
            UlmfitError: the folder is neither, the run is unfinished, a file is missing or damaged, or the files don't
                belong together.
        """
        folder = expanded(folder)
        if not folder.is_dir():
            raise UlmfitError(f"{folder} is no folder; expected a saved model or a finished run (looked from "
                              f"{Path.cwd()})")
        if (folder / "config.json").exists():
            config = Config.from_dict(read_json(folder / "config.json"), folder / "config.json")
            if is_model(config.lang):
                config = replace(config, lang=str(folder / config.lang))
            recipe = _recipe_of(folder)
            metrics = read_checked(folder / "metrics.json", METRICS) if (folder / "metrics.json").exists() else {}
            record, digests = "config.json", config.digests
        elif (folder / "run.json").exists():
            config, recipe, metrics, digests = _of_run(folder)
            record = "run.json"
        else:
            found = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
            raise UlmfitError(f"{folder}: expected config.json (a saved model) or run.json (a finished run), found "
                              f"{found}")
        classifiers = {direction: _read_classifier(folder, direction, config) for direction in config.directions}
        made = cls(config, recipe, classifiers, metrics=metrics, device=device, int8=int8, precision=precision)
        own = [f"classifier_{direction}.safetensors" for direction in config.directions]
        refuse_damaged(folder, digests, record, (*own, "vocab.json", "recipe.json", "metrics.json", PIECES_FILE))
        return made


def refuse_other_shapes(model: torch.nn.Module, saved: Classifier) -> None:
    """UlmfitError where the weights aren't those of a model of this size."""
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in saved.state.items()}
    wrong = [name for name in dict.fromkeys((*wanted, *found)) if wanted.get(name) != found.get(name)]
    if wrong:
        first, more = wrong[0], len(wrong) - 1
        raise UlmfitError(
            f"the {saved.direction} weights don't fit the model of recipe.json: {first} is "
            f"{found.get(first, 'not there')} in the weights, and {wanted.get(first, 'not there')} in the model"
            f"{f', and {more} more differ' if more else ''}", expected=wanted.get(first), found=found.get(first))


def chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Cut a stream into lists of at most `CHUNK_TEXTS` texts and about `CHUNK_CHARS` characters."""
    stream = iter(texts)
    while True:
        chunk, size = [], 0
        for text in itertools.islice(stream, CHUNK_TEXTS):
            chunk.append(text)
            size += len(text)
            if size >= CHUNK_CHARS:
                break
        if not chunk:
            return
        yield chunk


def _read_classifier(folder: Path, direction: str, config: Config) -> Classifier:
    """The weights of one direction, which must be those that the config is of."""
    path = folder / f"classifier_{direction}.safetensors"
    if not path.exists():
        raise UlmfitError(f"{folder} lacks {path.name}, the weights of its {direction} classifier: copy the file there "
                          "(results that are kept without weights cannot predict)")
    saved = Classifier.load(path, vocab=folder / "vocab.json")
    made_for, pieces = model_digest(config.lang) if is_model(config.lang) else None, saved.vocab.pieces
    if pieces != made_for:
        raise UlmfitError(f"{folder}: expected the SentencePiece model {pieces} that the weights were trained with, "
                          f"found {made_for}; copy its {PIECES_FILE} there")
    if saved.direction != direction:
        raise UlmfitError(f"{path}: expected {direction} weights, found {saved.direction} ones under that name",
                          path=path, field="direction", expected=direction, found=saved.direction)
    if saved.classes != config.target.names:
        raise UlmfitError(f"{path} has the classes {shown(saved.classes)}, config.json has "
                          f"{shown(config.target.names)}: the files are not of one model")
    return saved


def _recipe_of(folder: Path) -> Recipe:
    path = folder / "recipe.json"
    if not path.exists():
        raise UlmfitError(f"{folder} lacks recipe.json: copy the file that was saved with the model there")
    try:
        return Recipe.from_json(checked(read_json(path), RECIPE, path))
    except UlmfitError as error:
        raise UlmfitError(f"{path} holds no recipe: {error.message}", path=path, field=error.field) from error


def _of_run(folder: Path) -> tuple[Config, Recipe, dict[str, Any], dict[str, str]]:
    """Config, recipe, metrics and the digests of the files of a run folder."""
    run = read_json(folder / "run.json")
    if not isinstance(run, dict) or not {"recipe", "data", "status"} <= set(run):
        raise UlmfitError(f"{folder / 'run.json'} is not the record of a run")
    checked(run, RUN, folder / "run.json")
    if run["status"] != "finished":
        raise UlmfitError(f"{folder}: the run is not finished (status: {run['status']}); run its command again to go "
                          f"on ({run.get('command', '')})")
    recipe, data = Recipe.from_dict(run["recipe"] or {}), run["data"]
    target = Target.from_record(data.get("labels") or {}, data.get("classes", ()))
    identity = identity_of(folder, run)
    lang = str(folder / PIECES_FILE) if identity.get("pieces") else identity.get("lang", "en")
    config = Config(target, directions=tuple(recipe.directions), lang=lang, data=about(run))
    return config, recipe, run.get("metrics", {}), run.get("digests", {})
