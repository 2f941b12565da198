"""What a busy machine costs `quick`: CPU seconds of its two processes with and without eight others that never rest.

    python -m benchmarks.loaded --data imdb.tgz

Both directions of the language model read the same few reviews, side by side as in a run of `quick`, in turns on the
machine as it is and with the others on it. CPU seconds, not seconds, since a share of the machine is all that one can
have; threads that wait for each other show in them. Writes data/results/loaded.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ulmfit_fastai._files import write_json_atomic
from ulmfit_fastai.results.environment import command_line, describe_device, now, versions

ROOT = Path(__file__).parents[1]
FOREVER = "while True: pass"


@contextmanager
def others(count: int) -> Iterator[None]:
    """So many processes that never rest, while this lasts."""
    started = [subprocess.Popen([sys.executable, "-c", FOREVER]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def train(data: Path, texts: int, cache: Path) -> dict[str, float]:
    """Both language models of `quick` on so many reviews, as a run makes them; CPU seconds and seconds."""
    from ulmfit_fastai.recipe.presets import preset
    from ulmfit_fastai.texts.sources import load_imdb
    from ulmfit_fastai.training.runs import run

    imdb = load_imdb(data)
    chosen = imdb.df[imdb.df["split"] == "train"].sample(texts, random_state=0).reset_index(drop=True)
    reviews = replace(imdb, df=chosen, notes=(*imdb.notes, f"{texts:,} of its training reviews"))
    with tempfile.TemporaryDirectory() as folder:
        before, started = cpu_seconds(), time.monotonic()
        run(preset("quick"), reviews, Path(folder) / "run", until="lm", parallel=True, progress=False,
            plan=False, cache=cache)
        return {"cpu_seconds": cpu_seconds() - before, "seconds": time.monotonic() - started}


def in_a_process(args: argparse.Namespace, cache: Path) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.loaded", "--data", str(args.data.resolve()),
               "--texts", str(args.texts), "--child", str(cache)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="IMDb, a folder or a .tgz")
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--others", type=int, default=8, help="processes that never rest")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=ROOT / "data" / "results")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.child:
        print(json.dumps(train(args.data, args.texts, args.child)))
        return
    found: dict[str, list[dict[str, Any]]] = {"as it is": [], "with the others": []}
    with tempfile.TemporaryDirectory() as folder:
        in_a_process(args, Path(folder))  # makes the tokens
        for _ in range(args.repeats):
            for name, count in (("as it is", 0), ("with the others", args.others)):
                with others(count):
                    found[name].append({"load": os.getloadavg()[0], **in_a_process(args, Path(folder))})
                print(f"{name}: {found[name][-1]}", flush=True)
    ratios = [busy["cpu_seconds"] / idle["cpu_seconds"]
              for idle, busy in zip(found["as it is"], found["with the others"], strict=True)]
    print(f"CPU seconds with {args.others} others, as a multiple: {statistics.median(ratios):.2f} "
          f"({min(ratios):.2f} to {max(ratios):.2f})")
    write_json_atomic(args.results / "loaded.json", {
        "command": command_line(), "date": now(), "versions": versions(),
        "device": describe_device(torch.device("cpu")),
        "texts": args.texts, "others": args.others, "measured": found, "ratios": ratios,
        "ratio": statistics.median(ratios)})


if __name__ == "__main__":
    main()
