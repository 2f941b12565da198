"""What a run was made with: versions, command, device, memory."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .._version import __version__
from .._words import without_secrets


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """What the numbers of a run depend on besides the recipe."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("torch", "fastai", "spacy", "numpy", "pandas"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["ulmfit_fastai"] = __version__  # a checkout need not be installed
    return found


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
"""Programs beside the package, in a clone: their results are committed with the command that made them."""


def command_line() -> str:
    """What was typed, for run.json: nothing that looks like a secret, and of a program of the user's only its name."""
    program = Path(sys.argv[0])
    words = [shlex.quote(word) if any(map(str.isspace, word)) else word for word in sys.argv[1:]]
    if program.stem == "ulmfit-fastai" or program.parts[-2:] == ("ulmfit_fastai", "__main__.py"):
        return without_secrets(" ".join(["ulmfit-fastai", *words]))
    if program.resolve().is_relative_to(BENCHMARKS):
        module = program.resolve().relative_to(BENCHMARKS.parent).with_suffix("")
        name = ".".join(module.parts).removesuffix(".__main__")
        return without_secrets(" ".join([f"python -m {name}", *words]))
    return program.name


def describe_device(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    if device.type == "cpu":
        try:
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
        except OSError:
            pass  # not Linux: platform's word for the processor has to do
    return {"type": device.type, "name": name, "threads": torch.get_num_threads(), "cores": os.cpu_count()}


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory so far in MB: of the GPU on CUDA, of this process elsewhere (0 where it cannot be read)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
