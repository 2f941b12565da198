"""Is every token and every text read exactly once an epoch, by one process and by several?

    python -m benchmarks.accounting

Each number of processes trains the same small run by torchrun. What its language model was asked to predict and what
its classifier read is counted in every process, epoch by epoch, and put beside what there is to read.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

EPOCHS = {"lm.stages.-1.epochs": 2, "classifier.stages.-1.epochs": 2}


def train(out: Path) -> None:
    """What each process does; its counts go beside the run's folder."""
    import torch

    from ulmfit_fastai.recipe.presets import preset
    from ulmfit_fastai.texts.synthetic import synthetic_reviews
    from ulmfit_fastai.training.callbacks import EpochSums
    from ulmfit_fastai.training.runs import run

    torch.set_num_threads(1)
    epochs: list[dict[str, Any]] = []
    counted = EpochSums.after_batch

    def after_batch(self: EpochSums) -> None:
        counted(self)
        if not self.learn.training:
            return
        loader, target = self.learn.dls.train, self.learn.yb[0]
        if self.learn.iter == 0:
            total = len(loader.dataset) if self.classifies else int(loader.dataset.lengths.sum())
            epochs.append({"phase": "classifier" if self.classifies else "lm", "there": total, "read": Counter(),
                           "steps": 0, "streams": loader.bs})
        rank, world = loader.share if self.classifies else (0, 1)
        read = loader.batch[rank::world] if self.classifies else target.flatten()
        epochs[-1]["read"].update(map(int, read))
        epochs[-1]["steps"] += 1

    EpochSums.after_batch = after_batch  # type: ignore[method-assign]
    recipe = preset("tiny").replace(**{"precision": "fp32", "lm.bs": 6, "classifier.bs": 10, **EPOCHS})
    reviews = synthetic_reviews(n_train=243, n_test=60, n_unsup=121, seed=3)  # numbers that can't be dealt out evenly
    run(recipe, reviews, out, device="cpu", progress=False)
    rank = os.environ.get("RANK", "0")
    out.with_suffix(f".{rank}.json").write_text(json.dumps(epochs), "utf8")


def counts(processes: int, folder: Path) -> list[list[dict[str, Any]]]:
    """Epochs by process."""
    out = folder / f"by{processes}"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone", "-m",
               "benchmarks.accounting", "--child", str(out)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return [json.loads(out.with_suffix(f".{rank}.json").read_text("utf8")) for rank in range(processes)]


def together(parts: list[list[dict[str, Any]]]) -> list[tuple[dict[str, Any], Counter[int], list[int]]]:
    """Of each epoch: what one process noted, what all read, and how much each."""
    found = []
    for of_epoch in zip(*parts, strict=True):
        every = [Counter({int(key): n for key, n in part["read"].items()}) for part in of_epoch]
        found.append((of_epoch[0], sum(every, Counter()), [part.total() for part in every]))
    return found


def main() -> int:
    """Count, compare with one process, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4], metavar="N")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        train(args.child)
        return 0
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["ULMFIT_CACHE"] = str(Path(temporary) / "cache")
        alone = together(counts(1, Path(temporary)))
        for n in args.processes:
            print(f"{n} {'process' if n == 1 else 'processes'}")
            found = alone if n == 1 else together(counts(n, Path(temporary)))
            for number, ((about, read, each), (_, expected, _)) in enumerate(zip(found, alone, strict=True), 1):
                if about["phase"] == "lm":  # the first token isn't predicted, nor what a stream's length leaves over
                    wanted = (about["there"] - 1) // about["streams"] * about["streams"]
                    fits = read == expected and read.total() == wanted
                    said = f"{read.total():,} of {wanted:,} tokens predicted ({about['there']:,} there)"
                else:
                    fits = dict(read) == dict.fromkeys(range(about["there"]), 1)
                    said = f"{read.total():,} of {about['there']:,} texts read"
                wrong += not fits
                print(f"  epoch {number}, {about['phase']}, {about['steps']} steps: {said}, "
                      f"{'each once' if fits else 'NOT EACH ONCE'}; by process {each}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
