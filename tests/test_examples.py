"""Every example of README and docs runs as it stands: Python on small texts, commands through the real command line."""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import re
import shlex
import shutil
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fastai.callback.core import Callback
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import ColReader, RandomSplitter
from fastai.text.data import TextBlock
from some_texts import reviews

from ulmfit_fastai.cli.app import COMMANDS, build_parser, main
from ulmfit_fastai.model import pretrained
from ulmfit_fastai.recipe import presets
from ulmfit_fastai.recipe.recipe import Recipe

ROOT = Path(__file__).parents[1]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (
    *(ROOT / name for name in ("README.md", "PYPI.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks" / "gpu" / "README.md",
    ROOT / "ulmfit_fastai" / "data" / "README.md")}
ELSEWHERE = {"docs/serving.md", "docs/hub.md"}  # behind a server: test_serving.py, predict/test_hub.py
SMALLER = {  # nothing is downloaded, and an epoch is enough
    "docs/how-to/adversarial.md": {
        "(dls, AWD_LSTM,": "(dls, AWD_LSTM, pretrained=False, config={**awd_lstm_clas_config, 'n_hid': 30},",
        "import AWD_LSTM,": "import awd_lstm_clas_config, AWD_LSTM,"},
    "docs/devices.md": {"/content/drive/MyDrive": "drive"},
    "docs/coming-from-fastai.md": {
        "(dls_lm, AWD_LSTM,": "(dls_lm, AWD_LSTM, pretrained=False, config={**awd_lstm_lm_config, 'n_hid': 30},",
        "(dls, AWD_LSTM,": "(dls, AWD_LSTM, pretrained=False, config={**awd_lstm_clas_config, 'n_hid': 30},",
        "(lm, 15,": "(lm, 1,", "(learn, 50,": "(learn, 5,"},
}
CHEAP = {"recipe", "train", "predict", "evaluate", "explain"}
"""Commands that are run where all that they read is at hand; the others' arguments are read by the parser alone."""
NOT_OURS = {"python -m venv", "python -m pytest", "source", "curl", "export", "git clone"}


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language; those without one are for a shell."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.M | re.S)
    return [code for named, code in found if named == language]


# --------------------------------------------------------------------------------------------------------------- Python
@pytest.fixture
def small(tmp_path, monkeypatch, tiny_imdb) -> Path:
    """A folder to be in, where every preset is the smallest one and fastai's cache holds a tiny IMDb."""
    for name in presets.PRESETS:
        monkeypatch.setitem(presets.PRESETS, name, smallest)
    monkeypatch.setattr(pretrained, "BUNDLED", tmp_path / "none")  # from random weights: no 16,000 words to be trained
    monkeypatch.setenv("ULMFIT_CACHE", str(tmp_path / "cache"))
    drive = types.SimpleNamespace(mount=lambda place: None)
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(drive=drive))
    for name in ("tensorboard", "wandb"):  # they need packages of their own
        logger = type(f"{name.title()}Callback", (Logger,), {})
        stand_in = types.SimpleNamespace(WandbCallback=logger, TensorBoardCallback=logger)
        monkeypatch.setitem(sys.modules, f"fastai.callback.{name}", stand_in)
    shutil.copytree(tiny_imdb, tmp_path / "imdb")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def smallest(task: str = "imdb") -> Recipe:
    """`tiny` with a single epoch of its classifier; its name says that it is not made longer for few texts."""
    recipe = presets.tiny(task)
    return replace(recipe, classifier=replace(recipe.classifier, stages=recipe.classifier.stages[-1:]))


class Logger(Callback):
    """Stands in for a logger of fastai's."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings


def stock_loaders(texts: list[str], labels: list[str]) -> dict[str, DataLoaders]:
    """fastai's own, of a language model and of a classifier."""
    frame = pd.DataFrame({"text": texts, "label": labels})
    block = partial(TextBlock.from_df, "text", n_workers=0, min_freq=1, seq_len=20)
    parts = {"get_x": ColReader("text"), "splitter": RandomSplitter(seed=0)}
    lm = DataBlock(block(is_lm=True), **parts).dataloaders(frame, bs=4, seq_len=6, num_workers=0)
    blocks = (block(vocab=lm.vocab), CategoryBlock)
    classes = DataBlock(blocks, get_y=ColReader("label"), **parts).dataloaders(frame, bs=8, seq_len=20, num_workers=0)
    return {"dls_lm": lm, "dls": classes}


def tables(texts: list[str], labels: list[str]) -> dict[str, pd.DataFrame]:
    frame = pd.DataFrame({"review": texts, "sentiment": labels})
    return {"df": frame.iloc[:24], "test": frame.iloc[24:]}


WITH_PYTHON = [name for name, page in PAGES.items() if blocks(page, "python") and name not in ELSEWHERE]


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_PYTHON)
def test_the_python_of_a_page_runs(name, small, monkeypatch):
    from ulmfit_fastai.experiments import reproduction

    monkeypatch.setattr(reproduction, "load_task", lambda task, *_, load=reproduction.load_task, **__: load(
        task, small / "imdb", verify=False))
    texts, labels = reviews(32)
    with gzip.open("artikel.txt.gz", "wt", encoding="utf-8") as file:
        file.writelines(f"\n = Artikel {i} = \n\n{' '.join(texts[i:])}\n" for i in range(12))
    names = {"texts": texts, "labels": labels, **tables(texts, labels),
             **(stock_loaders(texts, labels) if name == "docs/coming-from-fastai.md" else {})}
    for code in blocks(PAGES[name], "python"):
        line = PAGES[name][: PAGES[name].find(code)].count("\n")
        for written, smaller in SMALLER.get(name, {}).items():
            code = code.replace(written, smaller)
        exec(compile("\n" * line + code, name, "exec"), names)  # so that an error names the page and its line


# ---------------------------------------------------------------------------------------------------------------- Shell
def commands(page: str) -> Iterator[str]:
    """What a reader would type: every line of the blocks for a shell, and every command that stands in a sentence."""
    for block in blocks(page, ""):
        for line in block.replace("\\\n", " ").splitlines():
            if line := re.sub(r"(^|\s)#.*$", "", line).strip().removesuffix(" &"):
                yield line
    sentences = re.sub(r"^```.*?^```$", "", page, flags=re.M | re.S)
    for code in re.findall(r"`((?:ulmfit-fastai|python -m|make|torchrun)\s[^`]*)`", sentences):
        if code.removeprefix("ulmfit-fastai ") not in {command.name for command in COMMANDS}:  # those are only named
            yield " ".join(code.split())


def ours(line: str) -> list[str] | None:
    """The arguments for `ulmfit-fastai` in a line, if it calls it, by whatever launcher."""
    found = re.search(r"(?:^|\s)(?:ulmfit-fastai|-m ulmfit_fastai)(?:\s+(.*))?$", line)
    return shlex.split(found.group(1) or "", comments=True) if found else None


def read(words: list[str]) -> argparse.Namespace | None:
    """What the real parser makes of the words; None for help and for placeholders that stand for a command."""
    if not words or "..." in words or words[0].isupper() or {"--help", "--version"} & set(words):
        return None
    return build_parser().parse_args(words[: words.index(">")] if ">" in words else words)


def check_other(line: str) -> None:
    """A line that calls something else: make's target is there, pip's extras too, a module can be imported."""
    words = shlex.split(line)
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), line
    elif words[:2] == ["pip", "install"] or words[:4] == ["python", "-m", "pip", "install"]:
        for extra in ",".join(re.findall(r"\[(.*?)\]", line)).split(","):
            assert not extra or f"\n{extra} =\n" in (ROOT / "setup.cfg").read_text(encoding="utf-8"), line
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]) or words[2] == "mkdocs", line
    elif words[0] in ("bash", "python"):
        assert (ROOT / words[1]).is_file(), line
    else:
        assert line.startswith(tuple(NOT_OURS)) or "uvicorn" in words, f"nobody has looked at: {line}"


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if [*commands(page)]])
def test_the_commands_of_a_page_are_what_the_command_line_takes(name, capsys):
    for line in commands(PAGES[name]):
        try:
            words = ours(line)
            if words is None:
                check_other(line)
            else:
                read(words)
        except SystemExit:
            pytest.fail(f"{line}\n{capsys.readouterr().err}")


def test_a_command_that_is_wrong_is_noticed(capsys):
    with pytest.raises(SystemExit):
        read(ours("ulmfit-fastai imdb --no-such-option"))
    with pytest.raises(SystemExit):
        read(ours("torchrun --nproc-per-node 4 -m ulmfit_fastai no-such-command"))
    with pytest.raises(AssertionError):
        check_other("rm -rf runs")
    capsys.readouterr()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md", "docs/how-to/reproducing.md",
                                  "docs/how-to/unequal-classes.md", "docs/how-to/many-labels.md",
                                  "docs/how-to/few-labels.md", "docs/how-to/tuning.md"])
def test_the_cheap_commands_of_a_page_run(name, small, capsys):
    write_tables(small)
    ran = 0
    for words in filter(None, map(ours, commands(PAGES[name]))):
        if words[0] in CHEAP and all(not word.endswith(".json") for word in words):
            if words[0] == "train":
                shutil.rmtree(small / "model", ignore_errors=True)
            assert main(words[: words.index(">")] if ">" in words else words) == 0, capsys.readouterr().err
            ran += 1
    assert ran


def write_tables(folder: Path) -> None:
    """The tables that the pages name, small."""
    texts, labels = reviews(32)
    frame = pd.DataFrame({"review": texts, "sentiment": labels})
    for name in ("reviews", "new", "test", "labelled"):
        frame.to_csv(folder / f"{name}.csv", index=False)
    (folder / "more.txt").write_text("\n".join(texts), encoding="utf-8")
    folders = ["spam" if label == "bad" else "ham" for label in labels]
    pd.DataFrame({"subject": texts, "body": texts, "text": texts, "folder": folders, "label": folders}).to_csv(
        folder / "mails.csv", index=False)
    topics = ["plot;actors" if "actor" in text else "plot" for text in texts]
    pd.DataFrame({"abstract": texts, "topics": topics}).to_csv(folder / "papers.csv", index=False)
    pd.DataFrame({"note": texts, "points": [80 + len(text) % 20 for text in texts]}).to_csv(folder / "wine.csv",
                                                                                           index=False)
