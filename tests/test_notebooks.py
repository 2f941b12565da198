"""The notebooks run, and what they show is what their code gave, on real data, and theirs to show."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

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


@pytest.fixture
def colab(path, tmp_path, monkeypatch):
    """Run the first cell as Colab does, in an empty folder; what is installed is only noted.

    Returns what runs it, with SOURCE changed and pip's exit code given, and gives what was installed.
    """
    (tmp_path / "content").mkdir()
    monkeypatch.chdir(tmp_path / "content")
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    first = code(nbformat.read(path, as_version=4))[0].replace("/content/drive/MyDrive", str(tmp_path / "drive"))

    def run(source: str = "", exit_code: int = 0) -> list[str]:
        installed: list[str] = []
        monkeypatch.setattr("subprocess.run", lambda command: installed.append(command[-1]) or SimpleNamespace(
            returncode=exit_code))
        exec(first.replace('SOURCE = ""', f"SOURCE = {source!r}"), {})
        return installed

    return run


def test_in_an_empty_folder_its_first_cell_says_what_to_put_there(colab):
    with pytest.raises(SystemExit, match="put its wheel .* or a clone .* or its address into SOURCE"):
        colab()


def test_an_installed_package_is_enough_for_its_first_cell(colab, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert colab() == [] and capsys.readouterr().out == f"runs go to {Path.cwd() / 'runs'}\n"


def test_its_first_cell_installs_the_newest_wheel_beside_it(colab):
    for version in ("0.1.0", "0.2.0"):
        Path(f"ulmfit_fastai-{version}-py3-none-any.whl").touch()
    assert colab() == [str(Path.cwd() / "ulmfit_fastai-0.2.0-py3-none-any.whl")]


def test_its_first_cell_installs_a_clone_and_imports_from_it(colab):
    (Path("mine") / "ulmfit_fastai").mkdir(parents=True)
    (Path("mine") / "ulmfit_fastai" / "_version.py").touch()
    clone = str(Path.cwd() / "mine")
    assert colab() == [clone] and sys.path[0] == clone
    assert colab("mine") == [clone]


def test_its_first_cell_takes_an_address_and_says_in_words_that_pip_failed(colab):
    assert colab("git+https://host/name") == ["git+https://host/name"]
    with pytest.raises(SystemExit, match="is SOURCE right"):
        colab("git+https://host/name", exit_code=1)


def test_runs_go_where_they_outlive_the_machine_and_a_wheel_may_lie_there(colab, tmp_path):
    (tmp_path / "drive").mkdir()
    wheel = tmp_path / "drive" / "ulmfit_fastai-0.1.0-py3-none-any.whl"
    wheel.touch()
    assert colab() == [str(wheel)] and Path.cwd() == tmp_path / "drive" / "ulmfit-fastai"


def test_how_it_is_installed_and_where_names_and_results_lie_make_no_outputs_stale(notebook):
    before = notebooks.code_hash(notebook)
    first, second, *_ = [cell for cell in notebook.cells if cell.cell_type == "code"]
    first.source = first.source.replace("ulmfit_fastai-*.whl", "*.whl")
    second.source = re.sub("^RESULTS = .*$", "RESULTS = elsewhere", second.source, flags=re.M)
    second.source = "from ulmfit_fastai.elsewhere import name\n" + second.source
    assert notebooks.code_hash(notebook) == before
    second.source += "\nSMALL = False"
    assert notebooks.code_hash(notebook) != before


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
