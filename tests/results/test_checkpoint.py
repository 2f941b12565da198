"""The checkpoint of a phase: whole or not at all, and a full disk is said by the system's own word."""

from __future__ import annotations

import pytest
import torch

from ulmfit_fastai.results import checkpoint
from ulmfit_fastai.results.checkpoint import load_state, save_state

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_disk_that_is_full_is_said_whatever_torch_makes_of_it(size, tmp_path):
    resource = pytest.importorskip("resource")
    save_state(tmp_path / "state.pt", {"step": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # the system writes no file past 1,000 bytes
    try:
        with pytest.raises(OSError, match="could not write to .*: .*File too large.*free some space and run the same"):
            save_state(tmp_path / "state.pt", {"weights": torch.zeros(size)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_state(tmp_path / "state.pt", CPU) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_another_error_of_torch_is_not_called_a_full_disk(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("unexpected pos 704 vs 598: could not write")

    monkeypatch.setattr(checkpoint.torch, "save", broken)
    with pytest.raises(RuntimeError, match="unexpected pos"):
        save_state(tmp_path / "state.pt", {"step": 1})
    assert not list(tmp_path.iterdir())
