"""Tables in and out: one reader for rows, frames and articles, and a file that appears whole."""

from __future__ import annotations

import gzip

import pandas as pd
import pytest

from ulmfit_fastai._errors import UlmfitError
from ulmfit_fastai.texts.corpora import read_corpus
from ulmfit_fastai.texts.table_reader import TableReader
from ulmfit_fastai.texts.table_writer import TableWriter
from ulmfit_fastai.texts.tables import read_table
from ulmfit_fastai.texts.values import is_na

FRAME = pd.DataFrame({"text": ["a film", "NA", 'two\nlines, "quoted"'], "n": ["1", "", "007"]})


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.tsv.xz", "t.jsonl", "t.ndjson.bz2", "t.parquet"])
def test_what_is_written_is_read_again_by_every_reader(name, tmp_path):
    if "parquet" in name:
        pytest.importorskip("pyarrow")
    with TableWriter(tmp_path / name) as writer:
        writer.write(FRAME.iloc[:2])
        assert not (tmp_path / name).exists(), "it appears at the end"
        writer.write(FRAME.iloc[2:])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    for found in (read_table(tmp_path / name), pd.concat(list(TableReader(tmp_path / name)))):
        assert found.astype(object).values.tolist() == FRAME.values.tolist()
    if "tsv" not in name:
        assert list(read_corpus(tmp_path / name)) == FRAME["text"].tolist()


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.jsonl", "t.parquet"])
def test_an_error_leaves_the_old_table_and_nothing_else(name, tmp_path):
    if "parquet" in name:
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text("old")
    with pytest.raises(ZeroDivisionError), TableWriter(tmp_path / name) as writer:
        writer.write(FRAME)
        writer.write(FRAME.iloc[: 1 // 0])
    assert (tmp_path / name).read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["t.csv", "t.csv.xz", "t.jsonl", "t.parquet"])
def test_a_full_disk_leaves_the_old_table_and_nothing_else(name, tmp_path):
    resource = pytest.importorskip("resource")
    if "parquet" in name:
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))  # the system writes no file past 10 bytes
    try:
        with pytest.raises(OSError, match="too large"), TableWriter(tmp_path / name) as writer:
            writer.write(FRAME)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / name).read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_table_cut_off_within_a_cell_is_an_error_to_every_reader(tmp_path):
    (tmp_path / "t.csv").write_text('text\nwhole\n"never closed\n')
    for read in (read_table, lambda path: list(TableReader(path)), lambda path: list(read_corpus(path))):
        with pytest.raises(ValueError, match="cannot read .*t.csv: .*inside string"):
            read(tmp_path / "t.csv")


def test_a_corpus_is_read_from_rows_of_the_headers_width(tmp_path):
    (tmp_path / "t.csv").write_text("text,split\na,\nb,valid,,\n,train\n")
    assert list(read_corpus(tmp_path / "t.csv")) == ["a", "b"]
    (tmp_path / "bare.csv").write_text('one\n"two,more"\n\nthree\n')
    assert list(read_corpus(tmp_path / "bare.csv")) == ["one", "two,more", "three"]
    (tmp_path / "bare.csv").write_text("one\ntwo,more\n")
    with pytest.raises(UlmfitError, match="bare.csv: expected 1 fields, as in line 1, in line 2, saw 2"):
        list(read_corpus(tmp_path / "bare.csv"))
    (tmp_path / "none.csv").write_text("")
    assert list(read_corpus(tmp_path / "none.csv")) == []


def test_line_ends_within_a_cell_of_a_corpus_are_those_of_python(tmp_path):
    (tmp_path / "t.csv").write_bytes(b'text\r\n"one\r\ntwo"\r\n')
    assert list(read_corpus(tmp_path / "t.csv")) == ["one\ntwo"]


def test_a_packed_table_names_no_temporary_file(tmp_path):
    with TableWriter(tmp_path / "t.csv.gz") as writer:
        writer.write(FRAME)
    content = (tmp_path / "t.csv.gz").read_bytes()
    assert b"part" not in content and gzip.decompress(content).startswith(b"text,n\n")


@pytest.mark.parametrize("value", [None, float("nan"), pd.NA, pd.NaT])
def test_no_value_is_no_value_in_every_form(value):
    assert is_na(value)


@pytest.mark.parametrize("value", ["", "NA", 0, 0.0, False, [], [None], (), {"a": None}, pd.Series([None]).to_numpy()])
def test_what_is_there_is_a_value(value):
    assert not is_na(value)
