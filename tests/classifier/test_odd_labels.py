"""Labels of every kind through every door: fit, save, load, predict, evaluate, plot; and the texts beside them."""

from __future__ import annotations

import json
import logging
import warnings

import numpy as np
import pandas as pd
import pytest
from odd_tables import LABELS, REFUSED_LABELS, Mood
from sklearn.metrics import accuracy_score
from some_texts import reviews, tiny

from ulmfit_fastai import ULMFiT
from ulmfit_fastai._errors import UlmfitError
from ulmfit_fastai.classifier.labels import aligned, class_weights, known_values, read_labels
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.report.report import write_report
from ulmfit_fastai.results.evaluation import Evaluation
from ulmfit_fastai.results.figures import run_figure
from ulmfit_fastai.results.result import Result
from ulmfit_fastai.texts.dataset import from_frame
from ulmfit_fastai.training.runs import run

TEXTS = reviews(12)[0]


def same(found, expected):
    return list(found) == list(expected) and [*map(type, found)] == [*map(type, expected)]


@pytest.mark.parametrize("labels", LABELS, ids=lambda labels: labels.name)
def test_classes_are_the_same_from_reading_to_drawing(labels, tmp_path):
    values = [labels.two[i % 2] for i in range(len(TEXTS))]
    given = labels.whole(values) if labels.whole else values
    task = "auto" if "section" not in labels.name else "classification"
    model = tiny(epochs=1, task=task, out=tmp_path / "r").fit(TEXTS, given)
    expected = sorted(labels.classes) if labels.name in ("Fraction",) else labels.classes
    assert same(model.model_.target.classes, expected)
    loaded = ULMFiT.load(model.save(tmp_path / "m"))
    assert same(loaded.model_.target.classes, expected) and same(loaded.classes_.tolist(), model.classes_.tolist())
    assert same(json.loads((tmp_path / "m" / "config.json").read_text())["classes"], expected)
    predicted = [model.predict(TEXTS).tolist(), loaded.predict(TEXTS).tolist()]
    assert predicted[0] == predicted[1] and len(predicted[0]) == len(TEXTS)
    if model.model_.target.kind == "single":
        assert set(predicted[0]) <= set(expected)
    told = model.evaluate(TEXTS, given).metrics
    assert loaded.evaluate(TEXTS, given).metrics == told
    if model.model_.target.kind == "single":
        assert write_report(tmp_path / "r", explain=False).is_file()
        Result.load(tmp_path / "r").plot().savefig(tmp_path / "r.png", dpi=20)
    for other in labels.spelt:  # a file that lacks the second class, and spells the first in its own way
        alone = loaded.evaluate(TEXTS[::2], [other] * 6).metrics
        assert alone["n"] == 6 and alone["wrong"] == model.evaluate(TEXTS[::2], values[::2]).metrics["wrong"]


def test_the_predictions_of_an_enum_equal_its_members():
    model = tiny(epochs=1).fit(TEXTS, [Mood.BAD, Mood.GOOD] * 6)
    labels = np.empty(12, object)
    labels[:] = [Mood.BAD, Mood.GOOD] * 6  # a plain list numpy cuts to 'Mood' and 'Mood'
    predicted = model.predict(TEXTS)
    assert model.score(TEXTS, labels) == np.mean(labels == predicted) == accuracy_score(labels, predicted)


def test_a_class_of_any_name_is_drawn(tmp_path):
    for labels in LABELS:
        names = read_labels(labels.whole([*labels.two] * 2) if labels.whole else [*labels.two] * 2).names
        counts = pd.DataFrame(np.eye(len(names)), index=pd.Index(names), columns=pd.Index(names))
        empty = pd.DataFrame({"phase": [], "direction": [], "step": [], "group": [], "lr": []})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run_figure(empty, empty, counts).savefig(tmp_path / "x.png", dpi=20)
        probs = np.full((len(names), max(2, len(names))), 1 / max(2, len(names)))
        every = [*names, "another"][:probs.shape[1]]
        json.dumps(Evaluation.of("single", probs, list(range(len(names))), every).to_dict())


def test_a_run_with_classes_of_odd_names_is_reported_and_drawn(tmp_path):
    names = ["$0-$10_$20^{", "<b>", "NA", "1.10", "cafe\r"]
    texts = reviews(60)[0]
    frame = pd.DataFrame({"text": texts, "label": [names[i % 5] for i in range(60)]})
    dataset = from_frame(frame, text="text", label="label", test=0.25)
    run(preset("tiny", "custom"), dataset, tmp_path / "r", progress=False)
    page = write_report(tmp_path / "r").read_text()
    assert "&lt;b&gt;" in page and "<b></" not in page and "1.10" in page
    result = Result.load(tmp_path / "r")
    result.plot().savefig(tmp_path / "r.png", dpi=30)
    assert {*result.predictions["label"]} <= {*names[:4], "cafe"}


@pytest.mark.parametrize(("name", "labels", "why"), REFUSED_LABELS, ids=lambda value: value if value is str else None)
def test_labels_that_no_file_keeps_are_refused_before_the_training(name, labels, why):
    with pytest.raises(UlmfitError, match=why):
        read_labels(labels)


def test_the_count_of_what_was_tried_is_said(capsys):
    with capsys.disabled():
        print(f"\n{len(LABELS)} kinds of labels kept, {len(REFUSED_LABELS)} refused")


def test_labels_are_put_into_the_texts_order_by_their_index(caplog):
    texts = pd.Series(list("abcd"), index=[3, 1, 2, 0])
    labels = pd.Series([0, 1, 2, 3], index=[0, 1, 2, 3])
    with caplog.at_level(logging.WARNING):
        assert aligned(labels.set_axis([3, 1, 2, 0]), texts).tolist() == [0, 1, 2, 3] and not caplog.text
        assert aligned(labels, texts).tolist() == [3, 1, 2, 0]
    assert "index in another order" in caplog.text, "it may be no more than a count"
    assert aligned(labels, texts.to_frame()).tolist() == [3, 1, 2, 0]
    assert aligned(labels.to_frame(), texts)[0].tolist() == [3, 1, 2, 0]
    assert aligned(labels, texts.tolist()) is labels, "a list has no index: position decides"
    counted = texts.set_axis([10, 11, 12, 13])
    assert aligned(labels, counted) is labels, "a plain count of rows stands for the order"
    with pytest.raises(UlmfitError, match="other values than the texts"):
        aligned(labels.set_axis([4, 5, 6, 9]), counted)
    assert aligned(labels.set_axis([1, 1, 2, 2]), texts.set_axis([1, 1, 2, 2])).tolist() == [0, 1, 2, 3]
    with pytest.raises(UlmfitError, match="other values than the texts"):
        aligned(labels.set_axis([1, 2, 1, 2]), texts.set_axis([1, 1, 2, 2]))


def test_columns_of_0_and_1_are_judged_by_their_names():
    given = pd.DataFrame({"x": [1, 0, 1], "y": [0, 0, 1]})
    target = read_labels(given).target
    values, classes = known_values(read_labels(given[["y", "x"]]), target)
    assert [set(value) for value in values] == [{0}, set(), {0, 1}] and classes == ("x", "y")
    values, _ = known_values(read_labels(given.to_numpy()), target)
    assert values == [(0,), (), (0, 1)], "an array has no names: position decides"


def test_the_weight_of_a_class_is_found_in_every_spelling():
    labels = read_labels([True, False])
    assert class_weights({"true": 5}, labels) == (1.0, 5.0)
    assert class_weights(pd.Series({False: 2}), labels) == (2.0, 1.0)


def test_blanks_and_accents_that_are_merged_are_said(caplog):
    with caplog.at_level(logging.WARNING):
        assert read_labels(["pos ", "pos", "cafe\u0301"]).names == ("caf\u00e9", "pos")
    assert "'pos ' is read as 'pos'" in caplog.text and caplog.text.count("\n") == 1


def test_minus_one_beside_other_numbers_is_a_class_and_that_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        assert read_labels([-1, 0, 1, 2]).names == ("-1", "0", "1", "2")
    assert "-1 is a class like the others" in caplog.text


# ---------------------------------------------------------------------------------------------- numbers far from zero
def test_numbers_far_from_zero_are_as_right_as_those_near_it():
    near = [3 * i for i in range(len(TEXTS))]
    far = [1_700_000_000 + value for value in near]
    models = [tiny(epochs=1, task="regression").fit(TEXTS, labels) for labels in (near, far)]
    predicted = [model.predict(TEXTS) for model in models]
    np.testing.assert_allclose(predicted[1] - 1_700_000_000, predicted[0], atol=1e-4)
    assert len(set(predicted[1])) == len(set(predicted[0])) > 1 and predicted[1].dtype == np.float64
    told = [model.evaluate(TEXTS, labels).metrics for model, labels in zip(models, (near, far))]
    assert told[1]["mae"] == pytest.approx(told[0]["mae"], abs=1e-3)
    held = [model.metrics_["forward"]["mae"] for model in models]
    assert held[1] == pytest.approx(held[0], abs=1e-3) and held[0] > 0


@pytest.mark.parametrize("big", [1e39, -1e300])
def test_numbers_that_float32_cannot_hold_are_refused_before_the_training(big):
    with pytest.raises(UlmfitError, match="which float32 can hold"):
        tiny(task="regression").fit(TEXTS, [big, 2] * 6)


# ---------------------------------------------------------------------------------------------------- columns by names
@pytest.mark.parametrize(("columns", "text", "label"), [
    ([1, 0], 1, 0), ([0, 1], 0, 1), ([0, 1], [0], 1), ([("review", "text"), ("meta", "label")], ("review", "text"),
                                                       ("meta", "label")),
    ([None, "label"], [None], "label"), ([2.5, True], 2.5, True), (["text", "label"], None, None),
])
def test_whatever_names_a_column_is_its_name(columns, text, label, tmp_path):
    frame = pd.DataFrame({"a": TEXTS, "b": ["bad", "good"] * 6}).set_axis(pd.Index(columns), axis=1)
    model = tiny(epochs=1).fit(frame, text=text, label=label)
    loaded = ULMFiT.load(model.save(tmp_path / "m"))
    assert loaded.predict(frame).tolist() == model.predict(frame).tolist() == model.predict(TEXTS).tolist()
    assert loaded.evaluate(frame).metrics == model.evaluate(frame).metrics


def test_a_name_that_two_columns_have_is_refused():
    frame = pd.DataFrame({"text": TEXTS, "label": ["bad", "good"] * 6})
    model = tiny(epochs=1).fit(frame, text="text", label="label")
    for twice in (pd.concat([frame, frame[["text"]]], axis=1), pd.concat([frame, frame[["label"]]], axis=1)):
        with pytest.raises(UlmfitError, match="2 columns are called (text|label)"):
            tiny().fit(twice, text="text", label="label")
    with pytest.raises(UlmfitError, match="2 columns are called text"):
        model.predict(pd.concat([frame, frame[["text"]]], axis=1))
    with pytest.raises(UlmfitError, match="one row of a frame"):
        model.predict(frame.iloc[0])
    for unordered in (set(TEXTS), {"a": TEXTS[0]}):
        with pytest.raises(UlmfitError, match="no order of its own"):
            model.predict(unordered)


# ---------------------------------------------------------------------------------------------- doubts, texts missing
@pytest.mark.parametrize(("texts", "lang", "said"), [
    (["这部电影非常好看剧情感人", "这部电影很无聊浪费时间"] * 6, "en", "lang='zh'"),
    (["とてもいい映画でした", "つまらない映画だった"] * 6, "en", "lang='ja'"),
    (["หนังเรื่องนี้สนุกมาก", "หนังเรื่องนี้น่าเบื่อ"] * 6, "de", "lang='th'"),
    ([f"A-{i:05}" for i in range(12)], "en", "as ids are"), ([str(i) for i in range(12)], "en", "has a letter"),
    ([f"word{chr(97 + i)} other{chr(97 + i)}" for i in range(12)], "en", "unknown to the model"),
])
def test_what_may_be_no_text_is_said_before_the_training(texts, lang, said, caplog):
    with caplog.at_level(logging.WARNING, "ulmfit_fastai"):
        tiny(epochs=1, lang=lang, weights="none").fit(texts, [0, 1] * 6)
    assert said in caplog.text


def test_a_missing_text_keeps_its_row_and_loses_its_prediction(caplog):
    for labels, task in ((["bad", "good"] * 6, "auto"), ([1, 2] * 6, "auto"), ([["a"], ["a", "b"]] * 6, "auto"),
                         (np.eye(2)[[0, 1] * 6], "auto"), (range(12), "regression")):
        model = tiny(epochs=1, task=task).fit(TEXTS, labels if isinstance(labels, np.ndarray) else list(labels))
        caplog.clear()
        with caplog.at_level(logging.WARNING, "ulmfit_fastai"):
            found = model.predict([TEXTS[0], "", None, "  ", TEXTS[1]])
        assert len(found) == 5 and "rows 1, 2, 3 (counted from 0) of column text are empty" in caplog.text
        assert pd.isna(pd.DataFrame(found[1:4].tolist())).to_numpy().all()
        full = model.predict(TEXTS[:2])
        assert pd.DataFrame(found[[0, 4]].tolist()).astype(str).equals(pd.DataFrame(full.tolist()).astype(
            found.dtype).astype(str)) if found.dtype != object else found[[0, 4]].tolist() == full.tolist()
        with pytest.raises(UlmfitError, match="rows 1 .*|row 1 "):
            model.predict([TEXTS[0], ""], strict=True)
        streamed = np.concatenate(list(model.predict_stream(iter([TEXTS[0], None, ""]))))
        assert np.isnan(streamed).any(axis=1).tolist() == [False, True, True]


def test_half_a_character_is_mended_and_counted(caplog):
    with caplog.at_level(logging.WARNING, "ulmfit_fastai"):
        model = tiny(epochs=1).fit([*TEXTS[:-1], "half \ud83d"], ["bad", "good"] * 6)
        assert len(model.predict(["half \ud83d", "\ud83d\ude00"])) == 2
    assert "1 text with half a character" in caplog.text
