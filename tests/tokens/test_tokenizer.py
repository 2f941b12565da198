"""The fast tokeniser yields fastai's tokens: on nasty strings, on chosen ones, on real reviews and articles."""

from __future__ import annotations

import json
import lzma
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from fastai.text.core import tokenize_df

from ulmfit_fastai.tokens import chunks as spacy_chunks
from ulmfit_fastai.tokens import stream as token_stream
from ulmfit_fastai.tokens.chunks import ChunkSplitter
from ulmfit_fastai.tokens.rules import lower_marked, mark_repeats, space_out
from ulmfit_fastai.tokens.stream import WordTable, encode_batches, tokenize
from ulmfit_fastai.tokens.tokenizer import FastTokenizer
from ulmfit_fastai.tokens.workers import Sender


def stock(texts: list[str]) -> list[list[str]]:
    """What fastai trains on: `Tokenizer.from_df` calls `tokenize_df` on the frame it is set up with."""
    frame, _ = tokenize_df(pd.DataFrame({"text": texts}), "text", n_workers=0)
    return [list(tokens) for tokens in frame["text"]]


def assert_equals_stock(texts: list[str]) -> None:
    for text, ours, theirs in zip(texts, tokenize(texts, n_workers=1), stock(texts), strict=True):
        assert ours == theirs, f"{text!r}"


WORDS = """a A the The THE cannot Cannot gonna i'm I'M don't DON'T it's It's who're y'all ma'am 'cause ’cause 'em
    o'clock rock'n'roll well-known Well-Known WELL-KNOWN x-y-z iPhone McDonald A1 1A A- a- B. aA AaA I I. A.B.C. U.S.
    u.s.a Mr. Dr. etc. e.g. Ph.D. co. and/or km 10km 10p.m. 100km 3.14 1,000 10% $100 us$5 1qxqs qxq qxq- %s 50%s a%sb
    soooo SOOO aaa aaaa 4444 333 22 ha very blah, 's 'S s' é É ÉCOLE Straße İ Σ ΑΣ ǅ ﬁ K e\u0301 中文 中文中文 العربية
    😀 😀😀😀
    👨‍👩‍👧 http://x.com/a?b=c www.imdb.com foo@bar.com xxbos XXBOS xxrep xxmaj xxup xxfake xxunk ▁ a▁b""".split()
MARKS = """. .. ... .... , ; : ! ? !!! ?! - -- --- — – … " “ ” ' '' ’ ‘ ` ( ) (( [ ] { } % + = ~ | ^ _ __ * ** / // \\ #
    ## & < > @ @-@ :) :( (: ): :-) ;-) ;) :D <3 </3 ^_^ o.O (o: 8) v.v 0.0 *_* (*_*) ¯\\(ツ)/¯ (╯°□°）╯︵┻━┻ ಠ_ಠ ><(((*>
    >.< °C. £ € ¬ \x00 \x07 \ue000 <br /> <br /><br /> &amp; &lt;b&gt; &#0; &#x1F600; #39; amp; quot; #36; #146; nbsp;
    &nbsp; <unk> \\n \\" """.split()
SPACES = [" "] * 6 + ["", "", "\n", "\n\n", "\t", "  ", "   ", " \n", "\n ", " \n \n ", "<br />", " <br /><br /> ",
          "\r\n", " @-@ ", " @.@ ", "\x0b", "\x1c", "\x85", "\xa0", "\u2028", "\u3000", "\u200b", "\ufeff"]  # fmt: skip


def nasty(count: int, seed: int) -> list[str]:
    """Seeded strings of words, marks and spaces that meet every rule, and some of few or of any characters."""
    dice = random.Random(seed)

    def text() -> str:
        kind = dice.random()
        if kind < 0.1:
            ranges = ((32, 127), (1, 256), (1, 0x3000), (0x1F300, 0x1F700))
            return "".join(chr(dice.randrange(*dice.choice(ranges))) for _ in range(dice.randrange(1, 60)))
        if kind < 0.3:
            few = ["a :)(", "aA .\n", "ab \t", "4x /", "()-: ", "'.,a I", "\n \ta", "!? A#", "v . _ o", "(:)- "]
            letters = dice.choice(few)
            return "".join(dice.choice(letters) for _ in range(dice.randrange(1, 80)))
        parts: list[str] = []
        for _ in range(dice.randrange(1, 40)):
            part = dice.choice(WORDS) if dice.random() < 0.6 else dice.choice(MARKS)
            if dice.random() < 0.2:
                part = dice.choice([part.upper(), part.lower(), part.title(), part[::-1], part * 2, part * 3, part * 4])
            parts += [part, dice.choice(SPACES)]
            if dice.random() < 0.1:  # words in a row
                parts += [part, dice.choice(SPACES)] * dice.randrange(1, 4)
        return "".join(parts)

    return [made for made in (text() for _ in range(count)) if made.strip()]


def test_nasty_strings_get_the_tokens_of_fastai() -> None:
    assert_equals_stock(nasty(1000, seed=0))


@pytest.mark.parametrize(
    "text",
    [
        "so so so good",
        "so so so",
        "so\nso \n so, he said",
        "4444 4 4 4",
        "333",
        "very very  very\tvery very good. Bad bad bad",
        "so so soooo so so so",
        "a ( :) b",
        "(foo) :( :) :: ))",
        "who 's it 's 's",
        "and/or either\n/or\n#1\n\\",
        "one\n\n/two aaa\naaa \naaaa",
        "  \n lead and trail \n ",
        "A\xa0B\u3000C\x85D",
        "x" * 5000 + " " + "Ab" * 3000,
        "word " * 3000,
        "one &nbsp; two&#10;three &#32; four",
        " @-@ @-@ @.@ ",
        "%s and 100%s and %d",
        "qxq, aqxqb 1qxq-qxq",
        "10km/h 5kg. 20m 3ft",
    ],
)
def test_what_crosses_chunks_is_seen(text: str) -> None:
    assert_equals_stock([text])


def test_the_first_text_of_a_batch_does_not_touch_the_next() -> None:
    assert_equals_stock(["so so", "so", "so so so", "so", "(:", ") foo", "bar :", ")"])


def test_shapes_split_as_spacy_does() -> None:
    splitter, dice = ChunkSplitter("en"), random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [a + b for a in letters for b in letters]
    words += ["".join(dice.choice(letters) for _ in range(dice.randrange(3, 12))) for _ in range(500)]
    words += [word for rule in splitter._spacy.rules if not rule.isspace() for word in (rule, rule + "s", "x" + rule)]
    for word in words:
        for form in ("{}", "{},", "{}.", '"{}"', "({}).", "{}'s", "{}-{}", "{}.{}", "{}!?", "x{}", "10{}"):
            text = lower_marked(space_out(mark_repeats(form.format(word, word)))).strip()
            assert splitter.split(text) == splitter.spacy(text)


def test_a_tokenizer_that_forgets_goes_on_with_the_same_tokens(monkeypatch) -> None:
    texts = nasty(300, seed=1)
    expected = tokenize(texts)
    small = FastTokenizer(max_tokens=1500)
    monkeypatch.setattr(token_stream, "BATCH_CHARS", 2000)
    monkeypatch.setattr(token_stream, "_tokenizer", lambda lang: small)
    assert tokenize(texts, n_workers=1) == expected
    assert small.generation > 3

    sender, table, streamed = Sender(0, "en"), WordTable(), []
    sender.tokenizer = FastTokenizer(max_tokens=1500)
    for batch in token_stream.checked_batches(texts):
        streamed += [table.words[i] for i in table.merge(sender.encode(batch))]
    assert streamed == [token for tokens in expected for token in tokens]
    assert table.words == list(dict.fromkeys(streamed)) and sender.tokenizer.generation > 3


def test_worker_processes_give_the_same_tokens_in_the_same_order(monkeypatch) -> None:
    texts = [f"{text} number {i} " * 10 for i, text in enumerate(nasty(400, seed=2))]
    monkeypatch.setattr(token_stream, "BATCH_CHARS", 20_000)  # enough batches for workers to be started
    one, two = WordTable(), WordTable()
    alone = [one.merge(batch) for batch in encode_batches(texts, n_workers=1)]
    sources = set()
    for mine, batch in zip(alone, encode_batches(texts, n_workers=2), strict=True):
        sources.add(batch.source[0])
        assert (mine == two.merge(batch)).all()
    assert one.words == two.words
    assert sources == {0, 1}


def test_a_script_without_a_main_guard_is_not_run_twice(tmp_path: Path) -> None:
    script = """
import sys
print("started")
from ulmfit_fastai.tokens.stream import tokenize
texts = [f"review number {i} of a film, twice as good" * 40 for i in range(4500)]
print(len(tokenize(texts, n_workers=2)), "spacy" in sys.modules)
"""
    for arguments, text in (([str(tmp_path / "script.py")], None), (["-"], script)):
        (tmp_path / "script.py").write_text(script)
        done = subprocess.run(
            [sys.executable, *arguments], input=text, capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )
        assert done.stdout.split("\n")[:2] == ["started", "4500 False"], done.stderr


def test_without_a_python_to_start_the_work_is_done_in_this_process(monkeypatch, caplog) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    texts = ["a film of some length, seen twice. " * 40] * 5000
    assert len(tokenize(texts, n_workers=2)) == 5000
    assert "in this process only" in caplog.text


def test_a_language_without_spaces_is_split_by_spacy_with_the_special_tokens_whole() -> None:
    found = tokenize(["这部电影 Superb 很好!!!!", "很"], "zh")
    assert [token for token in found[0] if token.startswith("xx")] == ["xxbos", "xxmaj", "xxrep"]
    assert "".join(found[0]) == "xxbos这部电影xxmajsuperb很好xxrep4!" and found[1] == ["xxbos", "很"]
    with pytest.raises(ValueError, match="split its texts first"):
        FastTokenizer("zh")


@pytest.mark.parametrize(("lang", "package", "module"), [("ja", r"spacy\[ja\]", "sudachipy"),
                                                         ("th", "PyThaiNLP", "pythainlp"), ("vi", "pyvi", "pyvi")])
def test_a_package_that_a_language_needs_is_named(lang: str, package: str, module: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if not installed
    spacy_chunks.blank_tokenizer.cache_clear()
    with pytest.raises(ImportError, match=f"pip install.*{package}.*SentencePiece"):
        tokenize(["x"], lang)


def test_an_unknown_language_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="code that spaCy knows, such as en.*found 'qq'"):
        tokenize(["x"], "qq")


def test_another_language_gets_its_own_tokens() -> None:
    from fastai.text.core import SpacyTokenizer, TokenizeWithRules

    texts = ["C'est l'été à Paris, aujourd'hui. Qu'est-ce que c'est?", "M. Dupont n'a pas vu 10km."]
    theirs = [list(tokens) for tokens in TokenizeWithRules(SpacyTokenizer("fr"))(texts)]
    assert tokenize(texts, "fr") == theirs


@pytest.mark.parametrize(("texts", "rows"), [(["a", "", "b", " \n"], "1, 3"), (["a", None], "1"), ([3.5], "0")])
def test_rows_without_text_are_named(texts: list, rows: str) -> None:
    with pytest.raises(ValueError, match=f"rows {rows}: drop"):
        tokenize(texts)


def test_half_a_character_is_refused_with_its_row() -> None:
    with pytest.raises(ValueError, match="row 2 is no valid text"):
        tokenize(["fine", "fine too", "broken \ud83d emoji"])


def test_one_text_instead_of_many_is_refused() -> None:
    with pytest.raises(ValueError, match="put it in a list"):
        tokenize("a film")


@pytest.mark.slow
def test_two_thousand_real_reviews_get_the_tokens_of_fastai(test_data: Path) -> None:
    texts = []
    with tarfile.open(test_data / "imdb" / "imdb.tgz") as archive:
        for member in archive:
            if member.name.endswith(".txt") and (file := archive.extractfile(member)):
                texts.append(file.read().decode("utf8"))
            if len(texts) == 2000:
                break
    assert len(texts) == 2000
    assert_equals_stock(texts)


@pytest.mark.slow
def test_real_articles_get_the_tokens_of_fastai(test_data: Path) -> None:
    with lzma.open(test_data / "wikipedia_en" / "valid.jsonl.xz", "rt", encoding="utf8") as lines:
        texts = [json.loads(next(lines))["text"] for _ in range(100)]
    assert_equals_stock(texts)
