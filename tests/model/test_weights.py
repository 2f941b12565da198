"""Weights in and out: what is loaded is what was saved, and never into another vocabulary."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from fastai.data.external import fastai_cfg
from fastai.text.learner import match_embeds
from fastai.text.models.awdlstm import AWD_LSTM
from fastai.text.models.core import get_language_model

from ulmfit_fastai.model import pretrained
from ulmfit_fastai.model.layers import build_language_model
from ulmfit_fastai.model.weights import Classifier, LMWeights
from ulmfit_fastai.recipe.parts import Model
from ulmfit_fastai.tokens.ids import VocabularyMismatch

SMALL = Model(emb_sz=12, n_hid=20, n_layers=2)
STOCK = dict(emb_sz=12, n_hid=20, n_layers=2, pad_token=1, bidir=False, output_p=0.1, hidden_p=0.1, input_p=0.1,
             embed_p=0.1, weight_p=0.1, tie_weights=True, out_bias=True)


def words(n: int, *, shift: int = 0) -> list[str]:
    return ["xxunk", "xxpad", "xxbos"] + [f"w{i}" for i in range(shift, n - 3 + shift)]


@pytest.fixture
def lm() -> LMWeights:
    torch.manual_seed(0)
    return LMWeights.from_model(build_language_model(24, SMALL), words(24), name="toy", direction="forward", tokens=5)


def test_a_saved_model_comes_back_bit_for_bit(lm, tmp_path):
    path = lm.save(tmp_path / "lm_forward.safetensors")
    back = LMWeights.load(path)
    assert back.vocab == lm.vocab and back.direction == "forward" and back.meta["tokens"] == 5
    assert back.state.keys() == lm.state.keys()
    assert all(torch.equal(back.state[key], value) for key, value in lm.state.items())
    assert (back.emb_sz, back.n_hid, back.n_layers) == (12, 20, 2)


def test_the_tied_matrix_is_stored_once(lm, tmp_path):
    assert "1.decoder.weight" not in lm.state and "0.encoder_dp.emb.weight" not in lm.state
    assert torch.equal(lm.full_state()["1.decoder.weight"], lm.state["0.encoder.weight"])


def test_stock_fastai_loads_our_weights_and_we_load_stock_ones(lm):
    stock = get_language_model(AWD_LSTM, 24, config=STOCK)
    stock.load_state_dict(lm.full_state())
    ours = LMWeights.from_model(stock, words(24), name="stock", direction="forward")
    assert all(torch.equal(ours.state[key], lm.state[key]) for key in lm.state) and ours.state.keys() == lm.state.keys()


@pytest.mark.parametrize("dtype, worst", [("float16", 1e-3), ("int8", 5e-3)])
def test_smaller_storage_stays_close(lm, tmp_path, dtype, worst):
    full = lm.save(tmp_path / "full.safetensors")
    path = lm.save(tmp_path / "small.safetensors", dtype=dtype)
    back = LMWeights.load(path)
    assert path.stat().st_size < full.stat().st_size
    assert max(float((back.state[key] - value).abs().max()) for key, value in lm.state.items()) < worst
    assert all(value.dtype == torch.float32 for value in back.state.values())


def test_words_are_matched_as_fastai_matches_them(lm):
    new = words(24, shift=10) + ["xxfake"]
    ours = lm.for_vocab(new)
    theirs = match_embeds(dict(lm.full_state()), list(lm.vocab), new)
    for key in ("0.encoder.weight", "1.decoder.bias"):
        assert torch.allclose(ours.state[key], theirs[key], atol=1e-7)
    assert ours.meta["words_kept"] == sum(word in lm.vocab for word in new)


def test_another_vocabulary_of_the_same_size_is_refused(lm, tmp_path):
    path = lm.save(tmp_path / "a.safetensors")
    other = LMWeights("other", "forward", words(24, shift=1), lm.state)
    other.save(tmp_path / "b.safetensors")
    with pytest.raises(VocabularyMismatch, match="expected the vocabulary .* found"):
        LMWeights.load(path, vocab=tmp_path / "b.vocab.json")


def test_an_edited_vocabulary_is_noticed(lm, tmp_path):
    path = lm.save(tmp_path / "a.safetensors")
    vocab = tmp_path / "a.vocab.json"
    vocab.write_text(vocab.read_text("utf8").replace("w3", "w03", 1), "utf8")
    with pytest.raises(VocabularyMismatch, match="a.vocab.json"):
        LMWeights.load(path)


def test_a_truncated_file_is_named(lm, tmp_path):
    path = lm.save(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="a.safetensors: expected a safetensors file"):
        LMWeights.load(path)


def test_weights_of_another_size_are_refused(lm):
    with pytest.raises(ValueError, match=r"\(12, 20, 2\).*\(12, 32, 2\)"):
        lm.check_shape(emb_sz=12, n_hid=32, n_layers=2)


def test_a_run_folder_gives_its_language_model_of_the_direction(lm, tmp_path):
    lm.save(tmp_path / "lm_forward.safetensors")
    assert pretrained.load(tmp_path, "forward").vocab == lm.vocab
    with pytest.raises(ValueError, match="lm_backward.safetensors"):
        pretrained.load(tmp_path, "backward")
    with pytest.raises(ValueError, match="expected backward weights, found forward"):
        pretrained.load(tmp_path / "lm_forward.safetensors", "backward")


def test_none_is_none_and_nonsense_is_refused():
    assert pretrained.load("none") is None
    with pytest.raises(ValueError, match="wt103.*found 'nonsense'"):
        pretrained.load("nonsense")
    with pytest.raises(ValueError, match="direction.*sideways"):
        pretrained.load("none", "sideways")


def write_pair(folder, lm, *, itos=None):
    folder.mkdir(parents=True, exist_ok=True)
    state = lm.full_state()
    # as in fastai's published file: the dropped copies of weight_hh are there too
    for layer in range(lm.n_layers):
        state[f"0.rnns.{layer}.module.weight_hh_l0"] = state[f"0.rnns.{layer}.weight_hh_l0_raw"].clone()
    torch.save(state, folder / "lstm_fwd.pth")
    with open(folder / "itos_wt103.pkl", "wb") as handle:
        pickle.dump(list(lm.vocab) if itos is None else itos, handle)
    return folder / "lstm_fwd.pth"


def test_a_fastai_pair_is_read(lm, tmp_path):
    back = pretrained.load(write_pair(tmp_path, lm))
    assert back.vocab == lm.vocab and back.state.keys() == lm.state.keys()
    assert all(torch.equal(back.state[key], lm.state[key]) for key in lm.state)


@pytest.fixture
def fastai_home(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path))
    fastai_cfg.cache_clear()  # fastai reads FASTAI_HOME once in a process
    yield tmp_path
    fastai_cfg.cache_clear()


def test_wt103_is_taken_from_fastais_cache(lm, fastai_home):
    for direction, name in (("forward", "wt103-fwd"), ("backward", "wt103-bwd")):
        write_pair(fastai_home / "models" / name, lm)
        back = pretrained.load("wt103", direction)
        assert (back.name, back.direction, back.vocab) == ("wt103", direction, lm.vocab)


def test_without_network_or_cache_wt103_says_what_to_fetch_and_where_to_put_it(fastai_home, monkeypatch):

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("fastai.data.external.untar_data", offline)
    with pytest.raises(ValueError, match=r"(?s)no network.*https://.*wt103-fwd.*MB.*models"):
        pretrained.load("wt103")


class Evil:
    def __reduce__(self):
        return (print, ("code of a stranger ran",))


def test_a_pickle_that_would_run_code_is_refused(lm, tmp_path, capsys):
    pth = write_pair(tmp_path, lm, itos=[*lm.vocab, Evil()])
    with pytest.raises(ValueError, match="plain list of words.*builtins.print"):
        pretrained.load(pth)
    assert "stranger" not in capsys.readouterr().out


def test_an_embedding_of_another_length_than_the_words_is_refused(lm, tmp_path):
    pth = write_pair(tmp_path, lm, itos=list(lm.vocab[:-1]))
    with pytest.raises(ValueError, match="embedding of 23 words.*found 24"):
        pretrained.load(pth)


def test_the_classifier_file_round_trips(tmp_path):
    from ulmfit_fastai.model.layers import build_classifier

    torch.manual_seed(1)
    model = build_classifier(24, 3, SMALL, bptt=10)
    saved = Classifier.from_model(model, words(24), ["a", "b", "c"], direction="backward", meta={"x": 1})
    saved.save(tmp_path / "classifier_backward.safetensors", vocab_path=tmp_path / "vocab.json")
    back = Classifier.load(tmp_path / "classifier_backward.safetensors")
    assert back.classes == ("a", "b", "c") and back.direction == "backward" and back.meta == {"x": 1}
    other = build_classifier(24, 3, SMALL, bptt=10)
    other.load_state_dict(back.state)
    x = torch.from_numpy(np.random.default_rng(0).integers(2, 24, (2, 10)))
    assert torch.equal(model.eval()(x)[0], other.eval()(x)[0])


def test_a_classifier_or_a_strange_vocabulary_in_place_of_a_language_model_is_named(lm, tmp_path):
    from ulmfit_fastai.model.layers import build_classifier

    model = build_classifier(24, 3, SMALL, bptt=10)
    saved = Classifier.from_model(model, words(24), ["a", "b", "c"], direction="forward", meta={})
    saved.save(tmp_path / "classifier_forward.safetensors")
    with pytest.raises(ValueError, match="expected a language model, found a classifier"):
        pretrained.load(tmp_path / "classifier_forward.safetensors")
    path = lm.save(tmp_path / "lm_forward.safetensors")
    (tmp_path / "lm_forward.vocab.json").write_text("{}")
    with pytest.raises(ValueError, match="lm_forward.vocab.json: expected an object with 'hash' and 'words'"):
        LMWeights.load(path)
