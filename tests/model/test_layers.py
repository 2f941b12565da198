"""The fast and corrected layers against fastai's own, number by number."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
import torch
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import Adam
from fastai.text.data import TensorText, pad_chunk
from fastai.text.models.awdlstm import AWD_LSTM, EmbeddingDropout, awd_lstm_clas_split, awd_lstm_lm_split
from fastai.text.models.core import SentenceEncoder, get_language_model, get_text_classifier, masked_concat_pool
from torch import Tensor, nn

from ulmfit_fastai.batches.classifier import pad_batch
from ulmfit_fastai.model.fast import awd_lstm
from ulmfit_fastai.model.fast.awd_lstm import FastAWDLSTM, FastEmbeddingDropout, weight_mask
from ulmfit_fastai.model.fast.optimizers import adam
from ulmfit_fastai.model.layers import (
    FixedSentenceEncoder,
    PoolingClassifier,
    build_classifier,
    build_language_model,
    concat_pool,
)
from ulmfit_fastai.model.losses import FusedCrossEntropy
from ulmfit_fastai.recipe.parts import AWD_CLASSIFIER, AWD_LM, Dropouts, Model

VOCAB = 61
NO_DROPOUT = Dropouts(0.0, 0.0, 0.0, 0.0, 0.0)
MODEL = Model(emb_sz=12, n_hid=20, head_hidden=8)
DRY = dataclasses.replace(MODEL, head_dropout=0.0, lm_dropouts=NO_DROPOUT, classifier_dropouts=NO_DROPOUT)


def stock_config(drop: Dropouts, **more) -> dict:
    # Stock breaks at a weight dropout of exactly 0 (it registers the matrix twice); this one never drops anything.
    return dict(emb_sz=12, n_hid=20, n_layers=3, pad_token=1, bidir=False, output_p=drop.output, hidden_p=drop.hidden,
                input_p=drop.input, embed_p=drop.embed, weight_p=drop.weight or 1e-12,
                **more)


def stock_lm(drop: Dropouts = AWD_LM, tie: bool = True):
    return get_language_model(AWD_LSTM, VOCAB, config=stock_config(drop, tie_weights=tie, out_bias=True))


def stock_classifier(drop: Dropouts = AWD_CLASSIFIER, *, bptt: int = 5, max_len: int = 15, ps: float = 0.1):
    return get_text_classifier(AWD_LSTM, VOCAB, 3, seq_len=bptt, config=stock_config(drop), lin_ftrs=[8], ps=[ps],
                               max_len=max_len)


def stock_numbers(model: nn.Module) -> nn.Module:
    """Draw the weight masks as stock does, so that a seed gives stock's numbers."""
    for rnn in model.rnns:
        rnn.stock_stream = True
    return model


def words(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(2, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def batch_of(lengths: list[int], *, bptt: int = 5, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """Texts of these lengths in fastai's own pad_chunk layout, and each text alone."""
    texts = [words(n, seed=seed + i) for i, n in enumerate(lengths)]
    longest = max(lengths)
    return torch.stack([pad_chunk(t, pad_idx=1, pad_first=True, seq_len=bptt, pad_len=longest) for t in texts]), texts


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


def assert_same_gradients(a: nn.Module, b: nn.Module, tolerance: float = 1e-6) -> None:
    ours, theirs = gradients(a), gradients(b)
    assert len(ours) == len(theirs) > 0
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


# --- the language model -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("tie", [True, False])
def test_language_model_state_dicts_are_fastais_in_names_and_order_and_load_both_ways(tie):
    ours = build_language_model(VOCAB, Model(emb_sz=12, n_hid=20, tie_weights=tie))
    theirs = stock_lm(tie=tie)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert {"0.rnns.0.weight_hh_l0_raw", "0.encoder_dp.emb.weight", "1.decoder.weight"} <= set(ours.state_dict())
    theirs.load_state_dict(ours.state_dict())
    fresh = build_language_model(VOCAB, Model(emb_sz=12, n_hid=20, tie_weights=tie))
    fresh.load_state_dict(theirs.state_dict())
    x = words(3, 7)
    assert torch.equal(ours.eval()(x)[0], theirs.eval()(x)[0])
    assert torch.equal(theirs(x)[0], ours(x)[0])  # the second time with the carried state
    theirs.reset()
    assert torch.equal(fresh.eval()(x)[0], theirs(x)[0])
    assert (ours[1].decoder.weight is ours[0].encoder.weight) == tie


def test_the_same_seed_gives_the_same_initial_weights_as_fastai():
    torch.manual_seed(1)
    ours = build_language_model(VOCAB, MODEL)
    torch.manual_seed(1)
    theirs = stock_lm()
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_with_dropout_on_and_one_seed_outputs_and_gradients_are_fastais():
    ours, theirs = build_language_model(VOCAB, MODEL), stock_lm()
    theirs.load_state_dict(ours.state_dict())
    stock_numbers(ours[0])
    for step in range(3):  # the state is carried from step to step
        outputs = []
        for model in (ours, theirs):
            torch.manual_seed(step)
            outputs.append(model(words(4, 9, seed=step)))
        for a, b in zip(*outputs, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-7)
    for out in outputs:
        (out[0].pow(2).mean() + out[1].sum()).backward()
    assert_same_gradients(ours, theirs)


def test_fifty_training_steps_without_dropout_give_fastais_losses():
    torch.manual_seed(0)
    ours, theirs = build_language_model(VOCAB, DRY), stock_lm(NO_DROPOUT)
    theirs.load_state_dict(ours.state_dict())
    ours[1].fused = True
    losses: dict[str, list[float]] = {"ours": [], "theirs": []}
    runs = [("ours", ours, adam, FusedCrossEntropy(ours[1], chunk=13)),
            ("theirs", theirs, Adam, CrossEntropyLossFlat())]
    for name, model, make, loss_func in runs:
        opt = make(list(awd_lstm_lm_split(model)), lr=0.01, wd=0.1)
        for step in range(50):
            x = TensorText(words(4, 10, seed=step % 7))
            loss = loss_func(model(x[:, :-1])[0], x[:, 1:])
            loss.backward()
            opt.step()
            opt.zero_grad()
            losses[name].append(loss.item())
    assert losses["theirs"][-1] < losses["theirs"][0] - 0.1  # it learned something
    assert losses["ours"] == pytest.approx(losses["theirs"], abs=1e-5)


@pytest.mark.parametrize("fast", [True, False])
def test_models_without_weight_dropout_train_and_evaluate(fast):
    model = build_classifier(VOCAB, 3, DRY, bptt=5, fast=fast)
    names = list(model.state_dict())
    x, _ = batch_of([9, 4])
    model(x)[0].sum().backward()
    model.reset()
    model.eval()(x)
    assert list(model.state_dict()) == names


def test_fast_false_is_fastais_own_model():
    model = build_language_model(VOCAB, MODEL, fast=False)
    assert type(model[0]) is AWD_LSTM
    assert model[0].rnns[0].weight_p == AWD_LM.weight and model[1].output_dp.p == AWD_LM.output
    with pytest.raises(ValueError, match="compute_dtype"):
        build_language_model(VOCAB, MODEL, fast=False, compute_dtype=torch.bfloat16)


def test_each_dropout_of_the_recipe_reaches_its_layer():
    drop = Dropouts(embed=0.01, input=0.02, hidden=0.03, weight=0.04, output=0.05)
    lm = build_language_model(VOCAB, MODEL, dropouts=drop)
    classifier = build_classifier(VOCAB, 3, MODEL, dropouts=drop)
    for encoder in (lm[0], classifier[0].module):
        assert encoder.encoder_dp.embed_p == 0.01 and encoder.input_dp.p == 0.02
        assert [d.p for d in encoder.hidden_dps] == [0.03] * 3 and [r.weight_p for r in encoder.rnns] == [0.04] * 3
    assert lm[1].output_dp.p == 0.05
    assert [m.p for m in classifier[1].modules() if isinstance(m, nn.Dropout)] == [0.05, MODEL.head_dropout]


def test_a_trained_model_can_be_copied_and_pickled_and_the_copy_is_independent():
    model = build_language_model(VOCAB, MODEL)
    model(words(2, 6))[0].sum().backward()
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    x = words(2, 6)
    for m in (model, *twins):
        m.eval().reset()
    expected = model(x)[0].detach()
    for twin in twins:
        assert torch.equal(twin(x)[0], expected)
        with torch.no_grad():
            twin[0].rnns[0].weight_hh_l0_raw.zero_()
        twin.reset()
        assert not torch.equal(twin(x)[0], expected)
    model.reset()
    assert torch.equal(model(x)[0], expected)


def test_nothing_of_a_step_stays_alive_in_the_lstm():
    model = build_language_model(VOCAB, MODEL)
    model(words(2, 6))
    for rnn in model[0].rnns:
        held = [v for v in (*vars(rnn).values(), *vars(rnn.module).values()) if isinstance(v, (Tensor, list))]
        assert not any(isinstance(item, Tensor) for v in held for item in (v if isinstance(v, list) else [v]))


def test_fastais_tensor_subclasses_end_at_the_input_and_the_state_is_detached():
    model = build_language_model(VOCAB, MODEL)
    outputs = model(TensorText(words(2, 6)))
    assert {type(o) for o in outputs} == {Tensor}
    for part in (p for layer in model[0].hidden for p in layer):
        assert type(part) is Tensor and not part.requires_grad


def test_a_model_moved_to_another_type_still_runs():
    model = build_language_model(VOCAB, DRY).double()
    model.reset()
    assert model(words(2, 3))[0].dtype == torch.float64


# --- masks --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("p", [0.02, 0.2, 0.5])
def test_weight_masks_drop_the_right_share_and_keep_the_expectation(p):
    torch.manual_seed(0)
    mask = weight_mask(torch.empty(1500, 1001), p)
    kept = mask != 0
    n = mask.numel()
    assert float(kept.float().mean()) == pytest.approx(1 - p, abs=4 * (p * (1 - p) / n) ** 0.5)
    assert mask[kept].unique().numel() == 1 and float(mask.max()) == pytest.approx(1 / (1 - p), rel=2e-5)
    rows, columns = kept.float().mean(1), kept.float().mean(0)  # no row, column or neighbour hangs together
    assert float(rows.std()) == pytest.approx((p * (1 - p) / 1001) ** 0.5, rel=0.15)
    assert float(columns.std()) == pytest.approx((p * (1 - p) / 1500) ** 0.5, rel=0.15)
    flat = kept.flatten().float() - (1 - p)
    for lag in (1, 2, 3, 4, 8):
        assert abs(float((flat[lag:] * flat[:-lag]).mean())) < 5 * p * (1 - p) / n**0.5


def test_weight_masks_follow_torchs_seed_and_differ_from_draw_to_draw():
    w = torch.empty(37, 3)
    torch.manual_seed(5)
    first, second = weight_mask(w, 0.5), weight_mask(w, 0.5)
    torch.manual_seed(5)
    assert torch.equal(weight_mask(w, 0.5), first) and not torch.equal(first, second)


def test_the_stock_stream_is_that_of_dropout():
    w = torch.randn(30, 20)
    torch.manual_seed(5)
    expected = nn.functional.dropout(w, 0.3)
    torch.manual_seed(5)
    assert torch.equal(w * weight_mask(w, 0.3, stock_stream=True), expected)


def test_a_forward_pass_draws_one_mask_a_layer_and_evaluation_none(monkeypatch):
    drawn = []
    monkeypatch.setattr(awd_lstm, "weight_mask", lambda w, p, **kw: drawn.append(w.shape) or torch.ones_like(w))
    model = build_language_model(VOCAB, MODEL)
    model(words(2, 6))
    assert len(drawn) == 3
    model.reset()
    model.eval()(words(2, 6))
    assert len(drawn) == 3


def test_embedding_dropout_gives_fastais_rows_and_gradients_from_one_seed():
    emb = nn.Embedding(50, 6, padding_idx=1)
    x = torch.randint(0, 50, (8, 20))
    grads = []
    for module in (FastEmbeddingDropout(emb, 0.4), EmbeddingDropout(emb, 0.4)):
        torch.manual_seed(2)
        rows = module(x)
        emb.weight.grad = None
        rows.pow(2).sum().backward()
        grads.append((rows.detach(), emb.weight.grad))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-6, atol=1e-6)
    assert float(grads[0][1][1].abs().sum()) == 0  # padding gets no gradient


def test_embedding_dropout_keeps_or_drops_all_places_of_a_word():
    emb = nn.Embedding(4000, 3)
    with torch.no_grad():
        emb.weight.fill_(1)
    torch.manual_seed(0)
    rows = FastEmbeddingDropout(emb, 0.25)(torch.arange(4000).repeat(2, 1))
    assert torch.equal(rows[0], rows[1])
    dropped = (rows[0] == 0).all(1)
    assert float(dropped.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.allclose(rows[0][~dropped], torch.tensor(4 / 3))


def test_embedding_scale_leaves_the_weights_as_they_are():
    module = FastEmbeddingDropout(nn.Embedding(9, 4), 0.1).eval()
    before = module.emb.weight.detach().clone()
    assert torch.equal(module(torch.tensor([3]), scale=2.0), before[3:4] * 2)
    assert torch.equal(module.emb.weight, before)


# --- frozen layers ------------------------------------------------------------------------------------------------

def test_frozen_lower_layers_store_no_graph_and_give_the_same_gradients_above():
    ours, theirs = build_classifier(VOCAB, 3, DRY, bptt=5), stock_classifier(NO_DROPOUT, ps=0.0, max_len=100)
    theirs.load_state_dict(ours.state_dict())
    graphs = {}
    for name, module in (("embedding", ours[0].module.encoder_dp), *enumerate(ours[0].module.rnns)):
        module.register_forward_hook(
            lambda m, i, out, name=name: graphs.update({name: (out[0] if isinstance(out, tuple) else out).grad_fn}))
    for model in (ours, theirs):
        for group in awd_lstm_clas_split(model)[:3]:  # embedding and two LSTM layers
            for p in group:
                p.requires_grad_(False)
        model(batch_of([12, 7, 4])[0].clone())[0].sum().backward()
    assert [graphs[name] is None for name in ("embedding", 0, 1, 2)] == [True, True, True, False]
    assert_same_gradients(ours, theirs)


# --- the sentence encoder -----------------------------------------------------------------------------------------

def encoder(**kwargs) -> FixedSentenceEncoder:
    torch.manual_seed(0)
    return FixedSentenceEncoder(5, FastAWDLSTM(VOCAB, 12, 20, 3), **kwargs).eval()


def pooled(model: FixedSentenceEncoder, x: Tensor) -> Tensor:
    return concat_pool(*model(x))


LENGTHS = {
    "a whole number of chunks": [20, 17, 15, 11, 3, 1],
    "a length that stock gets wrong (issue 3379)": [16, 15, 14, 10, 9, 5, 3, 1],
    "one text": [13],
}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_a_batch_gives_each_text_what_it_gets_alone(lengths):
    model = encoder()
    x, texts = batch_of(lengths)
    together = pooled(model, x)
    for row, text in zip(together, texts, strict=True):
        torch.testing.assert_close(row, pooled(model, text[None])[0], rtol=1e-5, atol=1e-6)


def test_stock_loses_chunks_in_such_a_batch():
    model = encoder()
    stock = SentenceEncoder(5, model.module)
    x, _ = batch_of(LENGTHS["a length that stock gets wrong (issue 3379)"])
    ours, theirs = pooled(model, x), masked_concat_pool(*stock(x), 5)
    assert (ours - theirs).abs().max().item() > 1e-3


def test_a_text_padded_at_its_end_only_gives_what_it_gives_alone():
    model = encoder()
    texts = [words(17), words(3, seed=1), words(9, seed=2)]
    x = nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=1)
    for row, text in zip(pooled(model, x), texts, strict=True):
        torch.testing.assert_close(row, pooled(model, text[None])[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("max_len", [None, 5, 7, 10])
def test_padding_at_the_end_of_all_texts_is_not_read(max_len, monkeypatch):
    model = encoder(max_len=max_len)
    texts = [words(n, seed=n) for n in (17, 16, 12, 7, 1)]  # 1 or 2 words in their last chunk of 5
    x = torch.from_numpy(pad_batch([text.numpy() for text in texts], 5))
    assert x.shape == (5, 20)
    read, whole = [], model.module.forward
    monkeypatch.setattr(model.module, "forward", lambda part: read.append(tuple(part.shape)) or whole(part))
    states, padding = model(x)
    assert read == [(2, 5), (3, 5), (4, 5), (5, 2)] and states.shape[:2] == padding.shape
    assert states.shape[1] == {None: 17, 5: 2, 7: 7, 10: 7}[max_len]
    for row, text in zip(pooled(model, x), texts, strict=True):
        torch.testing.assert_close(row, pooled(model, text[None])[0], rtol=1e-5, atol=1e-6)
    empty = torch.cat([x, torch.ones(5, 5, dtype=torch.int64)], 1)  # a last chunk without any word
    if max_len is None:
        torch.testing.assert_close(pooled(model, empty), pooled(model, x), rtol=1e-5, atol=1e-6)


def test_an_unsorted_batch_is_refused_by_row():
    x, _ = batch_of([20, 8, 14])
    with pytest.raises(ValueError, match="row 2 starts in chunk 1, the row above it in chunk 2"):
        encoder()(x)
    assert encoder()(x[[0, 2, 1]])[0].shape == (3, 20, 12)


def test_a_row_without_words_is_refused():
    x, _ = batch_of([10, 4])
    x[1] = 1
    with pytest.raises(ValueError, match="row 1 of the batch has no word"):
        encoder()(x)


def test_a_row_that_ends_before_the_pooled_tail_is_refused():
    x = nn.utils.rnn.pad_sequence([words(20), words(9, seed=1)], batch_first=True, padding_value=1)
    assert torch.isfinite(pooled(encoder(max_len=15), x)).all()
    with pytest.raises(ValueError, match="row 1 of the batch has no word where a pooled chunk"):
        encoder(max_len=10)(x)
    with pytest.raises(ValueError, match="at least one chunk of bptt = 5"):
        encoder(max_len=4)


def test_concat_pooling_is_fastais_in_fastais_layout():
    x, _ = batch_of([20, 17, 15, 11, 3, 1])
    output = torch.randn(6, 20, 4, requires_grad=True)
    mask = x == 1
    expected = masked_concat_pool(output.clone(), mask, 5)
    torch.testing.assert_close(concat_pool(output, mask), expected, rtol=0, atol=1e-7)
    before = output.detach().clone()
    concat_pool(output, mask).sum().backward()
    assert torch.equal(output.detach(), before)


# --- the classifier -----------------------------------------------------------------------------------------------

def test_classifier_state_dicts_load_both_ways():
    ours, theirs = build_classifier(VOCAB, 3, MODEL, bptt=5, max_len=15), stock_classifier()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    build_classifier(VOCAB, 3, MODEL).load_state_dict(theirs.state_dict())
    x, _ = batch_of([20, 17, 15, 11, 3, 1])
    torch.testing.assert_close(ours.eval()(x)[0], theirs.eval()(x)[0], atol=1e-6, rtol=1e-5)  # the last bits: by CPU


@pytest.mark.parametrize("fast", [True, False])
def test_with_dropout_on_and_one_seed_the_classifier_gives_fastais_logits_and_gradients(fast):
    ours, theirs = build_classifier(VOCAB, 3, MODEL, bptt=5, max_len=15, fast=fast), stock_classifier()
    theirs.load_state_dict(ours.state_dict())
    ours, theirs = ours.double(), theirs.double()  # the head's batch norm of 6 texts makes much of a float's last bits
    if fast:
        stock_numbers(ours[0].module)
    x, _ = batch_of([30, 28, 15, 11, 3, 1])
    logits = []
    for model in (ours, theirs):
        torch.manual_seed(0)
        logits.append(model(x)[0])
        (logits[-1] * torch.tensor([1.0, -2.0, 0.5])).pow(2).sum().backward()
    torch.testing.assert_close(*logits, rtol=0, atol=1e-10)
    assert_same_gradients(ours, theirs, 1e-10)


def test_chunks_that_are_not_pooled_keep_no_graph_and_only_the_pooled_tail_gets_gradients():
    model = build_classifier(VOCAB, 3, DRY, bptt=5, max_len=10)
    kept = []
    model[0].module.register_forward_hook(lambda m, i, out: kept.append(out.requires_grad))
    x, _ = batch_of([25, 22, 11])
    embedded = []

    def keep(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        embedded.append(output)
        if output.requires_grad:
            output.retain_grad()

    model[0].module.encoder_dp.register_forward_hook(keep)
    out, mask = model[0](x)
    model[1]((out, mask))[0].sum().backward()
    assert kept == [False, False, False, True, True]
    assert out.shape[1] == mask.shape[1] == 10
    reached = [e.grad is not None and bool((e.grad.abs().sum(-1) > 0).any()) for e in embedded]
    assert reached == [False, False, False, True, True]


def test_fifty_classifier_steps_without_dropout_give_fastais_losses():
    # In fp64, since batch norm over five texts blows up any difference in rounding.
    torch.manual_seed(0)
    ours = build_classifier(VOCAB, 3, DRY, bptt=5, max_len=10, mask_per_chunk=False).double()
    theirs = stock_classifier(NO_DROPOUT, max_len=10, ps=0.0).double()
    theirs.load_state_dict(ours.state_dict())
    losses = []
    for model, make in ((ours, adam), (theirs, Adam)):
        opt = make(list(awd_lstm_clas_split(model)), lr=3e-3)
        losses.append([])
        for step in range(50):
            x, _ = batch_of([20, 18, 15, 9, 2], seed=10 * (step % 5))
            loss = nn.functional.cross_entropy(model(x)[0], torch.tensor([0, 1, 2, 1, 0]))
            loss.backward()
            opt.step()
            opt.zero_grad()
            losses[-1].append(loss.item())
    assert losses[1][-1] < 0.9 * losses[1][0]  # it learned something
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.parametrize(("mask_per_chunk", "draws"), [(True, 12), (False, 3)])
def test_the_weight_masks_are_drawn_once_a_chunk_or_once_a_batch(monkeypatch, mask_per_chunk, draws):
    drawn = []
    monkeypatch.setattr(awd_lstm, "weight_mask", lambda w, p, **kw: drawn.append(p) or torch.ones_like(w))
    model = build_classifier(VOCAB, 3, MODEL, bptt=5, mask_per_chunk=mask_per_chunk)
    x, _ = batch_of([20, 18])  # four chunks, three layers
    model(x)[0].sum().backward()
    assert len(drawn) == draws
    model(x)
    assert len(drawn) == 2 * draws  # and none is kept for the next batch


def test_one_mask_a_batch_gives_the_gradient_of_that_mask(monkeypatch):
    fixed = {}
    monkeypatch.setattr(awd_lstm, "weight_mask",
                        lambda w, p, **kw: fixed.setdefault(tuple(w.shape), (torch.rand(w.shape) > 0.5).float() * 2))
    model = build_classifier(VOCAB, 3, MODEL, bptt=5, max_len=10, mask_per_chunk=False)
    for module in model.modules():  # leave only the weights' dropout
        if hasattr(module, "p"):
            module.p = 0.0
    model[0].module.encoder_dp.embed_p = 0.0
    twin = copy.deepcopy(model)
    twin[0].mask_per_chunk = True  # the same fixed mask, applied anew in every chunk
    x, _ = batch_of([20, 18, 7])
    for m in (model, twin):
        m(x)[0].pow(2).sum().backward()
    assert_same_gradients(model, twin)
    assert all(rnn._held is None for rnn in model[0].module.rnns)


def test_held_masks_are_released_when_a_batch_fails():
    model = build_classifier(VOCAB, 3, MODEL, bptt=5, mask_per_chunk=False)
    x, _ = batch_of([20, 18])
    x[0, 7] = VOCAB + 5
    with pytest.raises(IndexError):
        model(x)
    assert all(rnn._held is None for rnn in model[0].module.rnns)


def test_max_len_defaults_to_twenty_chunks_and_the_head_is_the_recipes():
    model = build_classifier(VOCAB, 4, MODEL, bptt=7)
    assert model[0].max_len == 140 and model[0].bptt == 7
    assert isinstance(model[1], PoolingClassifier)
    assert [m.weight.shape for m in model[1].modules() if isinstance(m, nn.Linear)] == [(8, 36), (4, 8)]


# --- bf16 ---------------------------------------------------------------------------------------------------------

def test_lstms_in_bf16_keep_fp32_weights_and_states_and_stay_close():
    torch.manual_seed(0)
    fp32 = build_language_model(VOCAB, Model(emb_sz=64, n_hid=96, lm_dropouts=NO_DROPOUT))
    half = build_language_model(VOCAB, Model(emb_sz=64, n_hid=96, lm_dropouts=NO_DROPOUT), compute_dtype=torch.bfloat16)
    half.load_state_dict(fp32.state_dict())
    losses = []
    for model in (fp32, half):
        x = words(8, 31)
        loss = CrossEntropyLossFlat()(model(x[:, :-1])[0], x[:, 1:])
        loss.backward()
        losses.append(loss.item())
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=2e-3)
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    assert {part.dtype for layer in half[0].hidden for part in layer} == {torch.float32}
    for a, b in zip(gradients(fp32), gradients(half), strict=True):
        assert float(nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)) > 0.999


def test_modules_inside_are_still_lstms_and_their_hooks_fire():
    model = build_language_model(VOCAB, MODEL)
    seen = []
    for module in model.modules():
        if isinstance(module, nn.LSTM):
            module.register_forward_hook(lambda m, i, out: seen.append(m.hidden_size))
    model(words(2, 4))
    assert seen == [20, 20, 12]
