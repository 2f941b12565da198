"""Corpora for pretraining: every format, one article after the other, and never a held-out file by accident."""

from __future__ import annotations

import gzip
import json
import lzma
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from ulmfit_fastai.texts.corpora import read_corpus

ARTICLES = ["First article.\nIt has two lines.", "Second one, with café.", "Third."]
WIKITEXT = (
    " \n = First title = \n \n Some text of the first . \n \n = = A section = = \n \n More text . \n \n"
    " = Second = \n \n The second . \n = no title = \n not alone , so no title . \n \n"
    " = A book of 2010 = \n Its publisher . \n \n = X = \n \n The third . \n"
)


def write_jsonl(path: Path, texts: list[str], opener=open) -> Path:
    with opener(path, "wt", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            file.write(json.dumps({"id": number, "title": "t", "text": text}) + "\n")
    return path


def test_json_lines_are_read_in_order_compressed_or_not(tmp_path):
    for name, opener in (("a.jsonl", open), ("a.jsonl.xz", lzma.open), ("a.jsonl.gz", gzip.open)):
        assert list(read_corpus(write_jsonl(tmp_path / name, ARTICLES, opener))) == ARTICLES


def test_parquet_and_csv_rows_are_articles(tmp_path):
    pd.DataFrame({"text": ARTICLES}).to_csv(tmp_path / "a.csv", index=False)
    assert list(read_corpus(tmp_path / "a.csv")) == ARTICLES
    pytest.importorskip("pyarrow")
    pd.DataFrame({"text": ARTICLES}).to_parquet(tmp_path / "a.parquet")
    assert list(read_corpus(tmp_path / "a.parquet")) == ARTICLES


def test_a_csv_cell_longer_than_pythons_limit_is_read(tmp_path):
    long = "word " * 50_000
    pd.DataFrame({"text": [long]}).to_csv(
        tmp_path / "a.csv", index=False, header=False
    )  # fastai's WikiText has no header
    assert list(read_corpus(tmp_path / "a.csv")) == [long]


@pytest.mark.parametrize("name", ["wiki.tokens", "wiki.raw", "wiki.txt", "wiki.csv", "lines.parquet", "whole.parquet"])
def test_wikitext_is_split_at_its_titles_and_only_there(tmp_path, name):
    path = tmp_path / name
    if name.endswith("csv"):
        pd.DataFrame([WIKITEXT]).to_csv(path, index=False, header=False)
    elif name.endswith("parquet"):
        pytest.importorskip("pyarrow")
        rows = [WIKITEXT] if name.startswith("whole") else WIKITEXT.splitlines(keepends=True)
        pd.DataFrame({"text": rows}).to_parquet(path)
    else:
        path.write_text(WIKITEXT, encoding="utf-8")
    articles = list(read_corpus(path))
    assert [article.split("\n")[0] for article in articles] == [" = First title = ", " = Second = ", " = X = "]
    assert "".join(articles).split() == WIKITEXT.split(), "not a word is lost"


def test_plain_text_is_cut_at_empty_lines_into_long_pieces(tmp_path):
    paragraph = "word " * 299 + "end.\n\n"
    (tmp_path / "a.txt").write_text(paragraph * 10, encoding="utf-8")
    pieces = list(read_corpus(tmp_path / "a.txt"))
    assert [len(piece.split()) for piece in pieces] == [1200, 1200, 600]
    assert "".join(pieces) == paragraph * 10
    (tmp_path / "b.txt").write_text("word " * 100 + "\n", encoding="utf-8")
    assert len(list(read_corpus(tmp_path / "b.txt"))) == 1
    (tmp_path / "c.txt").write_text(("word " * 100 + "\n") * 250, encoding="utf-8")
    assert [len(piece.split()) for piece in read_corpus(tmp_path / "c.txt")] == [10_000, 10_000, 5_000]


def test_a_folder_is_read_without_its_held_out_files(tmp_path):
    for name in ("train-01", "train-00", "valid", "test"):
        write_jsonl(tmp_path / f"{name}.jsonl", [f"from {name}"])
    (tmp_path / "README.md").write_text("not a text")
    assert list(read_corpus(tmp_path)) == ["from train-00", "from train-01"]
    assert list(read_corpus(tmp_path, split="valid")) == ["from valid"]
    assert list(read_corpus(tmp_path / "test.jsonl")) == ["from test"], "a file asked for by its name is read"
    assert list(read_corpus(f"{tmp_path}/train-0*.jsonl")) == ["from train-00", "from train-01"]
    with pytest.raises(ValueError, match="no file of the part 'dev'"):
        read_corpus(tmp_path, split="dev")


def test_a_folder_of_files_that_name_no_part_is_read_whole(tmp_path):
    for name in ("b", "a", "contest"):
        write_jsonl(tmp_path / f"{name}.jsonl", [f"from {name}"])
    assert list(read_corpus(tmp_path)) == ["from a", "from b", "from contest"]


def test_rows_of_another_part_are_left_out(tmp_path):
    pytest.importorskip("pyarrow")
    rows = pd.DataFrame({"split": ["test", "train", "valid"], "text": ["three", "one", "two"]})
    for name, write in (("parquet", pd.DataFrame.to_parquet), ("csv", partial(pd.DataFrame.to_csv, index=False)),
                        ("jsonl", partial(pd.DataFrame.to_json, orient="records", lines=True))):
        write(rows, tmp_path / f"a.{name}")
        assert list(read_corpus(tmp_path / f"a.{name}")) == ["one"], name
        assert list(read_corpus(tmp_path / f"a.{name}", split="test")) == ["three"], name
        write(rows[rows["split"] != "train"], tmp_path / f"b.{name}")
        assert list(read_corpus(tmp_path / f"b.{name}")) == ["three", "two"], "without a training part all is read"


def test_it_ends_with_the_article_that_reaches_the_limit(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ["one two three"] * 10)
    assert len(list(read_corpus(path, limit_words=7))) == 3
    assert len(list(read_corpus(path, limit_words=1000))) == 10
    with pytest.raises(ValueError, match="limit_words must be positive"):
        read_corpus(path, limit_words=0)


def test_it_reads_no_more_than_it_is_asked_for(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, ["good"] * 1000)
    with open(path, "a") as file:
        file.write("not json\n")
    assert next(read_corpus(path)) == "good"


def test_a_cut_off_file_is_an_error_and_not_a_shorter_corpus(tmp_path):
    whole = write_jsonl(tmp_path / "a.jsonl.xz", ["word " * 1000 + str(n) for n in range(100)], lzma.open).read_bytes()
    (tmp_path / "cut.jsonl.xz").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="cut.jsonl.xz .* is damaged or was cut off"):
        list(read_corpus(tmp_path / "cut.jsonl.xz"))


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"body": "?"}\n')
    with pytest.raises(ValueError, match="a.jsonl, line 2: no column `text` of texts; found body"):
        list(read_corpus(tmp_path / "a.jsonl"))
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="a.txt is not UTF-8"):
        list(read_corpus(tmp_path / "a.txt"))
    with pytest.raises(ValueError, match="no such file"):
        read_corpus(tmp_path / "nothing.jsonl")
    with pytest.raises(ValueError, match="no file matches"):
        read_corpus(f"{tmp_path}/x*.jsonl")
    (tmp_path / "a.doc").write_text("?")
    with pytest.raises(ValueError, match="cannot tell the format"):
        read_corpus(tmp_path / "a.doc")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no text in"):
        read_corpus(tmp_path / "empty")


def test_the_real_wikitext_2_has_its_published_articles_and_words(test_data):
    path = test_data / "wikitext2" / "wikitext2.parquet"
    for split, articles, words in (("train", 600, 2_051_910), ("valid", 60, 213_886), ("test", 60, 241_211)):
        texts = list(read_corpus(path, split=split))
        assert (len(texts), sum(len(text.split()) for text in texts)) == (articles, words)


def test_the_real_wikipedia_gives_its_held_out_articles_only_by_name(test_data):
    valid = list(read_corpus(test_data / "wikipedia_en", split="valid"))
    assert len(valid) == 200 and sum(len(text.split()) for text in valid) == 588_587
    train = list(read_corpus(test_data / "wikipedia_en", limit_words=200_000))
    assert not set(valid) & set(train)
    assert 200_000 <= sum(len(text.split()) for text in train) < 250_000
