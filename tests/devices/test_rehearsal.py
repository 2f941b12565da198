"""Every path of a device is walked before a user walks it: on a look-alike that computes on the CPU (README.md)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def look_alike() -> None:
    """Compiles it, or skips the test and says why."""
    done = subprocess.run([sys.executable, str(HERE / "lookalike.py")], capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip()
        assert reason.startswith("the look-alike"), reason  # it should compile here, and doesn't
        pytest.skip(reason)


def rehearse(scenes: str, folder: Path, **device: str) -> dict[str, Any]:
    """The numbers, waits and seconds of scenes on a device, in a process of its own: hooks come before torch."""
    settings = {"ULMFIT_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run([sys.executable, str(HERE / "rehearsal.py"), scenes, str(folder / "found.json")],
                          env={**os.environ, **settings, **device}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text("utf8"))


@pytest.fixture(scope="session")
def on_the_cpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The CPU's numbers of every scene, made once for all test processes."""
    base = tmp_path_factory.getbasetemp()  # with several test processes, one of them is within the session's
    place = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "ulmfit-rehearsal-cpu.json"
    with FileLock(f"{place}.lock"):
        if not place.exists():
            found = rehearse(",".join({*EVERY} - {"little_memory"}), tmp_path_factory.mktemp("cpu"))
            place.write_text(json.dumps(found["numbers"]))
        return json.loads(place.read_text())


def flat(numbers: Any) -> list[float]:
    return [one for part in numbers for one in flat(part)] if isinstance(numbers, list) else [numbers]


EVERY = ("both_directions", "stopped_and_resumed", "own_texts", "several_labels_and_numbers", "variants", "pretraining",
         "little_memory", "plan")
CASES = {  # scenes, device, how far a probability may be off
    # Another order of adding up puts a ReLU of these small models on the other side of 0: fastai's own Adam beside the
    # fused one is 0.0075 on the CPU.
    "cuda in fp32": (",".join(EVERY), {"LOOKALIKE": "cuda"}, 1e-2),
    "cuda in bf16": ("both_directions,variants", {"LOOKALIKE": "cuda", "PRECISION": "bf16", "BF16_LSTM": "1"}, 0.06),
    "cuda in bf16 with an older cuDNN": ("both_directions", {"LOOKALIKE": "cuda", "PRECISION": "bf16"}, 0.06),
    "cuda in fp16": ("both_directions,jobs", {"LOOKALIKE": "cuda", "PRECISION": "fp16", "LOSS_SCALE": "256"}, 0.06),
    "cuda:1 in fp32": ("both_directions,own_texts", {"LOOKALIKE": "cuda", "NUMBER": "1"}, 1e-2),
    "mps": ("both_directions,own_texts,several_labels_and_numbers,pretraining,stopped_and_resumed",
            {"LOOKALIKE": "mps", "PRECISION": "auto"}, 2e-2),
}


@pytest.mark.parametrize("case", CASES)
def test_a_device_gives_the_cpus_numbers_within_its_types_precision(case, look_alike, on_the_cpu, tmp_path):
    scenes, device, tolerance = CASES[case]
    found = rehearse(scenes, tmp_path, **device)
    for scene, numbers in found["numbers"].items():
        if not numbers:  # what it shows is that it comes to its end
            continue
        np.testing.assert_allclose(flat(numbers), flat(on_the_cpu[scene]), rtol=0, atol=tolerance, err_msg=scene)
    assert found["hot"] == {}, "a training step waits for the device"
    print(f"{case}: {found['seconds']} s")


def test_a_run_stopped_under_fp16_goes_on_with_the_loss_scale_it_had(look_alike, tmp_path):
    rehearse("stopped_and_resumed", tmp_path, LOOKALIKE="cuda", PRECISION="fp16", LOSS_SCALE=str(2.0**40))
