"""The GPU jobs, each one command, time-boxed and resumable: `python -m benchmarks.gpu.jobs JOB --out FOLDER`.

Packs (see pack.py) lie in --packs, work in progress in --work, on the GPU's machine; what is worth keeping comes back
in --out: run.json, history, rates, predictions (ids and probabilities, no texts); with --weights the pretrained weights
too, in 8 bits and in pieces of at most 15 MB, which `python -m benchmarks.gpu.jobs join FOLDER` puts together again.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.losses import CrossEntropyLossFlat

from benchmarks.gpu.packs import read_pack, smaller_vocab
from ulmfit_fastai._files import sealed, write_bytes_atomic, write_json_atomic
from ulmfit_fastai.experiments.tables import ablate
from ulmfit_fastai.model.fast.awd_lstm import cudnn_has_bf16_lstm
from ulmfit_fastai.model.layers import build_language_model
from ulmfit_fastai.model.losses import FusedCrossEntropy, linear_cross_entropy
from ulmfit_fastai.model.precision import resolve
from ulmfit_fastai.model.weights import LMWeights
from ulmfit_fastai.recipe.fitting import with_epochs
from ulmfit_fastai.recipe.parts import DIRECTIONS, Dropouts, Model, Phase
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.results.averaging import average_runs
from ulmfit_fastai.results.environment import describe_device, versions
from ulmfit_fastai.results.result import Result
from ulmfit_fastai.training.corpus import GeneralText, general_lm
from ulmfit_fastai.training.estimate import Plan, time_phase
from ulmfit_fastai.training.pretraining import pretrain_on
from ulmfit_fastai.training.runs import plan_run, run
from ulmfit_fastai.training.session import Conditions
from ulmfit_fastai.training.stage_one import SIZES, pretraining

log = logging.getLogger("jobs")
PIECE = 15 * 2**20


def stage_1(args: argparse.Namespace, size: str, direction: str) -> tuple[Recipe, GeneralText]:
    """The articles' pack, and the recipe for a model of this size."""
    ids, _, about = read_pack(args.packs / "wiki")
    model, vocab = SIZES[size]
    vocab = args.words or vocab
    if args.tiny:
        model, vocab = replace(model, emb_sz=16, n_hid=24, n_layers=2), 1000
    recipe = pretraining(size, model=model, max_vocab=vocab, epochs=args.epochs, bs=args.bs, precision=args.precision,
                         directions=(direction,), sampled_words=args.sampled, **({"lr": args.lr} if args.lr else {}))
    data = {"name": ", ".join(about["corpus"]), "fingerprint": about["fingerprint"]}
    return recipe, GeneralText(smaller_vocab(ids, vocab), np.arange(about["train"]), np.arange(*about["valid"]), data)


def pretrain(args: argparse.Namespace, size: str, direction: str) -> None:
    """Stage 1 on the articles' pack: epochs and rate from the command line, so that a schedule ends within the box."""
    recipe, text = stage_1(args, size, direction)
    out = args.work / f"{size}-{direction}"
    pretrain_on(text, recipe, out, Conditions.of(time_budget=args.seconds, device=args.device, progress=False,
                                                 checkpoint_every=120))
    bring_back(out, args.out / f"{size}-{direction}", weights=args.weights or size == "small")


def imdb(args: argparse.Namespace, direction: str) -> None:
    """LM fine-tuning and classifier on IMDb from this machine's full-size stage 1, the `fastai` recipe."""
    ids, dataset, _ = read_pack(args.packs / "imdb")
    assert dataset is not None
    out = args.work / f"imdb-{direction}"
    run(base_recipe(args, "imdb", len(ids.vocab), direction), dataset, out, ids=ids, time_budget=args.seconds,
        device=args.device, progress=False, checkpoint_every=120)
    bring_back(out, args.out / f"imdb-{direction}")


def imdb_both(args: argparse.Namespace) -> None:
    """The paper's figure: both directions' predictions averaged. Needs no GPU, and takes what is in --work."""
    result = average_runs([args.work / f"imdb-{direction}" for direction in DIRECTIONS], args.work / "imdb-both")
    bring_back(args.work / "imdb-both", args.out / "imdb-both")
    print(result)


def tables(args: argparse.Namespace, task: str) -> None:
    """Tables 4, 6 and 7 of the task from this machine's forward stage 1, as far as the box goes; rows are kept."""
    ids, dataset, _ = read_pack(args.packs / task)
    assert dataset is not None
    base = base_recipe(args, task, len(ids.vocab), "forward")
    ends, out = time.monotonic() + args.seconds, args.work / f"tables-{task}"
    for table in args.tables.split(","):
        ablate(table, dataset, base=base, ids=ids, seeds=args.seeds, out=out, device=args.device, progress=False,
               time_budget=max(ends - time.monotonic(), 0.0))
        (args.out / out.name).mkdir(parents=True, exist_ok=True)
        for kind in ("csv", "json", "png", "svg"):
            shutil.copy(out / f"{table}.{kind}", args.out / out.name / f"{table}.{kind}")


def base_recipe(args: argparse.Namespace, task: str, words: int, direction: str) -> Recipe:
    """The recipe `fastai` in one direction, from this machine's full-size stage 1; `tiny` for a rehearsal."""
    weights, changes = str(args.work / f"full-{direction}"), json.loads(args.set)
    if args.tiny:
        return preset("tiny", task).replace(directions=(direction,), weights=weights,
                                            **{"model.emb_sz": 16, "model.n_hid": 24, **changes})
    return preset("fastai", task).replace(weights=weights, directions=(direction,), precision=args.precision,
                                          max_vocab=words, **changes,
                                          min_freq=preset("paper-small", task).min_freq)


def both_language_models(args: argparse.Namespace) -> None:
    """Fine-tuned language models of both directions, each in half of the box; classifiers are a CPU's work.

    Batches of 512 streams, 30,000 words, a sample of 2,048 and 2,048 of them in the loss, unless told otherwise. What
    comes home is, for each direction, a folder for `--lm-from` and the recipe that goes with it (`join` first).
    """
    ends = time.monotonic() + args.seconds
    args.sampled, args.words, args.lr = args.sampled or 2048, args.words or 30_000, args.lr or 8e-3
    if not args.tiny:
        args.bs = 512
        args.set = json.dumps({"lm.bs": 512, "lm.sampled_words": args.sampled, **json.loads(args.set)})
    for left, direction in zip((2, 1), DIRECTIONS, strict=True):
        args.seconds = max(0.0, ends - time.monotonic()) / left
        in_a_box(args, direction, classify=False)


def in_a_box(args: argparse.Namespace, direction: str, *, classify: bool = True) -> None:
    """Stage 1, LM fine-tuning, classifier and test error of one direction in one box, each as long as fits.

    A few batches of each are timed first. Stage 1 gets --share of the time, or what the least of the rest leaves it;
    then the LM gets as many epochs as fit, then the classifier, by how long the LM really took. A tenth stays free.
    What was chosen is kept in box-DIRECTION.json, and the same command goes on with it. `classify=False` ends with the
    language model, and brings it home.
    """
    ends = time.monotonic() + args.seconds
    kept = args.work / f"box-{direction}.json"
    chosen: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    device, folders = torch.device(args.device), {name: args.work / f"{name}-{direction}"
                                                  for name in ("full", "lm", "imdb")}

    def left() -> float:
        return max(0.0, ends - time.monotonic())

    def choose(**numbers: Any) -> None:
        chosen.update(numbers)
        log.info("%s; %.0f s left", chosen, left())
        for folder in (args.work, args.out):
            write_json_atomic(folder / kept.name, chosen, indent=None)

    ids, dataset, _ = read_pack(args.packs / "imdb")
    assert dataset is not None
    base = base_recipe(args, "imdb", len(ids.vocab), direction)
    assert base.lm is not None
    if "seconds" not in chosen:
        plan = plan_run(base, dataset, ids=ids, device=device)
        choose(seconds={"lm": costs(plan, "lm", base.lm), "classifier": costs(plan, "classifier", base.classifier),
                        "test": plan.test_seconds})
    lm, classifier, test = (chosen["seconds"][name] for name in ("lm", "classifier", "test"))
    if not classify:
        classifier, test = (0.0, 0.0), 0.0
    if not finished(folders["full"]):
        recipe, text = stage_1(args, "full", direction)
        if "articles" not in chosen:
            least = sum(whole - (phase.stages[-1].epochs - 1) * epoch
                        for (whole, epoch), phase in ((lm, base.lm), (classifier, base.classifier)))
            seconds = min(args.share * args.seconds, 0.9 * left() - least - test)
            if seconds < 0.1 * args.seconds:
                log.warning("too small a box: LM, classifier and test take %.0f s at least", least + test)
            fits = what_fits(recipe, text, direction, device, max(seconds, 0.0))
            choose(**fits | {"pretrain_epochs": min(fits["pretrain_epochs"], args.most)})
        assert recipe.pretrain is not None
        recipe = replace(recipe, pretrain=with_epochs(recipe.pretrain, chosen["pretrain_epochs"]))
        pretrain_on(replace(text, train=text.train[: chosen["articles"]]), recipe, folders["full"],
                    Conditions.of(time_budget=left(), device=device, progress=False, checkpoint_every=120))
        bring_back(folders["full"], args.out / folders["full"].name, weights=args.weights or not classify, rates=False)
    if not finished(folders["full"]):
        return log.info("stopped in stage 1: the same command goes on")
    how: dict[str, Any] = {"ids": ids, "device": device, "progress": False, "checkpoint_every": 120}
    if "lm_epochs" not in chosen:
        choose(lm_epochs=fitting(0.9 * left() - classifier[0] - test, lm, base.lm))
    most = base.lm.stages[-1].epochs
    base = replace(base, lm=with_epochs(base.lm, chosen["lm_epochs"]))
    started = left()
    run(base, dataset, folders["lm"], until="lm", time_budget=left(), **how)
    if not finished(folders["lm"]):
        return log.info("stopped in LM fine-tuning: the same command goes on")
    if not classify:
        base.save(args.out / folders["lm"].name / "recipe.json")
        return bring_back(folders["lm"], args.out / folders["lm"].name, weights=True)
    if "classifier_epochs" not in chosen:
        planned = lm[0] - (most - chosen["lm_epochs"]) * lm[1]
        slower = max(1.0, (started - left()) / max(planned, 1e-9))
        choose(classifier_epochs=fitting(0.9 * left() / slower - test, classifier, base.classifier))
    base = replace(base, classifier=with_epochs(base.classifier, chosen["classifier_epochs"]))
    try:
        run(base, dataset, folders["imdb"], lm_from={direction: folders["lm"]}, time_budget=left(), **how)
    finally:
        bring_back(folders["imdb"], args.out / folders["imdb"].name)
    log.info("%s", Result.load(folders["imdb"]) if finished(folders["imdb"]) else
             "stopped in the classifier: the same command goes on")


def what_fits(recipe: Recipe, text: GeneralText, direction: str, device: torch.device,
              seconds: float) -> dict[str, int]:
    """How many articles, and how often, the language model can read in this time; twenty articles at least."""
    phase = recipe.pretrain
    assert phase is not None
    learn = general_lm(text, recipe.model_for("pretrain"), phase, direction, seed=recipe.seed,
                       precision=recipe.precision, device=device)
    stage, = time_phase(learn, phase)
    read = np.cumsum(text.ids.lengths[text.train])
    speed = phase.epochs * read[-1] / stage["seconds"]
    log.info("stage 1: %.0f tokens a second", speed)
    epochs = int(seconds * speed // read[-1])
    return {"articles": len(read) if epochs else max(20, int(np.searchsorted(read, seconds * speed, side="right"))),
            "pretrain_epochs": max(1, epochs)}


def costs(plan: Plan, name: str, phase: Phase) -> tuple[float, float]:
    """Seconds of a phase, and of an epoch of its last stage."""
    stages = [stage for stage in plan.stages if stage["phase"] == name]
    return sum(stage["seconds"] for stage in stages), stages[-1]["seconds"] / phase.stages[-1].epochs


def fitting(seconds: float, cost: Sequence[float], phase: Phase) -> int:
    """Epochs of a phase's last stage for which it takes so many seconds; between one and what it has. Cost: `costs`."""
    most, (whole, epoch) = phase.stages[-1].epochs, cost
    return min(most, max(1, most + int((seconds - whole) // epoch)))


def finished(folder: Path) -> bool:
    return (folder / "run.json").exists() and json.loads((folder / "run.json").read_text())["status"] == "finished"


def smoke(args: argparse.Namespace) -> None:
    """What number formats this GPU has for LSTMs, and what they cost: a minute, before the long jobs.

    The gradients of one LM step without dropout, the loss in fp32, beside those of fp32: the largest relative distance
    of a parameter. Stock's under bf16 autocast show what fp16 LSTMs make of a loss that is not scaled. Exit code 1
    where ours are far off or not finite.
    """
    device = torch.device(args.device)
    quiet = replace(Model(), lm_dropouts=Dropouts(0.0, 0.0, 0.0, 0.0, 0.0))
    model = replace(quiet, emb_sz=16, n_hid=24, n_layers=2) if args.tiny else quiet
    vocab, bs = (1000, 8) if args.tiny else (60_000, 128)
    x = torch.randint(2, vocab, (bs, 71), device=device)
    exact = gradients(model, vocab, x, fast=True, dtype=None)
    types = {"ours bf16": (True, torch.bfloat16, 1.0), "stock fp32": (False, None, 1.0),
             "stock bf16": (False, torch.bfloat16, 1.0)}
    found: dict[str, Any] = {"device": describe_device(device), "versions": versions()}
    if device.type == "cuda":  # a CPU has no fp16 LSTM
        types |= {f"{who} fp16": (who == "ours", torch.float16, 2.0**14) for who in ("ours", "stock")}
        found |= {"cudnn": torch.backends.cudnn.version(), "bf16 LSTM": cudnn_has_bf16_lstm(device),
                  "auto": resolve("auto", device)}
    tried = [(name, fast, exact, gradients(model, vocab, x, fast=fast, dtype=dtype, scale=scale))
             for name, (fast, dtype, scale) in types.items()]
    whole = loss_gradients(vocab, model.emb_sz, device, None)
    tried += [(f"loss {str(dtype)[6:]}", True, whole, loss_gradients(vocab, model.emb_sz, device, dtype))
              for dtype in (torch.bfloat16, torch.float16) if dtype is torch.bfloat16 or device.type == "cuda"]
    good = True
    for name, fast, right, grads in tried:
        apart = {key: float((grads[key] - grad).norm() / grad.norm()) for key, grad in right.items()}
        bad = [key for key, value in apart.items() if not np.isfinite(value)]
        worst = bad[0] if bad else max(apart, key=apart.__getitem__)
        found[name] = {"worst": None if bad else apart[worst], "of": worst, "not finite": len(bad)}
        good &= not fast or not bad and apart[worst] < 0.05
        log.info("%s: %s", name, found[name])
    write_json_atomic(args.out / "smoke.json", found)
    if not good:
        raise SystemExit("gradients of ours are more than 5 % from those in fp32: look at smoke.json")


def gradients(model: Model, vocab: int, x: torch.Tensor, *, fast: bool, dtype: torch.dtype | None,
              scale: float = 1.0) -> dict[str, torch.Tensor]:
    """Gradients of one step's mean loss, by the parameter's name, in fp32."""
    torch.manual_seed(0)
    net = build_language_model(vocab, model, fast=fast).to(x.device).train()
    loss = FusedCrossEntropy(net[1]) if fast else CrossEntropyLossFlat()
    if fast:
        net[1].fused = True
    net.reset()
    with torch.autocast(x.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        hidden = net[0](x[:, :-1])
    (loss(net[1](hidden.float())[0], x[:, 1:]) * scale).backward()
    return {name: p.grad.float() / scale for name, p in net.named_parameters() if p.grad is not None}


def loss_gradients(vocab: int, features: int, device: torch.device, dtype: torch.dtype | None
                   ) -> dict[str, torch.Tensor]:
    """Gradients of the loss over all words whose products are in `dtype`; None: plain torch in fp32."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(1000, features, device=device), torch.randn(vocab, features, device=device)
    bias, target = torch.randn(vocab, device=device), torch.randint(0, vocab, (1000,), device=device)
    parts = {"hidden": hidden, "weight": weight.mul_(features**-0.5), "bias": bias}
    for part in parts.values():
        part.requires_grad_()
    loss = (torch.nn.functional.cross_entropy(torch.nn.functional.linear(hidden, weight, bias), target)
            if dtype is None else linear_cross_entropy(hidden, weight, bias, target, matmul_dtype=dtype))
    (loss * 1000).backward()
    return {name: part.grad.float() for name, part in parts.items() if part.grad is not None} | {"loss": loss.detach()}


def throughput(args: argparse.Namespace) -> None:
    """Tokens a second of one LM step: stock fastai, ours, and the bare LSTMs as a floor; interleaved, median of 7."""
    device = torch.device(args.device)
    model = Model(emb_sz=16, n_hid=24, n_layers=2) if args.tiny else Model()
    vocab, bptt = (1000, 10) if args.tiny else (30_000, 70)
    rows = []
    for bs in (64, 128, 256, 512):
        x = torch.randint(2, vocab, (bs, bptt + 1), device=device)
        steps = {"stock fp32": step(model, vocab, x, fast=False, autocast=False),
                 "ours fp32": step(model, vocab, x, fast=True, autocast=False)}
        if device.type == "cuda":
            steps["stock bf16"] = step(model, vocab, x, fast=False, autocast=True)
            steps["ours bf16"] = step(model, vocab, x, fast=True, autocast=True)
        steps["bare LSTMs"] = bare(model, x, autocast=device.type == "cuda")
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(7):
            for name, one in steps.items():
                times[name].append(timed(one, device))
        for name, seconds in times.items():
            middle = float(np.median(seconds))
            rows.append({"bs": bs, "what": name, "seconds": middle, "spread": float(np.ptp(seconds)),
                         "tokens_a_second": bs * bptt / middle})
            log.info("%s", rows[-1])
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    measured = {"device": name, "torch": torch.__version__, "rows": rows}
    write_json_atomic(args.out / "throughput.json", measured)


def step(model: Model, vocab: int, x: torch.Tensor, *, fast: bool, autocast: bool) -> Any:
    net = build_language_model(vocab, model, fast=fast).to(x.device).train()
    loss = FusedCrossEntropy(net[1]) if fast else None
    if fast:
        net[1].fused = True
    optimizer = torch.optim.Adam(net.parameters(), fused=fast)
    net.reset()

    def one() -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
            out = net(x[:, :-1])[0]
            value = loss(out, x[:, 1:]) if loss else torch.nn.functional.cross_entropy(
                out.flatten(0, 1).float(), x[:, 1:].flatten())
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return one


def bare(model: Model, x: torch.Tensor, *, autocast: bool) -> Any:
    sizes = [model.emb_sz, *[model.n_hid] * (model.n_layers - 1), model.emb_sz]
    layers = [torch.nn.LSTM(a, b, batch_first=True).to(x.device) for a, b in zip(sizes, sizes[1:])]
    inputs = torch.randn(x.shape[0], x.shape[1] - 1, model.emb_sz, device=x.device, requires_grad=True)

    def one() -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
            out = inputs
            for layer in layers:
                out = layer(out)[0]
        out.float().sum().backward()

    return one


def timed(one: Any, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    one()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def bring_back(folder: Path, out: Path, *, weights: bool = False, rates: bool = True) -> None:
    """What is worth keeping of a run folder, in files of at most 15 MB; language models in 8 bits."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("history.csv", "predictions.csv", "vocab.json", *["rates.csv"] * rates):
        if (folder / name).exists():
            shutil.copy(folder / name, out / name)
    if (folder / "run.json").exists():
        record = json.loads((folder / "run.json").read_text("utf8"))
        record |= {"digests": {}}  # weights come in another form than it notes
        write_json_atomic(out / "run.json", sealed(record))
    kinds = [kind for kind in ("lm", "pretrain") if weights and list(folder.glob(f"{kind}_*.safetensors"))]
    for path in folder.glob(f"{kinds[0]}_*.safetensors") if kinds else ():
        small = LMWeights.load(path).save(folder / "small" / path.name, dtype="int8")
        for file in (small, small.with_name(f"{small.stem}.vocab.json")):
            content = file.read_bytes()
            for number, at in enumerate(range(0, len(content), PIECE)):
                write_bytes_atomic(out / f"{file.name}.{number:02d}", content[at : at + PIECE])


def join(folder: Path) -> None:
    """Put the pieces that came back together again."""
    for first in sorted(folder.rglob("*.00")):
        whole = first.with_suffix("")
        pieces = sorted(whole.parent.glob(whole.name + ".[0-9][0-9]"))
        write_bytes_atomic(whole, b"".join(piece.read_bytes() for piece in pieces))
        print(whole)


JOBS = {
    "smoke": smoke,
    "throughput": throughput,
    "forward": lambda args: in_a_box(args, "forward"),
    "backward": lambda args: in_a_box(args, "backward"),
    "both-lms": both_language_models,
    "small-forward": lambda args: pretrain(args, "small", "forward"),
    "small-backward": lambda args: pretrain(args, "small", "backward"),
    "full-forward": lambda args: pretrain(args, "full", "forward"),
    "full-backward": lambda args: pretrain(args, "full", "backward"),
    "imdb-forward": lambda args: imdb(args, "forward"),
    "imdb-backward": lambda args: imdb(args, "backward"),
    "imdb-both": imdb_both,
    "tables-trec6": lambda args: tables(args, "trec6"),
    "tables-imdb": lambda args: tables(args, "imdb"),
}


def main(argv: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=[*JOBS, "join"])
    parser.add_argument("folder", nargs="?", type=Path, help="for join: the folder that came back")
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--packs", type=Path, default=Path(".gpu"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/ulmfit"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--bs", type=int, default=256)
    parser.add_argument("--set", default="{}", help="recipe fields as JSON, for the imdb jobs and the tables")
    parser.add_argument("--tables", default="table7,table6,table4", help="which tables, in this order")
    parser.add_argument("--seeds", type=int, default=1, help="of the tables")
    parser.add_argument("--share", type=float, default=0.42, help="of the box for stage 1, in forward and backward")
    parser.add_argument("--weights", action="store_true", help="bring the pretrained weights back too")
    parser.add_argument("--tiny", action="store_true", help="rehearse at a size that learns nothing")
    parser.add_argument("--most", type=int, default=10, help="epochs of stage 1 at most, where they are chosen")
    parser.add_argument("--words", type=int, help="of stage 1's vocabulary (default: its size's)")
    parser.add_argument("--sampled", type=int, help="words that always compete in stage 1's loss, and as many drawn")
    parser.add_argument("--lr", type=float, help="stage 1's peak rate")
    args = parser.parse_args(argv)
    args.seconds = 60 * args.minutes
    if args.job == "join":
        join(args.folder)
    else:
        JOBS[args.job](args)


if __name__ == "__main__":
    main()
