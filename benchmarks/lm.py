"""The language model: its batches, and a training step at two sizes with the bare kernels as a floor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from fastai.text.data import LMTensorText, TensorText, TextDataLoaders
from torch import Tensor, nn

from ulmfit_fastai.batches.dataloaders import lm_dataloaders
from ulmfit_fastai.recipe.parts import Model
from ulmfit_fastai.tokens.store import TokenStore
from ulmfit_fastai.tokens.stream import cores

from .fitting import fit, matmul_peak, own_seconds, profile
from .material import Setup, dry, lstm_sizes, our_lm, same_weights, stock_lm
from .measure import Record, alternate, expect, row, seconds, within

LOSS_TOLERANCE = 1e-5


def same_batches(stock: Any, ours: Any) -> str:
    """Refuse batches that differ in any word or in their number."""
    stock, ours = list(stock), list(ours)
    expect(len(stock) == len(ours) > 0, f"{len(stock)} and {len(ours)} batches")
    for number, ((x, y), (our_x, our_y)) in enumerate(zip(stock, ours, strict=True)):
        same = torch.equal(Tensor(x.cpu()).long(), our_x.cpu()) and torch.equal(Tensor(y.cpu()).long(), our_y.cpu())
        expect(same, f"the words of batch {number}")
    return f"identical inputs and targets in all {len(ours):,} batches"


def lm_batches(setup: Setup) -> list[Record]:
    """All batches of an epoch, documents in the same order; no model."""
    sizes = setup.sizes
    texts = setup.some_texts(sizes.lm_docs)
    store = TokenStore.make(texts, cache=setup.work / "tokens", progress=False)
    ids = store.numericalize(store.vocab(min_freq=1))
    frame = pd.DataFrame({"text": texts, "is_valid": np.arange(len(texts)) >= len(texts) - 2})
    theirs = TextDataLoaders.from_df(frame, text_col="text", is_lm=True, valid_col="is_valid", text_vocab=ids.vocab,
                                     seq_len=sizes.bptt, bs=sizes.bs, shuffle=False, n_workers=cores())
    stock = theirs.train.new(shuffle=False)
    rows = np.arange(len(texts))
    dls = lm_dataloaders(ids, train=rows[:-2], valid=rows[-2:], bs=sizes.bs, bptt=sizes.bptt, device=setup.device)
    check = same_batches(stock, dls.train.new(shuffle=False))
    work = sum(x.numel() for x, _ in dls.train.new(shuffle=False))
    ours = dls.train  # shuffled anew each time: an epoch's documents are laid out within the time

    def read(loader: Any) -> Callable[[], None]:
        def go() -> None:
            for _ in loader:
                pass
        return go

    times = alternate({"stock": read(stock), "ours": read(ours)}, repeats=sizes.repeats, device=setup.device)
    return [row("language-model batches", times, work=work, work_unit="tokens", target={"ours": 50.0}, check=check,
                note=f"{sizes.bs} x {sizes.bptt}; ours shuffles and lays out the documents within the time, "
                     "stock keeps their order")]


def lm_steps(setup: Setup) -> list[Record]:
    """A training step at each size and in each number format."""
    found = []
    for number, (name, model, words) in enumerate(setup.sizes.models):
        vocab, batches = step_batches(setup, words, count=1 if setup.device.type == "cpu" else 20)
        checks = same_losses(setup, vocab, model, batches, steps=setup.sizes.equal_steps if number == 0 else 3)
        found += _lm_step(setup, name, model, vocab, batches, checks)
    return found


def step_batches(setup: Setup, words: int, *, count: int) -> tuple[list[str], list[tuple[Tensor, Tensor]]]:
    """A vocabulary and some batches of real text on the device."""
    sizes = setup.sizes
    ids = setup.ids(sizes.token_docs if words > 16_000 else sizes.lm_docs, words)
    rows = np.arange(min(len(ids), sizes.lm_docs))
    dls = lm_dataloaders(ids, train=rows[:-2], valid=rows[-2:], bs=sizes.bs, bptt=sizes.bptt, device=setup.device)
    return list(ids.vocab), list(islice(dls.train, count))


def as_stock(batches: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """The same batches in the types that fastai's own loader gives them."""
    return [(LMTensorText(x), TensorText(y)) for x, y in batches]


def same_losses(setup: Setup, vocab: list[str], model: Model, batches: list[tuple[Tensor, Tensor]], *,
                steps: int) -> dict[str, str]:
    """Refuse losses that differ by more than 1e-5 over some steps of training, fp32, dropout off, on the CPU.

    For bf16 on a CPU: how far the first losses are from stock's fp32.
    """
    cpu, rows = torch.device("cpu"), min(8, setup.sizes.bs)
    few = [(batches[i % len(batches)][0][:rows].cpu(), batches[i % len(batches)][1][:rows].cpu()) for i in range(steps)]
    stock = stock_lm(vocab, dry(model), as_stock(few), cpu)
    ours = our_lm(vocab, dry(model), few, cpu, setup.sizes.bptt)
    rounded = [our_lm(vocab, dry(model), few[:3], cpu, setup.sizes.bptt, dtype) for dtype in [setup.dtype("bf16")]
               if dtype is not None and "bf16" in setup.formats]
    same_weights(stock, ours, *rounded)
    right = fit(stock, cpu, losses=True).losses
    found = {"fp32": compare_losses(right, fit(ours, cpu, losses=True).losses)}
    for learn in rounded:
        apart = max(abs(a - b) for a, b in zip(right, fit(learn, cpu, losses=True).losses, strict=False))
        found["bf16"] = f"losses up to {apart:.0e} from stock's fp32 over {len(few[:3])} steps, dropout off"
    return found


def compare_losses(stock: list[float], ours: list[float]) -> str:
    """Refuse two series of losses that are more than `LOSS_TOLERANCE` apart anywhere, or that do not move."""
    expect(len(stock) == len(ours) and len(set(stock)) > 1, f"{len(stock)} and {len(ours)} losses")
    worst = max(abs(a - b) for a, b in zip(stock, ours, strict=True))
    expect(worst <= LOSS_TOLERANCE, f"losses up to {worst:.2g} apart over {len(stock)} steps")
    return f"losses {within(worst)} over {len(stock)} steps, fp32, dropout off, CPU"


def _lm_step(setup: Setup, name: str, model: Model, vocab: list[str], batches: list[Any],
             checks: dict[str, str]) -> list[Record]:
    """All sides take turns; a line of the table for each number format."""
    device, on_gpu, sides = setup.device, setup.device.type == "cuda", dict[str, Any]()
    first = stock_lm(vocab, model, as_stock(batches), device)
    for kind in setup.formats:
        stock = stock_lm(vocab, model, as_stock(batches), device) if kind == "bf16" and on_gpu else first
        ours = our_lm(vocab, model, batches, device, setup.sizes.bptt, setup.dtype(kind))
        same_weights(first, stock, ours)
        if kind == "bf16" and on_gpu:
            stock.to_bf16()
            ours.to_bf16()
        if kind == "fp32" or on_gpu:  # on a CPU stock has no number format but fp32
            sides[f"stock {kind}"] = partial(_fit_seconds, stock, device)
        sides[f"ours {kind}"] = partial(_fit_seconds, ours, device)
        sides[f"floor {kind}"] = floor_step(model, len(vocab), batches, device, kind)
    times = alternate(sides, repeats=min(4, setup.sizes.repeats), device=device, clock=own_seconds)
    work, flops = sum(x.numel() for x, _ in batches), step_flops(model, len(vocab))
    rows = []
    for kind in setup.formats:
        base = f"stock {kind}" if f"stock {kind}" in times else "stock fp32"
        measured = {"stock": times[base], "ours": times[f"ours {kind}"], "floor": times[f"floor {kind}"]}
        target = {"ours": 5.0 if on_gpu else 1.25} if kind == ("bf16" if on_gpu else "fp32") else None
        peak = matmul_peak(device, torch.bfloat16 if kind == "bf16" else torch.float32)
        made = row(f"LM step, {name}, {kind}", measured, work=work, work_unit="tokens", target=target,
                   check=checks.get(kind, checks["fp32"]), steps=len(batches), vocabulary=len(vocab),
                   batch=[setup.sizes.bs, setup.sizes.bptt], format=kind,
                   stock_format=base.split()[1], matmul_peak=peak,
                   floor="torch's LSTMs, decoder and cross entropy, forward and backward, nothing else")
        made["share_of_peak"] = {side: work * flops / value / peak for side, value in made["median"].items()}
        made["over_floor"] = made["median"]["ours"] / made["median"]["floor"]
        made["profile"] = {side: profile(sides[name_], device) for side, name_ in
                           (("stock", base), ("ours", f"ours {kind}")) if side == "ours" or base.endswith(kind)}
        rows.append(made)
    return rows


def _fit_seconds(learn: Any, device: torch.device) -> float:
    return fit(learn, device).seconds


def step_flops(model: Model, words: int) -> int:
    """Operations of the matrix products of forward and backward, per token."""
    return 6 * (sum(4 * b * (a + b) for a, b in lstm_sizes(model)) + model.emb_sz * words)


class Bare(nn.Module):
    """The kernels that no implementation can do without: embedding, LSTMs, decoder."""

    def __init__(self, model: Model, words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, model.emb_sz)
        self.layers = nn.ModuleList(nn.LSTM(a, b, batch_first=True) for a, b in lstm_sizes(model))
        self.decoder = nn.Linear(model.emb_sz, words)

    def forward(self, x: Tensor) -> Tensor:
        out = self.embedding(x)
        for layer in self.layers:
            out = layer(out)[0]
        return self.decoder(out)


def floor_step(model: Model, words: int, batches: list[Any], device: torch.device, kind: str) -> Callable[[], float]:
    """Forward and backward of the bare kernels over the batches; returns the function that says its seconds."""
    bare = Bare(model, words).to(device)
    if kind == "bf16" and device.type == "cpu":
        bare = bare.bfloat16()

    def steps() -> None:
        for x, y in batches:
            with torch.autocast(device.type, torch.bfloat16, enabled=kind == "bf16" and device.type == "cuda"):
                logits = bare(x)
                loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
            loss.backward()
            bare.zero_grad(set_to_none=True)

    return lambda: seconds(steps, device)
