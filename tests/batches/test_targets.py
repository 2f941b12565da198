"""What outputs mean: the kind of labels is read in one way, and outputs come back in the labels' own words and unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.losses import BaseLoss
from some_ids import some_ids
from torch import nn

from ulmfit_fastai.batches.dataloaders import classifier_dataloaders
from ulmfit_fastai.batches.targets import Target, Targets
from ulmfit_fastai.texts.dataset import Dataset, build
from ulmfit_fastai.texts.values import is_missing

LOGITS = torch.tensor([[2.0, -1.0], [0.5, 0.5]])
NUMBERS = Target("regression", mean=100.0, scale=20.0)


def dataset(labels: list[str | None], classes: tuple[str, ...] = (), delimiter: str | None = None) -> Dataset:
    n = len(labels)
    made = build("custom", {"id": [str(i) for i in range(n)], "text": [f"text {i}" for i in range(n)], "label": labels,
                            "split": ["unsup" if label is None else "train" for label in labels]}, "here", notes=[])
    return replace(made, classes=classes, label_delim=delimiter)


@pytest.mark.parametrize(("labels", "classes", "kind"), [
    (["a", "b"], ["a", "b"], "single"), ([None, ["a"], []], ["a", "b"], "multi"),
    (np.array([[0, 1], [1, 1]]), ["a", "b"], "multi"), ([1.5, 2.0], None, "regression"),
])
def test_the_kind_of_labels_is_read_off_them(labels, classes, kind):
    assert Target.infer(labels, classes) == Target(kind, tuple(classes or ()))


def test_rows_of_numbers_are_several_outputs():
    assert Target.infer([[1.0, 2.0, 3.0]], None).n_out == 3 and NUMBERS.n_out == 1


@pytest.mark.parametrize(("made", "kind"), [
    (dataset(["a", "b", None], ("a", "b")), "single"), (dataset(["a;b", "b", None], ("a", "b"), ";"), "multi"),
    (dataset(["1.5", "2", None]), "regression"),
])
def test_a_data_sets_labels_have_the_kind_that_it_says(made, kind):
    targets = Targets.of(made, np.arange(2))
    assert targets.target.kind == kind and targets.target.classes == made.classes and len(targets) == 3


def test_numbers_are_standardised_by_the_training_rows_and_come_back():
    targets = Targets.of(dataset(["10", "30", "70", None]), np.array([0, 1]))
    assert (targets.target.mean, targets.target.scale) == (20.0, 10.0)
    assert targets.values[:3].tolist() == [-1.0, 1.0, 5.0] and np.isnan(targets.values[3])
    assert targets.truth(np.array([2, 0])).tolist() == [70.0, 10.0]
    assert targets.target.outputs(torch.tensor([[5.0], [-1.0]])).tolist() == [[70.0], [10.0]]


def test_outputs_are_probabilities_that_sum_to_one_or_one_for_each_class():
    one = Target("single", ("a", "b")).outputs(LOGITS)
    assert np.allclose(one.sum(1), 1) and one.dtype == np.float32
    assert np.allclose(Target("multi", ("a", "b")).outputs(LOGITS), 1 / (1 + np.exp(-LOGITS.numpy())))
    assert np.array_equal(NUMBERS.outputs(LOGITS), LOGITS.numpy() * 20 + 100)


@pytest.mark.parametrize(("target", "loss"), [
    (Target("single", ("a", "b")), nn.CrossEntropyLoss), (Target("multi", ("a", "b")), nn.BCEWithLogitsLoss),
    (NUMBERS, nn.MSELoss),
])
def test_each_kind_has_fastais_loss(target, loss):
    found = target.loss()
    assert isinstance(found, BaseLoss) and isinstance(found.func, loss)


def test_weights_of_classes_reach_the_loss_and_must_be_one_each():
    assert Target("single", ("a", "b")).loss((1.0, 5.0)).func.weight.tolist() == [1.0, 5.0]
    assert Target("multi", ("a", "b")).loss((1.0, 5.0)).func.pos_weight.tolist() == [1.0, 5.0]
    with pytest.raises(ValueError, match="one number for each of the 2 classes, found 1"):
        Target("single", ("a", "b")).loss((1.0,))


def test_a_record_is_what_files_have_held_so_far():
    record = {"kind": "regression", "centre": 100.0, "spread": 20.0}
    assert NUMBERS.to_record() == record and Target.from_record(record, ()) == NUMBERS
    assert Target.from_record({}, ["a", "b"]) == Target("single", ("a", "b"))  # of runs before kinds were written
    with pytest.raises(ValueError, match="kind: expected one of single, multi, regression, found 'other'"):
        Target.from_record({"kind": "other"}, ())


def test_users_have_words_of_their_own_for_the_kinds():
    assert [Target(kind).task for kind in ("single", "multi", "regression")] == ["classification", "multilabel",
                                                                                 "regression"]
    assert Target("single", (3, 7.0, 2.5, True)).names == ("3", "7", "2.5", "True")


def test_a_data_sets_targets_make_the_batches_that_its_labels_make():
    ids, names = some_ids([5] * 12), ["a", "b", "c"]
    labels = [names[i % 3] for i in range(11)] + [None]
    split = dict(train=range(8), valid=range(8, 11), bs=4)
    plain = classifier_dataloaders(ids, labels, classes=names, **split)
    given = classifier_dataloaders(ids, Targets.of(dataset(labels, tuple(names)), np.arange(8)), **split)
    assert torch.equal(plain.train_ds.targets, given.train_ds.targets) and list(given.vocab[1]) == list(names)
    numbers = Targets.of(dataset([str(i) for i in range(11)] + [None]), np.arange(8))
    assert classifier_dataloaders(ids, numbers, **split).valid_ds.targets.tolist() == numbers.values[8:11].tolist()
    with pytest.raises(ValueError, match="rows 11 have none"):
        classifier_dataloaders(ids, numbers, train=range(8), valid=[8, 11])
    with pytest.raises(ValueError, match="classes are given twice"):
        classifier_dataloaders(ids, numbers, classes=names, **split)
    with pytest.raises(ValueError, match="without classes= labels must be numbers, found a, b, c and 5 more"):
        classifier_dataloaders(ids, labels, **split)


def test_new_texts_are_split_in_the_language_that_is_given():
    ids = some_ids([5] * 12)
    dls = classifier_dataloaders(ids, ["a", "b"] * 6, classes=["a", "b"], train=range(8), valid=range(8, 12), lang="de")
    assert dls.test_dl(["w1 w2"]).dataset.tokenizer.lang == dls.train_ds.tokenizer.lang == "de"


@pytest.mark.parametrize(("label", "missing"), [
    (None, True), (float("nan"), True), (np.float32("nan"), True), (" ", True), ("a", False), (0, False), ([], False),
    (np.zeros(2), False),
])
def test_a_missing_label_is_told_from_one_of_no_class(label, missing):
    assert is_missing(label) is missing


def test_columns_of_0_and_1_are_taken_by_their_names_and_rows_by_position():
    target, rows = Target("multi", ("x", "y")), np.arange(3)
    given = pd.DataFrame({"y": [0, 0, 1], "x": [1, 0, 1]}, index=[7, 7, 2])
    assert target.encode(given, rows).tolist() == [[1, 0], [0, 0], [1, 1]]
    assert target.encode(given.to_numpy(), rows).tolist() == [[0, 1], [0, 0], [1, 1]], "an array has no names"
    assert target.encode(given.set_axis([0, 1], axis=1), rows).tolist() == [[0, 1], [0, 0], [1, 1]], "nor have counted"
    for other in (given.rename(columns={"y": "z"}), given[["x", "x"]], given[["x", "y", "y"]]):
        with pytest.raises(ValueError, match="columns of the labels are called .* expected the classes x, y"):
            target.encode(other, rows)
    one = pd.DataFrame({"label": ["y", "x", "x"]}, index=[2, 1, 0])
    for column in (one, one.to_numpy(), one["label"]):
        assert Target("single", ("x", "y")).encode(column, rows).tolist() == [1, 0, 0]
