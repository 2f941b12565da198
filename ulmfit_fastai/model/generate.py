"""Text from a language model: what stage 1 has learnt, to be read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from fastai.text.models.core import SequentialRNN
from torch import Tensor

from .._errors import UlmfitError
from ..recipe.parts import Model
from ..tokens.ids import FILLER
from ..tokens.pieces import joined_pieces
from ..tokens.stream import tokenize
from .layers import build_language_model
from .weights import LMWeights

NEVER = ("xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", FILLER)
"""Special tokens that are not drawn; xxmaj and xxup are, and become capital letters."""
CLOSING = frozenset(".,;:!?)]}%") | {"'s", "n't", "'re", "'ve", "'ll", "'d", "'m", "'"}


def generate(
    weights: LMWeights,
    prompts: Sequence[str] = ("",),
    *,
    n_tokens: int = 40,
    temperature: float = 0.8,
    top_k: int = 50,
    seed: int = 0,
) -> list[str]:
    """Go on with each prompt; a backward model writes what comes before it.

    Args:
        prompts: an empty one lets the model begin.
        n_tokens: how many are drawn.
        temperature: what the logits are divided by; below 1: likelier words.
        top_k: each token is drawn from so many of the most probable ones.

    Returns:
        Readable texts, the prompts among them.

    Raises:
        UlmfitError: a number is not above 0.
    """
    for name, value in (("n_tokens", n_tokens), ("temperature", temperature), ("top_k", top_k)):
        if not value > 0:
            raise UlmfitError(f"{name}: expected a number above 0, found {value!r}")
    model = Model(emb_sz=weights.emb_sz, n_hid=weights.n_hid, n_layers=weights.n_layers, tie_weights=weights.tied)
    net = build_language_model(len(weights.vocab), model)
    net.load_state_dict({key: value for key, value in weights.full_state().items() if key in net.state_dict()})
    net.eval()
    random = torch.Generator().manual_seed(seed)
    started = [tokenize([prompt], weights.lang)[0] if prompt.strip() else ["xxbos"] for prompt in prompts]
    return [_one(net, weights, tokens, n_tokens, temperature, top_k, random) for tokens in started]


def _one(net: SequentialRNN, weights: LMWeights, tokens: list[str], n_tokens: int, temperature: float, top_k: int,
         random: torch.Generator) -> str:
    backward = weights.direction == "backward"
    if backward and tokens[:1] == ["xxbos"]:
        tokens = tokens[1:] or ["."]  # a text read backward begins with its last word
    ids = weights.vocab.encode(reversed(tokens) if backward else tokens)
    never = [i for i, word in enumerate(weights.vocab) if word in NEVER]
    drawn: list[int] = []
    net.reset()
    with torch.inference_mode():
        logits = net(torch.tensor([ids]))[0][0, -1]
        for _ in range(n_tokens):
            drawn.append(_draw(logits, never, temperature, top_k, random))
            logits = net(torch.tensor([drawn[-1:]]))[0][0, -1]
    new = [weights.vocab[i] for i in drawn]
    whole = [*reversed(new), *tokens] if backward else [*tokens, *new]
    return readable(joined_pieces(whole) if weights.vocab.pieces else whole)


def _draw(logits: Tensor, never: list[int], temperature: float, top_k: int, random: torch.Generator) -> int:
    logits = logits.float().clone()
    logits[never] = -float("inf")
    best = logits.topk(min(top_k, len(logits)))
    place = torch.multinomial((best.values / temperature).softmax(0), 1, generator=random)
    return int(best.indices[place])


def readable(tokens: Sequence[str]) -> str:
    """Tokens as a text: capitals instead of xxmaj and xxup, no space before closing punctuation."""
    words: list[str] = []
    mark = ""
    for token in tokens:
        if token in ("xxmaj", "xxup"):
            mark = token
            continue
        if token in NEVER and token != "xxunk":
            continue
        word = "…" if token == "xxunk" else token
        word = word.capitalize() if mark == "xxmaj" else word.upper() if mark == "xxup" else word
        mark = ""
        if words and token in CLOSING:
            words[-1] += word
        else:
            words.append(word)
    return " ".join(words)
