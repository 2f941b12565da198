"""Adversarial training: its shifts and gradients beside an independent computation, and what it leaves alone."""

from __future__ import annotations

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.rnn import RNNRegularizer
from fastai.learner import Learner
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, MSELossFlat
from fastai.text.learner import TextLearner
from fastai.text.models.awdlstm import awd_lstm_clas_split
from safetensors.torch import load_file
from stops import StopAt
from torch import Tensor, nn

from ulmfit_fastai._errors import UlmfitError
from ulmfit_fastai.batches.dataloaders import classifier_dataloaders
from ulmfit_fastai.model.layers import build_classifier
from ulmfit_fastai.recipe.parts import Dropouts, Model
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.settings import LostSetting, with_settings
from ulmfit_fastai.results.folder import RunFolder
from ulmfit_fastai.results.verdict import differences_in_scale
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.tokens.ids import TokenIds, Vocabulary
from ulmfit_fastai.training import estimate, session
from ulmfit_fastai.training.adversarial import AdversarialTraining, Endless, divergence
from ulmfit_fastai.training.callbacks import Budget
from ulmfit_fastai.training.memory import SplitBatches
from ulmfit_fastai.training.perturbed import deviation, embedding_of, of_norm
from ulmfit_fastai.training.phases import Run
from ulmfit_fastai.training.prepare import prepare
from ulmfit_fastai.training.runs import plan_run, run
from ulmfit_fastai.training.session import Conditions
from ulmfit_fastai.training.sharing import language_model_recipe

WORDS, BPTT, MAX_LEN = 40, 5, 10
NONE = Dropouts(embed=0.0, input=0.0, hidden=0.0, weight=0.0, output=0.0)
SOME = Dropouts(embed=0.2, input=0.3, hidden=0.3, weight=0.3, output=0.2)


def texts(n: int = 8, longest: int = 23) -> TokenIds:
    """Texts of several chunks, more of them than are pooled."""
    numbers = np.random.default_rng(0)
    lengths = np.array([longest, *numbers.integers(2, longest, n - 1)])
    flat = numbers.integers(9, WORDS, lengths.sum()).astype(np.uint16)
    vocab = Vocabulary(["xxunk", "xxpad", *(f"w{i}" for i in range(WORDS - 2))])
    return TokenIds(flat, np.concatenate([[0], lengths.cumsum()]), vocab)


def learner(*, drop: Dropouts = NONE, head: float = 0.0, labels: list | None = None, loss=None, n_out: int = 2,
            alpha: float = 0.0, beta: float = 0.0, bs: int = 8, cbs=()) -> Learner:
    torch.manual_seed(0)
    ids = texts()
    labels = ["a", "b"] * 4 if labels is None else labels
    classes = ["a", "b"] if loss is None or isinstance(loss, BCEWithLogitsLossFlat) else None
    dls = classifier_dataloaders(ids, labels, classes=classes, train=range(8), valid=range(8), bs=bs, bptt=BPTT,
                                 device="cpu")
    net = build_classifier(WORDS, n_out, Model(emb_sz=6, n_hid=7, n_layers=2, head_hidden=4, head_dropout=head),
                           bptt=BPTT, max_len=MAX_LEN, dropouts=drop)
    with torch.no_grad():
        net[0].module.encoder.weight.mul_(20)  # otherwise a step's gradients are as small as its rounding
    learn = TextLearner(dls, net, loss_func=loss or CrossEntropyLossFlat(), splitter=awd_lstm_clas_split, alpha=alpha,
                        beta=beta, cbs=list(cbs))
    return learn


class Gradients(Callback):
    """Keeps the gradients of the last step, and changes nothing."""

    order = 200

    def before_step(self):
        self.learn.kept = {name: p.grad.clone() for name, p in self.learn.model.named_parameters()}
        self.learn.seen = self.learn.loss.item()


def one_step(learn: Learner, *cbs) -> dict[str, Tensor]:
    """Gradients of one step from where the model is, which stays as it was."""
    state = copy.deepcopy(learn.model.state_dict())
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=0.0, wd=0.0, cbs=[*cbs, Gradients()])
    learn.statistics = {k: v.clone() for k, v in learn.model.state_dict().items() if "running" in k}
    learn.model.load_state_dict(state)
    return learn.kept


# The independent computation: word vectors as one tensor, chunk after chunk by hand, in float64


def by_hand(net: nn.Module, x: Tensor, embedded: Tensor) -> Tensor:
    """Logits of a batch from its word vectors (texts, length, emb_sz), without dropout."""
    encoder, head = net[0].module, net[1]
    rows = []
    for words, vectors in zip(x, embedded, strict=True):  # each text by itself, from its own first chunk
        real = (words != 1).nonzero().flatten()
        state, outputs, first = None, [], x.shape[1] // BPTT - MAX_LEN // BPTT
        for chunk in range(int(real[0]) // BPTT, x.shape[1] // BPTT):
            stop = min((chunk + 1) * BPTT, int(real[-1]) + 1)
            out = vectors[None, chunk * BPTT : stop]
            new = []
            for layer, rnn in enumerate(encoder.rnns):
                lstm = nn.LSTM(out.shape[-1], rnn.module.hidden_size, batch_first=True).double()
                weights = dict(lstm.named_parameters())
                given = {"weight_ih_l0": rnn.module.weight_ih_l0, "weight_hh_l0": rnn.weight_hh_l0_raw,
                         "bias_ih_l0": rnn.module.bias_ih_l0, "bias_hh_l0": rnn.module.bias_hh_l0}
                assert weights.keys() == given.keys()
                out, (h, c) = torch.func.functional_call(lstm, given, (out, None if state is None else state[layer]))
                new.append((h.detach(), c.detach()))
            state = new
            if chunk >= first:
                outputs.append(out[0])
        pooled = torch.cat(outputs)
        rows.append(torch.cat([pooled[-1], pooled.amax(0), pooled.mean(0)]))
    return head.layers(torch.stack(rows))


def double(learn: Learner) -> tuple[nn.Module, Tensor, Tensor]:
    """The model in float64, and its batch."""
    net = copy.deepcopy(learn.model).double().train()
    loader = learn.dls.train
    loader.epoch = 0
    x, y = loader.one_batch()
    return net, x.as_subclass(Tensor), y.as_subclass(Tensor)


def spread_by_hand(weight: Tensor) -> Tensor:
    """Standard deviation of the embeddings over all running words, counted one by one."""
    running = weight.detach()[torch.from_numpy(texts().ids.astype(np.int64))]
    return running.std(0, correction=0)


def of_norm_by_hand(gradient: Tensor, norm: float) -> Tensor:
    return torch.stack([norm * g / g.norm() for g in gradient])


def pooled_words(x: Tensor) -> Tensor:
    chunks = torch.arange(x.shape[1]) // BPTT
    return ((x != 1) & (chunks >= x.shape[1] // BPTT - MAX_LEN // BPTT))[..., None]


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].numpy(), value.numpy(), rtol=2e-3, atol=2e-5, err_msg=name)


def test_the_adversarial_gradients_are_those_of_an_independent_computation():
    learn = learner()
    net, x, y = double(learn)
    table = net[0].module.encoder.weight
    vectors = table[x]
    vectors.retain_grad()
    loss = nn.functional.cross_entropy(by_hand(net, x, vectors), y)
    loss.backward()
    spread = spread_by_hand(table)
    shift = of_norm_by_hand(vectors.grad * pooled_words(x) * spread, 0.7)
    (0.5 * nn.functional.cross_entropy(by_hand(net, x, table[x] + shift * spread), y)).backward()
    found = one_step(learn, AdversarialTraining(0.7, weight=0.5))
    same(found, {name: p.grad for name, p in net.named_parameters()})
    assert learn.seen == pytest.approx(loss.item(), abs=1e-5)  # what is shown stays the loss of the texts as they are
    alone = one_step(learn)
    assert max((found[k] - alone[k]).abs().max() / alone[k].abs().max() for k in alone) > 0.2  # there is a second part


def test_the_virtual_gradients_are_those_of_an_independent_computation(monkeypatch):
    learn = learner()
    net, x, y = double(learn)
    drawn = torch.randn(*x.shape, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def directions(self, seed):
        first, n = x.shape[1] // BPTT - MAX_LEN // BPTT, [len(chunk.words) for chunk in self.chunks]
        return self.real([None if i < first else
                          drawn[: n[i], i * BPTT : i * BPTT + chunk.words.shape[1]].float().clone()
                          for i, chunk in enumerate(self.chunks)])

    monkeypatch.setattr("ulmfit_fastai.training.perturbed.Perturbed.directions", directions)
    table = net[0].module.encoder.weight
    spread = spread_by_hand(table)
    answers = by_hand(net, x, table[x])
    nn.functional.cross_entropy(answers, y).backward()
    chances = answers.detach().softmax(1)

    def kl(logits: Tensor) -> Tensor:
        return (chances * (chances.log() - logits.log_softmax(1))).sum(1).mean()

    real = pooled_words(x)
    start = of_norm_by_hand(drawn * real, 0.5).requires_grad_()
    (gradient,) = torch.autograd.grad(kl(by_hand(net, x, table.detach()[x] + start * spread)), start)
    shift = of_norm_by_hand(gradient * real, 2.0)
    (0.8 * kl(by_hand(net, x, table[x] + shift * spread))).backward()
    found = one_step(learn, AdversarialTraining(2.0, weight=0.0, virtual_weight=0.8, finite_difference=0.5))
    same(found, {name: p.grad for name, p in net.named_parameters()})
    alone = one_step(learn)
    assert max((found[k] - alone[k]).abs().max() / alone[k].abs().max() for k in alone) > 0.05


def test_a_shift_of_next_to_nothing_doubles_the_gradient_with_the_same_dropouts():
    learn = learner(drop=SOME, head=0.3)
    torch.manual_seed(3)
    alone = one_step(learn)
    torch.manual_seed(3)
    both = one_step(learn, AdversarialTraining(1e-7))
    for name in alone:
        torch.testing.assert_close(both[name], 2 * alone[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("asked", [{}, {"weight": 0.0, "virtual_weight": 1.0}, {"virtual_weight": 1.0}])
def test_random_numbers_and_batch_norm_go_on_as_without_it(asked):
    learn = learner(drop=SOME, head=0.3)
    state = copy.deepcopy(learn.model.state_dict())
    found = []
    for cbs in ((), (AdversarialTraining(1.0, **asked),)):
        learn.model.load_state_dict(state)
        torch.manual_seed(3)
        one_step(learn, *cbs)
        found.append((torch.rand(()), learn.statistics))
    if not asked.get("virtual_weight"):  # which draws its own direction
        assert found[0][0] == found[1][0]
    for name, value in found[0][1].items():
        assert torch.equal(value, found[1][1][name]), name


def test_padding_and_chunks_without_a_gradient_are_never_shifted():
    learn, seen = learner(), []

    class Look(AdversarialTraining):
        def _outputs(self, xb, shift):
            seen.append((xb[0].as_subclass(Tensor).clone(), [None if s is None else s.clone() for s in shift]))
            return super()._outputs(xb, shift)

    one_step(learn, Look(3.0))
    (x, shift), = seen
    unpooled = x.shape[1] // BPTT - MAX_LEN // BPTT
    assert unpooled > 0 and all(part is None for part in shift[:unpooled])
    squares = torch.zeros(len(x))
    for chunk, part in enumerate(shift[unpooled:], unpooled):
        words = x[: len(part), chunk * BPTT : chunk * BPTT + part.shape[1]]
        assert not part[words == 1].any() and part[words != 1].any()
        squares[: len(part)] += part.square().sum((1, 2))
    torch.testing.assert_close(squares.sqrt(), torch.full((len(x),), 3.0))


def test_penalties_have_no_part_in_the_direction():
    shifts = []

    class Look(AdversarialTraining):
        def _outputs(self, xb, shift):
            shifts.append([s.clone() for s in shift if s is not None])
            return super()._outputs(xb, shift)

    plain, penal = learner(), learner(alpha=50.0, beta=50.0)
    before = one_step(plain, Look(1.0)), one_step(penal, Look(1.0))
    for one, other in zip(*shifts, strict=True):
        torch.testing.assert_close(one, other)
    name = "0.module.rnns.1.module.weight_ih_l0"
    assert (before[0][name] - before[1][name]).abs().max() > 1e-3  # but they are trained on
    counted = []

    class Count(AdversarialTraining):
        def after_backward(self):
            counted.append([cb.run for cb in self.penalties])
            super().after_backward()

    one_step(learner(alpha=1.0, beta=1.0, bs=4), Count(1.0))
    assert counted == [[False], [False]]  # in every batch again
    assert all(cb.run for cb in penal.cbs if isinstance(cb, RNNRegularizer))


def test_while_a_part_is_frozen_nothing_is_added():
    learn = learner()
    learn.freeze()
    alone = {k: v for k, v in one_step_of_trained(learn).items()}
    with_it = one_step_of_trained(learn, AdversarialTraining(5.0))
    assert all(torch.equal(alone[name], with_it[name]) for name in alone)


def one_step_of_trained(learn: Learner, *cbs) -> dict[str, Tensor]:
    class OfTrained(Gradients):
        def before_step(self):
            self.learn.kept = {n: p.grad.clone() for n, p in self.learn.model.named_parameters() if p.grad is not None}

    state = copy.deepcopy(learn.model.state_dict())
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=0.0, wd=0.0, cbs=[*cbs, OfTrained()])
    learn.model.load_state_dict(state)
    return learn.kept


@pytest.mark.parametrize(("loss", "labels", "n_out"), [
    (BCEWithLogitsLossFlat(), [["a"], ["b"], ["a", "b"], [], ["a"], ["b"], ["a"], ["a"]], 2),
    (MSELossFlat(), [0.1, 0.5, 2.0, 1.0, 0.0, 3.0, 1.0, 2.0], 1)])
def test_several_classes_a_text_and_numbers_are_trained_both_ways(loss, labels, n_out):
    learn = learner(loss=loss, labels=labels, n_out=n_out)
    alone = one_step(learn)
    for cb in (AdversarialTraining(1.0), AdversarialTraining(1.0, weight=0.0, virtual_weight=1.0)):
        found = one_step(learn, cb)
        assert all(torch.isfinite(v).all() for v in found.values())
        assert any((found[k] - alone[k]).abs().max() > 1e-5 for k in alone)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss(), nn.MSELoss()])
def test_a_divergence_is_0_from_the_same_answers_and_rises_both_ways(loss):
    answers = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.3, 4.0]])
    assert divergence(loss, answers, answers).item() == pytest.approx(0, abs=1e-6)
    assert divergence(loss, answers, answers + torch.tensor([0.5, 0.0, 0.0])) > 1e-3
    assert divergence(loss, answers, answers - torch.tensor([0.5, 0.0, 0.0])) > 1e-3


def test_norms_hold_for_gradients_too_small_to_square():
    part = torch.full((2, 3, 4), 1e-30)
    part[1] = 0
    (found,) = of_norm([part], 2.0)
    assert found[0].norm() == pytest.approx(2.0) and not found[1].any()


def test_the_deviation_is_over_running_words():
    weight, counts = torch.tensor([[0.0, 1.0], [2.0, 1.0], [9.0, 9.0]]), torch.tensor([3, 1, 0])
    np.testing.assert_allclose(deviation(weight, counts), [np.std([0, 0, 0, 2]), 1e-3], rtol=1e-3)


def test_unlabelled_texts_are_the_same_at_each_step_whatever_was_read_before():
    learn = learner(bs=3)
    loader = learn.dls.train
    endless = Endless(loader)
    n = len(loader)
    straight = [endless.batch(step).clone() for step in range(2 * n + 1)]
    for step in (n + 1, 2, 2 * n):
        assert torch.equal(Endless(loader).batch(step), straight[step])
    assert not torch.equal(straight[0], straight[n])


def test_unlabelled_texts_are_learnt_from_without_their_labels():
    learn = learner()
    more = learner().dls.train
    alone = one_step(learn)
    found = one_step(learn, AdversarialTraining(1.0, weight=0.0, virtual_weight=1.0, unlabelled=more))
    assert any((found[k] - alone[k]).abs().max() > 1e-5 for k in alone)


@pytest.mark.parametrize("wrong", [{"epsilon": 0.0}, {"weight": -1.0}, {"virtual_weight": -1.0},
                                   {"finite_difference": 0.0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(UlmfitError, match=next(iter(wrong))):
        AdversarialTraining(**wrong)


def test_a_model_without_one_embedding_is_refused():
    two = nn.Sequential(nn.Embedding(4, 4), nn.Embedding(4, 4))
    with pytest.raises(UlmfitError, match="one embedding of words, found 2"):
        embedding_of(two)
    assert embedding_of(two[:1]) is two[0]


class NormsAtRest(Callback):
    """Batch norm by its running statistics: those of a batch are a part's where it is made in parts."""

    def before_batch(self):
        for module in self.learn.model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()


@pytest.mark.parametrize("asked", [{}, {"weight": 0.0, "virtual_weight": 0.5, "unlabelled": True}])
def test_gradients_of_a_batch_made_in_parts_are_those_of_the_whole_batch(asked, monkeypatch):
    def same_for_all(self, seed):
        return self.real([None if c.embedded is None else torch.ones_like(c.embedded) for c in self.chunks])

    class Look(AdversarialTraining):
        def _virtual_loss(self, answers):
            loss = super()._virtual_loss(answers)
            self.learn.texts_read = max(len(chunk.words) for chunk in self.perturbed.chunks)
            return loss

    monkeypatch.setattr("ulmfit_fastai.training.perturbed.Perturbed.directions", same_for_all)
    found = []
    for parts in (1, 2):
        learn = learner()
        SplitBatches(learn, "classifier", parts=parts)
        more = {"unlabelled": learner().dls.train} if asked.get("unlabelled") else {}
        found.append(one_step(learn, Look(2.0, **{**asked, **more}), NormsAtRest()))
        assert not more or learn.texts_read == 8 // parts
    same(found[1], found[0])


# A run with it


@pytest.fixture(scope="module")
def reviews():
    return synthetic_reviews(n_train=60, n_test=30, n_unsup=40, seed=3)


def recipe(**changes):
    return preset("tiny").replace(precision="fp32", **{
        "adversarial.weight": 1.0, "adversarial.virtual_weight": 0.5, "adversarial.epsilon": 1.0, **changes})


def outcome(folder):
    run = json.loads((folder / "run.json").read_text())
    return run["metrics"], pd.read_csv(folder / "history.csv").drop(columns="seconds"), load_file(
        folder / "classifier_forward.safetensors")


@pytest.fixture(scope="module")
def whole(reviews, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    run(recipe(), reviews, out, cache=None, progress=False)
    return outcome(out)


@pytest.mark.parametrize("stops", [(17,), (9, 5, 3)])
def test_a_run_stopped_anywhere_goes_on_to_the_same_numbers(stops, whole, reviews, tmp_path, monkeypatch):
    for n in stops:
        monkeypatch.setattr(session, "Budget", lambda *_, n=n: StopAt(n))
        run(recipe(), reviews, tmp_path / "run", cache=None, progress=False)
    monkeypatch.undo()
    run(recipe(), reviews, tmp_path / "run", cache=None, progress=False)
    metrics, history, tensors = outcome(tmp_path / "run")
    assert metrics == whole[0]
    pd.testing.assert_frame_equal(history, whole[1], check_exact=True)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in whole[2].items())


@pytest.mark.parametrize("changes", [{"adversarial.weight": 0.0}, {"adversarial.virtual_weight": 0.0},
                                     {"adversarial.epsilon": 3.0}, {"adversarial.unlabelled": False}])
def test_every_field_changes_what_is_trained(changes, whole, reviews, tmp_path):
    run(recipe(**changes), reviews, tmp_path / "run", cache=None, progress=False)
    tensors = outcome(tmp_path / "run")[2]
    assert any(not torch.equal(tensors[name], tensor) for name, tensor in whole[2].items())


def test_texts_without_a_label_are_those_of_the_language_model_and_none_of_the_tests(reviews, tmp_path):
    for protocol in ("clean", "tutorial"):
        asked = recipe(protocol=protocol)
        data = prepare(asked, reviews, cache=None, progress=False)
        folder = RunFolder(tmp_path / protocol)
        folder.open({"recipe": asked.to_dict(), "recipe_hash": asked.hash, "data": {"fingerprint": "x"}})
        work = Run(asked, data, folder, Conditions(torch.device("cpu"), Budget()))
        (callback,) = work.build_classifier("forward", None)._grab_cbs(AdversarialTraining)
        rows = np.setdiff1d(data.splits.lm_train, data.splits.test)
        assert len(rows) > len(data.splits.train)
        starts = {int(data.ids.offsets[row]) for row in rows}
        assert set(callback.unlabelled.dataset.starts.tolist()) == starts
        assert callback.unlabelled.dataset.targets is None


def test_a_plan_counts_its_time(reviews, monkeypatch):
    monkeypatch.setattr(estimate, "_seconds_a_batch", lambda *_: 1.0)
    off = {"adversarial.weight": 0.0, "adversarial.virtual_weight": 0.0}
    plain, beyond = (plan_run(recipe(**changes), reviews, cache=None).frame() for changes in (off, {}))
    longer = (beyond.seconds / plain.seconds)[plain.phase == "classifier"].tolist()
    assert longer[:-1] == [1.0] * (len(longer) - 1) and longer[-1] > 3
    assert (beyond.seconds == plain.seconds)[plain.phase == "lm"].all()


def test_results_say_that_it_is_beyond_the_paper_and_the_language_model_is_the_same():
    asked = preset("quick-adversarial")
    assert any("beyond the paper" in why for why in differences_in_scale("imdb", asked.to_dict(), {}))
    assert not any("beyond" in why for why in differences_in_scale("imdb", preset("quick").to_dict(), {}))
    one, other = (language_model_recipe(preset(name), "forward") for name in ("quick", "quick-adversarial"))
    assert one == other and asked.hash != preset("quick").hash


def test_settings_without_effect_are_refused():
    with pytest.raises(LostSetting, match="adversarial.epsilon"):
        with_settings(preset("quick"), {"adversarial.epsilon": 2.0})
    assert with_settings(preset("quick-adversarial"), {"adversarial.epsilon": 2.0}).adversarial.epsilon == 2.0
