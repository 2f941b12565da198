"""The paper's numbers, the intervals, and the verdicts that follow from them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from types import SimpleNamespace

import pytest

from ulmfit_fastai import paper
from ulmfit_fastai.recipe.ablations import low_shot
from ulmfit_fastai.recipe.find import named_recipe
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.results import verdict as verdicts
from ulmfit_fastai.results.intervals import half_width, interval, wilson_interval
from ulmfit_fastai.results.verdict import check, differences_in_scale, judge, reference

BOTH, FORWARD = ("forward", "backward"), ("forward",)
IMDB_COUNTS = {"train": 25000, "test": 25000, "unsup": 50000}


def result(error=4.7, *, n=25000, directions=BOTH, recipe=None, task="imdb", status="finished", **data):
    """What `check` reads of a Result."""
    recipe = recipe or preset("fastai", directions=directions)
    data = {"name": task, "counts": IMDB_COUNTS, "synthetic": False, "fingerprint": "f", "notes": []} | data
    return SimpleNamespace(folder=Path("runs/x"), task=task, error=error, n_test=n, directions=tuple(directions),
                           recipe_dict=recipe.to_dict(), data=data, protocol=recipe.protocol, run={"status": status})


# -- the numbers ------------------------------------------------------------------------------------------------------


def test_ulmfits_own_row_is_the_best_of_tables_2_and_3():
    for name in ("table2-imdb", "table2-trec6", "table3"):
        table = paper.TABLES[name]
        for task in table.tasks:
            assert table.error(table.ours, task).value == min(table.error(row, task).value for row in table.rows)


def test_the_full_method_has_the_same_errors_in_every_table_of_the_analysis():
    for task, error in (("imdb", 5.00), ("trec6", 5.69), ("ag", 5.38)):
        for name in ("table4", "table5", "table6", "table7"):
            assert paper.TABLES[name].error(paper.TABLES[name].ours, task).value == error


def test_tables_give_a_number_with_its_place_and_refuse_what_they_lack():
    number = paper.TABLES["table7"].error("chain_thaw", "trec6")
    assert (number.value, number.where, number.mark) == (6.71, "Table 7", "C")
    assert paper.TABLES["table7"].label("chain_thaw") == "Chain-thaw"
    with pytest.raises(ValueError, match="asked for 'full' on 'dbpedia'"):
        paper.TABLES["table7"].error("full", "dbpedia")


def test_every_task_has_a_test_error_and_every_number_a_place_and_a_mark():
    for task in paper.TASKS:
        for both in (True, False):
            number = reference(task, both=both)
            assert number.value > 0 and number.where and number.mark in ("C", "C2", "M", "D")
    for number in (*paper.HYPERPARAMETERS.values(), *paper.LOW_SHOT.values()):
        assert number.where and number.mark in ("C", "C2", "M")


def test_one_direction_is_stated_for_imdb_and_derived_and_marked_so_elsewhere():
    assert reference("imdb", both=False).value == 5.30 and reference("imdb", both=False).mark == "C"
    derived = reference("trec6", both=False)
    assert derived.value == pytest.approx(3.6 * 5.30 / 4.58, abs=0.01) and derived.mark == "D" and derived.note


def test_the_gain_from_both_directions_is_the_difference_the_paper_states():
    gain = paper.ONE_DIRECTION.value - paper.BOTH_DIRECTIONS.value
    assert paper.BIDIRECTIONAL_GAIN[0].value <= gain <= paper.BIDIRECTIONAL_GAIN[1].value + 0.05


def test_a_task_the_paper_lacks_is_refused():
    with pytest.raises(ValueError, match="no test error for 'sst'; it has trec6, imdb"):
        reference("sst", both=True)


# -- tolerance --------------------------------------------------------------------------------------------------------


def test_the_imdb_tolerance_lies_just_above_what_is_published_for_fastai_v2():
    on_v2 = [p for p in paper.PUBLISHED if p.fastai_v2]
    worst_forward = max(p.error("forward") for p in on_v2)
    worst_both = max(p.error("both") for p in on_v2 if p.both)
    assert worst_forward < verdicts.TOLERATED_IMDB["one"] <= worst_forward + 0.25
    assert worst_both < verdicts.TOLERATED_IMDB["both"] <= worst_both + 0.25


def test_the_spread_is_two_standard_deviations_of_the_published_forward_errors():
    errors = [p.error("forward") for p in paper.PUBLISHED if p.source != "a plain PyTorch port"]
    assert fmean(errors) == pytest.approx(5.49, abs=0.01) and stdev(errors) == pytest.approx(0.27, abs=0.01)
    assert verdicts.SPREAD == pytest.approx(2 * stdev(errors) / fmean(errors), abs=0.005)


@pytest.mark.parametrize("task", [task for task in paper.TASKS if task != "imdb"])
@pytest.mark.parametrize("both", [True, False])
def test_elsewhere_the_tolerance_is_the_paper_plus_sampling_plus_spread(task, both):
    number = reference(task, both=both).value
    expected = number + half_width(number, paper.TASKS[task].test) + verdicts.SPREAD * number
    assert verdicts.tolerated(task, both=both) == pytest.approx(expected, abs=0.006)


# -- intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task, expected", [("trec6", 1.63), ("imdb", 0.26), ("yelp-bi", 0.15), ("yelp-full", 0.40),
                                            ("ag", 0.49), ("dbpedia", 0.07)])
def test_half_widths_at_the_papers_errors(task, expected):
    assert half_width(reference(task, both=True).value, paper.TASKS[task].test) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("wrong, n", [(0, 10), (10, 10), (18, 500), (1150, 25000), (1, 1)])
def test_wilson_is_scipys(wrong, n):
    from scipy.stats import binomtest

    theirs = binomtest(wrong, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(wrong, n) == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=1e-9)


@pytest.mark.parametrize("wrong, n", [(-1, 10), (11, 10), (0, 0)])
def test_impossible_counts_are_refused(wrong, n):
    with pytest.raises(ValueError, match="0 <= wrong <= n"):
        wilson_interval(wrong, n)


def test_one_seed_has_the_sampling_interval():
    assert interval(4.6, 25000) == interval([4.6], 25000) == wilson_interval(1150, 25000)


def test_several_seeds_add_their_own_spread_to_the_sampling():
    from scipy.stats import t

    errors = [5.0, 5.4, 5.2]
    low, high = interval(errors, 25000)
    seeds = t.ppf(0.975, 2) * stdev(errors) / 3**0.5
    expected = (half_width(5.2, 25000) ** 2 + seeds**2) ** 0.5
    assert (low + high) / 2 == pytest.approx(5.2) and (high - low) / 2 == pytest.approx(expected)


def test_more_seeds_never_shrink_the_interval_below_the_test_sets_sampling():
    low, high = interval([5.2] * 1000, 500)
    assert (high - low) / 2 == pytest.approx(half_width(5.2, 500))


def test_an_interval_stays_between_0_and_100():
    assert interval([0.0, 1.0], 50)[0] == 0.0 and interval([99.0, 100.0], 50)[1] == 100.0


def test_no_error_has_no_interval():
    with pytest.raises(ValueError, match="errors is empty"):
        interval([], 500)


# -- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error, directions, status", [
    (4.2, BOTH, "reproduced"), (4.6, BOTH, "reproduced"), (4.85, BOTH, "reproduced"), (4.9, BOTH, "within tolerance"),
    (5.1, BOTH, "within tolerance"), (5.2, BOTH, "short"), (5.3, FORWARD, "reproduced"), (5.5, FORWARD, "reproduced"),
    (5.7, FORWARD, "within tolerance"), (5.9, FORWARD, "within tolerance"), (6.0, FORWARD, "short"),
    (5.7, ("backward",), "within tolerance"),
])
def test_verdicts_on_imdb(error, directions, status):
    verdict = judge("imdb", error, 25000, directions=directions)
    assert verdict.status == status and verdict.ours == error
    assert verdict.exit_code == (1 if status == "short" else 0)


@pytest.mark.parametrize("error, status", [(3.6, "reproduced"), (5.0, "reproduced"), (5.4, "within tolerance"),
                                           (5.8, "short")])
def test_a_small_test_set_is_given_its_sampling_error(error, status):
    assert judge("trec6", error, 500, directions=BOTH).status == status


def test_seeds_far_apart_do_not_reproduce_anything():
    verdict = judge("imdb", [7.0, 9.0], 25000, directions=BOTH)  # two seeds: the interval contains the paper's 4.6
    assert verdict.interval[0] < 4.6 and verdict.status == "short"


def test_the_published_fastai_v2_results_would_pass_and_the_plain_port_would_not():
    for published in paper.PUBLISHED:
        expected = published.source != "a plain PyTorch port"
        verdict = judge("imdb", published.error("forward"), 25000, directions=FORWARD)
        assert (verdict.exit_code == 0) == expected
        if published.both:
            assert judge("imdb", published.error("both"), 25000, directions=BOTH).exit_code == 0


def test_a_run_below_the_papers_size_makes_no_claim_however_good_or_bad():
    for error in (3.0, 14.0):
        verdict = judge("imdb", error, 25000, directions=BOTH, paper_scale=False, reasons=("the model has layers 2",))
        assert verdict.status == "no claim" and verdict.exit_code == 0
        assert "the model has layers 2" in verdict.text and "4.6 %" in verdict.text


def test_a_data_set_the_paper_lacks_makes_no_claim():
    verdict = judge("custom", 3.0, 100, directions=FORWARD)
    assert verdict.status == "no claim" and verdict.paper is None and verdict.interval == wilson_interval(3, 100)


def test_the_text_says_what_was_measured_what_the_paper_has_and_what_follows():
    text = judge("imdb", (4.7, 4.8, 4.75), 25000, directions=BOTH).text
    for part in ("4.75 %", "25,000 texts", "both directions averaged", "mean of 3 seeds", "95 % interval",
                 "sampling and seeds", "4.6 % on IMDb (Table 2)", "Reproduced"):
        assert part in text
    assert "forward only" in judge("imdb", 5.2, 25000, directions=FORWARD).text
    assert "one direction: 3.6 times" in judge("trec6", 5.2, 500, directions=FORWARD).text


def test_the_text_warns_of_the_tutorial_protocol():
    assert "seen the test texts" in judge("imdb", 4.7, 25000, directions=BOTH, protocol="tutorial").text
    assert "seen the test texts" not in judge("imdb", 4.7, 25000, directions=BOTH).text


# -- runs -------------------------------------------------------------------------------------------------------------


def test_a_full_run_is_judged_and_its_recipe_read():
    verdict = check(result(4.7))
    assert verdict.status == "reproduced" and verdict.paper.value == 4.6 and str(verdict).startswith("reproduced: ")
    assert check(result(5.7, directions=FORWARD)).status == "within tolerance"
    assert check(result(6.5)).exit_code == 1


@pytest.mark.parametrize("name", ["paper", "paper-wt103", "scripts", "fastai"])
def test_the_large_presets_on_the_whole_of_imdb_are_the_papers_experiment(name):
    assert differences_in_scale("imdb", preset(name).to_dict(), {"counts": IMDB_COUNTS}) == ()


@pytest.mark.parametrize("changes, data, reason", [
    ({}, {"synthetic": True}, "synthetic"),
    ({}, {"counts": IMDB_COUNTS | {"train": 5000}}, "5,000 of the 25,000 train texts"),
    ({}, {"counts": IMDB_COUNTS | {"test": 1000}}, "1,000 of the 25,000 test texts"),
    ({}, {"counts": IMDB_COUNTS | {"unsup": 0}}, "0 of the 50,000 unlabelled texts"),
    ({"weights": "none"}, {}, "not pretrained"), ({"weights": "wiki-small"}, {}, "less than WikiText-103"),
    ({"weights": "none", "model.n_hid": 512}, {}, "hidden units 512, the paper's 1150"),
    ({"lm": None}, {}, "not fine-tuned"), ({"n_labels": 500}, {}, "only 500 labels"),
    ({"lm.max_docs": 1000}, {}, "lm training used at most 1,000 texts"),
    ({"classifier.max_docs": 2000}, {}, "classifier training used at most 2,000 texts"),
    ({"lm_texts": "labelled"}, {}, "on the labelled texts only"),
])
def test_whatever_is_smaller_than_the_paper_is_named_and_makes_no_claim(changes, data, reason):
    verdict = check(result(4.0, recipe=preset("fastai", **changes), **data))
    assert verdict.status == "no claim" and reason in verdict.text


def test_weights_of_ones_own_make_a_claim_only_if_the_corpus_was_as_large_as_the_papers():
    for tokens, status in ((5_000_000, "no claim"), (120_000_000, "reproduced")):
        run = result(4.6, recipe=preset("fastai", weights="runs/wiki"))
        run.run = {"weights": {"forward": {"name": "wiki", "tokens": tokens}, "backward": {"name": "wiki"}}}
        verdict = check(run)
        assert verdict.status == status
        assert ("pretrained on 5 million tokens" in verdict.text) == (status == "no claim")


@pytest.mark.parametrize("name", ["quick", "demo", "tiny"])
def test_the_small_presets_make_no_claim(name):
    assert check(result(3.0, recipe=preset(name))).status == "no claim"


def test_low_shot_recipes_make_no_claim():
    recipe = low_shot("supervised", 100)
    assert check(result(3.0, recipe=recipe, directions=FORWARD)).status == "no claim"


def test_an_unfinished_run_has_no_verdict():
    verdict = check(result(None, status="stopped"))
    assert verdict.status == "no claim" and "not finished" in verdict.text and verdict.ours is None


@pytest.mark.parametrize("name, error, paper_error, status", [
    ("ulmfit", 5.1, 5.00, "reproduced"), ("table7.freez_discr_stlr", 5.8, 5.00, "reproduced"),
    ("table7.last", 6.0, 6.49, "reproduced"), ("table7.last", 7.3, 6.49, "reproduced"),
    ("table7.last", 9.0, 6.49, "short"), ("table4.without", 6.0, 5.63, "reproduced"),
    ("table6.none", 7.0, 6.99, "reproduced"), ("table7.from_scratch", 9.5, 9.93, "reproduced"),
])
def test_a_row_of_the_analyses_is_compared_with_that_rows_validation_error(name, error, paper_error, status):
    verdict = check(result(error, n=2500, recipe=named_recipe(name), directions=FORWARD))
    assert verdict.status == status and verdict.paper.value == paper_error
    assert verdict.text.startswith("Validation error") and f"{paper_error:g} % on IMDb (Table" in verdict.text


def test_a_row_at_a_smaller_size_makes_no_claim():
    smaller = named_recipe("table7.last", "imdb", preset("quick"))
    verdict = check(result(9.0, n=2500, recipe=smaller, directions=FORWARD))
    assert verdict.status == "no claim" and "hidden units 640" in verdict.text


def test_a_validation_error_of_some_other_recipe_is_compared_with_nothing():
    mine = preset("fastai", evaluate="validation", name="mine")
    verdict = check(result(4.0, recipe=mine))
    assert verdict.status == "no claim" and "no row 'mine'" in verdict.text and verdict.paper is None
    other_task = check(result(4.0, recipe=named_recipe("table7.last"), directions=FORWARD, task="dbpedia"))
    assert other_task.status == "no claim" and other_task.paper is None


def test_runs_that_differ_in_their_seed_are_judged_together():
    runs = [result(error, recipe=preset("fastai", seed=seed)) for seed, error in enumerate((4.7, 4.9, 4.8))]
    verdict = check(*runs)
    assert verdict.ours == pytest.approx(4.8) and "mean of 3 seeds" in verdict.text
    assert verdict.interval == interval([4.7, 4.9, 4.8], 25000)


def test_a_run_from_before_a_field_was_there_is_the_same_experiment():
    before, now = (result(error, recipe=preset("fastai", seed=seed)) for seed, error in enumerate((4.7, 4.9)))
    before.recipe_dict.pop("adversarial")
    assert "mean of 2 seeds" in check(before, now).text


@pytest.mark.parametrize("other", [
    result(4.7, recipe=preset("fastai", **{"classifier.bs": 32})), result(4.7, directions=FORWARD),
    result(4.7, fingerprint="g"), result(4.7, task="ag"),
], ids=["recipe", "directions", "data", "task"])
def test_runs_that_differ_in_more_than_their_seed_are_not_averaged(other):
    with pytest.raises(ValueError, match="are different experiments"):
        check(result(4.7), other)


def test_check_wants_a_result():
    with pytest.raises(ValueError, match="at least one Result"):
        check()


def test_every_verdict_is_a_sentence_for_people():
    for verdict in (judge("imdb", e, 25000, directions=BOTH) for e in (4.0, 5.0, 9.0)):
        assert verdict.text.endswith(".") and not re.search(r"None|nan|\{|\}", verdict.text)
        assert replace(verdict, status="short").exit_code == 1
