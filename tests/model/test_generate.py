"""Text from a language model: drawn by its probabilities, readable, in reading order in both directions."""

from __future__ import annotations

import pytest
import torch

from ulmfit_fastai.model.generate import generate, readable
from ulmfit_fastai.model.layers import build_language_model
from ulmfit_fastai.model.weights import LMWeights
from ulmfit_fastai.recipe.parts import Model

WORDS = ["xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj", "one", "two", "three", "."]


def counting(direction: str = "forward") -> LMWeights:
    """Weights that say one, two, three, one, two, ... whatever came before: learnt, in a few steps."""
    torch.manual_seed(0)
    model = Model(emb_sz=8, n_hid=16, n_layers=1)
    net = build_language_model(len(WORDS), model)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    cycle = [WORDS.index(w) for w in ("one", "two", "three")]
    text = torch.tensor([[2] + cycle * 5])
    if direction == "backward":
        text = text.flip(1)
    net.eval()  # no dropout: the words are learnt by heart
    for _ in range(80):
        net.reset()
        loss = torch.nn.functional.cross_entropy(net(text[:, :-1])[0][0], text[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return LMWeights.from_model(net, WORDS, name="counting", direction=direction)


def test_a_model_goes_on_as_it_has_learnt():
    assert generate(counting(), ["one two"], n_tokens=4, temperature=0.1) == ["one two three one two three"]


def test_a_backward_model_writes_what_comes_before():
    assert generate(counting("backward"), ["two three"], n_tokens=3, temperature=0.1) == ["two three one two three"]


def test_the_same_seed_writes_the_same_and_another_something_else():
    weights = counting()
    first, same, other = (generate(weights, [""], n_tokens=30, temperature=5.0, seed=s)[0] for s in (0, 0, 1))
    assert first == same != other


def test_special_tokens_are_never_drawn_but_make_capitals():
    text = generate(counting(), [""], n_tokens=300, temperature=100.0)[0]
    assert not any(mark in text for mark in ("xx", "…"))
    assert readable(["a", "xxfake", "b"]) == "a b"  # what a vocabulary is filled up with, to a multiple of 8
    assert readable(["xxbos", "xxmaj", "the", "xxup", "usa", ",", "it", "'s", "xxunk", "."]) == "The USA, it's …."


@pytest.mark.parametrize("wrong", [{"n_tokens": 0}, {"temperature": 0.0}, {"top_k": 0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected a number above 0"):
        generate(counting(), **wrong)


def test_a_prompt_that_names_the_filling_of_a_vocabulary_is_read_as_an_unknown_word():
    weights = counting()
    filled = LMWeights("filled", "forward", [*weights.vocab, *["xxfake"] * 3], {
        key: torch.cat([value, 9 * torch.ones(3, *value.shape[1:])]) if len(value) == len(WORDS) else value
        for key, value in weights.state.items()})
    filling, unknown = (generate(filled, [f"one {word}"], n_tokens=20, temperature=3.0) for word in ("xxfake", "gizmo"))
    after = [[text.split()[2:] for text in unknown], [text.split()[1:] for text in filling]]  # filling is not written
    assert after[0] == after[1] and len(after[0][0]) > 10
