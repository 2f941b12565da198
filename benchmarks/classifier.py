"""The classifier: a training step at each stage of gradual unfreezing, many predictions, and one."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from fastai.data.core import Datasets
from fastai.text.core import Tokenizer
from fastai.text.data import Numericalize, Pad_Chunk, SortedDL, TensorText, TextDataLoaders, pad_chunk
from fastai.torch_core import TensorCategory
from torch import Tensor, nn

from ulmfit_fastai.batches.classifier import ClassifierLoader, pad_batch
from ulmfit_fastai.batches.dataloaders import inference_loader
from ulmfit_fastai.batches.documents import TokenDataset
from ulmfit_fastai.model.learners import FrozenBatchNorm, set_trainable
from ulmfit_fastai.predict.int8 import int8_copy
from ulmfit_fastai.recipe.parts import Model
from ulmfit_fastai.tokens.ids import TokenIds
from ulmfit_fastai.tokens.stream import tokenize

from .fitting import fit, own_seconds, profile, shares_of_peak
from .material import Setup, dry, lively, lstm_sizes, our_classifier, same_weights, stock_classifier
from .measure import Record, alternate, close, expect, row, within

TOLERANCE = 1e-4
"""Of predictions and gradients, in units of their own spread."""


def documents(setup: Setup, n: int, size: int = -1) -> TokenIds:
    """The first `n` texts in the vocabulary of one of the models (the last one)."""
    words = setup.sizes.models[size][2]
    ids = setup.ids(setup.sizes.token_docs if words > 16_000 else max(n, setup.sizes.lm_docs), words)
    return TokenIds(np.asarray(ids.ids[: ids.offsets[n]]), ids.offsets[: n + 1], ids.vocab)


def both_batches(docs: list[np.ndarray], bptt: int, device: torch.device) -> tuple[Any, Any]:
    """The same texts, longest first, as fastai pads them and as we do, with alternating labels."""
    docs = sorted(docs, key=len, reverse=True)
    y = torch.arange(len(docs)) % 2
    padded = [pad_chunk(torch.from_numpy(d.astype(np.int64)), pad_idx=1, pad_first=True, seq_len=bptt,
                        pad_len=len(docs[0])) for d in docs]
    stock = TensorText(torch.stack(padded)).to(device), TensorCategory(y).to(device)
    return stock, (torch.from_numpy(pad_batch(docs, bptt)).to(device), y.to(device))


def classifier_steps(setup: Setup) -> list[Record]:
    """Steps at each stage of unfreezing, on the batch of our loader whose longest text is next to the mean length."""
    sizes, device = setup.sizes, setup.device
    model = sizes.models[-1][1]
    ids = documents(setup, (50 if len(setup.texts) > 2000 else 4) * sizes.clas_bs)
    docs = usual_batch(ids, sizes.clas_bs, sizes.bptt)
    pairs = [both_batches(docs, sizes.bptt, device)] * (1 if device.type == "cpu" else 16)
    checks = same_gradients(setup, ids)
    stock = stock_classifier(ids.vocab, model, [a for a, _ in pairs], device, sizes.bptt)
    ours = {kind: our_classifier(ids.vocab, model, [b for _, b in pairs], device, sizes.bptt, setup.dtype(kind))
            for kind in setup.formats}
    same_weights(stock, *ours.values())
    if device.type == "cuda" and "bf16" in ours:
        ours["bf16"].to_bf16()
    work, n_groups, rows = len(docs) * len(pairs), model.n_layers + 2, []
    longest = max(map(len, docs))
    for opened in (1, 2, 3, n_groups):
        stock.unfreeze() if opened == n_groups else stock.freeze_to(-opened)
        sides: dict[str, Any] = {"stock": lambda: fit(stock, device).seconds}
        for kind, learn in ours.items():
            set_trainable(learn, tuple(range(n_groups - opened, n_groups)))
            sides["ours" if kind == "fp32" else f"ours {kind}"] = partial(_step_seconds, learn, device)
        times = alternate(sides, repeats=min(3, sizes.repeats), device=device, clock=own_seconds, warm=opened == 1)
        name = {1: "frozen", n_groups: "all open"}.get(opened, f"last {opened} groups open")
        wanted = {1: 1.7, n_groups: 1.3}.get(opened) if device.type == "cpu" else 3.0
        made = row(f"classifier step, {name}", times, work=work, work_unit="documents",
                   check=checks["ours"], checks=checks, batch=sizes.clas_bs, steps=len(pairs), longest=longest,
                   target={"ours": wanted} if wanted else None,
                   note="ours draws each LSTM's weight-drop mask once a batch, stock once for every chunk of a text")
        made["share_of_peak"] = shares_of_peak(made["median"], work * longest * step_operations(model, opened), device)
        if opened in (1, n_groups):
            made["profile"] = {side: profile(each, device) for side, each in sides.items()}
        rows.append(made)
    return rows


def usual_batch(ids: TokenIds, bs: int, bptt: int) -> list[np.ndarray]:
    """The texts of a training batch, the one whose longest text is next to the mean of all texts."""
    loader = ClassifierLoader(TokenDataset.from_ids(ids, np.arange(len(ids))), bs=bs, bptt=bptt, shuffle=True)
    batch = min(loader.batches(0), key=lambda rows: abs(ids.lengths[rows].max() - ids.lengths.mean()))
    return [ids.doc(i) for i in batch.tolist()]


def step_operations(model: Model, opened: int) -> int:
    """Operations of the LSTMs' matrix products for a token, the last `opened` groups trained."""
    lowest = model.n_layers + 1 - opened  # the first LSTM with gradients; -1 where the embedding has them too
    each = 0
    for place, (a, b) in enumerate(lstm_sizes(model)):
        each += 8 * b * (a + b)
        if place >= lowest:  # gradients of the weights, of the state, and of the input where something below wants them
            each += 8 * b * (a + b) + 8 * b * b + 8 * b * a * (place > lowest)
    return each


def _step_seconds(learn: Any, device: torch.device) -> float:
    return fit(learn, device, cbs=(FrozenBatchNorm(),)).seconds


def same_gradients(setup: Setup, ids: TokenIds) -> dict[str, str]:
    """Refuse logits or gradients that differ, dropout off, on the CPU, padded so that stock reads every chunk.

    For bf16 on a CPU: how far the logits are from stock's fp32.
    """
    cpu, bptt = torch.device("cpu"), setup.sizes.bptt
    model = dry(setup.sizes.models[-1][1])
    docs = [ids.doc(i) for i in range(min(6, len(ids)))]
    _, (x, y) = both_batches([doc[: 3 * bptt] for doc in docs], bptt, cpu)
    stock = stock_classifier(ids.vocab, model, [], cpu, bptt)
    lively(stock)
    ours = {kind: our_classifier(ids.vocab, model, [], cpu, bptt, setup.dtype(kind)) for kind in setup.formats
            if kind == "fp32" or setup.dtype(kind)}
    same_weights(stock, *ours.values())
    found = {}
    for kind, learn, batch in (("stock", stock, TensorText(x)), *((kind, learn, x) for kind, learn in ours.items())):
        learn.model.train()
        learn.model.reset()
        logits = Tensor(learn.model(batch)[0])
        F.cross_entropy(logits, y).backward()
        found[kind] = logits.detach(), {k: p.grad for k, p in learn.model.named_parameters() if p.grad is not None}
    checks = {"ours": compare_gradients(found["stock"], found["fp32"])}
    if "bf16" in found:
        right, rounded = found["stock"][0], found["bf16"][0]
        apart = float((right - rounded).abs().max() / right.std())
        checks["ours bf16"] = f"logits up to {apart:.0e} of their spread from stock's fp32, dropout off"
    return checks


def compare_gradients(stock: tuple[Tensor, dict[str, Tensor]], ours: tuple[Tensor, dict[str, Tensor]]) -> str:
    """Refuse logits or gradients further apart than `TOLERANCE` of their spread."""
    worst = close(stock[0], ours[0], "logits", tolerance=TOLERANCE)
    expect(set(stock[1]) == set(ours[1]), f"the weights with gradients: {set(stock[1]) ^ set(ours[1])}")
    for name, gradient in stock[1].items():
        worst = max(worst, close(gradient, ours[1][name], f"gradient of {name}", tolerance=10 * TOLERANCE))
    return f"logits and gradients {within(worst)}, fp32, dropout off"


# -- prediction -----------------------------------------------------------------------------------------------------
def stock_loader(ids: TokenIds, rows: np.ndarray, *, bptt: int, device: torch.device) -> SortedDL:
    """fastai's loader over texts that are split into words already, numbered by fastai."""
    words = [[ids.vocab[i] for i in ids.doc(row)] for row in rows.tolist()]
    numbers = Numericalize(list(ids.vocab))
    items = Datasets(list(range(len(words))), [[lambda i: words[i], numbers], [lambda i: TensorCategory(i % 2)]])
    return SortedDL(items, res=[len(text) for text in words], bs=64, before_batch=Pad_Chunk(seq_len=bptt),
                    num_workers=0, device=device)


def stock_predictions(learn: Any, loader: SortedDL) -> Tensor:
    """fastai's `get_preds`, as probabilities."""
    with learn.no_bar(), learn.no_logging():
        return learn.get_preds(dl=loader, act=partial(torch.softmax, dim=-1))[0]


def our_predictions(model: nn.Module, ids: Any, rows: Any, *, bptt: int, device: torch.device) -> Tensor:
    """Ours, as `predict_rows` has them."""
    from ulmfit_fastai.predict.outputs import predict_rows

    return torch.from_numpy(predict_rows(model, ids, rows, direction="forward", bptt=bptt, device=device))


def prediction_models(setup: Setup, vocab: list[str], size: int = -1) -> tuple[Any, dict[str, nn.Module]]:
    """Stock's Learner and our models in each number format, all with the same weights."""
    model, bptt, device = setup.sizes.models[size][1], setup.sizes.bptt, setup.device
    stock = stock_classifier(vocab, model, [], device, bptt)
    lively(stock)
    ours: dict[str, nn.Module] = {}
    for kind in setup.formats if device.type == "cpu" else ("fp32",):
        learn = our_classifier(vocab, model, [], device, bptt, setup.dtype(kind))
        same_weights(stock, learn)
        ours["ours" if kind == "fp32" else f"ours {kind}"] = learn.model.eval()
    if device.type == "cpu":
        ours["ours int8"] = int8_copy(ours["ours"])
    return stock, ours


def evaluation(setup: Setup) -> list[Record]:
    """Reviews in slices: every slice is predicted by each side in turn; at each size of model."""
    return [_evaluation(setup, size) for size in range(len(setup.sizes.models))]


def _evaluation(setup: Setup, size: int) -> Record:
    sizes, device = setup.sizes, setup.device
    (name, model, _), n = sizes.models[size], sizes.eval_docs[size]
    ids = documents(setup, n, size)
    stock, ours = prediction_models(setup, ids.vocab, size)
    slices = [np.arange(k, n, sizes.slices) for k in range(sizes.slices)]
    predicted: dict[str, list[Tensor]] = {name: [] for name in ("stock", *ours)}
    turn = {name: iter(slices) for name in predicted}

    def predict(name: str) -> None:
        rows = next(turn[name])
        if name == "stock":
            predicted[name].append(stock_predictions(stock, stock_loader(ids, rows, bptt=sizes.bptt, device=device)))
        else:
            predicted[name].append(our_predictions(ours[name], ids, rows, bptt=sizes.bptt, device=device))

    times = alternate({name: partial(predict, name) for name in predicted}, repeats=sizes.slices, device=device,
                      warm=False)
    rows = np.concatenate(slices)
    both = torch.cat(predicted["stock"]), torch.cat(predicted["ours"])
    check = same_predictions(*both, alone=lambda i: alone(stock, ids, int(rows[i]), setup))
    drift = {name: float((torch.cat(p) - both[1]).abs().max()) for name, p in predicted.items() if name not in
             ("stock", "ours")}
    target = {"ours": 1.3} | ({"ours int8": 3.0} if "ours int8" in ours else {})
    checks = {name: untrained(change) for name, change in drift.items()}
    made = row(f"evaluation of {n:,} reviews, {name}", times, work=n / sizes.slices, work_unit="documents",
               target=target, check=check, checks=checks, largest_change_of_a_probability=drift,
               note=f"{sizes.slices} slices, split into words beforehand")
    tokens = int(ids.lengths[:n].sum()) / sizes.slices  # without padding
    made["share_of_peak"] = shares_of_peak(
        made["median"], tokens * sum(8 * b * (a + b) for a, b in lstm_sizes(model)), device)
    return made


def untrained(change: float) -> str:
    """What is said beside a number format; the stage `precision` says what it costs a trained model."""
    return f"untrained weights: probabilities up to {change:.0e} from fp32"


def alone(stock: Any, ids: TokenIds, document: int, setup: Setup) -> Tensor:
    """What stock predicts for a text by itself, where it reads all of its chunks."""
    loader = stock_loader(ids, np.array([document]), bptt=setup.sizes.bptt, device=setup.device)
    return stock_predictions(stock, loader)[0]


def same_predictions(stock: Tensor, ours: Tensor, *, alone: Any, most: int = 20) -> str:
    """Refuse predictions that differ, but for texts whose last chunk stock loses (fastai issue 3379).

    For such a text (in a batch whose longest is no multiple of the chunk) ours must be what stock itself says of the
    text alone; `most` of them are looked at.
    """
    expect(stock.shape == ours.shape, f"predictions of shapes {tuple(stock.shape)} and {tuple(ours.shape)}")
    spread = float(stock.std())
    apart = ((stock - ours).abs().amax(1) > TOLERANCE * 10 * spread).nonzero().flatten().tolist()
    expect(len(apart) <= 0.2 * len(stock), f"{len(apart)} of {len(stock)} predictions")
    for i in apart[:most]:
        difference = float((alone(i) - ours[i]).abs().max())
        expect(difference <= TOLERANCE * 10 * spread, f"the prediction for text {i}, by {difference:.2g}, alone too")
    said = (f"; stock loses the end of {len(apart)} (fastai issue 3379); of the {min(most, len(apart))} looked at, "
            "ours is stock's of the text alone")
    return f"{len(stock) - len(apart):,} of {len(stock):,} predictions equal{said if apart else ''}"


def one_text(setup: Setup) -> list[Record]:
    """One `predict` of one text, from its characters to its class; at each size of model."""
    return [_one_text(setup, size) for size in range(len(setup.sizes.models))]


def _one_text(setup: Setup, size: int) -> Record:
    sizes, device = setup.sizes, setup.device
    ids = documents(setup, min(*sizes.eval_docs, 200), size)
    numbers = ids.vocab.numbers
    frame = pd.DataFrame({"text": setup.some_texts(20), "label": ["neg", "pos"] * 10})
    dls = TextDataLoaders.from_df(frame, text_col="text", label_col="label", text_vocab=list(ids.vocab),
                                  seq_len=sizes.bptt, bs=4, device=device, n_workers=0)
    stock, ours = prediction_models(setup, ids.vocab, size)
    stock.dls = dls
    text = usual_text(setup, frame)
    length = len(tokenize([text])[0])

    def predict(model: nn.Module) -> Tensor:
        document = [numbers.get(token, 0) for token in tokenize([text])[0]]
        loader = inference_loader([document], bptt=sizes.bptt, device=device)
        model.eval()
        with torch.inference_mode():
            return torch.softmax(model(next(iter(loader))[0])[0].float(), -1)[0].cpu()

    def theirs() -> Tensor:
        with stock.no_bar(), stock.no_logging():
            return stock.predict(text)[2]

    stock.loss_func.activation = partial(torch.softmax, dim=-1)
    check = f"probabilities {within(close_enough(theirs(), predict(ours['ours'])))}"
    drift = {name: float((predict(model) - predict(ours["ours"])).abs().max()) for name, model in ours.items()}
    checks = {name: untrained(change) for name, change in drift.items() if name != "ours"}
    sides: dict[str, Any] = {"stock": theirs} | {name: partial(predict, model) for name, model in ours.items()}
    times = alternate(sides, repeats=sizes.predict_repeats, device=device)
    target = {"ours": 1.3} | ({"ours int8": 4.0} if "ours int8" in ours else {})
    return row(f"one prediction, {sizes.models[size][0]}", times, work=1, work_unit="documents", target=target,
               check=check, checks=checks, note=f"a text of {length} tokens")


def close_enough(stock: Tensor, ours: Tensor) -> float:
    """The difference of two texts' probabilities, refused above `TOLERANCE`."""
    difference = float((stock - ours).abs().max())
    expect(difference <= TOLERANCE, f"the probabilities of one text, by {difference:.2g}")
    return difference


def usual_text(setup: Setup, frame: pd.DataFrame) -> str:
    """A text of about 230 words that stock splits in prediction as in training (it leaves a rule out there)."""
    tokenizer = Tokenizer.from_df("text")
    by_length = sorted(setup.some_texts(400), key=lambda text: abs(len(text.split()) - 200))
    for text in by_length:
        if list(tokenizer(text)) == tokenize([text])[0]:
            return text
    raise ValueError("no text is split by fastai's predict as in its training; give other texts")
