"""What a training step holds at its peak on a GPU, calculated: `python -m benchmarks.gpu.memory`.

No GPU and no numbers: a step of the model at its full size runs on shapes alone, and every tensor that lives is counted
in blocks of 512 bytes, as torch's allocator gives them out. cuDNN's LSTM is taken to keep six numbers a unit and step
for its backward pass, beside its input and output. A context takes 0.5 to 1 GB more, and an allocator some tenths.
"""

from __future__ import annotations

import argparse
import gc
import weakref
from contextlib import nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu.traffic import as_on_a_gpu
from ulmfit_fastai.batches.classifier import Reads
from ulmfit_fastai.model import losses
from ulmfit_fastai.model.fast import awd_lstm
from ulmfit_fastai.model.layers import build_classifier, build_language_model
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.recipe import Recipe

GIB = 2**30
CARDS = (8, 16, 24, 80)
ROOM = 1.5
"""GiB of a card for context, allocator and what else runs there."""


class Held(TorchDispatchMode):
    """Counts the bytes that live."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = op(*args, **(kwargs or {}))
        for made in pytree.tree_leaves(out):
            if isinstance(made, Tensor):
                self._add(made.untyped_storage())
        return out

    def _add(self, storage: Any) -> None:
        key = storage._cdata
        if key not in self.live:
            self.live[key] = -(-storage.nbytes() // 512) * 512
            self.now += self.live[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self.live.pop(key, 0)


class Lstm(torch.autograd.Function):
    """What cuDNN's holds."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, c: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, steps, units = *x.shape[:2], h.shape[-1]
        out = x.new_empty(rows, steps, units)
        ctx.save_for_backward(x, h, c, out, *weights, x.new_empty(rows * steps * 6 * units))
        return out, h.new_empty(h.shape), c.new_empty(c.shape)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad
        return tuple(torch.empty_like(one) if need else None for one, need in zip(ctx.saved_tensors[:3], needed[:3])
                     ) + tuple(torch.empty_like(w) if need else None
                               for w, need in zip(ctx.saved_tensors[4:-1], needed[3:]))


def lstm(x: Tensor, state: tuple[Tensor, Tensor], weights: list[Tensor], *_: Any) -> tuple[Tensor, ...]:
    return Lstm.apply(x, *state, *weights)


def peak(recipe: Recipe, what: str, half: bool, *, words: int = 60_000, tokens: int = 0, bs: int = 0) -> float:
    """GiB at the peak of a training step, all groups open; 'lm' or 'classifier'."""
    dtype = torch.float16 if half else None
    with as_on_a_gpu(), Held() as held, mock.patch.object(torch, "lstm", lstm), \
            mock.patch.object(awd_lstm, "weight_mask", lambda w, p, stock_stream=False: torch.empty_like(w)), \
            mock.patch.object(awd_lstm, "lstm_dtype_in_autocast", lambda device: dtype), \
            mock.patch.object(awd_lstm, "wants_one_piece", lambda device: True):
        net = (build_language_model(words, recipe.model) if what == "lm" else
               build_classifier(words, 2, recipe.model, bptt=recipe.classifier.bptt, max_len=recipe.classifier.max_len,
                                mask_per_chunk=False)).train()
        moments: dict[Tensor, Any] = {}
        for _ in range(2):  # the second has the optimiser's moments beside it
            with torch.autocast("cpu", dtype=torch.float16) if half else nullcontext():
                loss = lm_loss(net, recipe) if what == "lm" else classifier_loss(net, recipe, tokens, bs)
            loss.backward()
            del loss
            for p in net.parameters():
                if p.grad is not None:
                    moments.setdefault(p, (torch.empty_like(p), torch.empty_like(p)))
                    p.grad = None
            net.reset()
            gc.collect()
    return held.peak / GIB


def lm_loss(net: nn.Module, recipe: Recipe) -> Tensor:
    """Of a step of the language model, AR and TAR with it."""
    assert recipe.lm is not None
    x = torch.zeros(recipe.lm.bs, recipe.lm.bptt, dtype=torch.long)
    net[1].fused = True
    out, raw, dropped = net(x)
    loss = losses.FusedCrossEntropy(net[1], chunk=losses.GPU_CHUNK_TOKENS)(out.float(), x)
    return loss + dropped.float().pow(2).mean() + (raw[:, 1:] - raw[:, :-1]).float().pow(2).mean()


def classifier_loss(net: nn.Module, recipe: Recipe, tokens: int, bs: int) -> Tensor:
    """Of a classifier's step over texts of so many tokens."""
    x = torch.zeros(bs, -(-tokens // recipe.classifier.bptt) * recipe.classifier.bptt, dtype=torch.long)
    x.reads = Reads.of([tokens] * bs, recipe.classifier.bptt)  # type: ignore[attr-defined]
    out, raw, dropped = net(x)
    loss = torch.nn.functional.cross_entropy(out.float(), torch.zeros(bs, dtype=torch.long))
    return loss + dropped.float().pow(2).mean() + (raw[:, 1:] - raw[:, :-1]).float().pow(2).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="fastai")
    parser.add_argument("--words", type=int, default=60_000)
    args = parser.parse_args()
    recipe = preset(args.preset)
    assert recipe.lm is not None
    rows = [(f"language model, {recipe.lm.bs} streams of {recipe.lm.bptt}", "lm", 0, 0)]
    tokens = recipe.classifier.max_len or 20 * recipe.classifier.bptt
    rows += [(f"classifier, {bs} texts of {tokens:,} tokens", "classifier", tokens, bs)
             for bs in (recipe.classifier.bs, recipe.classifier.bs // 2, recipe.classifier.bs // 4)]
    print(f"preset {args.preset}, {args.words:,} words; calculated, not measured; + = fits with {ROOM} GiB to spare")
    print("| step | type | GiB | " + " | ".join(f"{card} GB" for card in CARDS) + " |")
    print("|---|---|---|" + "---|" * len(CARDS))
    for name, what, length, bs in rows:
        for half in (True, False):
            needed = peak(recipe, what, half, words=args.words, tokens=length, bs=bs)
            fits = " | ".join("+" if needed + ROOM <= card else "in parts" for card in CARDS)
            print(f"| {name} | {'fp16' if half else 'fp32'} | {needed:.1f} | {fits} |")


if __name__ == "__main__":
    main()
