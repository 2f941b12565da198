"""A run of two processes that is killed at random moments, beside one that is left alone.

    python -m benchmarks.kills_of_two

Each time one of the two, drawn at random, gets SIGKILL; the same command then goes on. At the end weights and
predictions must be those of the run that was left alone, bit for bit.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMPARED = ("lm_forward.safetensors", "classifier_forward.safetensors", "predictions.csv")
SAID = "one of the 2 processes ended"


def train(out: Path) -> None:
    """What each of the two does: a small run whose checkpoints come every half second."""
    import torch

    from ulmfit_fastai.recipe.presets import preset
    from ulmfit_fastai.texts.synthetic import synthetic_reviews
    from ulmfit_fastai.training.processes import LostProcess, speaks
    from ulmfit_fastai.training.runs import run

    torch.set_num_threads(1)
    longer = {"lm.stages.-1.epochs": 8, "classifier.stages.-1.epochs": 12}
    recipe = preset("tiny").replace(**{"precision": "fp32", **longer})
    reviews = synthetic_reviews(n_train=240, n_test=60, n_unsup=120, seed=3)
    try:
        run(recipe, reviews, out, device="cpu", progress=False, checkpoint_every=0.5)
    except LostProcess as error:
        if speaks():
            print(error, file=sys.stderr, flush=True)
        raise SystemExit(2) from None


def start(out: Path) -> subprocess.Popen[str]:
    """The two, by torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m",
               "benchmarks.kills_of_two", "--child", str(out)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)


def finish(out: Path) -> float:
    """Let it run to its end; the seconds that took."""
    started, process = time.monotonic(), start(out)
    said = process.communicate()[1]
    if process.returncode:
        raise SystemExit(said)
    return time.monotonic() - started


def kill_one(process: subprocess.Popen[str], after: float, chance: random.Random) -> str:
    """Kill one of the two so many seconds after both are there; returns 'finished', 'silent' or 'said'."""
    import psutil

    workers: list[psutil.Process] = []
    while len(workers) < 2 and process.poll() is None:
        workers = psutil.Process(process.pid).children()
        time.sleep(0.05)
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        try:
            chance.choice(workers).kill()
        except psutil.NoSuchProcess:
            pass
    said = process.communicate()[1]
    if process.returncode == 0:
        return "finished"
    return "said" if said.count(SAID) == 1 else "silent"


def main() -> int:
    """Kill, go on, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        train(args.child)
        return 0
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["ULMFIT_CACHE"] = str(folder / "cache")
        seconds = finish(folder / "alone")
        outcomes: list[str] = []
        equal, number = True, 0
        while len(outcomes) < args.kills:
            out = folder / f"killed{number}"
            outcome = kill_one(start(out), chance.uniform(0.1, 0.9) * seconds, chance)
            if outcome != "finished":
                outcomes.append(outcome)
            if outcome == "finished" or len(outcomes) == args.kills:
                finish(out)
                number += 1
                equal &= all((out / name).read_bytes() == (folder / "alone" / name).read_bytes() for name in COMPARED)
        print(f"{args.kills} kills in {number} runs of {seconds:.0f} s; {outcomes.count('said')} said in one line, "
              f"{outcomes.count('silent')} before the two had met; weights and predictions "
              f"{'equal' if equal else 'NOT EQUAL'}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
