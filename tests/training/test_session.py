"""A session: what it writes into run.json, and that it stops in good order whatever ends it."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
import torch

from ulmfit_fastai.classifier.fitted import Unfinished
from ulmfit_fastai.results.folder import RunFolder
from ulmfit_fastai.training.callbacks import Budget
from ulmfit_fastai.training.session import Conditions, Stopped, session


@pytest.fixture
def folder(tmp_path):
    found = RunFolder(tmp_path / "run")
    found.open({"recipe": {}, "recipe_hash": "a", "data": {"fingerprint": "x"}})
    return found


def written(folder):
    return json.loads((folder.path / "run.json").read_text())


def test_a_session_says_when_it_began_on_what_and_how_long_it_took(folder):
    with session(folder, Conditions(torch.device("cpu"), started=time.monotonic() - 60)):
        assert written(folder)["status"] == "running" and len(written(folder)["sessions"]) == 1
        folder.run["status"] = "finished"
    record, = written(folder)["sessions"]
    assert written(folder)["status"] == "finished" and record["seconds"] == pytest.approx(60, abs=5)
    assert record["device"]["type"] == "cpu" and record["versions"]["torch"] == torch.__version__ and record["started"]


def test_work_that_stops_in_time_ends_there_and_an_error_goes_on_to_the_caller(folder, caplog):
    with session(folder, Conditions(torch.device("cpu"))):
        raise Stopped
    assert written(folder)["status"] == "stopped" and "stopped in good order" in caplog.text
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error), session(folder, Conditions(torch.device("cpu"))):
            raise error
        assert written(folder)["status"] == "stopped" and written(folder)["sessions"][-1]["seconds"] >= 0
    assert len(written(folder)["sessions"]) == 3


@pytest.mark.skipif(not hasattr(signal, "SIGTERM") or os.name == "nt", reason="signals of a POSIX system")
def test_sigterm_ends_the_budget_and_is_put_back(folder):
    before, budget = signal.getsignal(signal.SIGTERM), Budget()
    with session(folder, Conditions(torch.device("cpu"), budget)):
        assert not budget.over()
        os.kill(os.getpid(), signal.SIGTERM)
        assert budget.over()
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_unfinished_fit_is_both_what_stopped_and_a_value_error():
    assert issubclass(Unfinished, Stopped) and issubclass(Unfinished, ValueError)
