"""The notebooks run, and what they show is what their code gave, on real data, and theirs to show."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))
import run as notebooks  # noqa: E402

PATHS = notebooks.NOTEBOOKS
CELL_SECONDS, NOTEBOOK_SECONDS = 180, 400
"""Limits for a busy machine; on two idle cores a notebook takes 10 to 20 seconds."""
PIECE = 40  # letters of a row of a data set, without blanks and marks, that no output may hold


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook) -> list:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def shown(notebook) -> str:
    """All text of the outputs; tables twice, as text and as HTML."""
    texts = []
    for output in outputs(notebook):
        texts += [output.get("text", ""), *(part for kind, part in output.get("data", {}).items()
                                            if kind.startswith("text/"))]
    return "\n".join(texts)


def test_all_five_are_there():
    assert [path.stem[:2] for path in PATHS] == ["01", "02", "03", "04", "05"]


def test_it_runs_on_small_texts(path, tmp_path, monkeypatch):
    monkeypatch.setenv("ULMFIT_CACHE", str(tmp_path / "cache"))
    done = notebooks.execute(path, small=True, folder=tmp_path, timeout=CELL_SECONDS)
    assert done.metadata["ulmfit"]["seconds"] < NOTEBOOK_SECONDS
    assert [output for output in outputs(done) if output.output_type == "error"] == []


def test_it_installs_on_colab_only_and_has_its_sizes_in_one_cell(notebook):
    first, *others = code(notebook)
    assert 'if "google.colab" in sys.modules:' in first and "pip install" in first
    assert not any("pip install" in cell for cell in others)
    assert [notebooks.SMALL in cell for cell in others].count(True) == 1


def test_its_links_lead_somewhere(notebook, path):
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", prose) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []
    named = re.findall(r"`(\d\d_\w+)`", prose)
    assert set(named) <= {other.stem for other in PATHS}
