"""The commands that look at a model: `info` says what a folder holds, `generate` lets a language model write."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .._errors import UlmfitError
from .._files import digests_of, expanded, read_json, refuse_damaged
from .._words import megabytes, shown
from .options import JSON, Command, option
from .records import tell


def generate(args: argparse.Namespace) -> int:
    """Let a language model go on with a text, to see what it has learnt.

    PROMPT is how a text begins; a backward model writes what comes before it; without any the model begins itself.
    --weights is the language model: a folder that `pretrain` made, the run folder of any other command, a weights file,
    wt103, or wiki-small or english-small, which come with the package.

    examples:
      ulmfit-fastai generate "The film begins with"
      ulmfit-fastai generate "Der Film" --weights runs/de --temperature 0.6
      ulmfit-fastai generate "was the worst film of the year ." --weights runs/imdb --direction backward
    """
    from ..model.generate import generate as write
    from ..model.pretrained import load

    weights = load(expanded(args.weights), args.direction)
    if weights is None:
        raise UlmfitError("weights 'none' are no language model", field="weights", advice="give another `weights=`")
    prompts = [prompt for prompt in args.prompts or [""] for _ in range(args.number)]
    texts = write(weights, prompts, n_tokens=args.tokens, temperature=args.temperature, top_k=args.top_k,
                  seed=args.seed)
    tell(args, "\n".join(texts), [{"prompt": prompt, "text": text} for prompt, text in zip(prompts, texts)])
    return 0


def info(args: argparse.Namespace) -> int:
    """Say what a saved model or a run folder is: classes, language, sizes, what it was trained on, digests.

    Reads the folder's records and compares its files with the digests in them; loads no weights.

    examples:
      ulmfit-fastai info model
      ulmfit-fastai info runs/imdb --json
    """
    found = about_folder(expanded(args.model))
    tell(args, "\n".join(in_words(found)), found)
    return 0


def about_folder(folder: Path) -> dict[str, Any]:
    """What the records of a folder say of it.

    Raises:
        UlmfitError: it is neither a model nor a run, or a file is another than its record says.
    """
    if (folder / "config.json").is_file():
        return _of_model(folder)
    if (folder / "run.json").is_file():
        return _of_run(folder)
    if not folder.is_dir():
        raise UlmfitError(f"{folder} is no folder; expected a saved model or a run folder", path=folder)
    raise UlmfitError(f"{folder}: expected config.json (a saved model) or run.json (a run), found neither", path=folder)


def _of_model(folder: Path) -> dict[str, Any]:
    from ..predict.config import Config
    from ..recipe.recipe import Recipe

    config = Config.from_dict(read_json(folder / "config.json"), folder / "config.json")
    refuse_damaged(folder, config.digests, "config.json")
    recipe = Recipe.from_json(read_json(folder / "recipe.json"))
    metrics = read_json(folder / "metrics.json") if (folder / "metrics.json").is_file() else {}
    return {"what": "a classifier, to predict with", "status": "finished", "output": config.target.kind,
            "classes": config.target.classes, "language": config.lang, "text": config.text, "label": config.label,
            **_made(recipe.to_dict(), config.directions), "trained_on": config.data, "metrics": metrics,
            **_files(folder, config.digests)}


def _of_run(folder: Path) -> dict[str, Any]:
    from .._schema import RUN, read_checked
    from ..results.folder import identity_of

    run = read_checked(folder / "run.json", RUN)
    refuse_damaged(folder, run.get("digests"), "run.json")
    data, recipe = run.get("data") or {}, run.get("recipe") or {}
    what = "a run" if list(folder.glob("classifier_*.safetensors")) else (
        "a language model, to start from" if list(folder.glob("[pl]*_*ward.safetensors")) else "a run without weights")
    labels = data.get("labels") or {}
    start = {d: about.get("name") for d, about in (run.get("weights") or {}).items() if isinstance(about, dict)}
    return {"what": what, "status": run.get("status"), "output": labels.get("kind"),
            "classes": labels.get("classes") or data.get("classes"),
            "language": identity_of(folder, run).get("lang", "en"),
            **_made(recipe, recipe.get("directions") or ()), "started_from": start, "trained_on": data,
            "metrics": run.get("metrics") or {},
            **_files(folder, run.get("digests") or {})}


def _made(recipe: dict[str, Any], directions: Any) -> dict[str, Any]:
    sizes = {name: (recipe.get("model") or {}).get(name) for name in ("emb_sz", "n_hid", "n_layers")}
    return {"recipe": recipe.get("name"), "directions": directions, "sizes": sizes, "weights": recipe.get("weights")}


def _files(folder: Path, recorded: dict[str, str]) -> dict[str, Any]:
    """The files of weights and words with their sizes, and the digests that the record has, or else those they have."""
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    names += [name for name in ("vocab.json", "spm.model") if (folder / name).is_file()]
    return {"files": {name: (folder / name).stat().st_size for name in names},
            "digests": recorded or digests_of(folder, names), "digests_recorded": bool(recorded)}


def in_words(found: dict[str, Any]) -> list[str]:
    """What `about_folder` found, a line a thing."""
    data, sizes = found["trained_on"], found["sizes"]
    start = found.get("started_from") or data.get("weights") or {}
    source = str(data.get("source") if data.get("name") == "custom" else data.get("name") or "texts")
    counts = {name: number for name, number in (data.get("splits") or data.get("counts") or {}).items() if number}
    lines = {
        "what": f"{found['what']}, {found['status']}",
        "classes": shown(found["classes"]) if found["classes"] else "",
        "output": {"regression": "a number", "multi": "any number of classes", "single": "one class"}.get(
            found["output"] or "", ""),
        "language": found["language"],
        "text, label": f"{shown(found['text'])}, {found['label']}" if found.get("text") else "",
        "recipe": f"{found['recipe']}, {' and '.join(found['directions'])}" if found["recipe"] else "",
        "sizes": f"AWD-LSTM {sizes['emb_sz']}/{sizes['n_hid']}/{sizes['n_layers']}" if sizes["emb_sz"] else "",
        "started from": shown(sorted({str(one) for one in start.values()})) or (
            "random numbers" if found["weights"] == "pretrain" else found["weights"]),
        "trained on": ", ".join([source, *(f"{n:,} {name}" for name, n in counts.items())]),
        "fingerprint": data.get("fingerprint") or "",
    }
    words = [f"{name:<13} {value}" for name, value in lines.items() if value]
    words += [f"{name}  {megabytes(size)}  {found['digests'].get(name, '')}".rstrip()
              for name, size in found["files"].items()]
    return [*words, "every file is what its record says" if found["digests_recorded"] else
            "no digests were recorded: those shown are of the files as they are"]


MODELS = (
    Command("generate", generate, (
        option("prompts", nargs="*", metavar="PROMPT", help="how a text begins, in quotes; several: a text for each"),
        option("--weights", default="wiki-small", metavar="NAME",
               help="the language model: wiki-small, english-small, wt103 (downloaded if need be), a run "
                    "folder or a weights file (default: %(default)s)"),
        option("--direction", default="forward", choices=("forward", "backward"),
               help="which of its models (default: %(default)s)"),
        option("--number", type=int, default=1, metavar="N", help="texts for each prompt (default: %(default)s)"),
        option("--tokens", type=int, default=40, metavar="N", help="how many are drawn (default: %(default)s)"),
        option("--temperature", type=float, default=0.8, metavar="T",
               help="below 1: likelier words (default: %(default)s)"),
        option("--top-k", type=int, default=50, metavar="N",
               help="each token is one of so many of the most probable (default: %(default)s)"),
        option("--seed", type=int, default=0, metavar="N", help="seed of everything random (default: %(default)s)"),
        JSON)),
    Command("info", info, (
        option("model", metavar="MODEL", help="a folder that `train` made, or any run folder"), JSON)),
)
