"""The one bar: a terminal is clean after it, a notebook has one, a file gets a line now and then."""

from __future__ import annotations

import itertools
import random
import re
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient
from screen import Screen, run_in_terminal

from ulmfit_fastai._progress import Bar

ROOT = Path(__file__).parents[1]

# Some commands in one process, with every step drawn; `said.txt` gets the log's lines and what is printed.
COMMANDS = """
import logging, sys
from ulmfit_fastai import _progress
from ulmfit_fastai.cli.app import main

class Both:
    def __init__(self, *streams):
        self.streams = streams
    def write(self, text):
        for stream in self.streams:
            stream.write(text)
            stream.flush()
    def flush(self):
        pass
    def isatty(self):
        return self.streams[0].isatty()

_progress.SCREEN_EVERY = 0.0
said = open("said.txt", "w", encoding="utf8")
sys.stdout = Both(sys.stdout, said)
logging.root.addHandler(logging.StreamHandler(said))
for command in sys.argv[1:]:
    if main(command.split()):
        sys.exit(1)
"""
PRETRAIN = "pretrain corpus.jsonl --out lm --set epochs=1"
TRAIN, PREDICT = "train rows.csv --preset tiny --lm-epochs 0 --out model", "predict model rows.csv --out predicted.csv"


def write_texts(folder: Path) -> None:
    draw, words = random.Random(0), "a film about the sea with music and one long night in town".split()
    kinds = {"pos": [*words, "wonderful", "funny"], "neg": [*words, "dull", "awful"]}
    texts = [(" ".join(draw.choices(kinds[label], k=30)), label) for label in ("pos", "neg") * 30]
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in texts))
    (folder / "corpus.jsonl").write_text("".join(f'{{"text": "{text} {text[::-1]}"}}\n' for text, _ in texts))


@pytest.mark.parametrize(("columns", "commands"), [(80, [PRETRAIN, TRAIN, PREDICT]), (120, [TRAIN, PREDICT])])
def test_after_commands_the_screen_is_the_log_and_the_results_alone(columns, commands, tmp_path, monkeypatch):
    write_texts(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("ULMFIT_CACHE", str(tmp_path / "cache"))  # else there may be tokens, and no bar of theirs
    sent, lines = run_in_terminal([sys.executable, "-c", COMMANDS, *commands], columns, cwd=tmp_path)
    expected = Screen(columns)
    expected.write((tmp_path / "said.txt").read_text("utf8").replace("\n", "\r\n"))
    assert lines == expected.lines()
    assert any(line.startswith("held-out texts: error") for line in lines) and "60 rows: " in "".join(lines)
    for bar in (r"tokens: +\d+%\|.*\| 60 texts", r"forward classifier, all: +\d+%\|.*\| [^|]* left, run [^|]* left",
                r"predicting: +\d+%\|.*\| 60 rows"):
        assert re.search(bar, sent), f"no bar {bar}"


@pytest.mark.parametrize("set_up", ["pass", "logging.basicConfig(format='%(message)s')"])
def test_a_script_s_warnings_come_out_whole_above_the_bar(set_up):
    script = f"""
import logging
from ulmfit_fastai import _progress
{set_up}
_progress.SCREEN_EVERY = 0.0
bar = _progress.Bar("a label of a stage", 10)
bar.show(4, "4 words")
logging.getLogger("ulmfit_fastai.tokens").warning("a warning")
bar.show(8, "many words, far more of them than there is room for")
logging.getLogger("ulmfit_fastai.tokens").warning("another one")
print("on the screen:", end=" ")
bar.close()
print("done")
logging.getLogger("ulmfit_fastai").warning("the last one")
"""
    sent, lines = run_in_terminal([sys.executable, "-c", script], 40, cwd=ROOT)
    assert re.search("a label of a stage:  40%.*4 words", sent)
    assert lines[:2] == ["a warning", "another one"] and lines[-1] == "the last one"
    assert "done" in lines[2] and "|" not in "".join(lines)


def test_an_error_takes_the_bar_away(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with pytest.raises(ZeroDivisionError), closing(Bar("training", 10)):
        1 / 0  # noqa: B018
    screen = Screen(80)
    screen.write(capsys.readouterr().err)
    assert screen.lines() == [""]


def seconds(monkeypatch: pytest.MonkeyPatch, *times: float) -> None:
    clock = SimpleNamespace(monotonic=itertools.chain(times, itertools.repeat(times[-1])).__next__)
    monkeypatch.setattr("ulmfit_fastai._progress.time", clock)


def test_into_a_file_goes_a_line_every_three_minutes_or_as_asked(monkeypatch, capsys, caplog):
    caplog.set_level("INFO", logger="ulmfit_fastai")
    seconds(monkeypatch, 0, 10, 170, 200, 370, 390)
    bar = Bar("forward lm, all", 100, first=20, rest_of_run=lambda left: left + 3600)
    for done in (25, 40, 60, 80, 90):
        bar.show(done)
    seconds(monkeypatch, 0, 59, 61, 119)
    bar = Bar("predicting", 1.0, log_every=60)
    for share in (0.1, 0.5, 0.7):
        bar.show(share, f"{1000 * share:.0f} rows")
    assert caplog.messages == ["forward lm, all: 3 min left, run 63 min left (60 % done)",
                               "forward lm, all: 56 s left, run 61 min left (90 % done)",
                               "predicting: 500 rows, 61 s left (50 % done)"]
    assert capsys.readouterr() == ("", "")


def test_without_a_total_only_what_is_done_is_said(monkeypatch, caplog):
    caplog.set_level("INFO", logger="ulmfit_fastai")
    seconds(monkeypatch, 0, 200)
    Bar("tokens", None).show(5000, "5,000 texts")
    assert caplog.messages == ["tokens: 5,000 texts"]


def test_what_is_not_to_be_shown_is_shown_nowhere(monkeypatch, capsys, caplog):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    seconds(monkeypatch, 0, 1000)
    with caplog.at_level("DEBUG", logger="ulmfit_fastai"), closing(Bar("tokens", 10, shown=False)) as bar:
        bar.show(5)
    assert capsys.readouterr() == ("", "") and not caplog.messages


NOTEBOOK = """
import sys
sys.modules["ipywidgets"] = None  # as if not installed
from ulmfit_fastai import _progress
_progress.SCREEN_EVERY = 0.0
"""
STAGE = """
bar = _progress.Bar("stage <{0}>", 4)
bar.show(3, "three & more")
"""


def test_a_notebook_has_one_bar_a_cell_in_place_without_ipywidgets():
    cells = [NOTEBOOK, STAGE.format(1), STAGE.format(1) + "bar.close()" + STAGE.format(2), "bar.close()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    first, second = (cell.outputs for cell in notebook.cells[1:3])
    assert [output.output_type for output in first + second] == ["display_data"] * 2  # and nothing on stderr
    assert '<progress value="0.7500"' in first[0].data["text/html"]
    assert re.fullmatch(r".*</progress> stage &lt;1&gt;: 75% three &amp; more, [^<]* left", first[0].data["text/html"])
    assert second[0].data["text/html"] == ""  # the second stage's, closed from the next cell
    assert notebook.cells[3].outputs == []
