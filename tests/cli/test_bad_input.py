"""Bad input through every door: one message in words, exit code 2, no traceback, and nothing written."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import odd_tables
import pandas as pd
import pytest
from some_texts import reviews, tiny

from ulmfit_fastai import Result, ULMFiT, load_imdb, pretrain, write_report
from ulmfit_fastai._errors import UlmfitError
from ulmfit_fastai._schema import CONFIG, METRICS, RUN, VOCABULARY
from ulmfit_fastai.cli import main
from ulmfit_fastai.cli.app import build_parser
from ulmfit_fastai.model import pretrained
from ulmfit_fastai.report.several_runs import write_comparison
from ulmfit_fastai.results.environment import BENCHMARKS, command_line
from ulmfit_fastai.texts.sources import load_task

TEXTS, LABELS = reviews(24)
DEEP = "[" * 100_000 + "]" * 100_000
HUGE = "1" + "0" * 400
DEVICES = ("tpu", "", "cuda:99", "meta", "cpu:7", "-1")
COMMANDS = {
    "train": ("train", "{table}", "--preset", "tiny", "--out", "{out}"), "predict": ("predict", "{model}", "{table}"),
    "evaluate": ("evaluate", "{model}", "{table}"), "explain": ("explain", "{model}", "a film"),
    "pretrain": ("pretrain", "{table}", "--out", "{out}"), "demo": ("demo", "--out", "{out}"),
    "imdb": ("imdb", "--preset", "tiny", "--data", "{empty}", "--out", "{out}"),
    "reproduce": ("reproduce", "trec6", "--preset", "tiny", "--data", "{empty}", "--out", "{out}"),
    "lowshot": ("lowshot", "--preset", "tiny", "--data", "{empty}", "--out", "{out}"),
    "ablate": ("ablate", "table7", "--preset", "tiny", "--data", "{empty}", "--out", "{out}"),
    "figure4": ("figure4", "--preset", "tiny", "--data", "{empty}", "--out", "{out}")}
RECIPE_SETS = (
    "nope=1", "classifier.bs=0", "classifier.bs=1.5", "classifier.bs=x", "classifier.bs=null", f"classifier.bs={HUGE}",
    "seed=x", "seed=-1", "seed=1.5", f"seed={HUGE}", f"classifier.stages.0.lr={HUGE}", "valid_fraction=NaN",
    "valid_fraction=2", "model.emb_sz=99999999", "model.n_hid=1000000", "model.n_layers=100000",
    "model.head_hidden=1000000000", "model=[]", "model=3", "classifier=1", "classifier..bs=3",
    "classifier.stages.99.lr=1", "__class__=1", "classifier.__init__=1", "directions=[]", "directions=sideways",
    "precision=fp8", "name=null", f"name={DEEP[:4000]}", f"valid_fraction={DEEP}", "=3", "no-equals")
PRETRAIN_SETS = ("nope=1", "out=x", "corpus=x", "device=tpu", "resume=false", "evaluate=x", "cache=x", "bs=0", "bs=x",
                 "bs=1.5", "epochs=1.5", "lr=x", f"lr={HUGE}", "seed=x", "seed=-1", f"seed={HUGE}", "min_freq=-1",
                 "limit_words=x", "limit_words=0", "weights=3", "size=zz", "size=3", "lang=3",
                 'model={"emb_sz": 99999999}', "model=3", "directions=[]", 'directions=["x"]',
                 "tokenizer=x", "precision=zz", "wd=-1")
DOORS = [
    *((name, "--device", device) for name in COMMANDS for device in DEVICES),
    *((name, "--set", given) for name in COMMANDS if name not in ("predict", "evaluate", "explain", "pretrain", "demo")
      for given in (RECIPE_SETS if name in ("train", "reproduce") else RECIPE_SETS[:3])),
    *(("pretrain", "--set", given) for given in PRETRAIN_SETS),
    *((name, "--encoding", given) for name in ("train", "predict", "evaluate")
      for given in ("rot13", "hex", "base64", "klingon", "undefined", "")),
    *((name, "--out", "") for name in ("train", "pretrain", "imdb", "reproduce", "lowshot", "ablate", "figure4")),
    *(("train", *given) for given in (
        ("--epochs", "x"), ("--epochs", "-1"), ("--valid-share", "nan"), ("--valid-share", "2"),
        ("--lang", "zz"), ("--lang", ""), ("--lang", "../../x.model"), ("--weights", "/nope"),
        ("--weights", "~nouser/x"), ("--preset", "~nouser/x.json"),
        ("--preset", "nope"), ("--preset", ""), ("--class-weight", "x"), ("--class-weight", "good=nan"),
        ("--class-weight", "nope=3"), ("--text", "nope"), ("--text", "label"), ("--label", "nope"),
        ("--unlabelled", "/nope"), ("--set", "class_weights=[1]"), ("--time-budget", "soon"))),
    *(("pretrain", *given) for given in (("--evaluate", "/nope"), ("--valid", "/nope"), ("--lang", "zz"))),
    *(("lowshot", *given) for given in (("--labels", "1"), ("--labels=-5",), ("--labels", ""), ("--labels", "a,b"),
                                        ("--kinds", "zz"), ("--kinds", ""), ("--seeds", "0"),
                                        ("--seeds", "999999999"))),
    *(("ablate", *given) for given in (("--rows", "zz"), ("--rows", ""), ("--seeds", "999999999"),
                                       ("--out", "{table}", "--dry-run"), ("--task", "zz"))),
    *((name, "--sep", mark) for name in ("train", "predict", "evaluate") for mark in ("", "ab", '"', "\n")),
    *((name, "--format", "doc") for name in ("train", "predict", "evaluate")),
    *(("train", *given) for given in (("--no-header",), ("--sep", "|"), ("--task", "multilabel"), ("--text", "7"),
                                      ("--task", "classification", "--label-delim", ";"), ("--task", "regression"),
                                      ("--encoding", "utf-16"), ("--text", "text", "--label", "text"))),
    *(("predict", *given) for given in (("--no-header",), ("--text", "7"), ("--text", "text", "nope"),
                                        ("--encoding", "utf-16"), ("--out", "{table}"), ("--out", "x.doc"))),
    *(("evaluate", *given) for given in (("--no-header",), ("--label", "nope"), ("--label", "text"), ("--sep", "|"),
                                         ("--text", "nope"), ("--encoding", "utf-16"))),
    *(("pretrain", *given) for given in (("--text", "nope"), ("--encoding", "klingon"), ("--encoding", "utf-16"))),
    ("reproduce", "--corpus", "/nope"), ("reproduce", "--lm-from", "{table}"), ("imdb", "--lm-from", "~nouser/x")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty").mkdir()
    rows = [f'"{text}",{label}' for text, label in zip(TEXTS, LABELS)]
    (folder / "table.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    tiny(epochs=1, out=folder / "model").fit(TEXTS, LABELS)
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ULMFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path / "fastai"))


def refused(capsys, *words) -> str:
    """The one message of a command that must be refused."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:  # argparse's own refusals
        code = stop.code
    said = capsys.readouterr()
    assert code == 2, (words, said)
    assert "Traceback" not in said.err and said.err.strip(), words
    return said.err


@pytest.mark.parametrize("door", DOORS, ids=lambda door: " ".join(door)[:60])
def test_a_wrong_argument_is_refused_in_words_and_nothing_is_written(door, place, tmp_path, capsys):
    known = {"table": place / "table.csv", "model": place / "model", "empty": place / "empty", "out": tmp_path / "out"}
    words = [str(word).format(**known) if word.startswith("{") and word.endswith(("}", "}/x")) and word[1:-1] in known
             else word for word in (*COMMANDS[door[0]], *door[1:])]
    refused(capsys, *words)
    assert not (tmp_path / "out" / "run.json").exists() or door[-1] == "class_weights=[1]"


TABLES = {
    "empty.csv": b"", "header.csv": b"text,label\n", "binary.csv": bytes(range(256)) * 8, "deep.json": DEEP.encode(),
    "deep.jsonl": DEEP.encode(), "half.jsonl": b'{"text": "a", "label": "b"}\n{"text":', "list.jsonl": b"[1, 2]\n",
    "huge.jsonl": f'{{"text": {HUGE * 20}, "label": 1}}\n'.encode(), "junk.parquet": b"PAR1" + bytes(100) + b"PAR1",
    "junk.csv.gz": b"text,label\n", "junk.csv.xz": b"x" * 50, "x.doc": b"text", "utf16.csv": "text,label\na,b".encode(
        "utf-16")}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("command", ["train", "predict", "evaluate"])
def test_a_bad_table_is_refused_in_words(command, name, place, tmp_path, capsys):
    (tmp_path / name).write_bytes(TABLES[name])
    if (command, name) in (("predict", "header.csv"), ("predict", "utf16.csv")):
        pytest.skip("a table without rows has no predictions, UTF-16 says by its mark what it is, and that is right")
    out = ("--preset", "tiny", "--out", tmp_path / "out") if command == "train" else ()
    model = () if command == "train" else (place / "model",)
    refused(capsys, command, *model, tmp_path / name, *out)


ODD = [table for table in odd_tables.TABLES if table.refused]
STRANGE = {  # labels of 24 texts that nothing can be learnt from, or that no file keeps
    **{name: values for name, values, _ in odd_tables.REFUSED_LABELS}, "one class": ["a"] * 24, "none": [None] * 24,
    "too few": ["a", "b"], "a string": "ab" * 12, "all others": [f"class {i}" for i in range(24)],
    "a number": 3, "an array of one": np.array(3),
    "two columns": np.zeros((24, 2)) + 3, "rows of 0 and 1 for other texts": np.eye(2)[[0, 1] * 3],
    "long names": ["x" * 100_000] * 24, "gaps": ["a", "b", float("nan"), pd.NA] * 6,
    "names twice": pd.DataFrame(np.eye(2)[[0, 1] * 12], columns=["a", "a"]),
    "another index": pd.Series(["a", "b"] * 12, index=range(100, 124)), "mixed": [["a"], "b"] * 12}


@pytest.mark.parametrize("table", ODD, ids=lambda table: table.name)
@pytest.mark.parametrize("command", ["train", "evaluate", "pretrain"])
def test_an_odd_table_is_refused_in_words_by_every_command(command, table, place, tmp_path, capsys):
    (tmp_path / table.name).write_bytes(table.content)
    out = () if command == "evaluate" else ("--out", tmp_path / "out")
    model = (place / "model",) if command == "evaluate" else ()
    said = refused(capsys, command, *model, tmp_path / table.name, *out)
    assert len(said) < 700 and not (tmp_path / "out" / "run.json").exists()


NO_PATHS = {"a text": "A long text. " * 500, "a zero": "a\0b"}
PLACES_OF_FILES = {
    "load": lambda it: ULMFiT.load(it), "result": lambda it: Result.load(it), "report": lambda it: write_report(it),
    "comparison": lambda it: write_comparison([it, "b"], "x.html"), "starting weights": lambda it: pretrained.load(it),
    "weights": lambda it: tiny(weights=it).fit(TEXTS, LABELS), "out": lambda it: tiny(out=it).fit(TEXTS, LABELS),
    "lm": lambda it: tiny(lm=it).fit(TEXTS, LABELS), "pieces": lambda it: tiny(lang=f"{it}.model").fit(TEXTS, LABELS),
    "preset": lambda it: ULMFiT(it).fit(TEXTS, LABELS), "hub": lambda it: ULMFiT.from_pretrained(it),
    "imdb": lambda it: load_imdb(it), "task": lambda it: load_task("trec6", it), "corpus": lambda it: pretrain(it),
    "pretraining's out": lambda it: pretrain(Path(__file__).parent, out=it),
}


@pytest.mark.parametrize("door", PLACES_OF_FILES)
@pytest.mark.parametrize("given", NO_PATHS)
def test_what_can_be_no_path_is_refused_in_words_by_every_door(door, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UlmfitError) as refusal:
        PLACES_OF_FILES[door](NO_PATHS[given])
    assert len(str(refusal.value)) < 700 and [*tmp_path.iterdir()] == [], "no token is made before"


@pytest.mark.parametrize("labels", STRANGE)
def test_strange_labels_are_refused_before_anything_is_trained(labels, tmp_path):
    texts = pd.Series(TEXTS, index=range(1, 25))
    with pytest.raises(UlmfitError) as refusal:
        tiny(out=tmp_path / "out").fit(texts, STRANGE[labels])
    assert len(str(refusal.value)) < 700 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [DEEP, "", "[1]", "3", "null", '{"a": 1}', '{"classifier": ' + DEEP + "}",
                                     f'{{"seed": {HUGE}}}', '{"seed": ' + "1" * 5000 + "}", "\ufeff{}", "{"])
def test_a_bad_recipe_is_refused_in_words(content, tmp_path, capsys):
    (tmp_path / "r.json").write_text(content, encoding="utf-8")
    assert "r.json" in refused(capsys, "recipe", tmp_path / "r.json")


def test_a_recipe_that_an_editor_marked_as_utf8_is_read(tmp_path, capsys):
    assert main(["recipe", "tiny", "--json"]) == 0
    (tmp_path / "r.json").write_text("\ufeff" + capsys.readouterr().out, encoding="utf-8")
    assert main(["recipe", str(tmp_path / "r.json")]) == 0


# ---------------------------------------------------------------------------------------------- files of a model, a run
PLACES = int(os.environ.get("ULMFIT_FUZZ", "12"))
"""Of a JSON file that are damaged in each of the ways below: `ULMFIT_FUZZ=60` takes a quarter of an hour."""
WRONG = (None, [], {}, 3, "x", [[1]], {"a": {"b": [3]}}, -1.5, True, 10**400, "\x1b[31m", ["x"] * 3)
FILES = {"config.json": CONFIG, "metrics.json": METRICS, "vocab.json": VOCABULARY, "run.json": RUN, "recipe.json": {}}


def without_digests(folder: Path) -> None:
    for name in ("config.json", "run.json"):
        values = json.loads((folder / name).read_text())
        values.pop("digests", None), values.pop("digest", None)
        (folder / name).write_text(json.dumps(values))


def every_door(folder: Path, *, drawn: bool = True) -> list[str]:
    """What the doors say of a folder that may be damaged; anything but an `UlmfitError` or an answer is a failure.

    `drawn`: the report too, which takes as long as twenty of the others.
    """
    from ulmfit_fastai.results.verdict import check

    said = []
    for door in (lambda: ULMFiT.load(folder).predict(TEXTS[:1]), lambda: check(Result.load(folder)).exit_code,
                 lambda: repr(Result.load(folder)), *([lambda: write_report(folder, explain=False)] if drawn else ())):
        try:
            door()
            said.append("")
        except (UlmfitError, OSError) as error:
            said.append(str(error))
    return said


@pytest.fixture
def folder(place, tmp_path) -> Path:
    copy = Path(shutil.copytree(place / "model", tmp_path / "m"))
    without_digests(copy)
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_any_field_of_any_json_may_be_of_any_shape(folder, name, capsys):
    whole, tried = json.loads((folder / name).read_text()), 0

    def places(value, path=()):
        yield path
        if len(path) < 4:
            listed = value[:2] if isinstance(value, list) else ()
            for key, one in value.items() if isinstance(value, dict) else enumerate(listed):
                yield from places(one, (*path, key))

    chosen = list(places(whole))
    for path in [chosen[i] for i in np.random.default_rng(0).permutation(len(chosen))[:PLACES]]:
        for wrong in WRONG:
            values = json.loads(json.dumps(whole))
            inside = values
            for key in path[:-1]:
                inside = inside[key]
            if path:
                inside[path[-1]] = wrong
            (folder / name).write_text(json.dumps(values if path else wrong))
            every_door(folder, drawn=tried % 5 == 0)  # 5 and the number of wrong values have no divisor in common
            tried += 1
    with capsys.disabled():
        print(f" {name}: {tried} damages through 3 doors, a fifth through the report too", end="")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FILES, "classifier_forward.safetensors", "history.csv", "rates.csv"])
def test_any_byte_of_any_file_may_be_another(place, tmp_path, name):
    folder = Path(shutil.copytree(place / "model", tmp_path / "m"))
    data, random = (folder / name).read_bytes(), np.random.default_rng(0)
    for tried in range(40):
        broken = bytearray(data)
        broken[int(random.integers(min(len(data), 4000)))] = int(random.integers(256))
        (folder / name).write_bytes(bytes(broken[:int(random.integers(1, len(data)))] if random.random() < 0.3
                                          else broken))
        every_door(folder, drawn=tried % 5 == 0)


@pytest.mark.parametrize(("name", "field", "value"), [
    ("config.json", "directions", []), ("config.json", "directions", None), ("config.json", "directions", ["../x"]),
    ("config.json", "text", 3), ("config.json", "text", [{"a": 1}]), ("config.json", "lang", "../../x.model"),
    ("config.json", "lang", 3), ("config.json", "classes", [["a"]]), ("config.json", "centre", "x"),
    ("config.json", "data", "x"), ("config.json", "kind", "zz"),
    ("config.json", "classes", list(map(str, range(9999)))),
    ("vocab.json", "words", None), ("vocab.json", "words", [1]), ("vocab.json", "words", "abc"),
    ("recipe.json", "model", {"emb_sz": 10**9}), ("recipe.json", "model", {"n_layers": 100_000}),
    ("recipe.json", "classifier", None), ("metrics.json", None, 3), ("metrics.json", None, "x"),
    ("run.json", "stages", 3), ("run.json", "metrics", []), ("run.json", "sessions", [3]), ("run.json", "data", None),
    ("run.json", "device", "x"), ("run.json", "recipe", 3), ("run.json", "recipe", {"directions": 3}),
    ("run.json", "recipe", {"model": 3}), ("run.json", "recipe", {"lm": {"max_docs": "x"}}),
    ("run.json", "warnings", 3), ("run.json", "versions", [])])
def test_a_field_of_another_shape_is_named_with_its_file(folder, name, field, value):
    values = value if field is None else {**json.loads((folder / name).read_text()), field: value}
    (folder / name).write_text(json.dumps(values))
    said = [words for words in every_door(folder) if words]
    assert said and all(len(words) < 700 for words in said)
    assert any(name in words or (field or "") in words for words in said)


def with_header(folder: Path, change) -> None:
    path = folder / "classifier_forward.safetensors"
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size:])


@pytest.mark.parametrize("change", [
    lambda h: h["__metadata__"].update(classes="xx"), lambda h: h["__metadata__"].update(classes="null"),
    lambda h: h["__metadata__"].update(classes="3"), lambda h: h["__metadata__"].update(meta="{"),
    lambda h: h["__metadata__"].pop("meta"), lambda h: h["__metadata__"].pop("direction"),
    lambda h: h["__metadata__"].pop("vocab_hash"), lambda h: h["__metadata__"].update(direction="sideways"),
    lambda h: h.update(zz=h.pop("0.module.encoder.weight")),
    lambda h: h["0.module.encoder.weight"].update(dtype="I32"), lambda h: h.pop("1.layers.0.0.weight", None) or 1 / 1])
def test_a_strange_header_of_weights_is_refused(folder, change):
    with_header(folder, change)
    with pytest.raises(UlmfitError, match="forward"):
        ULMFiT.load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(folder, value):
    path = folder / "classifier_forward.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + struct.pack("<f", value))
    with pytest.raises(UlmfitError, match="no numbers|safetensors|classifier_forward"):
        ULMFiT.load(folder)


# -------------------------------------------------------------------------------------------------------------- Python
@pytest.mark.parametrize(("argument", "value"), [
    ("preset", 5), ("preset", True), ("epochs", "3"), ("epochs", 1.5), ("epochs", True), ("lm_epochs", "x"),
    ("random_state", 1.7), ("random_state", "x"), ("random_state", -1), ("weights", 3), ("task", "nope"), ("task", 3),
    ("lang", 3), ("validation_fraction", "x"), ("time_budget", "2h"), ("time_budget", -1), ("out", 3), ("settings", 3),
    ("settings", {3: 4}), ("class_weight", 3), ("class_weight", "none"), ("directions", 3), ("directions", ("up",)),
    ("device", "tpu"), ("device", 5), ("device", "")])
def test_an_argument_of_a_wrong_type_is_named(argument, value):
    with pytest.raises(UlmfitError, match=f"{argument}|directions|seed|time budget"):
        ULMFiT(**{"preset": "tiny", "progress": False, argument: value}).fit(TEXTS, LABELS)


def test_one_string_is_no_stream_and_outputs_have_a_width(place):
    model = ULMFiT.load(place / "model")
    for call in (lambda: model.predict_stream("abc"), lambda: model.decide(np.zeros((2, 5))),
                 lambda: model.decide(np.zeros(2))):
        with pytest.raises(UlmfitError):
            call()


# ------------------------------------------------------------------------------------------------------------ consoles
@pytest.fixture(scope="module")
def shell(place):
    def run(script: str, **environment: str) -> subprocess.CompletedProcess:
        program = f"{sys.executable} -m ulmfit_fastai"
        return subprocess.run(["bash", "-c", script.replace("U ", f"{program} ")], cwd=place, capture_output=True,
                              env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment})
    return run


def test_a_closed_or_narrow_console_gets_words_and_a_table_is_utf8(shell, place):
    (place / "good.csv").write_text("text\ngood 好 film\n", encoding="utf-8")
    narrow = shell("U predict model good.csv; U explain model '好 film'", PYTHONIOENCODING="ascii")
    assert narrow.returncode == 0 and "好" in narrow.stdout.decode("utf-8") and rb"\u597d" in narrow.stdout
    closed = shell("U predict model good.csv >&-")
    assert closed.returncode == 2 and b"closed" in closed.stderr and b"Traceback" not in closed.stderr
    gone = shell("mkdir gone && cd gone && rmdir ../gone && U recipe tiny")
    assert gone.returncode == 2 and b"not there any more" in gone.stderr and b"Traceback" not in gone.stderr


def test_control_characters_of_a_class_never_reach_the_terminal(tmp_path, capsys):
    hostile = "bad\x1b[2Jnews"
    labels = [hostile if label == "bad" else label for label in LABELS]
    tiny(epochs=1, out=tmp_path / "m").fit(TEXTS, labels)
    rows = [f'"{text}",{label}' for text, label in zip(TEXTS, labels)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    assert main(["evaluate", str(tmp_path / "m"), str(tmp_path / "t.csv")]) == 0
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err and r"\x1b[2J" in said.out
    assert "\x1b" not in (tmp_path / "m" / "README.md").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------- privacy
@pytest.mark.parametrize(("program", "words", "kept"), [
    ("/bin/ulmfit-fastai", ["train", "t.csv", "--out", "m"], "ulmfit-fastai train t.csv --out m"),
    ("/bin/ulmfit-fastai", ["imdb", "--data", "https://me:secret99@host/x?token=secret99"],
     "ulmfit-fastai imdb --data https://***@host/x?token=***"),
    ("/bin/ulmfit-fastai", ["train", "--tokenizer", "x", "--label", "key", "--out", "m"],
     "ulmfit-fastai train --tokenizer x --label key --out m"),
    (str(BENCHMARKS / "rivals.py"), ["imdb", "--data", "https://me:secret99@host/x"],
     "python -m benchmarks.rivals imdb --data https://***@host/x"),
    (str(BENCHMARKS / "gpu" / "__main__.py"), ["smoke"], "python -m benchmarks.gpu smoke"),
    (str(BENCHMARKS / "choices.py"), ["few", "--ways", "1e-3, 6 epochs"],
     "python -m benchmarks.choices few --ways '1e-3, 6 epochs'"),
    ("/bin/ulmfit-fastai", ["imdb", "--password", "secret99 of two words", "--api-key=secret99 too", "--out", "m"],
     "ulmfit-fastai imdb --password *** --api-key=*** --out m"),
    ("/home/me/benchmarks/script.py", ["--password", "secret99"], "script.py"),
    ("/home/me/script.py", ["--api-key=SECRET123", "--password", "secret99"], "script.py")])
def test_a_command_is_kept_without_secrets(program, words, kept, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program, *words])
    assert command_line() == kept


def test_the_cache_is_listed_and_cleared(tmp_path, monkeypatch, capsys):
    from ulmfit_fastai.tokens.store import TokenStore

    monkeypatch.setenv("ULMFIT_CACHE", str(tmp_path))
    store = TokenStore.make(TEXTS, progress=False)
    assert main(["cache"]) == 0 and f"{store.folder.name}" in capsys.readouterr().out and store.folder.exists()
    assert main(["cache", "--clear"]) == 0 and "24 texts" in capsys.readouterr().out and not store.folder.exists()


def test_every_command_is_tried(capsys):
    with capsys.disabled():
        tables = 3 * (len(TABLES) + len(ODD)) - 2
        print(f" {len(DOORS)} wrong arguments, {tables} bad tables, {len(STRANGE)} labels", end="")
    commands = next(action for action in build_parser()._actions if action.choices).choices
    assert {*COMMANDS} | {"check", "average", "doctor", "report", "recipe", "cache", "generate", "info",
                          "completion"} == {*commands}
