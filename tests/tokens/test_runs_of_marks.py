"""Tokenising takes time in proportion to the text, also where it is nothing but marks, and cuts leave tokens alone."""

from __future__ import annotations

import tarfile
import time
from itertools import islice

import pytest

from ulmfit_fastai.tokens.chunks import LONG_RUN, ChunkSplitter
from ulmfit_fastai.tokens.stream import tokenize


@pytest.fixture(scope="module")
def splitter():
    return ChunkSplitter("en")


def plain(splitter, text):
    return [token.text for token in splitter._spacy(text)]


MARKS = ["()", "!?", "._", "=.", '?"', ",'", ":-)", "…“", ".)", "%)", "’s", "'s", "({[", "$1", "a.", "é)",
         "-=", "+-", "😀!"]


@pytest.mark.parametrize("marks", MARKS)
def test_a_run_that_is_cut_has_the_tokens_of_the_whole_or_that_is_said(splitter, marks, caplog):
    text, splitter._said = (marks * 1000)[:1000], False
    found = splitter.spacy(text)
    assert "".join(found) == text
    assert (found == plain(splitter, text)) is not ("may differ from fastai's" in caplog.text)


@pytest.mark.parametrize("text", ["()" * LONG_RUN + "word", "word" + "!?" * LONG_RUN, "a " + "()" * LONG_RUN + " b"])
def test_what_stands_beside_a_run_keeps_its_tokens(splitter, text):
    assert splitter.spacy(text) == plain(splitter, text)


@pytest.mark.parametrize("marks", ["()", "!?", "._", "’s", "…“"])
def test_the_time_is_proportional_to_the_run(marks):
    tokenize(["warm"], n_workers=1)

    def seconds(n):
        started = time.process_time()
        tokenize([(marks * n)[:n]], n_workers=1)
        return time.process_time() - started

    short, long = seconds(20_000), seconds(80_000)
    assert long < 8 * max(short, 0.05) and long < 8


@pytest.mark.slow
def test_ordinary_reviews_have_no_run_that_is_cut(test_data, splitter):
    with tarfile.open(test_data / "imdb" / "imdb.tgz", "r|gz") as archive:
        files = (member for member in archive if member.name.endswith(".txt"))
        texts = [archive.extractfile(member).read().decode("utf8") for member in islice(files, 3000)]
    assert len(texts) == 3000
    assert [text for text in texts if splitter._cuts(text)] == []
