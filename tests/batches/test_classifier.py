"""Classifier batches: no text lost, none read wrongly, results in the caller's order, epochs that differ and resume."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.interpret import ClassificationInterpretation
from fastai.learner import load_learner
from fastai.metrics import accuracy
from fastai.text.data import TensorText, TextDataLoaders, pad_input_chunk
from fastai.text.models.awdlstm import AWD_LSTM, awd_lstm_clas_config
from fastai.text.models.core import get_text_classifier
from some_ids import TINY, random_lengths, some_ids, tiny_classifier

from ulmfit_fastai.batches.classifier import pad_batch
from ulmfit_fastai.batches.dataloaders import EVAL_TOKENS, classifier_dataloaders, inference_loader
from ulmfit_fastai.model.layers import FixedSentenceEncoder, build_classifier
from ulmfit_fastai.recipe.parts import Model

CLASSES = ["neg", "neutral", "pos"]


@pytest.fixture(scope="module")
def ids():
    return some_ids(random_lengths(120, high=300, seed=3))


@pytest.fixture(scope="module")
def labels():
    return [CLASSES[i] for i in np.random.default_rng(1).integers(0, 3, 120)]


@pytest.fixture
def dls(ids, labels):
    return classifier_dataloaders(ids, labels, classes=CLASSES, train=range(80), valid=range(80, 120), bs=8, seed=1)


def make(n: int, *, bs: int = 64, high: int = 300, **kwargs):
    ids = some_ids(random_lengths(n + 1, high=high, seed=n))
    return classifier_dataloaders(ids, [0.5] * (n + 1), classes=None, train=range(n), valid=[n], bs=bs, **kwargs)


def model(bptt: int, max_len: int | None = None) -> torch.nn.Module:
    """fastai's classifier with random weights large enough for a wrong chunk to show."""
    torch.manual_seed(0)
    net = get_text_classifier(AWD_LSTM, 100, 3, seq_len=bptt, config={**awd_lstm_clas_config, **TINY}, max_len=max_len)
    for parameter in net.parameters():
        torch.nn.init.uniform_(parameter, -1, 1)
    return net.eval()


def outputs(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return net(x)[0]


def in_sets(batches) -> list[frozenset[int]]:
    return [frozenset(batch.tolist()) for batch in batches]


# -- a text's result doesn't depend on the texts beside it -----------------------------------------------------------


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("max_len", [None, 60])
def test_a_batch_of_n_texts_gives_what_n_single_texts_give_without_padding(direction, max_len):
    bptt, net = 20, model(20, max_len)
    lengths = [*random_lengths(150, 1, 130, seed=5), 1, 2, 20, 40, 60, 19, 21, 41, 127, 128]
    ids = some_ids(lengths)
    dls = classifier_dataloaders(ids, [0] * len(lengths), classes=CLASSES, train=range(len(lengths)),
                                 valid=range(len(lengths)), direction=direction, bs=16, bptt=bptt)
    turn = -1 if direction == "backward" else 1
    single = torch.cat([outputs(net, torch.tensor(ids.doc(i)[::turn].astype(np.int64)[None])) for i in range(len(ids))])
    for loader in (dls.train, dls.valid, inference_loader(ids, bptt=bptt, direction=direction, token_budget=2000)):
        order = loader.order
        batched = torch.cat([outputs(net, batch[0]) for batch in loader])
        assert len(batched) == len(ids)
        assert torch.allclose(batched, single[order], atol=1e-5)
    assert single.std(0).min() > 0.05  # the model tells texts apart


def test_stock_padding_fails_the_same_comparison():
    net, ids = model(20), some_ids(sorted(random_lengths(16, 1, 130, seed=5), reverse=True))
    assert ids.lengths[0] % 20
    samples = [(TensorText(torch.tensor(ids.doc(i).astype(np.int64))),) for i in range(16)]
    batch = torch.stack([sample[0] for sample in pad_input_chunk(samples, seq_len=20)])
    single = torch.cat([outputs(net, torch.Tensor(sample[0]).long()[None]) for sample in samples])
    assert (outputs(net, torch.Tensor(batch).long()) - single).abs().max() > 0.01


def test_padding_is_fastais_where_fastais_is_right():
    ids = some_ids([60, 59, 41, 40, 21, 20, 3])
    samples = [(TensorText(torch.tensor(ids.doc(i).astype(np.int64))),) for i in range(7)]
    stock = torch.stack([sample[0] for sample in pad_input_chunk(samples, seq_len=20)])
    assert np.array_equal(pad_batch([ids.doc(i) for i in range(7)], 20), stock.numpy())


def test_texts_shorter_than_a_chunk_are_padded_to_the_longest_of_them_only():
    batch = pad_batch([np.arange(2, 16), np.arange(2, 5)], 70)
    assert batch.shape == (2, 14) and (batch[1] == [2, 3, 4, *[1] * 11]).all()
    assert pad_batch([np.arange(2, 73), np.arange(2, 5)], 70).shape == (2, 140)


def test_short_texts_meet_others_of_about_their_length_in_training():
    ids = some_ids(np.random.default_rng(0).integers(3, 60, 800))
    train = classifier_dataloaders(ids, [0] * 800, classes=CLASSES, train=range(800), valid=[0], bs=16).train
    padded = sum(x.numel() for x, _ in train)
    assert padded < 1.35 * ids.lengths.sum()
    assert in_sets(train.batches(0)) != in_sets(train.batches(1))


def test_unsorted_texts_are_refused():
    with pytest.raises(AssertionError, match="longest first"):
        pad_batch([np.arange(5), np.arange(50)], 20)


def test_a_padding_word_within_a_text_is_read_as_unknown():
    ids = some_ids([60, 45, 45])
    ids.ids[60 + 20] = 1  # where a chunk of the second text starts: its row would be skipped
    net, loader = model(20), inference_loader(ids, bptt=20)
    x = next(iter(loader))[0]
    ids.ids[60 + 20] = 0
    assert torch.equal(x, next(iter(loader))[0])
    assert torch.isfinite(outputs(net, x)).all()


def test_a_batch_is_plain_tensors_of_a_multiple_of_bptt_or_shorter(dls):
    for x, y in dls.train:
        assert type(x) is type(y) is torch.Tensor and x.dtype == y.dtype == torch.int64
        assert (x.shape[1] % 70 == 0 or x.shape[1] < 70) and len(x) == len(y)


# -- training order ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token_budget", [None, 1500])
@pytest.mark.parametrize(("n", "bs"), [(2, 64), (3, 2), (64, 64), (65, 64), (80, 2), (129, 64), (500, 64), (1000, 7)])
def test_every_text_is_in_every_epoch_and_no_batch_is_a_single_text(n, bs, token_budget):
    train = make(n, bs=bs, token_budget=token_budget).train
    for epoch in range(5):
        batches = train.batches(epoch)
        assert sorted(np.concatenate(batches).tolist()) == list(range(n))
        assert min(map(len, batches)) >= 2
        if token_budget is None:
            assert len(batches) == len(train) and max(map(len, batches)) <= max(bs, 3)
            assert max(map(len, batches)) - min(map(len, batches)) <= 1


def test_the_batches_hold_the_texts_and_labels_they_name(ids, labels, dls):
    positions = dls.train.batches(0)
    for at, (x, y) in zip(positions, dls.train, strict=True):
        assert [CLASSES[i] for i in y] == [labels[i] for i in at]
        for row, i in zip(x, at):
            assert row[row != 1].tolist() == ids.doc(i).tolist()


def test_the_longest_text_comes_first_and_batches_are_sorted():
    train = make(500).train
    lengths = train.dataset.lengths
    assert (lengths == lengths.max()).sum() == 1
    for epoch in range(5):
        batches = train.batches(epoch)
        assert lengths[batches[0][0]] == lengths.max()
        assert all((np.diff(lengths[batch]) <= 0).all() for batch in batches)


@pytest.mark.parametrize(("n", "high"), [(100, 300), (100, 20), (500, 300), (2000, 300)])
def test_small_sets_have_other_batches_in_every_epoch(n, high):
    train = make(n, high=high).train
    sets = [set(in_sets(train.batches(epoch))) for epoch in range(6)]
    same = sum(len(a & b) for a, b in zip(sets, sets[1:]))
    assert same <= 0.05 * sum(map(len, sets[1:]))


def test_texts_of_like_length_come_together():
    train = make(3000).train
    chunks = -(-train.dataset.lengths // 70)
    steps = sum(chunks[batch].max() for batch in train.batches(0))
    shuffled = np.random.default_rng(0).permutation(3000)
    random_steps = sum(chunks[batch].max() for batch in np.array_split(shuffled, len(train)))
    assert steps < 0.6 * random_steps


def test_little_of_a_batch_is_padding():
    train = make(3000, bs=8).train
    lengths = train.dataset.lengths
    assert sum(len(batch) * lengths[batch].max() for batch in train.batches(0)) < 1.15 * lengths.sum()


def test_short_texts_are_not_always_the_last():
    train = make(500).train
    last = [train.dataset.lengths[train.batches(epoch)[-1]].mean() for epoch in range(12)]
    assert max(last) > train.dataset.lengths.mean() > min(last)


def test_the_batches_depend_on_seed_and_epoch_alone():
    first, again, other = make(300).train, make(300).train, make(300, seed=9).train
    list(again)
    assert in_sets(first.batches(4)) == in_sets(again.batches(4)) != in_sets(other.batches(4))
    assert in_sets(first.batches(3)) != in_sets(first.batches(4))
    assert first.batches(4)[1].tolist() == again.batches(4)[1].tolist()


def test_an_epoch_resumed_at_batch_k_gives_exactly_the_batches_from_k_on(dls):
    train = dls.train
    train.epoch = 2
    whole = list(train)
    assert train.epoch == 3 and len(whole) == len(train)
    for k in (0, 1, len(whole) - 1):
        train.epoch, train.start_batch = 2, k
        rest = list(train)
        assert len(rest) == len(whole) - k and train.start_batch == 0
        assert all(torch.equal(a, b) for one, two in zip(rest, whole[k:]) for a, b in zip(one, two))


def test_a_token_budget_bounds_training_batches_but_for_long_texts():
    train = make(600, token_budget=700).train
    longest = -(-train.dataset.lengths // 70) * 70
    batches = train.batches(0)
    over = [batch for batch in batches if len(batch) * longest[batch].max() > 700]
    assert all(len(batch) <= 3 and longest[batch].max() > 700 / 3 for batch in over)
    assert len(over) < len(batches) / 2
    assert max(map(len, batches)) <= 10


def test_max_len_keeps_the_end_of_a_text_as_it_is_read(ids, labels):
    for direction, turn in (("forward", 1), ("backward", -1)):
        dls = classifier_dataloaders(ids, labels, classes=CLASSES, train=range(80), valid=range(80, 120), bs=8,
                                     max_len=50, direction=direction)
        assert dls.train.dataset.lengths.max() == 50
        for i in range(80):
            assert dls.train_ds.doc(i).tolist() == ids.doc(i)[::turn][-50:].tolist()


# -- results in the caller's order ------------------------------------------------------------------------------------


def test_get_preds_returns_the_callers_order_for_every_loader(ids, labels, dls):
    learn = tiny_classifier(dls)
    with learn.no_bar():
        for name, rows, kwargs in [("valid", range(80, 120), dict(ds_idx=1)), ("train", range(80), dict(ds_idx=0)),
                                   ("train in training order", range(80), dict(dl=dls.train))]:
            probs, targets = learn.get_preds(**kwargs)
            assert [CLASSES[i] for i in targets] == [labels[row] for row in rows], name
            single = [outputs(learn.model, torch.tensor(ids.doc(row).astype(np.int64)[None])) for row in rows]
            assert torch.allclose(probs, torch.cat(single).softmax(1), atol=1e-5), name


def test_an_order_that_fastai_fixes_is_followed(ids, dls):
    loader = dls.valid.new(get_idxs=lambda: [3, 1, 1, 39])
    read = [row[row != 1].tolist() for x, _ in loader for row in x]
    assert read == [ids.doc(80 + i).tolist() for i in (3, 1, 1, 39)]


def test_validate_equals_the_mean_over_single_texts(dls):
    learn = tiny_classifier(dls, metrics=accuracy)
    with learn.no_bar(), learn.no_logging():
        learn.fit(2, 0.05)
        loss, right = learn.validate()
        probs, targets = learn.get_preds()
    assert dls.train.epoch == 2
    assert loss == pytest.approx(torch.nn.functional.nll_loss(probs.log(), targets).item(), rel=1e-4)
    assert right == pytest.approx((probs.argmax(1) == targets).float().mean().item())


def test_inference_batches_keep_to_the_budget_and_know_their_order(ids):
    rows = np.random.default_rng(0).permutation(120)[:90]
    loader = inference_loader(ids, rows=rows, direction="backward", token_budget=2100)
    batches = [batch for (batch,) in loader]
    assert len(batches) == len(loader)
    assert all(batch.numel() <= 2100 for batch in batches) and max(map(len, batches)) > 10
    assert [b.shape[1] for b in batches] == sorted((b.shape[1] for b in batches), reverse=True)
    texts = [row[row != 1].tolist() for batch in batches for row in batch]
    restored = [None] * len(rows)
    for place, text in zip(loader.order, texts):
        restored[place] = text
    assert restored == [ids.doc(row)[::-1].tolist() for row in rows]


def test_inference_takes_lists_of_numbers_too(ids):
    documents = [ids.doc(i).tolist() for i in range(30)]
    from_lists, from_ids = inference_loader(documents), inference_loader(ids, rows=range(30))
    assert [b[0].tolist() for b in from_lists] == [b[0].tolist() for b in from_ids]
    assert inference_loader(documents, rows=[3, 1]).order.shape == (2,)


def test_a_text_longer_than_the_budget_makes_a_batch_of_its_own():
    loader = inference_loader(some_ids([500, 499, 30, 20]), token_budget=200)
    assert [tuple(batch.shape) for (batch,) in loader] == [(1, 560), (1, 560), (2, 30)]


def test_validation_batches_are_few_and_bounded():
    ids = some_ids(random_lengths(3000, high=300))
    valid = classifier_dataloaders(ids, [0] * 3000, classes=CLASSES, train=[0, 1], valid=range(3000)).valid
    sizes = [x.numel() for x, _ in valid]
    in_chunks = (-(-ids.lengths // 70) * 70).sum()
    assert max(sizes) <= EVAL_TOKENS and len(sizes) < 1.2 * in_chunks / EVAL_TOKENS + 1


# -- what fastai does with the loaders --------------------------------------------------------------------------------


def test_fastai_finds_words_classes_and_loss(ids, dls):
    assert isinstance(dls, TextDataLoaders)
    assert list(dls.vocab) == [ids.vocab, CLASSES] and dls.c == 3 and dls.n_inp == 1
    assert tiny_classifier(dls).loss_func.__class__.__name__ == "CrossEntropyLossFlat"
    assert dls.train_ds[0][0].tolist() == ids.doc(0).tolist() and len(dls.valid_ds) == 40


def test_batches_and_results_are_shown_as_words_and_class_names(ids, dls, capsys, tables_as_text):
    dls.show_batch(max_n=3)
    shown = capsys.readouterr().out
    assert "category" in shown and "xxbos w" in shown and "xxpad" not in shown
    tiny_classifier(dls).show_results(max_n=3)
    assert "predicted" in capsys.readouterr().out


def test_lr_find_and_summary_leave_the_first_epoch_as_it_is(dls, tmp_path):
    import fastai.callback.hook  # these two give Learner its summary and lr_find
    import fastai.callback.schedule  # noqa: F401

    learn = tiny_classifier(dls, path=tmp_path)
    first = [x.tolist() for x, _ in dls.train]
    dls.train.epoch = 0
    with learn.no_bar(), learn.no_logging():
        assert 1e-7 < learn.lr_find(num_it=5, show_plot=False).valley < 10
        assert "Input shape: 8 x" in str(learn.summary())
    dls.train.show_batch(unique=True, max_n=2)
    assert dls.train.epoch == 0
    assert [x.tolist() for x, _ in dls.train] == first


def test_interpretation_counts_every_text_and_pairs_losses_with_their_texts(dls, capsys, tables_as_text):
    learn = tiny_classifier(dls)
    with learn.no_bar():
        interpretation = ClassificationInterpretation.from_learner(learn)
        assert interpretation.confusion_matrix().sum() == 40
        losses, rows = interpretation.top_losses()
        inputs, probs, targets, _, again = interpretation[rows]
        interpretation.plot_top_losses(40)  # a table
    assert str(losses[0].item())[:6] in capsys.readouterr().out
    assert torch.equal(losses, again)
    assert targets.tolist() == dls.valid_ds.targets[rows].tolist()
    assert torch.allclose(-probs[torch.arange(40), targets].log(), losses, atol=1e-5)
    texts = [x[x != 1].tolist() for x in inputs]
    assert texts == [dls.valid_ds.doc(i).tolist() for i in rows.tolist()]


def test_new_texts_are_predicted_in_their_order_as_one_by_one(dls):
    learn = tiny_classifier(dls)
    texts = ["w1 w2 w3", " ".join(f"w{i}" for i in range(85)), "w5 nowhere w7 w8", "w9"]
    with learn.no_bar():
        probs, targets = learn.get_preds(dl=dls.test_dl(texts))
        one_by_one = [learn.predict(text) for text in texts]
    assert targets is None and probs.shape == (4, 3)
    assert torch.allclose(probs, torch.stack([one[2] for one in one_by_one]), atol=1e-5)
    assert [one[0] for one in one_by_one] == [CLASSES[i] for i in probs.argmax(1)]


@pytest.mark.parametrize("given", ["one text", pd.DataFrame({"title": ["w1"], "body": ["w2"]}), [b"w1"]])
def test_test_dl_says_what_it_takes(dls, given):
    with pytest.raises(ValueError, match="takes texts, a list of strings|which column holds the texts"):
        dls.test_dl(given)


def test_test_dl_takes_the_texts_of_a_frame(dls):
    frame = pd.DataFrame({"id": [1, 2], "text": ["w1 w2", "w3"]})
    for given in (frame, frame[["text"]].rename(columns={"text": "any"})):
        assert [len(dls.test_dl(given).dataset.doc(i)) for i in range(2)] == [3, 2]


def test_export_and_load_predict_the_same(dls, tmp_path):
    learn = tiny_classifier(dls, path=tmp_path)
    learn.export()
    with pytest.warns(UserWarning, match="pickle"):
        loaded = load_learner(tmp_path / "export.pkl")
    assert len(loaded.dls.train_ds) == 0
    with learn.no_bar(), loaded.no_bar():
        assert loaded.predict("w1 w2 w3")[0] == learn.predict("w1 w2 w3")[0]
        assert torch.equal(loaded.predict("w1 w2 w3")[2], learn.predict("w1 w2 w3")[2])


# -- labels -----------------------------------------------------------------------------------------------------------


def test_class_numbers_are_taken_as_names_are(ids, labels, dls):
    numbers = np.array([CLASSES.index(label) for label in labels])
    numbered = classifier_dataloaders(ids, numbers, classes=CLASSES, train=range(80), valid=range(80, 120), bs=8)
    assert torch.equal(numbered.train_ds.targets, dls.train_ds.targets)
    ints = classifier_dataloaders(ids, [3 - n for n in numbers], classes=[1, 2, 3], train=range(80), valid=[80], bs=8)
    assert torch.equal(ints.train_ds.targets, 2 - dls.train_ds.targets)


def test_several_classes_a_text_become_rows_of_0_and_1(ids, capsys, tables_as_text):
    several = [[CLASSES[i % 3], CLASSES[i % 2]] if i % 4 else [] for i in range(120)]
    split = dict(classes=CLASSES, train=range(80), valid=range(80, 120), bs=8)
    dls = classifier_dataloaders(ids, several, **split)
    assert dls.train_ds.targets.dtype == torch.float32
    assert dls.train_ds.targets[[1, 4]].tolist() == [[0, 1, 0], [0, 0, 0]]
    rows = np.array([[name in label for name in CLASSES] for label in several])
    assert torch.equal(classifier_dataloaders(ids, rows, **split).train_ds.targets, dls.train_ds.targets)
    learn = tiny_classifier(dls)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        assert learn.get_preds()[0].shape == (40, 3)
        learn.predict("w1")
    dls.show_batch(max_n=8)
    shown = capsys.readouterr().out
    assert "neutral;pos" in shown or "neg;neutral" in shown
    with pytest.raises(ValueError, match="3 numbers 0 or 1"):
        classifier_dataloaders(ids, rows[:, :2], **split)


def test_numbers_are_regression_targets(ids):
    dls = classifier_dataloaders(ids, [i / 10 for i in range(120)], classes=None, train=range(80), valid=range(80, 120))
    assert dls.c == 1 and dls.vocab == ids.vocab and dls.valid_ds.targets[0] == 8
    learn = tiny_classifier(dls)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
        assert learn.get_preds()[0].shape == (40, 1)
    dls.show_batch(max_n=2)


@pytest.mark.parametrize(("changed", "message"), [
    (dict(labels=["neg"] * 119), "one label per text, 120, found 119"),
    (dict(labels=["neg"] * 119 + ["good"]), "among the classes neg, neutral, pos, found also good"),
    (dict(labels=[None, float("nan")] + ["neg"] * 118), "rows 0, 1 have none"),
    (dict(labels=[-1] + [0] * 119), "found also -1"),
    (dict(classes=["neg", "neg"]), "differ from one another"),
    (dict(classes=[]), "differ from one another"),
    (dict(train=[4]), "two texts at least.*1 training texts"),
    (dict(bs=1), "two texts at least.*bs=1"),
    (dict(train=[0, 120]), "train must hold row numbers from 0 to 119"),
    (dict(token_budget=0), "token_budget must be at least 1"),
])
def test_wrong_arguments_are_refused_by_name(ids, labels, changed, message):
    given = {**dict(labels=labels, classes=CLASSES, train=range(80), valid=range(80, 120)), **changed}
    with pytest.raises(ValueError, match=message):
        classifier_dataloaders(ids, given.pop("labels"), **given)


@pytest.mark.parametrize("bptt", [4, 7, 70])
def test_a_batch_says_itself_what_an_encoder_would_have_to_ask_the_device_for(bptt):
    encoder = FixedSentenceEncoder(bptt, torch.nn.Identity(), max_len=10**6)
    loaders = make(60, bs=7, bptt=bptt)
    batches = [*loaders.train, *loaders.valid]
    for x, *_ in batches:
        assert (x.reads.rows, x.reads.end) == encoder._rows_of_chunks(x == 1, 0) and x.reads.bptt == bptt
    assert len(batches) > 8


def test_an_encoder_of_other_chunks_finds_out_by_itself():
    x = next(iter(make(20, bs=7, bptt=8).train))[0]
    plain = x.clone()
    classifier = build_classifier(100, 3, Model(emb_sz=6, n_hid=8, n_layers=2), bptt=8, max_len=None).eval()
    torch.testing.assert_close(outputs(classifier, x), outputs(classifier, plain), rtol=0, atol=0)
    x.reads = x.reads._replace(bptt=4)
    torch.testing.assert_close(outputs(classifier, x), outputs(classifier, plain), rtol=0, atol=0)
