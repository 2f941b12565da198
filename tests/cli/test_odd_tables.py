"""Odd tables through every door that takes them: pandas reads back the input's rows and columns, and the new ones."""

from __future__ import annotations

import io
import logging
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from odd_tables import ROWS, TABLES, frame_of
from some_texts import reviews, tiny

from ulmfit_fastai._errors import UlmfitError
from ulmfit_fastai.cli.app import main
from ulmfit_fastai.cli.table_columns import _texts, typed
from ulmfit_fastai.texts.corpora import read_corpus
from ulmfit_fastai.texts.sources import from_file
from ulmfit_fastai.texts.table_reader import TableReader
from ulmfit_fastai.texts.tables import read_table

READ, REFUSED = ([t for t in TABLES if bool(t.refused) is refused] for refused in (False, True))
NEW = ["predicted", "prob_bad", "prob_good"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd") / "model"
    texts, labels = reviews(24)
    tiny(epochs=1).fit(pd.DataFrame({"text": texts, "label": labels}), text="text", label="label").save(folder)
    return str(folder)


def plain(frame):
    """Cells as text, so that formats that keep types compare with those that don't."""
    kept = frame.reset_index(level=[name for name in frame.index.names if name is not None])
    return [[("" if cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and cell != cell) else
              cell.decode() if isinstance(cell, bytes) else str(cell).strip("[]").replace(", ", " ").removesuffix(".0"))
             for cell in row] for row in kept.itertuples(index=False)]


@pytest.mark.parametrize("table", READ, ids=lambda table: table.name)
def test_what_pandas_reads_back_is_the_input_and_the_prediction(table, model, tmp_path, caplog, monkeypatch):
    path, out = tmp_path / table.name, tmp_path / ("out.parquet" if "parquet" in table.name else "out.csv")
    path.write_bytes(table.content)
    with caplog.at_level(logging.WARNING, "ulmfit_fastai"):
        monkeypatch.setattr("ulmfit_fastai.cli.app.set_up_logging", lambda verbose: None)
        assert main(["predict", model, str(path), "--out", str(out), *table.options]) == 0
    assert table.said in caplog.text
    found = frame_of(out.read_bytes(), out.name)
    if table.name.endswith(".txt"):
        before = pd.DataFrame({"text": table.content.decode().splitlines()})
    else:
        name = "t.csv" if "--format" in table.options else path.name
        before = frame_of(table.content, name, **table.pandas)
    assert [*map(str, found.columns)] == [*map(str, before.columns), *NEW]
    assert found.index.names == before.index.names or out.suffix == ".csv"
    if "half" not in table.name:
        assert plain(found.drop(columns=NEW)) == plain(before)
    assert sum(pd.isna(value) or value == "" for value in found["predicted"]) == table.missing
    assert (f"{table.missing} row" in caplog.text) == (table.missing > 0)


@pytest.mark.parametrize("table", REFUSED, ids=lambda table: table.name)
def test_what_is_no_table_of_texts_is_refused_by_file_and_line(table, model, tmp_path, capsys):
    path = tmp_path / table.name
    path.write_bytes(table.content)
    assert main(["predict", model, str(path), "--out", str(tmp_path / "out.csv")]) == 2
    said = capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists() and "Traceback" not in said
    with pytest.raises(UlmfitError, match=f"(?s){table.refused}"):
        raise UlmfitError(said)


@pytest.mark.parametrize("name", ["wide.csv", "wide_first.csv", "narrow.csv", "wide.tsv", "open.csv", "stray.csv"])
def test_every_door_names_the_row_that_is_too_wide_or_too_narrow(name, model, tmp_path, capsys):
    table = next(table for table in REFUSED if table.name == name)
    path = tmp_path / name
    path.write_bytes(table.content)
    for command in (["train", str(path), "--out", str(tmp_path / "m")], ["evaluate", model, str(path)],
                    ["pretrain", str(path), "--out", str(tmp_path / "p")],
                    ["reproduce", "ag", "--data", str(path), "--preset", "tiny", "--out", str(tmp_path / "r")]):
        assert main(command) == 2
        with pytest.raises(UlmfitError, match=f"(?s){name}.*|{table.refused}"):
            raise UlmfitError(capsys.readouterr().err)
    for read in (lambda: from_file(path, text="text", label="label"), lambda: list(read_corpus(path))):
        with pytest.raises(UlmfitError, match=table.refused):
            read()


def test_the_count_of_what_was_tried_is_said(capsys):
    with capsys.disabled():
        print(f"\n{len(READ)} odd tables read, {len(REFUSED)} refused")


def test_standard_input_is_a_table_whose_format_is_said(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(ROWS.encode())))
    assert main(["predict", model, "-", "--format", "csv", "--out", str(tmp_path / "o.csv")]) == 0
    assert pd.read_csv(tmp_path / "o.csv")["text"].tolist() == ["a wonderful film", "a dreadful plot"]
    assert main(["predict", model, "-"]) == 2
    assert "give --format" in capsys.readouterr().err


@pytest.mark.parametrize("columns", [[0, 1], [("review", "text"), ("meta", "n")]])
def test_columns_that_parquet_names_by_text_are_those_of_the_model(columns, tmp_path):
    frame = pd.DataFrame({"a": ["a film", "a plot"], "n": [1, 2]}).set_axis(pd.Index(columns), axis=1)
    frame.to_parquet(tmp_path / "a.parquet")
    trained = SimpleNamespace(columns=lambda frame, named: named or [columns[0]])
    for read in (frame, *TableReader(tmp_path / "a.parquet"), read_table(tmp_path / "a.parquet")):
        assert _texts(trained, read, None) == _texts(trained, read, [str(columns[0])]) == ["a film", "a plot"]


def test_a_forgotten_header_option_is_told_from_columns_that_are_called_by_numbers():
    trained = SimpleNamespace(columns=lambda frame, named: named or [1])
    with pytest.raises(UlmfitError, match="no column 1: .* 1, a film, good; give --no-header"):
        _texts(trained, pd.DataFrame([["2", "a plot", "bad"]], columns=["1", "a film", "good"]), None)


def test_numbers_with_a_comma_are_classes_and_that_is_said(caplog):
    assert typed(pd.Series(["0,5", "1,5", None]), None, "auto") == ["0,5", "1,5", None]
    assert "0,5, 1,5) are read as classes" in caplog.text
    caplog.clear()
    assert typed(pd.Series(["a,b", "1,5"]), None, "auto") == ["a,b", "1,5"] and not caplog.text


def test_whole_numbers_beside_a_gap_stay_whole(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": 9007199254740993}\n{"text": "b"}\n')
    assert typed(read_table(tmp_path / "a.jsonl")["label"], None, "auto") == [9007199254740993, None]


def test_strict_refuses_a_row_without_text(model, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("id,text\n1,film\n2,\n")
    assert main(["predict", model, str(tmp_path / "t.csv"), "--out", str(tmp_path / "o.csv"), "--strict"]) == 2
    assert "row 1" in capsys.readouterr().err and not (tmp_path / "o.csv").exists()


def test_an_encoding_travels_with_the_model_and_reaches_every_file(tmp_path, capsys):
    texts, labels = reviews(24)
    table = pd.DataFrame({"text": [text.replace("film", "schöne film") for text in texts], "label": labels})
    table.to_csv(tmp_path / "a.csv", index=False, encoding="cp1252")
    table[["text"]].to_csv(tmp_path / "u.csv", index=False, encoding="cp1252")
    made = str(tmp_path / "m")
    assert main(["train", str(tmp_path / "a.csv"), "--encoding", "cp1252", "--unlabelled", str(tmp_path / "u.csv"),
                 "--preset", "tiny", "--epochs", "1", "--out", made]) == 0
    for encoding in ("cp1252", "utf-8"):  # a file in UTF-8 is read as that all the same
        table.to_csv(tmp_path / "b.csv", index=False, encoding=encoding)
        assert main(["predict", made, str(tmp_path / "b.csv"), "--out", str(tmp_path / "o.csv")]) == 0
        assert pd.read_csv(tmp_path / "o.csv")["text"].tolist() == table["text"].tolist()
        assert main(["evaluate", made, str(tmp_path / "b.csv")]) == 0
    assert list(read_corpus(tmp_path / "u.csv", encoding="cp1252")) == table["text"].tolist()
    capsys.readouterr()


def test_the_mark_between_classes_travels_with_the_model(tmp_path, capsys):
    texts, labels = reviews(24)
    table = pd.DataFrame({"text": texts, "label": ["a|b;c" if label == "good" else "b;c" for label in labels]})
    table.to_csv(tmp_path / "a.csv", index=False)
    made = str(tmp_path / "m")
    assert main(["train", str(tmp_path / "a.csv"), "--label-delim", "|", "--preset", "tiny", "--lm-epochs", "0",
                 "--epochs", "1", "--out", made]) == 0
    capsys.readouterr()
    assert main(["evaluate", made, str(tmp_path / "a.csv")]) == 0
    told = capsys.readouterr()
    assert "b;c" in told.out and "doesn't know" not in told.err
    assert main(["evaluate", made, str(tmp_path / "a.csv"), "--label-delim", "|"]) == 0
    assert capsys.readouterr().out == told.out
