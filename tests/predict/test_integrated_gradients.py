"""Explanations: what a trained classifier's scores say about its decisions, and how they are shown."""

from __future__ import annotations

import copy
import random
import re
from collections import Counter
from html import unescape
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.text.data import make_vocab
from fastai.text.models.core import SentenceEncoder

from ulmfit_fastai.batches.classifier import pad_batch
from ulmfit_fastai.batches.targets import Target
from ulmfit_fastai.model.layers import build_classifier
from ulmfit_fastai.predict import integrated_gradients as explain_module
from ulmfit_fastai.predict.explanation import Explanation, words_of_text
from ulmfit_fastai.predict.integrated_gradients import explain
from ulmfit_fastai.recipe.parts import Dropouts, Model
from ulmfit_fastai.texts.synthetic import BAD, GOOD, pick, plot
from ulmfit_fastai.tokens.ids import Vocabulary
from ulmfit_fastai.tokens.stream import tokenize

TINY = Model(emb_sz=16, n_hid=20, n_layers=2, head_hidden=12)
DROP = Dropouts(embed=0.1, input=0.1, hidden=0.1, weight=0.1, output=0.1)
BPTT, MAX_LEN = 16, 64
CLASSES = ("neg", "pos")
BOTH = ("forward", "backward")


def review(rng: random.Random, good: bool) -> str:
    """Plot, with four words of praise or blame in it, and one of the other kind."""
    opinions = [pick(rng, GOOD if good else BAD) for _ in range(4)] + [pick(rng, BAD if good else GOOD)]
    sentences = [f"a {word} film" for word in opinions] + [plot(rng) for _ in range(2)]
    rng.shuffle(sentences)
    return ". ".join(sentence.capitalize() for sentence in sentences) + "."


class Trained:
    """A classifier for each direction, trained for a second or two, with its words."""

    def __init__(self, kind: str = "single", n_out: int = 2, directions: tuple[str, ...] = BOTH) -> None:
        rng = random.Random(3)
        self.kind, goods = kind, [rng.random() < 0.5 for _ in range(240)]
        tokens = tokenize([review(rng, good) for good in goods])
        count = Counter(word for text in tokens for word in text)
        self.vocab = Vocabulary(make_vocab(count, min_freq=2, max_vocab=2000))
        targets = torch.tensor(goods).long()
        if kind == "multi":  # whether it is praised, and whether it isn't
            targets = F.one_hot(targets, 2).float()
        elif kind == "regression":
            targets = torch.where(targets > 0, 8.0, 2.0)[:, None]
        loss = {"single": F.cross_entropy, "multi": F.binary_cross_entropy_with_logits, "regression": F.mse_loss}[kind]
        self.models = {d: self.fit([self.ids(text) for text in tokens], targets, loss, n_out, d) for d in directions}

    def fit(self, ids: list[np.ndarray], targets: torch.Tensor, loss: Any, n_out: int, direction: str) -> Any:
        torch.manual_seed(1)
        model = build_classifier(len(self.vocab), n_out, TINY, bptt=BPTT, max_len=MAX_LEN, dropouts=DROP)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for step in range(40):
            rows = sorted(range(step * 32 % 240, min(step * 32 % 240 + 32, 240)), key=lambda i: -len(ids[i]))
            loss(model(self.batch([ids[i] for i in rows], direction))[0], targets[rows]).backward()
            optimizer.step()
            optimizer.zero_grad()
        return model.eval()

    def ids(self, tokens: list[str]) -> np.ndarray:
        return np.array(self.vocab.encode(tokens))

    @staticmethod
    def batch(ids: list[np.ndarray], direction: str) -> torch.Tensor:
        return torch.from_numpy(pad_batch([i[::-1] if direction == "backward" else i for i in ids], BPTT))

    def outputs(self, tokens: list[str], direction: str) -> torch.Tensor:
        """The model's own outputs for one text, read in its chunks."""
        with torch.no_grad():
            return self.models[direction](self.batch([self.ids(tokens)], direction))[0][0].double()

    def probabilities(self, tokens: list[str]) -> np.ndarray:
        return np.mean([self.outputs(tokens, d).softmax(-1).numpy() for d in self.models], axis=0)

    def explain(self, text: str, **options: Any) -> Explanation:
        target = Target(self.kind, () if self.kind == "regression" else CLASSES)
        return explain(options.pop("models", self.models), text, **{"vocab": self.vocab, "target": target, **options})


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained()


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = random.Random(99)
    return [review(rng, i % 2 == 0) for i in range(24)]


# ------------------------------------------------------------------------------------------------ true to the model
def test_deleting_the_top_words_changes_the_decision_more_than_deleting_random_ones(trained, texts):
    rng, top, chance = np.random.default_rng(0), [], []
    for text in texts:
        explanation = trained.explain(text, steps=8)
        wanted = explanation.probabilities[explanation.target]
        target = CLASSES.index(explanation.target)

        def drop(gone: set[int], words=explanation.words, target=target, wanted=wanted) -> float:
            kept = [token for i, word in enumerate(words) if i not in gone for token in word.tokens]
            return wanted - trained.probabilities(["xxbos", *kept])[target]

        top.append(drop(set(np.argsort(-explanation.scores)[:3].tolist())))
        chance.append(np.mean([drop(set(rng.choice(len(explanation.words), 3, replace=False).tolist()))
                               for _ in range(5)]))
    assert np.mean(top) > 0.2 and np.mean(top) > 4 * abs(np.mean(chance))
    assert np.mean(np.array(top) > np.array(chance)) > 0.9


@pytest.mark.parametrize("directions", [("forward",), ("backward",), BOTH])
def test_words_of_praise_speak_for_pos_and_words_of_blame_for_neg(trained, texts, directions):
    praise, blame = set(GOOD), set(BAD)
    models = {d: trained.models[d] for d in directions}
    found = [(word.text.lower(), word.score) for text in texts[:12]
             for word in trained.explain(text, models=models, towards="pos", steps=4).words]
    assert np.mean([score > 0 for word, score in found if word in praise]) > 0.9
    assert np.mean([score < 0 for word, score in found if word in blame]) > 0.9


@pytest.mark.parametrize("directions", [("forward",), ("backward",), BOTH])
def test_scores_add_up_to_the_difference_from_a_text_without_words(trained, texts, directions):
    models = {d: trained.models[d] for d in directions}
    for text in texts[:4]:
        explanation = trained.explain(text, models=models, steps=64)
        whole = explanation.value - explanation.baseline
        assert explanation.scores.sum() == pytest.approx(whole, abs=0.01 * np.abs(explanation.scores).sum())
        assert np.abs(explanation.scores).sum() > 1


def test_the_value_is_the_log_odds_of_the_mean_probability(trained, texts):
    explanation = trained.explain(texts[0])
    expected = trained.probabilities(tokenize([texts[0]])[0])
    assert list(explanation.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    p = expected[CLASSES.index(explanation.target)]
    assert explanation.target == explanation.predicted == CLASSES[int(expected.argmax())]
    assert explanation.value == pytest.approx(np.log(p / (1 - p)), abs=1e-4)


def test_the_two_classes_have_opposite_scores(trained, texts):
    neg, pos = (trained.explain(texts[0], towards=name) for name in CLASSES)
    assert neg.scores == pytest.approx(-pos.scores, abs=1e-6) and neg.target == "neg"


def test_long_texts_are_read_as_the_model_reads_them(trained, texts):
    text = " ".join(texts)
    tokens = tokenize([text])[0]
    assert len(tokens) > 10 * MAX_LEN  # chunks that are not pooled, and a last one that is not full
    assert len(tokens) % BPTT
    for direction in BOTH:
        one = trained.explain(text, models={direction: trained.models[direction]}, steps=2)
        expected = trained.outputs(tokens, direction).softmax(-1)
        assert list(one.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_words_before_the_pooled_part_have_scores_too(trained, texts):
    text = " ".join(texts[:6])
    one = trained.explain(text, models={"forward": trained.models["forward"]})
    assert len(one.words) > 2 * MAX_LEN and np.abs(one.scores[: len(one.words) - MAX_LEN - BPTT]).max() > 1e-6
    assert abs(one.gap) < 0.05 * np.abs(one.scores).sum()


def test_a_pass_never_holds_more_tokens_than_allowed(trained, texts, monkeypatch):
    seen = []
    points = explain_module._Path.points
    monkeypatch.setattr(explain_module._Path, "points",
                        lambda self, where: seen.append(where.numel() * len(self.end)) or points(self, where))
    whole = trained.explain(texts[0]).scores
    limit = len(tokenize(texts[:1])[0]) * 2 * 5  # two directions, five points
    monkeypatch.setattr(explain_module, "TOKENS_AT_ONCE", limit)
    del seen[:]
    assert trained.explain(texts[0]).scores == pytest.approx(whole, abs=1e-5)
    assert max(seen) * 2 <= limit


def test_two_directions_are_explained_together(trained, texts):
    both = trained.explain(texts[0], steps=64)
    each = [trained.explain(texts[0], models={d: trained.models[d]}, towards=both.target, steps=64) for d in BOTH]
    probabilities = [one.probabilities[both.target] for one in each]
    assert both.probabilities[both.target] == pytest.approx(np.mean(probabilities))
    assert np.corrcoef(both.scores, each[0].scores + each[1].scores)[0, 1] > 0.95


# ---------------------------------------------------------------------------------------------- heads of other kinds
def test_labels_of_several_are_explained_one_by_one(texts):
    trained = Trained("multi", directions=("forward",))
    explanation = trained.explain(texts[0], towards="neg", steps=64)
    expected = trained.outputs(tokenize(texts[:1])[0], "forward")
    assert list(explanation.probabilities.values()) == pytest.approx(expected.sigmoid().tolist(), abs=1e-6)
    assert explanation.value == pytest.approx(float(expected[0]), abs=1e-4)
    assert abs(explanation.gap) < 0.02 * np.abs(explanation.scores).sum()
    assert explanation.predicted == "pos" and explanation.top(1)[0].text.lower() in GOOD + BAD


def test_a_number_is_explained_in_its_own_unit(texts):
    trained = Trained("regression", n_out=1)
    explanation = trained.explain(texts[0], steps=64)
    tokens = tokenize(texts[:1])[0]
    expected = float(np.mean([trained.outputs(tokens, d)[0] for d in BOTH]))
    assert explanation.value == pytest.approx(expected, abs=1e-4) and explanation.probabilities == {}
    assert explanation.baseline + explanation.scores.sum() == pytest.approx(expected, abs=0.05)
    assert explanation.summary == f"value {expected:.4g}" and "raised value" in explanation._repr_html_()


# -------------------------------------------------------------------------------------------------------- its manners
@pytest.mark.parametrize("more", [0, 5])
def test_stock_fastai_layers_are_explained_like_the_fast_ones(trained, texts, more):
    """fastai's encoder leaves a chunk out that `max_len` covers in part, ours pools it."""
    stock = build_classifier(len(trained.vocab), 2, TINY, bptt=BPTT, max_len=MAX_LEN, dropouts=DROP, fast=False)
    stock.load_state_dict(trained.models["forward"].state_dict(), strict=False)
    stock[0] = SentenceEncoder(BPTT, stock[0].module, 1, MAX_LEN + more).eval()
    fast, text = {"forward": trained.models["forward"]}, " ".join(texts[:8])
    assert len(tokenize([text])[0]) > MAX_LEN + 2 * BPTT
    assert trained.explain(text, models={"forward": stock}).scores == pytest.approx(
        trained.explain(text, models=fast).scores, abs=1e-4)


def test_a_model_in_training_is_read_without_dropout_and_left_as_it_was(trained, texts):
    model = copy.deepcopy(trained.models["forward"]).train()
    model[1].layers[0].eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        found = trained.explain(texts[2], models={"forward": model})
    assert found.scores == pytest.approx(
        trained.explain(texts[2], models={"forward": trained.models["forward"]}).scores, abs=1e-6)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("text", ["", "  \n ", None])
def test_an_empty_text_is_refused(trained, text):
    with pytest.raises(ValueError, match="at least one word, found an empty one"):
        trained.explain(text)


def test_what_cannot_be_explained_is_said(trained):
    with pytest.raises(ValueError, match="target: expected one of neg, pos, found 'so-so'"):
        trained.explain("a superb film", towards="so-so")
    with pytest.raises(ValueError, match="one name for each of the model's 2 outputs, found 3"):
        trained.explain("a superb film", target=Target("single", ("a", "b", "c")))
    with pytest.raises(ValueError, match="at least one direction"):
        trained.explain("a superb film", models={})
    with pytest.raises(ValueError, match="direction"):
        trained.explain("a superb film", models={"sideways": trained.models["forward"]})
    with pytest.raises(ValueError, match="steps"):
        trained.explain("a superb film", steps=0)


def test_unknown_words_are_shown_as_written_and_marked(trained):
    explanation = trained.explain("A Xyzzyish film, superb.")
    unknown = next(word for word in explanation.words if word.text == "Xyzzyish")
    assert not unknown.known and unknown.tokens == ("xxmaj", "xyzzyish")
    assert [word.known for word in explanation.words if word.text != "Xyzzyish"] == [True] * 5
    assert explanation._repr_html_().count("not in the model's vocabulary") == 1


# ------------------------------------------------------------------------------------------------------ how it is shown
def shown(text: str) -> tuple[list[str], list[float], list[str]]:
    tokens = tokenize([text])[0]
    words = words_of_text(text, tokens, np.arange(len(tokens), dtype=float), [True] * len(tokens))
    return [word.text for word in words], [word.score for word in words], tokens


def test_special_tokens_are_merged_onto_their_word():
    words, scores, tokens = shown("The film was SO goooood!!!!")
    assert tokens == ["xxbos", "xxmaj", "the", "film", "was", "xxup", "so", "g", "xxrep", "5", "o", "d", "xxrep", "4",
                      "!"]
    assert words == ["The", "film", "was", "SO", "g", "ooooo", "d", "!!!!"]
    assert scores == [0 + 1 + 2, 3, 4, 5 + 6, 7, 8 + 9 + 10, 11, 12 + 13 + 14]


def test_repeated_words_are_one_word():
    words, _, tokens = shown("It was So so so so bad")
    assert "xxwrep" in tokens and words == ["It", "was", "So", "so so so", "bad"]


@pytest.mark.parametrize("text", [
    "Don't you think it's \"fine\"?<br /><br />I don't: 10km of   it… (really)\n\n\nEND",
    "İstanbul is great, and the STRASSE is GROSSE, naïve café.", "a/b #tag x\\y 4 3 2 1", "!!! !!! !!!",
    "\x07 ... xxup",
    "xxrep and xxwrep 3 alone, xxmaj",
])
def test_no_token_is_lost_whatever_the_text(text):
    words, scores, tokens = shown(text)
    assert sum(scores) == sum(range(len(tokens))) and all(words)
    written = set("".join(text.replace("<br />", " ").split()).lower())
    assert set("".join("".join(words).split()).lower()) - {"…"} <= written


def test_words_behind_one_that_is_not_found_are_as_written_again():
    words, _, tokens = shown("In İSTANBUL The CROWD sings")
    assert words[0] == "In" and words[-3:] == ["The", "CROWD", "sings"]
    assert len(words) == 5 and words[1].lower().startswith("i")


def test_text_is_shown_as_it_was_written():
    text = "Don't you think it's \"fine\"? I don't: (really) NOT good…"
    tokens = tokenize([text])[0]
    words = words_of_text(text, tokens, np.zeros(len(tokens)), [True] * len(tokens))
    assert "".join(word.before + word.text for word in words).strip() == text


def test_html_in_a_text_stays_text(trained):
    attack = "<script>alert('x')</script> <img src=x onerror=alert(1)> superb & \"dull\""
    html = trained.explain(attack)._repr_html_()
    assert not set("<>") & set(re.sub(r'</?(?:div|b|span|br)(?: [a-z]+="[^"<>]*")*>', "", html))
    assert "alert('x')" in unescape(re.sub(r"<[^>]*>", "", html))
    odd = explain(trained.models, "superb", vocab=trained.vocab, target=Target("single", ('"><script>', "b")))
    assert "<script>" not in odd._repr_html_() and "<script>" not in odd.marked()


def contrast(one: str, other: str) -> float:
    """Contrast ratio as WCAG 2 defines it; 4.5 is its demand for text."""
    def luminance(colour: str) -> float:
        parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_shaded_words_are_readable_in_light_and_in_dark(trained, texts):
    colours = re.findall(r"rgba\((\d+),(\d+),(\d+),([\d.]+)\)", trained.explain(texts[0])._repr_html_())
    assert len({colour[:3] for colour in colours}) == 2 and max(float(colour[3]) for colour in colours) == 0.5
    for ink, page in (("#000000", "#ffffff"), ("#1c2430", "#ffffff"), ("#e9ecf1", "#14171c"), ("#ffffff", "#111111")):
        for *rgb, share in colours:
            under = [int(page[i : i + 2], 16) for i in (1, 3, 5)]
            mixed = [round(float(share) * int(c) + (1 - float(share)) * u) for c, u in zip(rgb, under)]
            assert contrast(ink, "#" + "".join(f"{c:02x}" for c in mixed)) >= 4.5


def test_a_shell_gets_colours_and_nothing_that_steers_it(trained):
    explanation = trained.explain("a superb film \x1b[2J\x07 dull")
    ansi = explanation.to_ansi()
    assert "\x1b[2J" not in ansi and "\x07" not in ansi
    assert "superb" in re.sub(r"\x1b\[[0-9;]*m", "", ansi) and "\x1b[48;5;" in ansi
    assert "\x1b" not in explanation.to_ansi(colour=False) and "superb" in str(explanation)


def test_without_colours_the_signs_are_told_and_the_words_left_out_counted(trained):
    short = str(trained.explain("a superb film", towards="neg")).splitlines()
    assert short[1] == "+ spoke for neg, - spoke against it" and len(short) == 5
    long = str(trained.explain("a superb film , dull and slow , but then superb again , and again")).splitlines()
    assert long[12:] == ["and 5 weaker words", "unknown to the model: slow, but, then, again"]


def test_a_shell_is_told_which_words_the_model_does_not_know(trained):
    explanation = trained.explain("a superb flabbergasting film, flabbergasting")
    for colour in (True, False):
        assert explanation.to_ansi(colour=colour).splitlines()[-1] == "unknown to the model: flabbergasting"
    assert "unknown" not in str(trained.explain("a superb film"))


def test_the_table_has_a_row_a_word_and_top_sorts_it(trained, texts):
    explanation = trained.explain(texts[0])
    frame = explanation.to_frame()
    assert list(frame["word"]) == explanation.tokens and frame["score"].tolist() == explanation.scores.tolist()
    assert [word.score for word in explanation.top(3)] == sorted(explanation.scores, key=abs, reverse=True)[:3]
