"""A run of two processes that is killed at random moments, beside one that is left alone.

    python -m benchmarks.kills_of_two                # one training in two processes, by torchrun
    python -m benchmarks.kills_of_two --night        # the preset `night` at small size: a direction in each process

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
OF_NIGHT = ("pretrain_forward.safetensors", "pretrain_backward.safetensors", *COMPARED, "lm_backward.safetensors",
            "classifier_backward.safetensors")
SIZES = {"model.emb_sz": 32, "model.n_hid": 48, "max_vocab": 2000, "min_freq": 1, "pretrain.bs": 4, "lm.bs": 8,
         "classifier.bs": 16, "lm.sampled_words": 200, "classifier.stages.-1.epochs": 6}
"""`night` made small."""
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


def train_night(out: Path) -> None:
    """The preset `night` at small size, a direction in each of two processes."""
    import torch

    from ulmfit_fastai.recipe.presets import preset
    from ulmfit_fastai.texts.synthetic import synthetic_reviews
    from ulmfit_fastai.training.runs import run

    torch.set_num_threads(1)
    corpus = synthetic_reviews(n_train=2, n_test=2, n_unsup=60, seed=2).df["text"].tolist()
    reviews = synthetic_reviews(n_train=240, n_test=60, n_unsup=120, seed=3)
    run(preset("night").replace(**SIZES), reviews, out, corpus=corpus, device="cpu", progress=False, parallel=True,
        checkpoint_every=0.5)


def start(out: Path, night: bool) -> subprocess.Popen[str]:
    """The two: by torchrun, or one that starts the other."""
    by = [] if night else ["torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m"]
    command = [sys.executable, "-m", *by, "benchmarks.kills_of_two", "--child", str(out), *["--night"] * night]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)


def finish(out: Path, night: bool) -> None:
    """Let it run to its end."""
    process = start(out, night)
    said = process.communicate()[1]
    if process.returncode:
        raise SystemExit(said)


def sessions(out: Path) -> list[dict[str, Any]]:
    """The sessions that the run has begun."""
    return read_json(out / "run.json")["sessions"] if (out / "run.json").exists() else []


def kill_one(out: Path, after: float, chance: random.Random, night: bool) -> str:
    """Start the two and kill one so many seconds after they began to train: 'said' or 'silent' where the other ended
    with it, 'went on' where it did the other's work too, 'finished' where they had ended before.

    Another end of theirs is an error.
    """
    import psutil

    begun, process = len(sessions(out)), start(out, night)
    while len(sessions(out)) == begun and process.poll() is None:
        time.sleep(0.1)
    time.sleep(after)
    killed = None
    try:
        main = psutil.Process(process.pid)
        killed = chance.choice([main] * night + main.children())
        killed.kill()
    except (psutil.NoSuchProcess, IndexError):
        killed = None
    said = process.communicate()[1]
    if process.returncode == 0:
        return "finished" if killed is None else "went on"
    if night and process.returncode == -9:
        return "silent"
    if "exitcode: -9" not in said or said.count(SAID) > 1:
        raise SystemExit(said)
    return "said" if SAID in said else "silent"


def main() -> int:
    """Kill, go on, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--night", action="store_true", help="the preset `night` at small size")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        (train_night if args.night else train)(args.child)
        return 0
    compared = OF_NIGHT if args.night else COMPARED
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["ULMFIT_CACHE"] = str(folder / "cache")
        finish(folder / "alone", args.night)
        seconds = sessions(folder / "alone")[0]["seconds"]
        outcomes: list[str] = []
        equal, number = True, 0
        while len(outcomes) < args.kills:
            out, after = folder / f"killed{number}", chance.uniform(0, 0.8) * seconds
            outcome = kill_one(out, after, chance, args.night)
            print(f"run {number}, {after:.1f} s of {seconds:.0f}: {outcome}", flush=True)
            outcomes += [outcome] if outcome != "finished" else []
            if outcome in ("finished", "went on") or len(outcomes) == args.kills:
                finish(out, args.night)
                number += 1
                equal &= all((out / name).read_bytes() == (folder / "alone" / name).read_bytes() for name in compared)
        print(f"{args.kills} kills in {number} runs: " + ", ".join(f"{outcomes.count(one)} {one}"
              for one in sorted(set(outcomes))) + f"; weights and predictions {'equal' if equal else 'NOT EQUAL'}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
