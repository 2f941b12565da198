"""What one must know besides the weights to use a model: what its outputs mean, and what it was trained on."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .._errors import UlmfitError
from .._schema import CONFIG, checked
from ..batches.targets import Target
from ..recipe.fields import expect
from ..recipe.parts import DIRECTIONS
from ..results.record import seconds_of
from ..tokens.pieces import FILE_NAME as PIECES_FILE
from ..tokens.pieces import is_model

FORMAT = "ulmfit_fastai model 1"


@dataclass(frozen=True)
class Config:
    """What one must know besides the weights to use a model; what config.json holds."""

    target: Target
    """What the outputs are, with the classes as their owner wrote them (text or numbers)."""
    directions: tuple[str, ...] = ("forward",)
    text: tuple[Any, ...] | None = None
    """The columns of the texts; None: they were a plain list."""
    label: Any = None
    lang: str = "en"
    indicator: bool = False
    """Several classes were given, and are returned, as rows of 0 and 1."""
    data: dict[str, Any] = field(default_factory=dict)
    """What it was trained on: name, counts, fingerprint. No texts."""
    digests: dict[str, str] = field(default_factory=dict)
    """Of the model's other files, compared on loading; empty in models of earlier versions."""
    label_delim: str | None = None
    """What separated several classes in the file that it was trained on."""
    encoding: str | None = None
    """The encoding of that file, where it was given."""

    def __post_init__(self) -> None:
        if self.target.kind != "regression" and not self.target.classes:
            raise UlmfitError("classes: expected the classes of the model, found none")
        expect(bool(self.directions) and set(self.directions) <= set(DIRECTIONS)
               and len(set(self.directions)) == len(self.directions), "directions", self.directions,
               "('forward',), ('backward',) or both")
        if is_model(self.lang):  # in a file: beside it, and nowhere else
            return
        expect(self.lang.isidentifier(), "lang", self.lang, "a language's code, or the file of a SentencePiece model")

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str | Path) -> Config:
        """The config in a config.json; ValueError naming the file for anything else."""
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            found = values.get("format") if isinstance(values, dict) else type(values).__name__
            raise UlmfitError(f"{where}: expected the format {FORMAT!r}, found {found!r}: use the version of "
                              "ulmfit_fastai that wrote it")
        checked(values, CONFIG, where)
        known = {item.name for item in fields(cls)} - {"target"}
        given: dict[str, Any] = {key: _tuples(value) for key, value in values.items() if key in known}
        try:
            made = cls(Target.from_record(values, values.get("classes", ())), **given)
            expect(not is_model(made.lang) or made.lang == PIECES_FILE, "lang", made.lang, PIECES_FILE)
            return made
        except (TypeError, ValueError) as error:
            raise UlmfitError(f"{where}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds: the target's fields stand among the others, under the names of its first version."""
        said = self.target.to_record()
        text = None if self.text is None else [*map(_plain_name, self.text)]
        return {"format": FORMAT, "library_name": "ulmfit_fastai", "model_type": "awd_lstm", "kind": said["kind"],
                "classes": self.target.classes, "directions": self.directions, "text": text,
                "label": _plain_name(self.label), "lang": self.lang, "centre": said["centre"],
                "spread": said["spread"], "indicator": self.indicator, "label_delim": self.label_delim,
                "encoding": self.encoding, "data": self.data, "digests": self.digests}


def _tuples(value: Any) -> Any:
    """Lists of JSON as the tuples that they were, those of tuples too."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _plain_name(name: Any) -> Any:
    """A column's name as JSON keeps it: a number stays one, what JSON doesn't have becomes text."""
    if isinstance(name, tuple):
        return [*map(_plain_name, name)]
    name = name.item() if hasattr(name, "item") else name
    return name if name is None or type(name) in (str, int, float, bool) else str(name)


def about(run: dict[str, Any]) -> dict[str, Any]:
    """What a run.json says about data, start and cost, without texts or paths."""
    data = run.get("data", {})
    weights = {d: w.get("name") for d, w in run.get("weights", {}).items()}
    seconds = seconds_of(run)
    return {**{key: data[key] for key in ("name", "fingerprint", "counts", "splits", "vocabulary", "synthetic")
               if key in data},
            "weights": weights, "versions": run.get("versions", {}), "device": run.get("device", {}).get("name"),
            "seconds": round(seconds, 1), "finished": run.get("finished")}
