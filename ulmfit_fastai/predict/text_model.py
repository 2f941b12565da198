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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.torch_core import default_device

from .._errors import UlmfitError
from .._files import read_json, write_bytes_atomic, write_json_atomic, write_text_atomic
from ..batches.targets import Target
from ..model.layers import build_classifier
from ..model.weights import Classifier
from ..recipe.recipe import Recipe
from ..results.metrics import mean_over_directions
from ..results.result import seconds_of
from ..tokens.pieces import FILE_NAME as PIECES_FILE
from ..tokens.pieces import is_model, model_digest
from ..tokens.stream import tokenize
from .explanation import Explanation
from .int8 import int8_copy
from .integrated_gradients import explain
from .outputs import predict_rows

FORMAT = "ulmfit_fastai model 1"
CHUNK_TEXTS, CHUNK_CHARS = 4096, 4_000_000
"""Texts that are tokenised, sorted by length and predicted together: bounds memory, however many there are."""


@dataclass(frozen=True)
class Config:
    """What one must know besides the weights to use a model; what config.json holds."""

    target: Target
    """What the outputs are, with the classes as their owner wrote them (text or numbers)."""
    directions: tuple[str, ...] = ("forward",)
    text: tuple[str, ...] | None = None
    """The columns of the texts; None: they were a plain list."""
    label: str | None = None
    lang: str = "en"
    indicator: bool = False
    """Several classes were given, and are returned, as rows of 0 and 1."""
    data: dict[str, Any] = field(default_factory=dict)
    """What it was trained on: name, counts, fingerprint. No texts."""

    def __post_init__(self) -> None:
        if self.target.kind != "regression" and not self.target.classes:
            raise UlmfitError("classes: expected the classes of the model, found none")

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str | Path) -> Config:
        """The config in a config.json; ValueError naming the file for anything else."""
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = values.get("format") if isinstance(values, dict) else type(values).__name__
            raise UlmfitError(f"{where}: expected the format {FORMAT!r}, found {found!r}: use the version of "
                              "ulmfit_fastai that wrote it")
        known = {item.name for item in fields(cls)} - {"target"}
        given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value
                                 for key, value in values.items() if key in known}
        try:
            return cls(Target.from_record(values, values.get("classes", ())), **given)
        except (TypeError, ValueError) as error:
            raise UlmfitError(f"{where}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds: the target's fields stand among the others, under the names of its first version."""
        said = self.target.to_record()
        return {"format": FORMAT, "library_name": "ulmfit_fastai", "model_type": "awd_lstm", "kind": said["kind"],
                "classes": self.target.classes, "directions": self.directions, "text": self.text, "label": self.label,
                "lang": self.lang, "centre": said["centre"], "spread": said["spread"], "indicator": self.indicator,
                "data": self.data}


class TextModel:
    """Classifiers of one or both directions over the same words, ready to predict.

    `models` maps directions to fastai classifier modules on `device`, in evaluation mode. They compute in fp32
    whatever they were trained in, so that a text's probabilities don't depend on the machine's number formats; with
    `int8`, on a CPU, their LSTMs multiply 8-bit integers: faster and smaller, for predictions only (see int8.py).
    """

    def __init__(self, config: Config, recipe: Recipe, classifiers: dict[str, Classifier], *,
                 metrics: dict[str, Any] | None = None, device: str | torch.device | None = None,
                 int8: bool = False) -> None:
        self.config, self.recipe, self.metrics, self.int8 = config, recipe, metrics or {}, int8
        self.device = torch.device(device or ("cpu" if int8 else default_device()))
        self.vocab = next(iter(classifiers.values())).vocab
        self.models = {direction: self._build(saved) for direction, saved in classifiers.items()}

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
        model = build_classifier(len(self.vocab), self.target.n_out, self.recipe.model, bptt=phase.bptt,
                                 max_len=phase.max_len, fast=self.recipe.fast)
        try:
            model.load_state_dict(saved.state)
        except RuntimeError as error:
            first, *more = str(error).splitlines()[1:] or [str(error)]  # torch: a heading, then a line for each tensor
            raise UlmfitError(f"the {saved.direction} weights don't fit the model of recipe.json: {first.strip()}"
                              f"{f' And {len(more)} more like it.' if more else ''}") from None
        model = model.to(self.device).eval()
        return int8_copy(model) if self.int8 else model

    # -- predicting -----------------------------------------------------------------------------------------------

    def numbers(self, texts: Sequence[str]) -> list[list[int]]:
        """Texts as word numbers, tokenised in this process: starting others would take longer than a text does."""
        split = tokenize(texts, self.config.lang, n_workers=1) if len(texts) else []
        return [self.vocab.encode(tokens) for tokens in split]

    def outputs_of_ids(self, ids: Sequence[Sequence[int]], direction: str) -> np.ndarray:
        """One direction's probabilities (or numbers) of numbered texts, float32 (texts, outputs)."""
        return predict_rows(self.models[direction], ids, np.arange(len(ids)), direction=direction, bptt=self.bptt,
                            device=self.device, target=self.target)

    def outputs(self, texts: Sequence[str]) -> np.ndarray:
        """Probabilities (or numbers) of texts in their order, both directions averaged: float64 (texts, outputs)."""
        parts = list(self.stream(texts))
        return np.concatenate(parts) if parts else np.empty((0, self.target.n_out))

    def stream(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """The outputs of any number of texts, some thousands at a time, in bounded memory and in their order."""
        for chunk in chunks(texts):
            ids = self.numbers(chunk)
            outputs = {d: self.outputs_of_ids(ids, d).astype(np.float64) for d in self.models}
            yield mean_over_directions(outputs, self.target.kind)

    def explain(self, text: str, *, towards: str | None = None, steps: int = 32) -> Explanation:
        """Which words moved the decision on one text, towards a class (default: the predicted one)."""
        return explain(self.as_trained("explain"), text, vocab=self.vocab, target=self.target, towards=towards,
                       bptt=self.bptt, lang=self.config.lang, steps=steps)

    def as_trained(self, purpose: str) -> dict[str, torch.nn.Module]:
        """The models for `purpose`, which needs their weights; ValueError where those are in int8."""
        if self.int8:
            raise UlmfitError(f"{purpose} needs the weights as they were trained: load the model without int8, which "
                              "is for predictions only")
        return self.models

    # -- files ----------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, *, card: str) -> Path:
        """Write the model's folder; `card` is the text of its README.md."""
        models, folder = self.as_trained("save"), Path(folder)
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
        write_json_atomic(folder / "config.json", config.to_dict())

    def _own_files(self, folder: Path) -> set[str]:
        return {"config.json", "recipe.json", "metrics.json", "vocab.json", "README.md", PIECES_FILE, ".git",
                ".gitattributes",
                *(path.name for path in folder.glob("classifier_*.safetensors"))}

    @classmethod
    def load(cls, folder: str | Path, *, device: str | torch.device | None = None, int8: bool = False) -> TextModel:
        """Read a saved model or a finished run folder; reads JSON and safetensors and executes nothing.

        Raises ValueError for a folder that is neither, an unfinished run, and files that don't belong together.
        """
        folder = Path(folder).expanduser()
        if not folder.is_dir():
            raise UlmfitError(f"{folder} is no folder; expected a saved model or a finished run (looked from "
                              f"{Path.cwd()})")
        if (folder / "config.json").exists():
            config = Config.from_dict(read_json(folder / "config.json"), folder / "config.json")
            if is_model(config.lang):
                config = replace(config, lang=str(folder / config.lang))
            recipe = Recipe.from_json(_present(folder, "recipe.json"))
            metrics = read_json(folder / "metrics.json") if (folder / "metrics.json").exists() else {}
        elif (folder / "run.json").exists():
            config, recipe, metrics = _of_run(folder)
        else:
            found = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
            raise UlmfitError(f"{folder}: expected config.json (a saved model) or run.json (a finished run), found "
                              f"{found}")
        classifiers = {}
        for direction in config.directions:
            path = folder / f"classifier_{direction}.safetensors"
            if not path.exists():
                raise UlmfitError(f"{folder} lacks {path.name}, the weights of its {direction} classifier: copy the "
                                  "file there (results that are kept without weights cannot predict)")
            saved = classifiers[direction] = Classifier.load(path, vocab=folder / "vocab.json")
            made_for, pieces = model_digest(config.lang) if is_model(config.lang) else None, saved.vocab.pieces
            if pieces != made_for:
                raise UlmfitError(f"{folder}: expected the SentencePiece model {pieces} that the weights were trained "
                                  f"with, found {made_for}; copy its {PIECES_FILE} there")
            if saved.classes != config.target.names:
                raise UlmfitError(f"{path} has the classes {', '.join(saved.classes)}, config.json has "
                                  f"{', '.join(config.target.names)}: the files are not of one model")
        return cls(config, recipe, classifiers, metrics=metrics, device=device, int8=int8)


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


def _present(folder: Path, name: str) -> Any:
    if not (folder / name).exists():
        raise UlmfitError(f"{folder} lacks {name}: copy the file that was saved with the model there")
    return read_json(folder / name)


def _of_run(folder: Path) -> tuple[Config, Recipe, dict[str, Any]]:
    """Config, recipe and metrics of a run folder."""
    run = read_json(folder / "run.json")
    if not isinstance(run, dict) or not {"recipe", "data", "status"} <= set(run):
        raise UlmfitError(f"{folder / 'run.json'} is not the record of a run")
    if run["status"] != "finished":
        raise UlmfitError(f"{folder}: the run is not finished (status: {run['status']}); run its command again to go "
                          f"on ({run.get('command', '')})")
    recipe, data = Recipe.from_dict(run["recipe"]), run["data"]
    target = Target.from_record(data.get("labels", {}), data.get("classes", ()))
    return Config(target, directions=tuple(recipe.directions), data=about(run)), recipe, run.get("metrics", {})


def about(run: dict[str, Any]) -> dict[str, Any]:
    """What a run.json says about data, start and cost, without texts or paths."""
    data = run.get("data", {})
    weights = {d: w.get("name") for d, w in run.get("weights", {}).items()}
    seconds = seconds_of(run)
    return {**{key: data[key] for key in ("name", "fingerprint", "counts", "splits", "vocabulary", "synthetic")
               if key in data},
            "weights": weights, "versions": run.get("versions", {}), "device": run.get("device", {}).get("name"),
            "seconds": round(seconds, 1), "finished": run.get("finished")}
