"""Language-model batches equal fastai's; an epoch is a pure function of (seed, epoch), to be read from any batch on."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import tarfile
import time
from itertools import islice

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.data.core import TfmdLists
from fastai.learner import load_learner
from fastai.text.data import LMDataLoader, Numericalize, TextDataLoaders, reverse_text
from some_ids import random_lengths, some_ids, tiny_lm

from ulmfit_fastai.batches.dataloaders import lm_dataloaders
from ulmfit_fastai.tokens.ids import TokenIds
from ulmfit_fastai.tokens.store import TokenStore


def stock_loader(ids: TokenIds, rows, *, direction: str, bs: int, bptt: int, **kwargs) -> LMDataLoader:
    """fastai's own loader over the same texts, numbered by fastai from their words."""
    words = [[ids.vocab[i] for i in ids.doc(row)] for row in rows]
    tfms = [lambda i: words[i], Numericalize(vocab=ids.vocab)] + [reverse_text] * (direction == "backward")
    lists = TfmdLists(list(range(len(words))), tfms, do_setup=False)
    return LMDataLoader(lists, lens=[len(text) for text in words], bs=bs, seq_len=bptt, num_workers=0, **kwargs)


def assert_same_batches(ours, theirs) -> None:
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs) > 0
    for (x, y), (stock_x, stock_y) in zip(ours, theirs):
        assert type(x) is type(y) is torch.Tensor and x.dtype == y.dtype == torch.int64
        assert torch.equal(x, torch.Tensor(stock_x).long()) and torch.equal(y, torch.Tensor(stock_y).long())


@pytest.fixture(scope="module")
def ids() -> TokenIds:
    return some_ids(random_lengths(60))


@pytest.fixture
def dls(ids):
    return lm_dataloaders(ids, train=range(50), valid=range(50, 60), bs=4, bptt=20, seed=1)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("bs", "bptt"), [(1, 70), (4, 20), (7, 33), (16, 5)])
def test_validation_batches_equal_fastais(ids, direction, bs, bptt):
    dls = lm_dataloaders(ids, train=range(40), valid=range(40, 60), direction=direction, bs=bs, bptt=bptt)
    assert_same_batches(dls.valid, stock_loader(ids, range(40, 60), direction=direction, bs=bs, bptt=bptt))


@pytest.mark.parametrize("extra", [0, 1, 2, 3, 4, 5])
def test_tokens_that_do_not_fill_the_streams_are_left_out_as_fastai_does(extra):
    ids = some_ids([50, 10, 21 + extra])  # 81 to 86 tokens: 4 streams of 20 or 21
    dls = lm_dataloaders(ids, train=range(3), valid=range(3), bs=4, bptt=10)
    assert_same_batches(dls.valid, stock_loader(ids, range(3), direction="forward", bs=4, bptt=10))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_training_batches_equal_fastais_for_the_same_order_of_documents(ids, direction):
    dls = lm_dataloaders(ids, train=range(5, 60), valid=range(5), direction=direction, bs=4, bptt=20, seed=3)
    for epoch in (0, 1):
        dls.train.epoch = epoch
        rows = np.arange(5, 60)[dls.train.order(epoch)]
        assert_same_batches(dls.train, stock_loader(ids, rows, direction=direction, bs=4, bptt=20))


@pytest.mark.parametrize("n_words", [40_000, 70_000])
def test_word_numbers_beyond_15_and_16_bits_come_out_whole(n_words):
    ids = some_ids([300, 200], n_words=n_words)
    assert ids.ids.max() > (1 << 15 if n_words < 65_536 else 1 << 16)
    dls = lm_dataloaders(ids, train=[0], valid=[0, 1], bs=2, bptt=30)
    assert_same_batches(dls.valid, stock_loader(ids, [0, 1], direction="forward", bs=2, bptt=30))


def test_memory_mapped_ids_give_the_same_batches(ids, dls, tmp_path):
    ids.save(tmp_path / "ids")
    opened = TokenIds.open(tmp_path / "ids")
    mapped = lm_dataloaders(opened, train=range(50), valid=range(50, 60), bs=4, bptt=20, seed=1)
    assert_same_batches(mapped.train, list(dls.train))


def test_every_epoch_reads_every_document_once_in_another_order(dls):
    orders = [dls.train.order(epoch).tolist() for epoch in range(4)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len(set(map(tuple, orders))) == 4
    assert dls.valid.order(3).tolist() == list(range(10))


def test_the_order_depends_on_seed_and_epoch_alone(ids, dls):
    again = lm_dataloaders(ids, train=range(50), valid=range(50, 60), bs=4, bptt=20, seed=1)
    other = lm_dataloaders(ids, train=range(50), valid=range(50, 60), bs=4, bptt=20, seed=2)
    again.train.epoch = 5
    list(again.train)  # whatever was read before
    again.train.epoch = dls.train.epoch = 3
    assert_same_batches(again.train, list(dls.train))
    assert other.train.order(3).tolist() != dls.train.order(3).tolist()


@pytest.mark.parametrize("variable_bptt", [False, True])
def test_an_epoch_resumed_at_batch_k_gives_exactly_the_batches_from_k_on(ids, variable_bptt):
    dls = lm_dataloaders(ids, train=range(50), valid=range(50, 60), bs=4, bptt=20, variable_bptt=variable_bptt)
    train = dls.train
    train.epoch = 2
    whole = list(train)
    for k in (0, 1, len(whole) - 1):
        train.epoch, train.start_batch = 2, k
        assert len(train) == train.n_batches == len(whole)
        assert_same_batches(train, whole[k:])
        assert train.start_batch == 0
    assert_same_batches(train, list(train.new()))  # and the next epoch is whole again


def test_an_epoch_counts_once_it_is_read_to_its_end(dls):
    train = dls.train
    train.start_batch = 2
    train.one_batch()
    assert (train.epoch, train.start_batch) == (0, 2)
    next(iter(train))
    assert train.epoch == 0
    list(train)
    assert train.epoch == 1
    list(train)
    assert train.epoch == 2


def test_reading_draws_no_random_number_of_torch_numpy_or_python(dls):
    torch.manual_seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    list(dls.train)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())


def variable(n_tokens: int = 200_000, bs: int = 4, **kwargs):
    ids = some_ids([500] * (n_tokens // 500))
    return lm_dataloaders(ids, train=range(len(ids)), valid=[0], bs=bs, bptt=70, variable_bptt=True, **kwargs)


def test_variable_lengths_follow_merity_and_cover_the_streams():
    train = variable().train
    lengths = np.concatenate([train.seq_lens(epoch) for epoch in range(5)])
    assert lengths.min() >= 5
    assert abs(lengths.mean() - 0.975 * 70) < 1
    halves = lengths < 52
    assert 0.03 < halves.mean() < 0.07
    assert abs(lengths[halves].mean() - 35) < 2 and abs(lengths[~halves].mean() - 70) < 1
    assert 4 < lengths[~halves].std() < 6
    assert all(train.seq_lens(epoch).sum() == train.bl for epoch in range(5))
    assert {len(train.seq_lens(epoch)) for epoch in range(5)} == {len(train)}
    assert train.seq_lens(0).tolist() != train.seq_lens(1).tolist()
    assert train.seq_lens(1).tolist() == variable().train.seq_lens(1).tolist()
    assert train.seq_lens(1).tolist() != variable(seed=7).train.seq_lens(1).tolist()


def test_variable_batches_are_the_same_stream_cut_elsewhere():
    dls, lengths = variable(20_000), []
    inputs, targets = dls.train.streams(0)
    batches = []
    for x, y in dls.train:
        lengths.append(dls.train.current_seq_len)
        batches.append((x, y))
    assert [x.shape[1] for x, _ in batches] == lengths == dls.train.new().seq_lens(0).tolist()
    assert torch.equal(torch.cat([x for x, _ in batches], 1), inputs.long())
    assert torch.equal(torch.cat([y for _, y in batches], 1), targets.long())
    assert [x.shape[1] for x, _ in dls.valid] == [70, 54]  # 499 // 4 tokens, not varied


@pytest.mark.parametrize("n_tokens", [500, 1000, 3000])
def test_variable_lengths_fit_short_streams_too(n_tokens):
    train = variable(n_tokens, bs=48).train
    for epoch in range(20):
        assert train.seq_lens(epoch).sum() == train.bl and train.seq_lens(epoch).min() >= 1


def test_a_small_validation_set_is_read_in_fewer_streams_and_a_small_training_set_refused():
    ids = some_ids([100, 6])
    dls = lm_dataloaders(ids, train=[0], valid=[1], bs=32)
    assert [tuple(x.shape) for x, _ in dls.valid] == [(5, 1)]
    with pytest.raises(ValueError, match="train must have more tokens than bs, over 32.*found 6 and 100"):
        lm_dataloaders(ids, train=[1], valid=[0], bs=32)


@pytest.mark.parametrize(("changed", "message"), [
    (dict(direction="reverse"), "'forward' or 'backward', found 'reverse'"),
    (dict(train=[0, 60]), "train must hold row numbers from 0 to 59, found 0 to 60"),
    (dict(valid=[-1]), "valid must hold row numbers from 0 to 59, found -1"),
    (dict(valid=[]), "at least one"),
    (dict(train=[True, False]), "row numbers"),
    (dict(bs=0), "bs must be at least 1, found 0"),
    (dict(bptt=-5), "bptt must be at least 1, found -5"),
    (dict(seed=-1), "seed must be 0 or more, found -1"),
])
def test_wrong_arguments_are_refused_by_name(ids, changed, message):
    with pytest.raises(ValueError, match=message):
        lm_dataloaders(ids, **{**dict(train=range(50), valid=range(50, 60)), **changed})


def test_a_vocabulary_without_padding_and_an_empty_text_are_refused(ids):
    with pytest.raises(ValueError, match="must be 'xxpad'.*found 'the'"):
        lm_dataloaders(TokenIds(ids.ids, ids.offsets, ["xxunk", "the"]), train=[0], valid=[1])
    with pytest.raises(ValueError, match="rows 1 of valid have none"):
        lm_dataloaders(some_ids([90, 0, 9]), train=[0], valid=[1, 2])


def test_fastais_learner_trains_validates_predicts_and_shows(ids, dls, capsys, tables_as_text):
    learn = tiny_lm(dls)
    assert isinstance(dls, TextDataLoaders) and dls.vocab == ids.vocab and str(dls.device) == "cpu"
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 0.01)
        loss = learn.validate()[0]
        preds, targets = learn.get_preds()
    assert dls.train.epoch == 1
    wanted = sum(torch.nn.functional.cross_entropy(p, t).item() for p, t in zip(preds.log(), targets)) / len(targets)
    assert targets.shape == preds.shape[:2] == (4, dls.valid.bl)
    assert wanted == pytest.approx(loss, rel=0.05)  # fastai's is a mean of batch means
    dls.show_batch(max_n=2)
    learn.show_results(max_n=2)
    assert "w1" in capsys.readouterr().out


def test_fastais_predict_continues_a_text_with_words_of_the_vocabulary(ids, dls):
    text = tiny_lm(dls).predict("w1 w2 w3", n_words=4, no_bar=True)
    assert text.startswith("w1 w2 w3 ") and all(word in ids.vocab for word in text.split())


def test_new_texts_make_a_loader_of_their_own(dls):
    loader = dls.test_dl(["w1 w2", "w3 nowhere"], bs=1)
    assert [dls.vocab[i] for i in loader.items[0]] == ["xxbos", "w1", "w2"]
    assert [dls.vocab[i] for i in next(iter(loader))[0][0]] == ["xxbos", "w1", "w2", "xxbos", "w3"]
    with pytest.raises(ValueError, match="found float"):
        dls.test_dl(["w1", float("nan")])


def test_export_keeps_the_vocabulary_and_no_text(ids, dls, tmp_path):
    learn = tiny_lm(dls, path=tmp_path)
    learn.export()
    assert (tmp_path / "export.pkl").stat().st_size < 100_000
    with pytest.warns(UserWarning, match="pickle"):
        loaded = load_learner(tmp_path / "export.pkl")
    assert loaded.dls.vocab == ids.vocab and len(loaded.dls.train_ds) == 0
    torch.manual_seed(0)
    wanted = learn.predict("w1 w2", n_words=3, no_bar=True)
    torch.manual_seed(0)
    assert loaded.predict("w1 w2", n_words=3, no_bar=True) == wanted


def test_a_pickled_loader_gives_the_same_batches(dls):
    assert_same_batches(pickle.loads(pickle.dumps(dls)).train, list(dls.train))


def test_fastais_distributed_loader_is_refused_by_name(dls):
    with pytest.raises(ValueError, match="cannot be dealt out by fastai's DistributedDL"):
        dls.train.create_batches([0, 1])


def test_batches_come_fifty_times_as_fast_as_fastais():
    ids = some_ids(random_lengths(400, seed=2), n_words=5000)
    stock = stock_loader(ids, range(400), direction="forward", bs=16, bptt=70, shuffle=True)
    ours = lm_dataloaders(ids, train=range(400), valid=[0], bs=16, bptt=70).train
    ratios = []
    for _ in range(3):
        started = time.perf_counter()
        n_stock = sum(x.numel() for x, _ in stock)
        between = time.perf_counter()
        n_ours = sum(x.numel() for x, _ in ours)
        ratios.append((n_ours / (time.perf_counter() - between)) / (n_stock / (between - started)))
    assert n_ours == n_stock
    assert sorted(ratios)[1] > 50


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_real_reviews_make_the_batches_that_fastai_makes_of_them(test_data, tmp_path, direction):
    with tarfile.open(test_data / "imdb" / "imdb.tgz", "r|gz") as tar:
        files = (member for member in tar if member.name.endswith(".txt"))
        texts = [tar.extractfile(member).read().decode("utf8") for member in islice(files, 200)]
    store = TokenStore.make(texts, cache=tmp_path, n_workers=1, progress=False)
    ids = store.numericalize(store.vocab(range(150), min_freq=2))
    frame = pd.DataFrame({"text": texts, "is_valid": np.arange(200) >= 150})
    stock = TextDataLoaders.from_df(frame, text_col="text", is_lm=True, valid_col="is_valid", text_vocab=ids.vocab,
                                    backwards=direction == "backward", seq_len=70, bs=8, shuffle=False)
    ours = lm_dataloaders(ids, train=range(150), valid=range(150, 200), direction=direction, bs=8, bptt=70)
    assert_same_batches(ours.valid, stock.valid)
    assert_same_batches(ours.train.new(shuffle=False), stock.train)


def test_training_batches_need_no_spacy():
    code = """
import sys
import numpy as np
from ulmfit_fastai.batches.dataloaders import lm_dataloaders, classifier_dataloaders
class Ids:
    ids, offsets, vocab = np.arange(100, dtype=np.uint16) % 5 + 2, np.arange(0, 101, 10), ['xxunk', 'xxpad'] + ['w'] * 6
dls = lm_dataloaders(Ids, train=range(9), valid=[9], bs=2)
clas = classifier_dataloaders(Ids, ['a', 'b'] * 5, classes=['a', 'b'], train=range(8), valid=[8, 9])
assert len(list(dls.train)) and len(list(clas.train)) and len(list(clas.valid))
assert 'spacy' not in sys.modules, 'spaCy was imported'
"""
    subprocess.run([sys.executable, "-c", code], check=True)
