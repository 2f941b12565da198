"""The README.md of a saved model: what it is, what it was trained on, how well it does, how to load it.

Laid out as Hugging Face's hub reads it, so that the folder can be pushed as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .text_model import TextModel

KINDS = {"single": "one class for each text", "multi": "any number of classes for each text",
         "regression": "a number for each text"}


def model_card(model: TextModel, *, name: str, licence: str = "unknown", run_folder: bool = False) -> str:
    """Markdown with the hub's front matter; `licence` is an SPDX identifier in lower case, such as 'apache-2.0'.

    `run_folder`: the model lies in the folder it was trained in, beside the record of the run.
    """
    config = model.config
    task = "text-classification" if config.kind != "regression" else "text-regression"
    language = [f"language: {config.lang}"] if config.lang.isalpha() else []  # else the file that splits the texts
    front = ["---", f"license: {licence}", "library_name: ulmfit_fastai", "pipeline_tag: text-classification",
             *language, "tags:", "- ulmfit", "- fastai", "- awd-lstm", f"- {task}", "---"]
    parts = ["\n".join(front), f"# {name}", _what(model), "## Use", _use(model), "## Trained on", _data(config.data),
             "## How well it does", _scores(model), "## How it was made", _made(model), "## Files",
             FILES + (RUN_FILES if run_folder else ""), "## Limits", LIMITS]
    if licence == "unknown":
        parts.append("The licence field above is yours to set: neither the method nor the package decides it.")
    return "\n\n".join(parts) + "\n"


FILES = """`classifier_*.safetensors` weights, `vocab.json` words, `config.json` what the outputs mean, `recipe.json`
how it was trained, `metrics.json`. Loading reads these files and executes nothing."""
RUN_FILES = """

What else the training left here is its record, and not needed to load the model: `run.json`, `history.csv`,
`rates.csv`, `state/` (what it said of the held-out texts, in numbers) and, where they were made, `lm_*.safetensors`
(the fine-tuned language model) and `report.html`."""
LIMITS = """It knows the kind of text it was trained on; its probabilities say how sure it is among its classes only.
Look at its errors on texts of your own before it decides anything about people."""


def _what(model: TextModel) -> str:
    config, size = model.config, model.recipe.model
    said = f"An [ULMFiT](https://arxiv.org/abs/1801.06146) text classifier on fastai v2: {KINDS[config.kind]}"
    names = ", ".join(f"`{name}`" for name in config.names[:30])
    classes = f" ({names}{', …' if len(config.names) > 30 else ''})" if config.classes else ""
    parameters = sum(p.numel() for m in model.models.values() for p in m.parameters())
    return (f"{said}{classes}. AWD-LSTM {size.emb_sz}/{size.n_hid}/{size.n_layers}, {' and '.join(model.models)}, "
            f"{len(model.vocab):,} words, {parameters / 1e6:.1f} million parameters.")


def _use(model: TextModel) -> str:
    given = '["a text", "another"]' if not model.config.text or len(model.config.text) == 1 else \
        f"df  # a DataFrame with the columns {', '.join(model.config.text)}"
    return f"""```python
from ulmfit_fastai import ULMFiT

model = ULMFiT.load("this-folder")
model.predict({given})
```

```
ulmfit-fastai predict this-folder texts.csv --out predicted.csv
```"""


def _data(data: dict[str, Any]) -> str:
    splits, counts = data.get("splits", {}), data.get("counts", {})
    name = "" if data.get("name", "custom") == "custom" else f"{data['name']}: "
    lines = [f"{name}{splits.get('train', counts.get('train', 0)):,} labelled texts, "
             f"{splits.get('valid', 0):,} held out, {counts.get('unsup', 0):,} without label."]
    if data.get("fingerprint"):
        lines.append(f"Fingerprint of the texts and labels: `{data['fingerprint']}`. The folder holds none of them but "
                     "the words in `vocab.json`.")
    if data.get("synthetic"):
        lines.append("The texts are synthetic.")
    return "\n".join(lines)


def _scores(model: TextModel) -> str:
    """A row for each measured part: the held-out texts, and the test set of a run that has one."""
    metrics = model.metrics
    parts = {"held-out texts": metrics.get("validation", {}),
             "test set": {k: v for k, v in metrics.items() if k != "validation" and isinstance(v, dict)}}
    rows = []
    for part, by_direction in parts.items():
        for direction, found in by_direction.items():
            rows.append(f"| {part}, {direction} | {_line(found)} |")
    if not rows:
        return "Not measured."
    warning = "" if parts["test set"] else ("\n\nThe held-out texts were looked at while training: new ones will "
                                            "be a little harder.")
    return "| measured on | |\n|---|---|\n" + "\n".join(rows) + warning


def _line(found: dict[str, Any]) -> str:
    if "mae" in found:
        r2 = "" if found.get("r2") is None else f", R² {found['r2']:.3f}"
        return f"mean absolute error {found['mae']:.4g}, RMSE {found['rmse']:.4g}{r2}, {found['n']:,} texts"
    return (f"error {found['error']:.2f} %, macro F1 {found['macro_f1']:.3f}, "
            f"{found['wrong']:,} of {found['n']:,} texts wrong")


def _made(model: TextModel) -> str:
    data, recipe = model.config.data, model.recipe
    weights = ", ".join(sorted({str(name) for name in data.get("weights", {}).values()})) or "random numbers"
    versions = data.get("versions", {})
    with_ = ", ".join(f"{name} {versions[name]}" for name in ("ulmfit_fastai", "fastai", "torch") if name in versions)
    return (f"Recipe `{recipe.name}` (`{recipe.hash}`, in full in `recipe.json`), seed {recipe.seed}, language model "
            f"from {weights}; {data.get('seconds', 0) / 60:.1f} minutes on "
            f"{data.get('device') or 'an unknown device'}, {str(data.get('finished') or '')[:10]}"
            f"{', ' + with_ if with_ else ''}.")
