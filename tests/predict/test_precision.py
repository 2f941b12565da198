"""What a saved model computes in when it predicts: fp32 unless asked, and what bf16 changes."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from some_texts import able, reviews, tiny

from ulmfit_fastai import ULMFiT
from ulmfit_fastai.cli.app import main
from ulmfit_fastai.model import precision
from ulmfit_fastai.model.autocast import computing_in
from ulmfit_fastai.model.precision import resolve

TEXTS, LABELS = reviews(48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return able().fit(TEXTS, LABELS).save(tmp_path_factory.mktemp("saved") / "model")


def test_a_model_predicts_in_fp32_unless_it_is_asked(folder, monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    model = ULMFiT.load(folder)
    assert model.model_.precision == "fp32"
    alone = np.concatenate([model.predict_proba([text]) for text in TEXTS[:8]])
    np.testing.assert_allclose(alone, model.predict_proba(TEXTS)[:8], atol=1e-6)


def test_bf16_changes_a_probability_a_little_and_fp32_comes_back(folder):
    model = ULMFiT.load(folder)
    before = model.predict_proba(TEXTS)
    found = model.predict_proba(TEXTS, precision="bf16")
    assert 0 < np.abs(found - before).max() < 0.02
    np.testing.assert_array_equal(model.predict_proba(TEXTS), before)
    loaded = ULMFiT.load(folder, precision="bf16")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), found)
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS, precision="fp32"), before)
    assert loaded.predict(TEXTS, precision="fp32").tolist() == model.predict(TEXTS).tolist()


def test_a_text_gets_nearly_the_same_alone_as_among_others_in_bf16(folder):
    model = ULMFiT.load(folder, precision="bf16", device="cpu")
    alone = np.concatenate([model.predict_proba([text]) for text in TEXTS[:8]])
    np.testing.assert_allclose(alone, model.predict_proba(TEXTS)[:8], atol=5e-3)


def test_auto_takes_what_the_hardware_multiplies(folder, monkeypatch):
    for has, kind in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(precision, "cpu_has_bf16", lambda has=has: has)
        assert ULMFiT.load(folder, precision="auto", device="cpu").model_.precision == kind


@pytest.mark.parametrize(("maker", "flags", "kind"), [
    ("GenuineIntel", "avx512f amx_bf16 avx512_bf16", "bf16"), ("GenuineIntel", "avx512f avx512_bf16", "fp32"),
    ("AuthenticAMD", "avx512f avx512_bf16", "bf16"), ("AuthenticAMD", "avx512f avx2", "fp32"),
    ("GenuineIntel", "avx2", "fp32"), (None, None, "fp32")])
def test_auto_takes_bf16_on_cpus_that_are_faster_in_it(maker, flags, kind, monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    if maker is not None:
        info.write_text(f"processor\t: 0\nvendor_id\t: {maker}\nflags\t\t: fpu {flags}\nbugs\t\t:\n")
    monkeypatch.setattr(precision, "CPUINFO", info)
    assert resolve("auto", torch.device("cpu")) == kind
    assert resolve("bf16", torch.device("cpu")) == "bf16"  # asked for by name


def test_what_a_device_has_not_is_refused(folder):
    with pytest.raises(ValueError, match="precision is 'fp16', but on the device cpu"):
        ULMFiT.load(folder, precision="fp16", device="cpu")
    with pytest.raises(ValueError, match="in int8 doesn't compute in bf16"):
        ULMFiT.load(folder, precision="bf16", int8=True)
    assert ULMFiT.load(folder, precision="auto", int8=True).model_.precision == "fp32"


def test_fastais_own_layers_predict_in_fp32_on_a_cpu(monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    model = tiny(settings={"fast": False, "precision": "fp32"}, device="cpu").fit(TEXTS, LABELS)
    with pytest.raises(ValueError, match="fast=False.*compute in fp32"):
        model.predict_proba(TEXTS, precision="bf16")
    np.testing.assert_array_equal(model.predict_proba(TEXTS, precision="auto"), model.predict_proba(TEXTS))


def test_an_error_within_leaves_the_model_as_it_was(folder):
    model = ULMFiT.load(folder, device="cpu").model_
    module = model.models["forward"]
    with pytest.raises(KeyError), computing_in("bf16", module, torch.device("cpu")):
        raise KeyError
    assert {lstm.dtype for lstm in module.modules() if hasattr(lstm, "weight_p")} <= {None}


def test_a_pickled_model_keeps_its_precision_and_an_older_pickle_has_fp32(folder):
    model = ULMFiT.load(folder, precision="bf16").model_
    assert pickle.loads(pickle.dumps(model)).precision == "bf16"
    state = model.__getstate__()
    del state["precision"]
    old = model.__class__.__new__(model.__class__)
    old.__setstate__(state)
    assert old.precision == "fp32"


def test_the_shell_takes_a_precision(folder, tmp_path, capsys):
    table = tmp_path / "new.csv"
    pd.DataFrame({"text": TEXTS, "label": LABELS}).to_csv(table, index=False)
    assert main(["evaluate", str(folder), str(table), "--precision", "bf16", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert main(["predict", str(folder), str(table), "--precision", "auto", "--out", str(tmp_path / "p.csv")]) == 0
    right = (pd.read_csv(tmp_path / "p.csv")["predicted"] == LABELS).mean()
    assert said["accuracy"] == pytest.approx(right, abs=0.05)
    assert resolve("auto", torch.device("cpu")) in ("bf16", "fp32")
