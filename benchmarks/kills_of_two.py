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
from typing import Any

from ulmfit_fastai._files import read_json

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


def finish(out: Path) -> None:
    """Let it run to its end."""
    process = start(out)
    said = process.communicate()[1]
    if process.returncode:
        raise SystemExit(said)


def sessions(out: Path) -> list[dict[str, Any]]:
    """The sessions that the run has begun."""
    return read_json(out / "run.json")["sessions"] if (out / "run.json").exists() else []


def kill_one(out: Path, after: float, chance: random.Random) -> str:
    """Start the two and kill one so many seconds after they began to train; 'said', 'silent', or 'finished' before.

    Another end of theirs is an error.
    """
    import psutil

    begun, process = len(sessions(out)), start(out)
    while len(sessions(out)) == begun and process.poll() is None:
        time.sleep(0.1)
    time.sleep(after)
    try:
        chance.choice(psutil.Process(process.pid).children()).kill()
    except (psutil.NoSuchProcess, IndexError):
        pass
    said = process.communicate()[1]
    if process.returncode == 0:
        return "finished"
    if "exitcode: -9" not in said or said.count(SAID) > 1:
        raise SystemExit(said)
    return "said" if SAID in said else "silent"


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
        finish(folder / "alone")
        seconds = sessions(folder / "alone")[0]["seconds"]
        outcomes: list[str] = []
        equal, number = True, 0
        while len(outcomes) < args.kills:
            out, after = folder / f"killed{number}", chance.uniform(0, 0.8) * seconds
            outcome = kill_one(out, after, chance)
            print(f"run {number}, {after:.1f} s of {seconds:.0f}: {outcome}", flush=True)
            outcomes += [outcome] if outcome != "finished" else []
            if outcome == "finished" or len(outcomes) == args.kills:
                finish(out)
                number += 1
                equal &= all((out / name).read_bytes() == (folder / "alone" / name).read_bytes() for name in COMPARED)
        print(f"{args.kills} kills in {number} runs, {outcomes.count('said')} of them said in one line; weights and "
              f"predictions {'equal' if equal else 'NOT EQUAL'}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
