"""What the benchmark runs on: sizes, texts, word numbers, and the same models built by fastai and by us."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.data.core import DataLoaders
from fastai.text.learner import language_model_learner, text_classifier_learner
from fastai.text.models.awdlstm import AWD_LSTM
from fastcore.foundation import L

from ulmfit_fastai._files import write_text_atomic
from ulmfit_fastai.model.learners import classifier_learner, lm_learner
from ulmfit_fastai.model.precision import cpu_has_bf16
from ulmfit_fastai.recipe.parts import Dropouts, Model, Phase
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.texts.dataset import Dataset
from ulmfit_fastai.texts.imdb import load_imdb
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.tokens.ids import TokenIds
from ulmfit_fastai.tokens.store import TokenStore

NO_DROPOUT = Dropouts(0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Sizes:
    """How much is measured. The defaults take less than half an hour on two cores."""

    token_docs: int = 25_000
    second_docs: int = 5_000
    lm_docs: int = 3_000
    bs: int = 64
    bptt: int = 72
    models: tuple[tuple[str, Model, int], ...] = (
        ("small 256/640/2", Model(emb_sz=256, n_hid=640, n_layers=2), 16_000),
        ("paper 400/1152/3", Model(), 30_000),
    )
    equal_steps: int = 50
    clas_bs: int = 32
    eval_docs: tuple[int, ...] = (2_000, 400)
    """Reviews to predict with each of `models`."""
    slices: int = 5
    predict_repeats: int = 15
    scale_docs: tuple[int, ...] = (1_000, 3_000, 10_000, 30_000, 100_000)
    scale_stock: int = 30_000
    """Stock is measured up to so many documents: beyond that it takes minutes and 10 GB."""
    scale_tokens: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024, 2048)
    scale_texts: int = 8
    precision_docs: int = 5_000
    repeats: int = 5
    imports: int = 5
    memory_jobs: int = 99
    """So many of the measurements of memory, each of which takes two processes."""


QUICK = Sizes(token_docs=60, second_docs=30, lm_docs=60, bs=4, bptt=8,
              models=(("small 16/24/2", Model(emb_sz=16, n_hid=24, n_layers=2), 300),
                      ("paper 20/32/3", Model(emb_sz=20, n_hid=32), 400)),
              equal_steps=6, clas_bs=4, eval_docs=(24, 16), slices=2, predict_repeats=2, scale_docs=(20, 40),
              scale_stock=20, scale_tokens=(8, 16, 32), scale_texts=2, precision_docs=24, repeats=2, imports=1,
              memory_jobs=2)


@dataclass(frozen=True)
class Setup:
    """One run of the benchmark: its sizes, its texts and its device."""

    sizes: Sizes
    work: Path
    data: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    model: Path | None = None
    """A finished run's folder, for the accuracy that each number format costs."""

    @cached_property
    def dataset(self) -> Dataset:
        """IMDb from `data`, or made-up reviews that repeat a small stock of phrases."""
        if self.data is not None:
            return load_imdb(self.data)
        most = max(self.sizes.token_docs, *self.sizes.eval_docs, *self.sizes.scale_docs)
        each = min(most, 25_000)
        return synthetic_reviews(n_train=each, n_test=min(each, 5_000), n_unsup=max(0, most - each))

    @cached_property
    def texts(self) -> list[str]:
        """All texts in a random order that is the same each time, so that any first part is a fair sample."""
        path = self.work / f"texts-{self._key}.jsonl"  # a tenth of the time of reading the archive, in every process
        if not path.exists():
            texts = self.dataset.df["text"].tolist()
            order = np.random.default_rng(0).permutation(len(texts)).tolist()
            write_text_atomic(path, "".join(json.dumps(texts[i]) + "\n" for i in order))
            self.__dict__.pop("dataset")
        with open(path, encoding="utf8") as lines:
            return [json.loads(line) for line in lines]

    @property
    def _key(self) -> str:
        stat = self.data.stat() if self.data else None
        about = [str(self.data), stat and (stat.st_size, stat.st_mtime), self.sizes.token_docs, self.sizes.scale_docs]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:8]

    def some_texts(self, n: int) -> list[str]:
        return self.texts[:n]

    def ids(self, n: int, words: int) -> TokenIds:
        """The first `n` texts in numbers, in a vocabulary of at most `words` (and fastai's padding of it)."""
        folder = self.work / f"ids-{self._key}-{n}-{words}"
        if not folder.exists():
            store = TokenStore.make(self.some_texts(n), cache=self.work / "tokens", progress=False)
            store.numericalize(store.vocab(max_vocab=words, min_freq=1)).save(folder)
        return TokenIds.open(folder)

    @property
    def formats(self) -> tuple[str, ...]:
        """Number formats to measure here: bf16 only where the hardware multiplies it."""
        return ("fp32", "bf16") if self.device.type == "cuda" or cpu_has_bf16() else ("fp32",)

    def dtype(self, kind: str) -> torch.dtype | None:
        """What our models compute in on the CPU; on a GPU autocast decides."""
        return torch.bfloat16 if kind == "bf16" and self.device.type == "cpu" else None


# -- the same models twice ------------------------------------------------------------------------------------------
class Batches(DataLoaders):
    """Fixed batches as a Learner's data, so that both sides train on the same ones."""

    def __init__(self, vocab: Any, train: list[Any], device: torch.device, *, n_out: int = 2) -> None:
        super().__init__(train, [])
        self.vocab, self._device, self.c, self.n_inp = vocab, device, n_out, 1


def lstm_sizes(model: Model) -> list[tuple[int, int]]:
    """What goes into each LSTM and what comes out."""
    sizes = [model.emb_sz, *[model.n_hid] * (model.n_layers - 1), model.emb_sz]
    return list(zip(sizes, sizes[1:]))


def dry(model: Model) -> Model:
    """The model without any dropout, for comparing numbers."""
    return replace(model, lm_dropouts=NO_DROPOUT, classifier_dropouts=NO_DROPOUT, head_dropout=0.0)


def _stock_config(model: Model, drop: Dropouts, **more: Any) -> dict[str, Any]:
    # Stock breaks at a weight dropout of exactly 0 (it registers the matrix twice); this one never drops anything.
    return dict(emb_sz=model.emb_sz, n_hid=model.n_hid, n_layers=model.n_layers, pad_token=1, bidir=False,
                output_p=drop.output, hidden_p=drop.hidden, input_p=drop.input, embed_p=drop.embed,
                weight_p=drop.weight or 1e-12, **more)


def _phase(kind: str, bptt: int) -> Phase:
    """The `fastai` preset's phase with the settings that stock has too, so that only the code differs."""
    recipe = preset("fastai")
    found = recipe.lm if kind == "lm" else recipe.classifier
    assert found is not None
    # `fit` without a schedule leaves Adam its own momentum, 0.9 in stock.
    optimizer = replace(found.optimizer, moms=(0.9,), sqr_mom=0.99, eps=1e-5, wd=0.01, decoupled_wd=True)
    return replace(found, bptt=bptt, max_len=20 * bptt, alpha=2.0, beta=1.0, optimizer=optimizer)


def stock_lm(vocab: list[str], model: Model, batches: list[Any], device: torch.device) -> Any:
    """fastai's own language-model Learner, `drop_mult` 1."""
    config = _stock_config(model, model.lm_dropouts, tie_weights=True, out_bias=True)
    learn = language_model_learner(Batches(vocab, batches, device), AWD_LSTM, config=config, pretrained=False, wd=0.01)
    learn.model.to(device)
    return learn


def our_lm(vocab: list[str], model: Model, batches: list[Any], device: torch.device, bptt: int,
           dtype: torch.dtype | None = None) -> Any:
    """Our language-model Learner."""
    learn = lm_learner(Batches(vocab, batches, device), model, _phase("lm", bptt), compute_dtype=dtype)
    learn.model.to(device)
    return learn


def stock_classifier(vocab: list[str], model: Model, batches: list[Any], device: torch.device, bptt: int) -> Any:
    """fastai's own classifier Learner."""
    config = _stock_config(model, model.classifier_dropouts)
    dls = Batches(L(vocab, ["neg", "pos"]), batches, device)
    learn = text_classifier_learner(dls, AWD_LSTM, seq_len=bptt, config=config, pretrained=False, drop_mult=1.0,
                                    n_out=2, lin_ftrs=[model.head_hidden], ps=[model.head_dropout], max_len=20 * bptt,
                                    wd=0.01, loss_func=torch.nn.CrossEntropyLoss())
    learn.model.to(device)
    return learn


def our_classifier(vocab: list[str], model: Model, batches: list[Any], device: torch.device, bptt: int,
                   dtype: torch.dtype | None = None) -> Any:
    """Our classifier Learner."""
    dls = Batches(L(vocab, ["neg", "pos"]), batches, device)
    learn = classifier_learner(dls, model, _phase("classifier", bptt), n_out=2, compute_dtype=dtype)
    learn.model.to(device)
    return learn


def same_weights(stock: Any, *ours: Any) -> None:
    """Give every Learner the first one's weights, through fastai's state dict."""
    for learn in ours:
        learn.model.load_state_dict(stock.model.state_dict())


def lively(learn: Any) -> None:
    """Make fresh weights speak as loudly as trained ones: otherwise every text gets nearly the same prediction."""
    with torch.no_grad():
        for name, parameter in learn.model.named_parameters():
            if "encoder" in name:
                parameter.mul_(10)
            elif "weight_ih" in name or "weight_hh" in name:
                parameter.mul_(1.5)
