"""Stock fastai and this package side by side: `python -m benchmarks [--data imdb.tgz] [--device cuda]`.

Every stage checks first that both give the same numbers, then lets them take turns. A stage that is done is kept in
--work and not measured again (--fresh does); the whole ends as benchmark.json, benchmark.md and two figures in --out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ulmfit_fastai._files import read_json, write_json_atomic
from ulmfit_fastai.results.environment import describe_device, now, versions

from . import children, classifier, lm, precision, report, tokens
from .material import QUICK, Setup, Sizes
from .measure import Record

log = logging.getLogger("benchmarks")
ROOT = Path(__file__).parents[1]
STAGES: dict[str, Callable[[Setup], list[Record]]] = {
    "tokens": tokens.tokens, "second": tokens.second_start, "batches": lm.lm_batches, "lm": lm.lm_steps,
    "classifier": classifier.classifier_steps, "evaluation": classifier.evaluation, "predict": classifier.one_text,
    "memory": children.memory, "imports": children.imports, "precision": precision.precision, "scale": children.scale,
}


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="IMDb, a folder or a .tgz; without it made-up reviews are measured")
    parser.add_argument("--model", type=Path, help="a finished run's folder: what each number format costs it")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"),
                        help="for benchmark.json, benchmark.md and the figures; default: runs/benchmark")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-work"),
                        help="token stores and finished stages")
    parser.add_argument("--only", action="append", choices=list(STAGES), help="this stage (may be given several times)")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, in this process: to see that all runs")
    parser.add_argument("--repeats", type=int, help="repeats of each comparison; default: 5, fewer where one is long")
    parser.add_argument("--threads", type=int, help="CPU threads of torch; default: torch's")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # a stage's own process
    parser.add_argument("--child", help=argparse.SUPPRESS)  # a measurement's own process
    args = parser.parse_args(given)
    for name in ("data", "model", "work"):
        if getattr(args, name) is not None:
            setattr(args, name, getattr(args, name).resolve())
    return args


def setup_of(args: argparse.Namespace) -> Setup:
    if args.threads:
        torch.set_num_threads(args.threads)
    sizes = QUICK if args.quick else Sizes()
    if args.repeats:
        sizes = replace(sizes, repeats=args.repeats)
    return Setup(sizes, args.work, args.data, torch.device(args.device),
                 args.model)


def part_file(args: argparse.Namespace, stage: str) -> Path:
    """Where a stage's result is kept: named by all that it depends on but the machine."""
    key = json.dumps([stage, str(args.data), str(args.device), args.quick, str(args.model), args.threads,
                      args.repeats])
    return args.work / "parts" / f"{stage}-{hashlib.sha256(key.encode()).hexdigest()[:8]}.json"


def load_average() -> list[float]:
    """Processes that want a core, over 1, 5 and 15 minutes: above the number of cores a time means little."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else []


def git_commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, cwd=ROOT)
        return done.stdout.strip() if done.returncode == 0 else ""

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "ulmfit_fastai", "benchmarks")
    return git("rev-parse", "HEAD") + (" with changes" if changed else "")


def run_stage(args: argparse.Namespace, stage: str) -> None:
    """Measure a stage and keep what was found, all at once."""
    before, started = load_average(), time.perf_counter()
    setup = setup_of(args)
    torch.manual_seed(0)
    rows = STAGES[stage](setup)
    record = {"stage": stage, "rows": rows, "load_before": before, "load_after": load_average(),
              "seconds": time.perf_counter() - started, "at": now(), "commit": git_commit(),
              "synthetic": setup.data is None}
    path = part_file(args, stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(path, record)


def own_process(args: argparse.Namespace, stage: str) -> None:
    """A stage in a process of its own: none inherits another's memory, and one that fails stops none."""
    words = ["--only", stage, "--here", "--device", args.device, "--work", str(args.work)]
    for name in ("data", "model", "threads", "repeats"):
        if getattr(args, name) is not None:
            words += [f"--{name}", str(getattr(args, name))]
    words += ["--quick"] * args.quick
    if subprocess.run([sys.executable, "-m", "benchmarks", *words], cwd=ROOT).returncode:
        log.error("stage %s failed; the same command tries it again", stage)


def gather(args: argparse.Namespace, parts: dict[str, Record], wall: float | None) -> Record:
    """All that is needed to read the numbers, and the numbers. `wall`: seconds of the command where it did all."""
    device = torch.device(args.device)
    return {
        "schema": 1, "made": now(), "command": "python -m benchmarks " + shlex.join(sys.argv[1:]),
        "commit": git_commit(), "versions": versions(), "device": describe_device(device), "quick": args.quick,
        "data": "synthetic" if args.data is None else args.data.name, "stages": parts,
        "seconds": sum(part["seconds"] for part in parts.values()), "wall_seconds": wall,
    }


def main(given: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    args, started, kept = arguments(given), time.perf_counter(), False
    if args.child:
        print(json.dumps(children.answer(setup_of(args), json.loads(args.child))))
        return 0
    wanted = [stage for stage in args.only or STAGES if stage != "precision" or args.model]
    if args.here:
        run_stage(args, wanted[0])
        return 0
    for stage in wanted:
        if args.fresh:
            part_file(args, stage).unlink(missing_ok=True)
        if part_file(args, stage).exists():
            log.info("%s: there already", stage)
            kept = True
            continue
        log.info("%s ...", stage)
        (run_stage if args.quick else own_process)(args, stage)
    parts: dict[str, Any] = {stage: read_json(part_file(args, stage)) for stage in STAGES
                             if part_file(args, stage).exists()}
    whole = set(parts) == set(wanted) and not (kept or args.only)
    found = gather(args, parts, time.perf_counter() - started if whole else None)
    report.write(found, args.out)
    print(report.table(found))
    return 0 if all(stage in parts for stage in wanted) else 1


if __name__ == "__main__":
    raise SystemExit(main())
