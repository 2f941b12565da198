"""Damage that leaves a file its size: every file of a model, a run and a token store is compared with its digest."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from some_texts import reviews, tiny

from ulmfit_fastai import Result, ULMFiT
from ulmfit_fastai._errors import UlmfitError
from ulmfit_fastai._files import read_json, write_json_atomic
from ulmfit_fastai.model import pretrained
from ulmfit_fastai.model.weights import Classifier
from ulmfit_fastai.tokens.store import TokenStore

TEXTS, LABELS = reviews(24)
MODEL = ("classifier_forward.safetensors", "classifier_backward.safetensors", "vocab.json", "recipe.json",
         "metrics.json")
RUN = ("lm_forward.safetensors", "classifier_backward.safetensors", "vocab.json", "state/validation_forward.npy")


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """A run folder that is a model, too."""
    out = tmp_path_factory.mktemp("kept") / "m"
    tiny(epochs=1, lm_epochs=1, directions="both", out=out).fit(TEXTS, LABELS)
    return out


@pytest.fixture
def folder(kept, tmp_path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "m"))


def flip(path: Path, place: int = -5, bits: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= bits
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", MODEL)
def test_one_bit_of_a_models_file_is_noticed_and_the_file_named(folder, name):
    ULMFiT.load(folder)
    flip(folder / name)
    with pytest.raises(UlmfitError, match=name.partition(".")[0]):
        ULMFiT.load(folder)


@pytest.mark.parametrize("name", RUN)
def test_one_bit_of_a_finished_runs_file_is_noticed_by_the_same_call(folder, name):
    flip(folder / name)
    with pytest.raises(UlmfitError, match=name.rpartition("/")[2].partition(".")[0]):
        tiny(epochs=1, lm_epochs=1, directions="both", out=folder).fit(TEXTS, LABELS)


@pytest.mark.parametrize("name", ["history.csv", "rates.csv"])
def test_a_lost_table_is_said_and_the_rest_is_read(folder, name, caplog):
    whole = Result.load(folder)
    assert name not in caplog.text
    (folder / name).unlink()
    assert Result.load(folder).run == whole.run and f"{name} is missing" in caplog.text


def test_a_damaged_language_model_is_no_start_for_others(folder):
    assert pretrained.load(folder).direction == "forward"
    flip(folder / "lm_forward.safetensors")
    with pytest.raises(UlmfitError, match="lm_forward.safetensors is damaged"):
        pretrained.load(folder)


@pytest.mark.parametrize("name", ["config.json", "run.json"])
def test_a_letter_changed_in_a_record_is_seen(folder, name):
    text = (folder / name).read_text()
    assert '"en"' in text
    (folder / name).write_text(text.replace('"en"', '"de"', 1))
    if name == "run.json":
        (folder / "config.json").unlink()
    with pytest.raises(UlmfitError, match=f"{name} is damaged, or was changed"):
        ULMFiT.load(folder)


def test_models_without_digests_still_load(folder):
    expected = ULMFiT.load(folder).predict_proba(TEXTS)
    for name in ("config.json", "run.json"):
        values = read_json(folder / name)
        for later in ("digests", "digest", "identity"):
            values.pop(later, None)
        write_json_atomic(folder / name, values)
    np.testing.assert_array_equal(ULMFiT.load(folder).predict_proba(TEXTS), expected)
    (folder / "config.json").unlink()
    np.testing.assert_array_equal(ULMFiT.load(folder).predict_proba(TEXTS), expected)


def test_forward_weights_under_the_backward_name_are_refused(folder):
    shutil.copy(folder / "classifier_forward.safetensors", folder / "classifier_backward.safetensors")
    with pytest.raises(UlmfitError, match="expected backward weights, found forward ones"):
        ULMFiT.load(folder)


def test_equal_weights_make_equal_bytes(folder, tmp_path):
    saved = Classifier.load(folder / "classifier_forward.safetensors", vocab=folder / "vocab.json")
    again = [saved.save(tmp_path / name / "x.safetensors").read_bytes() for name in "abcd"]
    assert len(set(again)) == 1


@pytest.mark.parametrize(("name", "place"), [
    ("tokens.npy", 140), ("tokens.npy", 1), ("tokens.npy", 40), ("offsets.npy", -8), ("offsets.npy", -1),
    ("words.json", 5), ("meta.json", 0), ("meta.json", -20)])
@pytest.mark.parametrize("digests", [True, False], ids=["", "of an earlier version"])
def test_a_damaged_token_store_is_made_anew(tmp_path, name, place, digests, caplog):
    store = TokenStore.make(TEXTS, cache=tmp_path, progress=False)
    if not digests:
        meta = json.loads((store.folder / "meta.json").read_text())
        del meta["digests"]
        (store.folder / "meta.json").write_text(json.dumps(meta))
        if (name, place) in (("tokens.npy", 140), ("words.json", 5), ("meta.json", -20)):
            pytest.skip("a word in the place of another: nothing but a digest shows that")
    expected, words = np.array(store.tokens), list(store.words)
    flip(store.folder / name, place, 64)
    with caplog.at_level(logging.WARNING):
        again = TokenStore.make(TEXTS, cache=tmp_path, progress=False)
    np.testing.assert_array_equal(again.tokens, expected)
    assert again.words == words and str(store.folder) in caplog.text


@pytest.mark.parametrize("there", ["a file", "a link to itself", "a folder in a file's place"])
def test_what_stands_in_a_stores_place_gives_way(tmp_path, there):
    folder = TokenStore.make(TEXTS, cache=tmp_path, progress=False).folder
    if there == "a folder in a file's place":
        (folder / "tokens.npy").unlink()
        (folder / "tokens.npy").mkdir()
    else:
        shutil.rmtree(folder)
        folder.write_text("x") if there == "a file" else folder.symlink_to(folder)
    assert len(TokenStore.make(TEXTS, cache=tmp_path, progress=False)) == 24


def test_tokens_are_their_owners_to_read(tmp_path):
    folder = TokenStore.make(TEXTS, cache=tmp_path / "new", progress=False).folder
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "new", folder)] == [0o700] * 2
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_without_a_place_for_a_cache_tokens_are_kept_for_this_time(tmp_path, monkeypatch, caplog):
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("ULMFIT_CACHE", str(tmp_path / "cache"))
    store = TokenStore.make(TEXTS, progress=False)
    assert len(store) == 24 and store.words[0] == "xxbos" and "ULMFIT_CACHE" in caplog.text
