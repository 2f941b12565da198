"""One model, many threads: the numbers of one thread, whatever else is at work in the process."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from some_texts import reviews, tiny

from ulmfit_fastai import ULMFiT

TEXTS, LABELS = reviews(24)
THREADS = 8


@pytest.fixture(scope="module")
def model():
    return tiny(epochs=1, directions="both").fit(TEXTS, LABELS)


def at_once(calls):
    with ThreadPoolExecutor(THREADS) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


@pytest.mark.parametrize("calls", [80, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("equal", [True, False], ids=["equal lengths", "unequal lengths"])
def test_threads_that_share_a_model_get_the_bits_of_one(model, equal, calls):
    words = "a fine film with bad jokes and good songs that I liked".split()
    several = [[" ".join(words[(i + k) % 12] for k in range(5 if equal else 1 + (7 * i + j) % 40))
                for j in range(3)] for i in range(THREADS)]
    alone = [model.predict_proba(texts) for texts in several]
    found = at_once([lambda i=i: model.predict_proba(several[i % THREADS]) for i in range(calls)])
    assert sum(not np.array_equal(one, alone[i % THREADS]) for i, one in enumerate(found)) == 0


def test_threads_may_predict_explain_and_evaluate_with_one_model(model):
    words, error = model.explain(TEXTS[0]).words, model.evaluate(TEXTS, LABELS).metrics
    probs = model.predict_proba(TEXTS)
    calls = [lambda: model.explain(TEXTS[0]).words == words, lambda: model.evaluate(TEXTS, LABELS).metrics == error,
             lambda: np.array_equal(model.predict_proba(TEXTS), probs)]
    assert all(at_once(calls * 6))


def test_a_model_with_its_lock_can_be_copied_and_pickled(model):
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(again.predict_proba(TEXTS[:3]), model.predict_proba(TEXTS[:3]))


def test_loading_draws_no_random_number_from_a_training_beside_it(model, tmp_path):
    folder = model.save(tmp_path / "model")
    before = torch.get_rng_state()
    ULMFiT.load(folder).predict(TEXTS[:2])
    assert torch.equal(torch.get_rng_state(), before)


def test_two_fits_at_once_come_to_the_numbers_of_each_alone(caplog):
    def fitted(seed):
        return tiny(epochs=1, random_state=seed).fit(TEXTS, LABELS).predict_proba(TEXTS)

    alone = [fitted(seed) for seed in (1, 2)]
    found = at_once([lambda: fitted(1), lambda: fitted(2)])
    assert all(map(np.array_equal, found, alone)) and "waits for its end" in caplog.text
