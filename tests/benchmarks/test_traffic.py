"""What the loss of a language-model step reads and writes on a GPU, counted: the README's figures."""

from __future__ import annotations

import pytest

from benchmarks.gpu.traffic import TYPES, count

TOKENS, WORDS, FEATURES = 10_240, 60_000, 400


def bytes_a_logit(who: str, dtype: str) -> float:
    return sum(count(who, TOKENS, WORDS, FEATURES, TYPES[dtype]).bytes.values()) / TOKENS / WORDS


@pytest.mark.parametrize(("dtype", "most"), [("fp16", 24), ("bf16", 32), ("fp32", 36)])
def test_the_loss_moves_fewer_bytes_than_stocks(dtype, most):
    ours, stock = bytes_a_logit("ours", dtype), bytes_a_logit("stock", dtype)
    assert 10 < ours < most < stock


def test_what_the_counting_says_of_stock_is_what_its_kernels_do():
    # fp32: product 4, log-softmax 4 + 4, its gradient 3 x 4, nll's 2 x 4, bias 4, two products 4 + 4; and the matrices
    assert bytes_a_logit("stock", "fp32") == pytest.approx(48, rel=0.02)
