"""Fixtures that every test file shares."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The models of the tests are so small that threads cost more than they give, and pytest-xdist runs a process per core.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data sets named by ULMFIT_TEST_DATA; without it the test is skipped, and pytest says so."""
    folder = os.environ.get("ULMFIT_TEST_DATA")
    if not folder:
        pytest.skip("real data: set ULMFIT_TEST_DATA to the folder that holds imdb/, trec6/, ...")
    path = Path(folder)
    if not path.is_dir():
        pytest.skip(f"real data: ULMFIT_TEST_DATA={folder} is no folder")
    return path


@pytest.fixture(scope="session")
def tiny_imdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `imdb` of 60 training, 30 test and 40 unlabelled synthetic reviews in fastai's layout of IMDb."""
    from ulmfit_fastai.texts.synthetic import synthetic_reviews, write_imdb_layout

    return write_imdb_layout(synthetic_reviews(n_train=60, n_test=30, n_unsup=40), tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch counts with one thread, so that sums have one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tables_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """fastai prints its tables instead of handing them to IPython, whether IPython is installed or not."""
    monkeypatch.setitem(sys.modules, "IPython.display", None)


@pytest.fixture(autouse=True)
def a_command_leaves_no_handler_behind() -> Iterator[None]:
    """`main()` sends the package's log to stderr, which pytest closes after the test."""
    logger = logging.getLogger("ulmfit_fastai")
    handlers, level = logger.handlers, logger.level
    yield
    logger.handlers, logger.level = handlers, level
