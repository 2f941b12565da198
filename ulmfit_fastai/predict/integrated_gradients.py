"""Which words moved a decision: integrated gradients over the words' vectors, for one direction or both together.

A score is in log-odds of the explained class (in the number's own unit for regression): +0.7 doubles its odds. The
scores of a text add up to the difference between what the model says of it and what it says of a text of the same
length without words (all vectors zero, which is what embedding dropout does to a word in training).
Source: Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._errors import UlmfitError
from ..batches.documents import check_direction
from ..batches.targets import Target
from ..model.layers import FixedSentenceEncoder, concat_pool, first_pooled_chunk
from ..tokens.ids import UNK, Vocabulary
from ..tokens.rules import BOS
from ..tokens.stream import tokenize
from .explanation import Explanation, words_of_text

TOKENS_AT_ONCE = 4096
"""Tokens of one pass, over all its points of the path: about 0.6 GB at the paper's size; a longer text goes alone."""

Tokenizer = Callable[[list[str]], list[list[str]]]


def explain(
    models: Mapping[str, nn.Module],
    text: str,
    *,
    vocab: Sequence[str],
    target: Target,
    towards: str | None = None,
    bptt: int | None = None,
    lang: str = "en",
    tokenizer: Tokenizer | None = None,
    steps: int = 32,
) -> Explanation:
    """Score every word of `text` by how far it moved the decision towards a class.

    The models may be in training mode; they are read in evaluation mode and left as they were. Gradients reach every
    token, also those that a chunked forward pass would cut off.

    Args:
        models: 'forward' and/or 'backward' -> a classifier as `build_classifier` or fastai makes it. Two are explained
            together: the function followed is the mean of their probabilities, as the package predicts with.
        vocab: the models' words.
        target: what the models' outputs are; of those without classes, the numbers in order.
        towards: the class to explain; None: the most probable one.
        bptt: tokens a chunk; None: the model's own.
        lang: spaCy's code of the language whose tokenizer of fastai's splits the text.
        tokenizer: splits it instead: from a list of texts to a list of lists of tokens.
        steps: points on the way from no words to the text (Gauss-Legendre). More are slower and more exact: see
            `Explanation.gap`.

    Returns:
        The words as written, each with its score in log-odds of the class (in the number's own unit for regression).

    Raises:
        UlmfitError: no model, an empty text, an unknown class, no step.

    Source: Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks.
    """
    if not models:
        raise UlmfitError("models: expected at least one direction with its model, found none")
    if not isinstance(text, str) or not text.strip():
        raise UlmfitError("expected a text with at least one word, found an empty one")
    if steps < 1:
        raise UlmfitError(f"steps: expected 1 or more, found {steps}")
    tokens = (tokenizer or (lambda texts: tokenize(texts, lang)))([text])[0]
    ids = Vocabulary(vocab).encode(tokens)
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(_reading(model))
        paths = [_Path(model, ids, direction, bptt, keep_first=tokens[0].lstrip("▁") == BOS)
                 for direction, model in models.items()]
        outputs = [path.outputs(torch.ones(1)).detach() for path in paths]
        shown = target.in_own_unit(_shown(outputs, target))
        names = _names(target.names, shown.shape[0])
        best = int(shown.argmax()) if target.kind != "regression" else 0
        chosen = best if towards is None else _number_of(towards, names)
        scores = _integrate(paths, target.kind, chosen, steps) * target.scale
        with torch.no_grad():
            empty = [path.outputs(torch.zeros(1)) for path in paths]
            before, after = (target.in_own_unit(float(_decision(out, target.kind, chosen))) for out in (empty, outputs))
    known = [i != UNK for i in ids]
    return Explanation(
        words=tuple(words_of_text(text, tokens, scores, known)), kind=target.kind, target=names[chosen],
        predicted=names[int(shown.argmax())], outputs=dict(zip(names, shown.tolist())), value=after, baseline=before,
    )


class _Path:
    """The straight way from no words to a text, in the eyes of one direction's model."""

    def __init__(self, model: nn.Module, ids: Sequence[int], direction: str, bptt: int | None, *, keep_first: bool):
        self.encoder, self.head = model[0].module, model[1].layers  # type: ignore[index]
        self.backward = check_direction(direction) == "backward"
        bptt, max_len = bptt or model[0].bptt, model[0].max_len  # type: ignore[index]
        if max_len is not None and not isinstance(model[0], FixedSentenceEncoder):  # type: ignore[index]
            max_len -= max_len % bptt  # fastai's encoder counts tokens, of a text padded to whole chunks
        self.first_pooled = first_pooled_chunk(len(ids), bptt, max_len) * bptt
        weight = self.encoder.encoder.weight
        order = list(ids)[::-1] if self.backward else list(ids)
        self.end = self.encoder.encoder_dp(torch.tensor([order], device=weight.device))[0].detach()  # (length, emb)
        self.start = torch.zeros_like(self.end)
        if keep_first:  # every text has its xxbos: it is no word, and gets no score
            place = -1 if self.backward else 0
            self.start[place] = self.end[place]

    def points(self, where: Tensor) -> Tensor:
        """Vectors (points, length, emb) at these shares of the way."""
        share = where.to(self.end)[:, None, None]
        return self.start + share * (self.end - self.start)

    def outputs(self, where: Tensor) -> Tensor:
        return self.read(self.points(where))

    def read(self, vectors: Tensor) -> Tensor:
        """The model's outputs (points, n_out).

        All chunks of `bptt` are read as one: the same numbers, since the state is handed on between them, but with
        fastai's detaching of the state there would be no gradient from one chunk to another.
        """
        self.encoder.reset()
        states = self.encoder(vectors, from_embeds=True)[:, self.first_pooled :]
        padding = torch.zeros(states.shape[:2], dtype=torch.bool, device=states.device)
        outputs = self.head(concat_pool(states, padding)).float()
        self.encoder.reset()
        return outputs

    def scores(self, gradient: Tensor) -> np.ndarray:
        """What the mean gradient (length, emb) along the way comes to for each token, in reading order."""
        found = ((self.end - self.start) * gradient).sum(-1).cpu().double().numpy()
        return found[::-1] if self.backward else found


def _integrate(paths: Sequence[_Path], kind: str, target: int, steps: int) -> np.ndarray:
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    where, weight = torch.tensor((nodes + 1) / 2), torch.tensor(weights / 2)
    at_once = max(1, TOKENS_AT_ONCE // (len(paths) * len(paths[0].end)))
    mean = [torch.zeros_like(path.end) for path in paths]
    for part in torch.arange(steps).split(at_once):
        points = [path.points(where[part]).requires_grad_() for path in paths]
        decision = _decision([path.read(x) for path, x in zip(paths, points)], kind, target)
        for total, found in zip(mean, torch.autograd.grad(decision.sum(), points)):
            total += torch.einsum("p,pld->ld", weight[part].to(found), found)
    return np.sum([path.scores(gradient) for path, gradient in zip(paths, mean)], axis=0)


def _decision(outputs: Sequence[Tensor], kind: str, target: int) -> Tensor:
    """Log-odds (points,) of a class under the mean of the directions' probabilities, or the mean number."""
    stacked = torch.stack([out.cpu() for out in outputs])  # (directions, points, n_out)
    if kind == "regression":
        return stacked[..., target].mean(0)
    if kind == "multi":
        yes, no = F.logsigmoid(stacked[..., target]), F.logsigmoid(-stacked[..., target])
    else:
        logs = stacked.log_softmax(-1)
        others = [i for i in range(logs.shape[-1]) if i != target]
        if not others:
            raise UlmfitError("a classifier for one class has nothing to decide: expected two outputs or more, found 1")
        yes, no = logs[..., target], logs[..., others].logsumexp(-1)
    return yes.logsumexp(0) - no.logsumexp(0)


def _shown(outputs: Sequence[Tensor], target: Target) -> Tensor:
    """Mean probability (or standardised number) of each output: (n_out,)."""
    return target.probabilities(torch.stack([out[0].cpu().double() for out in outputs])).mean(0)


def _names(classes: Sequence[str], n_out: int) -> list[str]:
    if not len(classes):
        return ["value"] if n_out == 1 else [f"value {i}" for i in range(n_out)]
    if len(classes) != n_out:
        raise UlmfitError(f"classes: expected one name for each of the model's {n_out} outputs, found {len(classes)}")
    return [str(name) for name in classes]


def _number_of(towards: str, names: Sequence[str]) -> int:
    if str(towards) not in names:
        raise UlmfitError(f"target: expected one of {', '.join(names)}, found {towards!r}")
    return names.index(str(towards))


@contextmanager
def _reading(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, with gradients; afterwards as it was."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.LSTM):  # without dropout of its own, but cuDNN has gradients in training mode only
            module.training = True
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, training in before:
            module.training = training
