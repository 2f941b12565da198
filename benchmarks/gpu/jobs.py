"""The GPU jobs, each one command, time-boxed and resumable: `python benchmarks/gpu/jobs.py JOB --out FOLDER`.

Packs (see pack.py) lie in --packs, work in progress in --work, on the GPU's machine; what is worth keeping comes back
in --out: run.json, history, rates, predictions (ids and probabilities, no texts) and weights in a smaller type, in
pieces of at most 15 MB, which `python benchmarks/gpu/jobs.py join FOLDER` puts together again.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ulmfit_fastai import weights as weight_files
from ulmfit_fastai.averaging import average_runs
from ulmfit_fastai.experiments import ablate
from ulmfit_fastai.layers import FusedCrossEntropy, build_language_model
from ulmfit_fastai.packs import read_pack, smaller_vocab
from ulmfit_fastai.presets import preset
from ulmfit_fastai.pretraining import SIZES, pretrain_ids, pretraining
from ulmfit_fastai.recipe import DIRECTIONS, Model, Recipe
from ulmfit_fastai.runs import run

log = logging.getLogger("jobs")
PIECE = 15 * 2**20


def pretrain(args: argparse.Namespace, size: str, direction: str) -> None:
    """Stage 1 on the articles' pack: epochs and rate from the command line, so that a schedule ends within the box."""
    ids, _, about = read_pack(args.packs / "wiki")
    model, vocab = SIZES[size]
    changes: dict[str, Any] = {"epochs": args.epochs, "bs": args.bs, "precision": args.precision}
    if args.tiny:
        model, vocab = replace(model, emb_sz=16, n_hid=24, n_layers=2), 1000
    recipe = pretraining(size, model=model, max_vocab=vocab, **changes)
    out = args.work / f"{size}-{direction}"
    pretrain_ids(smaller_vocab(ids, vocab), train=np.arange(about["train"]), valid=np.arange(*about["valid"]),
                 recipe=recipe, directions=(direction,), out=out, data={"name": ", ".join(about["corpus"]),
                 "fingerprint": about["fingerprint"]}, time_budget=args.seconds, device=args.device, progress=False,
                 checkpoint_every=120)
    bring_back(out, args.out / f"{size}-{direction}", dtype="float16" if size == "full" else "int8")


def imdb(args: argparse.Namespace, direction: str) -> None:
    """LM fine-tuning and classifier on IMDb from this machine's full-size stage 1, the `fastai` recipe."""
    ids, dataset, _ = read_pack(args.packs / "imdb")
    out = args.work / f"imdb-{direction}"
    run(base_recipe(args, "imdb", len(ids.vocab), direction), dataset, out, ids=ids, time_budget=args.seconds,
        device=args.device, progress=False, baseline=False, checkpoint_every=120)
    bring_back(out, args.out / f"imdb-{direction}", dtype="float16")


def imdb_both(args: argparse.Namespace) -> None:
    """The paper's figure: both directions' predictions averaged. Needs no GPU, and takes what is in --work."""
    result = average_runs([args.work / f"imdb-{direction}" for direction in DIRECTIONS], args.work / "imdb-both")
    bring_back(args.work / "imdb-both", args.out / "imdb-both", dtype="float16")
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
    args.out.mkdir(parents=True, exist_ok=True)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    measured = {"device": name, "torch": torch.__version__, "rows": rows}
    (args.out / "throughput.json").write_text(json.dumps(measured, indent=1))


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


def bring_back(folder: Path, out: Path, *, dtype: str) -> None:
    """What is worth keeping of a run folder, in files of at most 15 MB; weights in a smaller type."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("run.json", "history.csv", "rates.csv", "predictions.csv"):
        if (folder / name).exists():
            shutil.copy(folder / name, out / name)
    for path in folder.glob("pretrain_*.safetensors"):
        small = weight_files.save(weight_files.load_file(path), folder / "small" / path.name, dtype=dtype)
        for file in (small, small.with_name(f"{small.stem}.vocab.json")):
            content = file.read_bytes()
            for number, at in enumerate(range(0, len(content), PIECE)):
                (out / f"{file.name}.{number:02d}").write_bytes(content[at : at + PIECE])


def join(folder: Path) -> None:
    """Put the pieces that came back together again."""
    for first in sorted(folder.rglob("*.00")):
        whole = first.with_suffix("")
        pieces = sorted(whole.parent.glob(whole.name + ".[0-9][0-9]"))
        whole.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
        print(whole)


JOBS = {
    "throughput": throughput,
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


def main() -> None:
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
    parser.add_argument("--tiny", action="store_true", help="rehearse at a size that learns nothing")
    args = parser.parse_args()
    args.seconds = 60 * args.minutes
    if args.job == "join":
        join(args.folder)
    else:
        JOBS[args.job](args)


if __name__ == "__main__":
    main()
