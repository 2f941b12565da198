"""Several processes: the numbers of one, every text once, one mask for all, and an end that is said."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import processes_child  # noqa: E402

from ulmfit_fastai._processes import leads, several  # noqa: E402
from ulmfit_fastai.cli.app import main  # noqa: E402
from ulmfit_fastai.experiments.main_results import reproduce_all  # noqa: E402
from ulmfit_fastai.model.batch_norm import SharedBatchNorm  # noqa: E402
from ulmfit_fastai.training.processes import ALONE, join  # noqa: E402

psutil = pytest.importorskip("psutil")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch without gloo")
PLAIN = ("lm", "classifier", "classifier-weighted")


def environment(**changes) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([root, *sys.path]), **changes}


def launch(world: int, folder: Path, *cases: str) -> list[dict]:
    """What each of the processes saw of the cases."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = [subprocess.Popen(
        [sys.executable, processes_child.__file__, str(folder), *cases],
        env=environment(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1",
                        MASTER_PORT=port)) for rank in range(world)]
    try:
        assert [process.wait(timeout=600) for process in started] == [0] * world
    finally:
        for process in started:
            process.kill()
    return [torch.load(folder / f"process{rank}.pt", weights_only=False) for rank in range(world)]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The cases in one process, and one that it stopped in the middle of."""
    folder = tmp_path_factory.mktemp("one")
    return {"folder": folder, **{name: processes_child.case(name, folder) for name in (*PLAIN, "lm-stopped")}}


@pytest.fixture(scope="module")
def two(one, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(one["folder"] / "lm-stopped", folder / "lm-stopped")
    return folder, launch(2, folder, *PLAIN, "lm@lm-stopped", "lm-dropout", "classifier-stopped")


def apart(first: dict, second: dict) -> float:
    """The largest difference of two models' weights."""
    return max(float((first["weights"][name].double() - part.double()).abs().max())
               for name, part in second["weights"].items())


def assert_the_same(parts: list[dict], alone: dict) -> None:
    together = torch.tensor([part["losses"] for part in parts], dtype=torch.float64).sum(0)
    assert len(together) > 30
    assert (together - torch.tensor(alone["losses"], dtype=torch.float64)).abs().max() < 1e-6
    assert apart(parts[0], alone) < 1e-6 and all(apart(parts[0], part) == 0 for part in parts)
    for row, expected in zip(parts[0]["history"], alone["history"], strict=True):
        assert row["train_loss"] == pytest.approx(expected["train_loss"], abs=1e-6)
        assert row["valid_loss"] == pytest.approx(expected["valid_loss"], abs=1e-6)
        assert row["accuracy"] == expected["accuracy"]


@pytest.mark.parametrize("phase", ["lm", "classifier"])
def test_two_processes_train_to_the_numbers_of_one(phase, one, two):
    assert_the_same([part[phase] for part in two[1]], one[phase])
    assert two[1][0][phase]["model"] == "SequentialRNN"  # not DDP


def test_a_loss_with_weights_of_classes_is_the_same_mean(one, two):
    """In fp32, where rounding grows from step to step, on some CPUs to 0.03 in the last ones."""
    together = torch.tensor([part["classifier-weighted"]["losses"] for part in two[1]]).sum(0)
    alone = torch.tensor(one["classifier-weighted"]["losses"])
    assert len(together) > 30
    assert (together - alone)[:3].abs().max() < 1e-6 and (together - alone)[:20].abs().max() < 1e-3


def test_every_token_and_every_text_is_read_once(one, two):
    parts = [part["lm"]["read"] for part in two[1]]
    assert {len(x) for x in parts[0]} == {3}
    for *rows, all_rows in zip(*parts, one["lm"]["read"], strict=True):
        assert torch.equal(torch.cat(rows), all_rows)
    parts = [part["classifier"]["read"] for part in two[1]]
    steps = len(parts[0]) // 4  # of an epoch
    for epoch in range(4):
        read = torch.cat([texts for part in parts for texts in part[epoch * steps:(epoch + 1) * steps]])
        assert torch.equal(read.sort().values, torch.arange(len(read)))


def test_weights_are_dropped_alike_in_all_processes_and_words_read_are_not(two):
    first, second = (part["lm-dropout"] for part in two[1])
    assert len(first["masks"]) == 40 and all(map(torch.equal, first["masks"], second["masks"]))
    assert not torch.equal(first["masks"][0], first["masks"][2])  # another one each step, of each of two layers
    assert apart(first, second) == 0


def test_two_go_on_from_the_checkpoint_of_one(one, two):
    assert not one["lm-stopped"]["done"]
    assert len(two[1][0]["lm@lm-stopped"]["losses"]) == len(one["lm"]["losses"]) - 17
    assert apart(two[1][0]["lm@lm-stopped"], one["lm"]) < 1e-6
    assert two[1][0]["lm@lm-stopped"]["history"][-1]["train_loss"] == pytest.approx(
        one["lm"]["history"][-1]["train_loss"], abs=1e-6)


def test_one_goes_on_from_the_checkpoint_of_two(one, two):
    folder, parts = two
    assert [part["classifier-stopped"]["done"] for part in parts] == [False, False]
    assert apart(processes_child.case("classifier@classifier-stopped", folder), one["classifier"]) < 1e-6


@pytest.mark.slow
def test_four_processes_train_to_the_numbers_of_one_and_go_on_with_another_number(one, tmp_path):
    shutil.copytree(one["folder"] / "lm-stopped", tmp_path / "lm-stopped")
    parts = launch(4, tmp_path, "lm", "classifier", "lm@lm-stopped")
    for phase in ("lm", "classifier"):
        assert_the_same([part[phase] for part in parts], one[phase])
    assert apart(parts[0]["lm@lm-stopped"], one["lm"]) < 1e-6


def torchrun(*words: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
                             "-m", "ulmfit_fastai", *words], env=environment(), stderr=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)


def test_a_killed_process_ends_the_run_with_one_line_and_another_number_goes_on(tiny_imdb, tmp_path, monkeypatch):
    monkeypatch.setenv("ULMFIT_CACHE", str(tmp_path / "cache"))
    words = ("reproduce", "imdb", "--no-verify", "--preset", "tiny", "--data", str(tiny_imdb), "--out",
             str(tmp_path / "run"), "--device", "cpu",
             "--set", "classifier.stages.-1.epochs=8")
    started = torchrun(*words)
    until = time.monotonic() + 300
    while not (tmp_path / "run" / "lm_forward.safetensors").exists() and time.monotonic() < until:
        assert started.poll() is None, started.communicate()[1]
        time.sleep(0.1)
    workers = [child for child in psutil.Process(started.pid).children() if child.environ().get("RANK") == "1"]
    workers[0].kill()
    said = started.communicate(timeout=120)[1]
    assert started.returncode != 0
    assert said.count("one of the 2 processes ended") == 1, said
    assert main([*words]) == 0
    assert (tmp_path / "run" / "report.html").exists()


def test_a_wrong_setting_is_said_once(tmp_path, tiny_imdb):
    started = torchrun("imdb", "--preset", "tiny", "--data", str(tiny_imdb), "--out", str(tmp_path),
                       "--device", "cpu:0")
    said = started.communicate(timeout=300)[1]
    assert said.count("ulmfit-fastai: ") == 1 and "several processes take a GPU each" in said


def test_batch_norm_over_parts_is_batch_norm(monkeypatch):
    torch.manual_seed(0)
    plain, shared = torch.nn.BatchNorm1d(4).double(), torch.nn.BatchNorm1d(4).double()
    SharedBatchNorm.put_in(shared, lambda part: None)
    assert type(shared) is SharedBatchNorm
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    outputs = [norm(x) for norm in (plain, shared)]
    assert torch.allclose(*outputs)
    assert torch.allclose(*[torch.autograd.grad((out * out.exp()).sum(), x)[0] for out in outputs])
    assert torch.allclose(plain.running_var, shared.running_var)
    SharedBatchNorm.take_out(shared)
    assert type(shared) is torch.nn.BatchNorm1d and torch.equal(shared.eval()(x), shared(x))


def test_one_process_imports_no_accelerate_and_asks_nobody():
    assert join() is ALONE and leads() and not several() and ALONE.any(True, False) == [True, False]
    code = ("import sys, ulmfit_fastai.training.runs as r; r.Conditions.of(device='cpu'); "
            "print('accelerate' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True,
                          check=True).stdout.split()[-1] == "False"


def test_what_is_no_single_run_is_refused_in_several_processes(monkeypatch, capsys):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    assert main(["recipe", "tiny"]) == 2 and "works in one process" in capsys.readouterr().err
    with pytest.raises(ValueError, match="expected one process, found 2"):
        reproduce_all(["trec6"], "tiny")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        main(["imdb", "--no-such-option"])
    assert capsys.readouterr().err == ""
