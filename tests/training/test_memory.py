"""Where memory runs out, a batch is made in parts; the numbers are the whole batch's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ulmfit_fastai import preset
from ulmfit_fastai.batches.classifier import Reads, pad_batch
from ulmfit_fastai.batches.dataloaders import classifier_dataloaders
from ulmfit_fastai.batches.targets import Target, Targets
from ulmfit_fastai.model.fast.awd_lstm import FastAWDLSTM
from ulmfit_fastai.model.learners import classifier_learner
from ulmfit_fastai.recipe.parts import Dropouts
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.tokens.ids import Vocabulary
from ulmfit_fastai.tokens.store import TokenStore
from ulmfit_fastai.training import memory, runs, work
from ulmfit_fastai.training.memory import OutOfMemory, SplitBatches, rows_of, share_of

NO_DROPOUT = Dropouts(0.0, 0.0, 0.0, 0.0, 0.0)
RECIPE = preset("tiny").replace(**{"model.lm_dropouts": NO_DROPOUT, "model.classifier_dropouts": NO_DROPOUT,
                                   "model.head_dropout": 0.0, "lm.bs": 8, "precision": "fp32"})


class Small:
    """A device with memory for so many rows at a time, where gradients are made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: int, message: str = "CUDA out of memory. Tried"):
        self.rows, self.message, self.failures, real = rows, message, 0, FastAWDLSTM.forward

        def forward(encoder, words, from_embeds=False):
            out = real(encoder, words, from_embeds)
            if encoder.training and torch.is_grad_enabled() and len(words) > self.rows:
                self.failures += 1
                raise torch.OutOfMemoryError(self.message)
            return out

        monkeypatch.setattr(FastAWDLSTM, "forward", forward)
        monkeypatch.setattr(work, "may_run_out", lambda device: True)


def lm_of(folder: Path, **more) -> dict[str, torch.Tensor]:
    runs.run(RECIPE, synthetic_reviews(n_train=60, n_test=20, n_unsup=40), folder, device="cpu", progress=False,
             until="lm", cache=folder.parent / "cache", **more)
    return load_file(folder / "lm_forward.safetensors")


def assert_alike(a, b):
    for key in a:
        np.testing.assert_allclose(a[key].float(), b[key].float(), atol=2e-5, err_msg=key)


def test_a_language_model_made_in_parts_is_that_of_whole_batches(tmp_path, monkeypatch):
    whole = lm_of(tmp_path / "whole")
    device = Small(monkeypatch, rows=3)
    assert_alike(lm_of(tmp_path / "parts"), whole)
    record = json.loads((tmp_path / "parts" / "run.json").read_text())
    assert record["batch_parts"] == {"lm": 4} and device.failures == 2  # 8 and 4 rows, before training; then 2 fit
    history = [(tmp_path / name / "history.csv").read_text().split(",")[-5:-3] for name in ("whole", "parts")]
    np.testing.assert_allclose(*[[float(n) for n in row] for row in history], atol=1e-5)


def test_a_run_goes_on_when_memory_runs_out_in_the_middle_of_it(tmp_path, monkeypatch):
    whole = lm_of(tmp_path / "whole")
    device, steps, step = Small(monkeypatch, rows=100), 0, SplitBatches.step

    def later_less(split):
        nonlocal steps
        steps += 1
        device.rows = 100 if steps < 4 else 4
        step(split)

    monkeypatch.setattr(SplitBatches, "step", later_less)
    assert_alike(lm_of(tmp_path / "parts"), whole)
    record = json.loads((tmp_path / "parts" / "run.json").read_text())
    assert record["batch_parts"] == {"lm": 2} and device.failures == 1


def test_a_device_too_small_for_one_row_says_what_to_do_and_the_folder_goes_on(tmp_path, monkeypatch):
    device = Small(monkeypatch, rows=0)
    with pytest.raises(OutOfMemory, match="too little memory even for 1 streams of text at a time.*bptt"):
        lm_of(tmp_path / "run")
    device.rows = 100
    assert_alike(lm_of(tmp_path / "run"), lm_of(tmp_path / "whole"))


@pytest.mark.parametrize("message", ["MPS backend out of memory (MPS allocated: 5 GB)", "CUDNN_STATUS_ALLOC_FAILED"])
def test_every_library_s_words_for_it_are_known(message):
    assert memory._lacks_memory(RuntimeError(message)) == message
    assert memory._lacks_memory(RuntimeError("Expected all tensors to be on the same device")) is None


def test_another_error_is_not_taken_for_it(tmp_path, monkeypatch):
    Small(monkeypatch, rows=2, message="index out of range")
    with pytest.raises(RuntimeError, match="index out of range"):
        lm_of(tmp_path / "run")


# The classifier


@pytest.mark.parametrize(("kind", "parts"), [("single", 2), ("single", 3), ("weighted", 2), ("multi", 2)])
def test_a_classifiers_gradients_are_those_of_the_whole_batch(kind, parts):
    grads = [gradients(kind, n) for n in (1, parts)]
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        np.testing.assert_allclose(grads[1][name], grad, atol=1e-6 * max(1.0, float(grad.abs().max())), err_msg=name)


def gradients(kind: str, parts: int) -> dict[str, torch.Tensor]:
    """Of one step over 11 texts of many lengths, batch norm at rest: its statistics are a part's."""
    torch.manual_seed(0)
    lengths = [95, 90, 61, 60, 59, 33, 31, 30, 20, 7, 5]
    x = torch.from_numpy(pad_batch([np.arange(2, 2 + n) for n in lengths], 30))
    x.reads = Reads.of(lengths, 30)
    y = torch.arange(11) % 3 if kind != "multi" else (torch.rand(11, 3) > 0.5).float()
    target = Target("multi" if kind == "multi" else "single", ("a", "b", "c"))
    loss = target.loss((1.0, 4.0, 2.0) if kind == "weighted" else None)
    learn = learner(loss)
    split = SplitBatches(learn, "classifier", parts=parts)
    learn.model.train()
    for module in learn.model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    learn.xb, learn.yb, learn.opt = (x,), (y,), SimpleNamespace(step=lambda: None, zero_grad=lambda: None)
    learn.training = True
    split.step()
    assert learn.pred.shape == (11, 3) and learn.yb[0] is y
    found = {name: p.grad for name, p in learn.model.named_parameters() if p.grad is not None}
    return found | {"loss": learn.loss.detach(), "pred": learn.pred.detach()}


def learner(loss):
    texts = synthetic_reviews(n_train=20, n_test=2, n_unsup=0)
    store = TokenStore.make(texts.df["text"].tolist(), cache=None, progress=False)
    ids = store.numericalize(Vocabulary(["xxunk", "xxpad", *(f"word{i}" for i in range(118))]))
    dls = classifier_dataloaders(ids, Targets(Target("single", ("a", "b", "c")), np.arange(22) % 3), bs=11, bptt=30,
                                 train=np.arange(20), valid=np.arange(20, 22))
    phase = replace(RECIPE.classifier, bptt=30, max_len=60, alpha=0.0, beta=0.0)
    return classifier_learner(dls, RECIPE.model, phase, n_out=3, loss_func=loss)


def test_parts_know_what_their_encoder_reads():
    lengths = [95, 61, 60, 33, 31, 5]
    x = torch.from_numpy(pad_batch([np.full(n, 7) for n in lengths], 30))
    x.reads = Reads.of(lengths, 30)
    for part in range(2):
        few, own = rows_of(x, part, 2), lengths[part::2]
        expected = Reads.of(own, 30)
        assert few.reads.rows == expected.rows and few.reads.end >= expected.end
        assert (few != 1).sum(1).tolist() == own


def test_parts_count_by_their_classes_weights():
    loss = Target("single", ("a", "b")).loss((1.0, 3.0))
    whole = torch.tensor([0, 1, 1, 0, 0])
    assert float(share_of(loss, whole[0::2], whole)) == pytest.approx(5 / 9)
    assert share_of(Target("single", ("a", "b")).loss(), whole[0::2], whole) == 3 / 5
