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


def test_its_outputs_are_there_from_this_very_code_on_real_texts(notebook):
    record = notebook.metadata.get("ulmfit", {})
    again = "run `make notebooks`, or `python notebooks/run.py` with the notebook's number"
    assert record.get("code") == notebooks.code_hash(notebook), f"the outputs are those of other code: {again}"
    assert record["small"] is False, f"the outputs are those of made-up texts: {again}"
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), f"not every cell was executed, in order: {again}"
    assert outputs(notebook), f"there are no outputs: {again}"


def test_changed_code_is_noticed(notebook):
    before = notebooks.code_hash(notebook)
    next(cell for cell in reversed(notebook.cells) if cell.cell_type == "code").source += " "
    assert notebooks.code_hash(notebook) != before


def test_its_outputs_hold_no_errors_no_bars_and_no_paths_of_the_machine_they_were_made_on(notebook):
    assert [output.get("ename") for output in outputs(notebook) if output.output_type == "error"] == []
    assert not any(notebooks.is_progress(output) for output in outputs(notebook))
    assert re.findall(r"(?:/work|/root|/home|/tmp|/Users|/content)/\S*", shown(notebook)) == []
    assert "Traceback" not in shown(notebook) and "Warning" not in shown(notebook)


def letters(text: str) -> str:
    """Only what is left of a text in whatever form it is shown: lower case, no marks, no special tokens."""
    return re.sub(r"xx(?:bos|maj|up|rep|wrep|unk|pad|fld|eos)\b|<[^>]*>|[^a-z]", "", text.lower())


def pieces(text: str) -> set[str]:
    """The first 600 letters of a text, cut into pieces: of any 80 letters shown, one piece is among them."""
    start = letters(text[:1200])[:600]
    return {start[i : i + PIECE] for i in range(0, len(start) - PIECE + 1, PIECE)}


def test_pieces_of_a_text_are_found_however_it_is_shown():
    text = "It was not the best film of the year, but <br />nobody who has seen it will forget the lighthouse keeper."
    tokens = "xxbos xxmaj it was not the best film of the year , but \n\n nobody who has seen it will forget"
    assert any(piece in letters(tokens) for piece in pieces(text))
    assert not any(piece in letters("the best film of the year") for piece in pieces(text))


def test_no_output_shows_rows_of_a_data_set(test_data):
    from ulmfit_fastai import load_imdb, load_task

    seen = {path.stem: letters(shown(nbformat.read(path, as_version=4))) for path in PATHS}
    windows = {text[i : i + PIECE]: name for name, text in seen.items() for i in range(len(text) - PIECE + 1)}
    found = set()
    for dataset in (load_imdb(test_data / "imdb"), load_task("trec6", test_data / "trec6"),
                    load_task("ag", test_data / "ag_news", verify=False)):
        for text in dataset.df["text"]:
            found |= {(windows[piece], piece) for piece in pieces(text) if piece in windows}
    assert found == set()
