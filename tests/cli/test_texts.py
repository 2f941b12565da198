"""From a shell: train on a table as people have them, predict files of every format, and no traceback for a mistake."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from some_texts import reviews, tiny

from ulmfit_fastai import ULMFiT
from ulmfit_fastai.cli.app import main
from ulmfit_fastai.cli.options import STOPPED
from ulmfit_fastai.cli.table_columns import typed
from ulmfit_fastai.cli.texts import weights_of
from ulmfit_fastai.texts import table_reader
from ulmfit_fastai.texts.table_reader import TableReader
from ulmfit_fastai.texts.table_writer import TableWriter

TEXTS, LABELS = reviews(24)
AWKWARD = ['He said "no", twice', "a, b; c\td", "two\nlines", "so good 😀 \u00e9t\u00e9", "'quoted'", "NA", "=1+1",
           "0012"]
QUICK = ("--preset", "tiny", "--lm-epochs", "0", "--epochs", "1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A table with commas, quotes, emoji, an empty row and a rare class, and the model trained on it by the command."""
    folder = tmp_path_factory.mktemp("cli")
    rows = [*zip(range(24), TEXTS, LABELS), *((30 + i, text, LABELS[i]) for i, text in enumerate(AWKWARD)),
            (40, "neither here nor there", "meh"), (41, "", "good"), (42, "no label, this one", "")]
    with open(folder / "reviews.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "review", "mood"), *rows])
    assert main(["train", str(folder / "reviews.csv"), "--text", "review", "--label", "mood", "--drop-missing",
                 "--out", str(folder / "model"), *QUICK]) == 0
    return folder


def cells(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


# ---------------------------------------------------------------------------------------------------- train and predict
def test_predict_keeps_rows_order_and_cells_and_adds_what_the_model_says(trained, capsys):
    assert main(["predict", str(trained / "model"), str(trained / "reviews.csv"), "--out", str(trained / "p.csv")]) == 0
    before, after = cells(trained / "reviews.csv"), cells(trained / "p.csv")
    assert after[0] == ["id", "review", "mood", "predicted", "prob_bad", "prob_good", "prob_meh"]
    assert [row[:3] for row in after] == before
    assert after[-2][3:] == ["", "", "", ""]  # the row without text
    model = ULMFiT.load(trained / "model")
    filled = [row for row in after[1:] if row[1]]
    assert [row[3] for row in filled] == model.predict([row[1] for row in filled]).tolist()
    probs = np.array([row[4:] for row in filled], dtype=float)
    np.testing.assert_allclose(probs, model.predict_proba([row[1] for row in filled]), atol=6e-7)
    assert "35 rows" in capsys.readouterr().out


def test_predict_does_not_write_over_the_rows_it_reads(trained, tmp_path, monkeypatch, capsys):
    table = tmp_path / "rows.csv"
    table.write_text((trained / "reviews.csv").read_text("utf-8"), "utf-8")
    (tmp_path / "also.csv").symlink_to(table)
    monkeypatch.setenv("HOME", str(tmp_path))
    for out in (table, tmp_path / "also.csv", "~/rows.csv"):
        assert main(["predict", str(trained / "model"), str(table), "--out", str(out)]) == 2
        assert "is the file that is read" in capsys.readouterr().err
    assert cells(table) == cells(trained / "reviews.csv")


def test_the_model_says_what_it_was_trained_on(trained):
    config = ULMFiT.load(trained / "model").model_.config
    assert config.text == ("review",) and config.label == "mood" and config.target.classes == ("bad", "good", "meh")
    assert config.data["counts"] == {"train": 33, "test": 0, "unsup": 1}
    assert "held-out error" in (trained / "model" / "report.html").read_text()
    assert json.loads((trained / "model" / "run.json").read_text())["data"]["source"] == "reviews.csv"
    assert "row 33 (counted from 0) of column review is empty: left out" in (trained / "model" / "run.json").read_text()


def test_the_same_command_again_finds_its_work_done(trained, capsys):
    assert main(["train", str(trained / "reviews.csv"), "--text", "review", "--label", "mood", "--drop-missing",
                 "--out", str(trained / "model"), *QUICK]) == 0
    assert "held-out texts: error" in capsys.readouterr().out
    assert main(["train", str(trained / "reviews.csv"), "--text", "review", "--label", "mood", "--drop-missing",
                 "--out", str(trained / "model"), *QUICK, "--seed", "5"]) == 2
    assert "another recipe (seed: 0 there, 5 here)" in capsys.readouterr().err


@pytest.mark.parametrize(("source", "out"), [
    ("in.tsv", "out.tsv"), ("in.jsonl", "out.jsonl"), ("in.parquet", "out.parquet"), ("in.csv.gz", "out.csv.xz"),
    ("in.txt", "out.csv"), ("in.json", "out.parquet"), ("in.jsonl.bz2", "out.csv"),
])
def test_every_format_goes_in_and_out(trained, tmp_path, source, out):
    texts = [text for text in AWKWARD if "\n" not in text] if source == "in.txt" else AWKWARD
    frame = pd.DataFrame({"review": texts, "n": [str(i) for i in range(len(texts))]})
    path = tmp_path / source
    if "json" in source:
        frame.to_json(path, orient="records", lines="jsonl" in source)
    elif source == "in.parquet":
        frame.to_parquet(path)
    elif source == "in.txt":
        path.write_text("\n".join(texts), encoding="utf-8")
    else:
        frame.to_csv(path, index=False, sep="\t" if "tsv" in source else ",")
    column = ["--text", "text"] if source == "in.txt" else []
    assert main(["predict", str(trained / "model"), str(path), "--out", str(tmp_path / out), *column]) == 0
    found = pd.concat(list(TableReader(tmp_path / out)))
    assert found["text" if source == "in.txt" else "review"].tolist() == texts
    assert found["predicted"].tolist() == ULMFiT.load(trained / "model").predict(texts).tolist()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_without_out_the_table_goes_to_the_screen(trained, tmp_path, capsys):
    (tmp_path / "in.csv").write_text("review\nA wonderful film.\n")
    assert main(["predict", str(trained / "model"), str(tmp_path / "in.csv")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "review,predicted,prob_bad,prob_good,prob_meh"


@pytest.mark.parametrize(("out", "both"), [(False, True), (True, True), (False, False)])
def test_a_bar_counts_predicted_rows_where_the_rows_are_not_on_the_screen_themselves(trained, tmp_path, monkeypatch,
                                                                                     capsys, out, both):
    monkeypatch.setattr("ulmfit_fastai._progress.SCREEN_EVERY", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: both, raising=False)
    arguments = ["--out", str(tmp_path / "out.csv")] if out else []
    assert main(["predict", str(trained / "model"), str(trained / "reviews.csv"), *arguments]) == 0
    assert ("35 rows, 0 s left" in capsys.readouterr().err) == (out or not both)


def test_into_a_file_progress_is_a_line_a_minute(trained, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("ulmfit_fastai._progress.time", SimpleNamespace(monotonic=itertools.count(0, 61).__next__))
    arguments = [str(trained / "model"), str(trained / "reviews.csv"), "--out", str(tmp_path / "p.csv")]
    assert main(["predict", *arguments]) == 0
    assert "predicting: 35 rows, 0 s left (100 % done)" in caplog.messages


def test_evaluate_counts_the_rows_that_have_a_label(trained, capsys, caplog):
    assert main(["evaluate", str(trained / "model"), str(trained / "reviews.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 33 and 0 <= found["error"] <= 100
    counts = {label: sum(row.values()) for label, row in found["confusion"].items()}
    assert counts == {label: scores["n"] for label, scores in found["classes"].items()} and sum(counts.values()) == 33
    right = sum(found["confusion"][label][label] for label in counts)
    assert right == 33 - found["wrong"]
    assert all(0 <= scores["f1"] <= 1 for scores in found["classes"].values() if scores["f1"] is not None)
    assert main(["evaluate", str(trained / "model"), str(trained / "reviews.csv")]) == 0
    out = capsys.readouterr().out
    assert f"error {found['error']:.2f} %" in out and "row: label, column: predicted" in out


def test_int8_is_an_option(trained, capsys):
    results = []
    for flags in ([], ["--int8"]):
        assert main(["predict", str(trained / "model"), str(trained / "reviews.csv"), *flags]) == 0
        rows = list(csv.reader(capsys.readouterr().out.splitlines()))
        results.append(np.array([row[-3:] for row in rows if row[-1][:1] in "01" and row[-1]], dtype=float))
        assert main(["evaluate", str(trained / "model"), str(trained / "reviews.csv"), "--json", *flags]) == 0
        assert json.loads(capsys.readouterr().out)["n"] == 33
    assert 0 < np.abs(results[0] - results[1]).max() < 0.02


def test_an_explanation_is_a_page_too_and_json(trained, tmp_path, capsys):
    page = tmp_path / "why.html"
    text = "a dreadful film & <i>more</i>"
    assert main(["explain", str(trained / "model"), text, "--html", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "dreadful" in [word["text"] for word in found["words"]] and set(found["outputs"]) == {"bad", "good", "meh"}
    html = page.read_text(encoding="utf-8")
    assert html.startswith("<!DOCTYPE html>") and "dreadful" in html and "<i>" not in html


def test_rows_go_to_the_screen_as_json_lines_too(trained, tmp_path, capsys):
    (tmp_path / "in.csv").write_text("id,review\n1,A wonderful film.\n2,\n")
    assert main(["predict", str(trained / "model"), str(tmp_path / "in.csv"), "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["review"] == "A wonderful film." and first["predicted"] in ("bad", "good", "meh")
    assert main(["predict", str(trained / "model"), str(tmp_path / "in.csv"), "--json", "--out",
                 str(tmp_path / "out.csv")]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 2, "without_text": 1, "out": str(tmp_path / "out.csv")}


def test_info_says_what_a_model_is_and_notices_another_file(trained, tmp_path, capsys):
    assert main(["info", str(trained / "model"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    config = ULMFiT.load(trained / "model").model_.config
    assert found["classes"] == ["bad", "good", "meh"] and found["language"] == "en" and found["text"] == ["review"]
    assert found["digests"] == config.digests and found["trained_on"]["fingerprint"] == config.data["fingerprint"]
    assert found["files"]["classifier_forward.safetensors"] > 1000
    assert main(["info", str(trained / "model")]) == 0
    assert re.search(r"classes +bad, good, meh\n", shown := capsys.readouterr().out) and "what its record says" in shown
    shutil.copytree(trained / "model", tmp_path / "copy")
    (tmp_path / "copy" / "metrics.json").write_text("{}")
    assert main(["info", str(tmp_path / "copy")]) == 2
    assert "metrics.json is damaged" in capsys.readouterr().err


def test_explain_shows_the_words(trained, capsys):
    assert main(["explain", str(trained / "model"), "a dreadful film", "--target", "bad"]) == 0
    assert "dreadful" in capsys.readouterr().out


def test_several_classes_and_numbers_by_their_options(tmp_path, capsys):
    frame = pd.DataFrame({"text": TEXTS, "tags": ["x; y" if i % 3 == 0 else "y" if i % 3 == 1 else "" for i in
                                                  range(24)], "stars": [f"{i % 5}.5" for i in range(24)]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    table, model = str(tmp_path / "t.csv"), str(tmp_path / "tags")
    assert main(["train", table, "--label", "tags", "--label-delim", ";", "--out", model, *QUICK]) == 0
    said = capsys.readouterr()
    assert "8 of 24 labels are empty" in said.err and "accuracy" not in said.err
    assert main(["evaluate", model, table, "--json"]) == 0
    assert "micro_f1" in capsys.readouterr().out
    assert main(["predict", model, table, "--out", str(tmp_path / "p.csv")]) == 0
    assert cells(tmp_path / "p.csv")[0][3:] == ["predicted", "prob_x", "prob_y"]
    assert {row[3] for row in cells(tmp_path / "p.csv")[1:]} <= {"", "x", "y", "x;y"}
    assert main(["train", table, "--label", "stars", "--out", str(tmp_path / "stars"), *QUICK]) == 0
    assert main(["predict", str(tmp_path / "stars"), table, "--out", str(tmp_path / "q.jsonl")]) == 0
    assert "accuracy" not in capsys.readouterr().err and "accuracy" not in json.dumps(
        json.loads((tmp_path / "stars" / "run.json").read_text())["stages"])
    rows = [json.loads(line) for line in open(tmp_path / "q.jsonl", encoding="utf-8")]
    assert all(0 < row["predicted"] < 5 for row in rows) and list(rows[0]) == ["text", "tags", "stars", "predicted"]


def test_a_training_stopped_by_its_time_goes_on(tmp_path, capsys):
    pd.DataFrame({"text": TEXTS, "label": LABELS}).to_csv(tmp_path / "t.csv", index=False)
    command = ["train", str(tmp_path / "t.csv"), "--out", str(tmp_path / "m"), "--preset", "tiny", "--epochs", "1"]
    assert main([*command, "--time-budget", "0.001"]) == STOPPED
    assert main(["predict", str(tmp_path / "m"), str(tmp_path / "t.csv")]) == 2
    assert "not finished" in capsys.readouterr().err
    assert main(command) == 0
    assert main(["predict", str(tmp_path / "m"), str(tmp_path / "t.csv")]) == 0


def test_a_dry_run_leaves_nothing(tmp_path, capsys):
    pd.DataFrame({"text": TEXTS, "label": LABELS}).to_csv(tmp_path / "t.csv", index=False)
    assert main(["train", str(tmp_path / "t.csv"), "--out", str(tmp_path / "m"), "--preset", "tiny", "--dry-run"]) == 0
    assert "in all about" in capsys.readouterr().out and not (tmp_path / "m").exists()


# ------------------------------------------------------------------------------------------------------------- mistakes
@pytest.mark.parametrize(("command", "said"), [
    (["train", "{csv}", "--text", "revue", "--label", "mood", "--out", "{tmp}/x"], "no column revue; the columns"),
    (["train", "{csv}", "--label", "mood", "--out", "{tmp}/x"], "give --text: there is no column 'text'"),
    (["train", "{csv}", "--text", "review", "--label", "mood", "--out", "{tmp}/x"], "is empty.*--drop-missing"),
    (["train", "{csv}", "--text", "review", "--label", "id", "--drop-missing", "--out", "{tmp}/x"],
     "are they classes.*for numbers give --task regression"),
    (["train", "{csv}", "--text", "review", "--label", "mood", "--drop-missing", "--valid-share", "0.9",
      "--out", "{tmp}/x"], "at most 0.5, found 0.9; give another --valid-share"),
    (["train", "{tmp}/no.csv", "--out", "{tmp}/x"], "no such file or folder"),
    (["train", "{csv}", "--text", "review", "--label", "mood", "--drop-missing", "--class-weight", "heavy",
      "--out", "{tmp}/x"], "expects balanced, or CLASS=NUMBER"),
    (["predict", "{tmp}", "{csv}"], "expected config.json"),
    (["predict", "{model}", "{csv}", "--text", "revue"], "no column revue"),
    (["predict", "{model}", "{csv}", "--out", "{tmp}/p.xlsx"], "cannot write .*p.xlsx: expected a name that ends in"),
    (["predict", "{model}", "{model}/README.md"], "cannot tell the format"),
    (["evaluate", "{model}", "{csv}", "--label", "id"], "none of the model's classes"),
    (["explain", "{model}", "  "], "at least one word|empty"),
    (["explain", "{model}", "good", "--html", ""], "--html is empty"),
    (["info", "{tmp}"], "expected config.json .a saved model. or run.json"),
    (["info", "{tmp}/no"], "is no folder"),
])
def test_a_mistake_is_answered_in_one_message(trained, tmp_path, capsys, command, said):
    import re

    places = {"csv": trained / "reviews.csv", "model": trained / "model", "tmp": tmp_path}
    assert main([part.format(**places) for part in command]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and "Traceback" not in error
    assert not (tmp_path / "x").exists() and list(tmp_path.glob(".p*")) == []


def test_a_column_that_would_be_overwritten_is_refused_and_nothing_is_written(trained, tmp_path, capsys):
    (tmp_path / "in.csv").write_text("review,predicted\nfine,yes\n")
    assert main(["predict", str(trained / "model"), str(tmp_path / "in.csv"), "--out", str(tmp_path / "o.csv")]) == 2
    assert "column predicted already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_help_of_the_commands_needs_nothing_heavy():
    code = ("import sys; from ulmfit_fastai.cli import main\ntry: main(['predict', '--help'])\n"
            "except SystemExit: print(*sys.modules)")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "order" in out and not {"torch", "pandas", "numpy"} & set(out.split())


# ---------------------------------------------------------------------------------------------------------------- files
@pytest.mark.parametrize(("given", "read"), [
    (["1", "2", ""], [1, 2, None]), (["1.5", "2", " 3 "], [1.5, 2.0, 3.0]), (["007", "1"], ["007", "1"]),
    (["a ", "", "b"], ["a", None, "b"]), ([1, None, 2.5], [1, None, 2.5]), (["1", "x"], ["1", "x"]),
    (["-1e3", ".5"], [-1000.0, 0.5]),
])
def test_labels_of_a_table_are_read_as_what_all_of_them_can_be(given, read):
    assert typed(pd.Series(given, dtype=object), None, "auto") == read


def test_class_weights_are_read_from_the_shell():
    assert weights_of(None) is None and weights_of(["balanced"]) == "balanced"
    assert weights_of(["spam=5", "a=b=0.5"]) == {"spam": 5.0, "a=b": 0.5}


def test_tables_are_read_in_parts_and_say_how_far_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(table_reader, "ROWS", 10)
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(25)]})
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        frame.to_csv(tmp_path / name, index=False) if name == "t.csv" else (
            frame.to_json(tmp_path / name, orient="records", lines=True) if "jsonl" in name else
            frame.to_parquet(tmp_path / name))
        reader = TableReader(tmp_path / name)
        parts = [(len(part), part.index[0], reader.share) for part in reader]
        assert [part[0] for part in parts] == [10, 10, 5] and [part[1] for part in parts] == [0, 10, 20], name
        assert parts[-1][2] == pytest.approx(1.0), name


def test_json_keeps_numbers_nulls_and_absent_names(tmp_path):
    lines = ['{"text": "a", "n": 1, "deep": {"x": [1, null]}}', '{"text": "b", "n": null}', '{"n": 2.0, "text": "c"}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    with TableWriter(tmp_path / "out.jsonl") as writer:
        for part in TableReader(tmp_path / "in.jsonl"):
            writer.write(part)
    assert [json.loads(line) for line in open(tmp_path / "out.jsonl")] == [json.loads(line) for line in lines]


def test_parquet_keeps_its_types(tmp_path):
    import pyarrow
    import pyarrow.parquet as parquet

    table = pyarrow.table({"text": ["a", "b"], "n": pyarrow.array([1, None], pyarrow.int16()),
                           "day": pyarrow.array([1, 2], pyarrow.date32()), "tags": [["x"], []]})
    parquet.write_table(table, tmp_path / "in.parquet")
    with TableWriter(tmp_path / "out.parquet") as writer:
        for part in TableReader(tmp_path / "in.parquet"):
            writer.write(part)
    found = parquet.read_table(tmp_path / "out.parquet")
    assert found.schema.remove_metadata() == table.schema and found.equals(table)


def test_damaged_files_are_named(tmp_path):
    whole = gzip.compress(b"text\n" + b"some words\n" * 5000)
    (tmp_path / "cut.csv.gz").write_bytes(whole[:-20])
    (tmp_path / "latin.csv").write_bytes("text\nété\n".encode("latin-1"))
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\nnot json\n')
    (tmp_path / "none.csv").write_text("")
    for name, said in (("cut.csv.gz", "damaged or was cut off"), ("latin.csv", "not utf-8 text .* Give its encoding"),
                       ("bad.jsonl", "line 2 is no JSON"), ("none.csv", "is empty")):
        with pytest.raises(ValueError, match=said):
            list(TableReader(tmp_path / name))


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8"])
def test_a_table_in_another_encoding_is_read_when_it_is_named(encoding, trained, tmp_path, capsys):
    rows = [("review", "mood"), ("a superb \u00e9t\u00e9, \u201creally\u201d", "good"), ("a dull caf\u00e9", "bad")]
    content = "".join(f'"{text.replace(chr(34), chr(34) * 2)}",{label}\r\n' for text, label in rows)
    (tmp_path / "in.csv").write_bytes(content.encode("utf-8-sig" if encoding == "utf-8" else encoding))
    said, model, table = ["--encoding", encoding], str(trained / "model"), str(tmp_path / "in.csv")
    assert main(["predict", model, table, "--out", str(tmp_path / "p.csv"), *said]) == 0
    assert [tuple(row[:2]) for row in cells(tmp_path / "p.csv")] == rows
    assert main(["evaluate", model, table, *said]) == 0
    assert main(["train", table, "--text", "review", "--label", "mood", "--out", str(tmp_path / "m"), *QUICK,
                 *said]) == 2
    assert "at least 4 are needed" in capsys.readouterr().err


def test_an_encoding_that_python_does_not_know_is_refused(trained, capsys):
    with pytest.raises(SystemExit):
        main(["predict", str(trained / "model"), str(trained / "reviews.csv"), "--encoding", "latin-99"])
    assert "expected utf-8, cp1252" in capsys.readouterr().err


@pytest.mark.slow
def test_a_hundred_thousand_texts_take_no_more_memory_than_ten_thousand(tmp_path):
    tiny(epochs=1).fit(TEXTS, LABELS).save(tmp_path / "m")
    code = ("import resource, sys; from ulmfit_fastai.cli import main; main(sys.argv[1:])\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)")
    peak = {}
    for n in (10_000, 100_000):
        with open(tmp_path / f"{n}.csv", "w") as file:
            file.write("id,text\n" + "".join(f"{i},film {i % 5000} was {LABELS[i % 2]}\n" for i in range(n)))
        args = ["predict", str(tmp_path / "m"), str(tmp_path / f"{n}.csv"), "--out", str(tmp_path / f"{n}.out.csv")]
        said = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True).stdout
        peak[n] = int(said.split()[-1])
        assert [row[0] for row in cells(tmp_path / f"{n}.out.csv")[1:]] == [str(i) for i in range(n)]
    assert peak[100_000] < 1.1 * peak[10_000], peak
