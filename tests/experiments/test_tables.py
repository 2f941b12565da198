"""Tables 2 to 7, Figures 3 and 4: shared stages run once, nothing is run twice, and the numbers are right."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from stops import StopAt

from ulmfit_fastai.cli.app import main
from ulmfit_fastai.experiments import grid, label_curves, main_results
from ulmfit_fastai.experiments.ablation_table import AblationTable, spearman
from ulmfit_fastai.experiments.baselines import log_count_ratio, nbsvm_baseline
from ulmfit_fastai.experiments.epoch_curves import figure4
from ulmfit_fastai.experiments.grid import plan_grid
from ulmfit_fastai.experiments.label_curves import lowshot
from ulmfit_fastai.experiments.labels_needed import labels_needed
from ulmfit_fastai.experiments.main_results import reproduce_all
from ulmfit_fastai.experiments.tables import ablate, seed_list, table_cells
from ulmfit_fastai.recipe.ablations import ROWS, ablation, full_method
from ulmfit_fastai.recipe.ablations import low_shot as low_shot_recipe
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.results import verdict as paper
from ulmfit_fastai.results.folder import RunFolder, RunMismatch
from ulmfit_fastai.results.result import Result
from ulmfit_fastai.texts.dataset import from_frame
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.training import runs, session, work
from ulmfit_fastai.training.baseline import tfidf_baseline
from ulmfit_fastai.training.prepare import rows_for
from ulmfit_fastai.training.sharing import adopt_language_model, language_model_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def reviews():
    """Under IMDb's name, so that the paper has numbers to put beside ours."""
    return replace(synthetic_reviews(n_train=60, n_test=20, n_unsup=20, seed=3), name="imdb")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def base():
    return preset("tiny").replace(**{"precision": "fp32", "lm.max_docs": 30})


@pytest.fixture(scope="module")
def options(base, cache):
    return {"base": base, "cache": cache, "progress": False}


class Fits:
    """Counts the phases that are trained."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count: Counter[str] = Counter()

        def counted(*args, name, **settings):
            self.count[name] += 1
            return original(*args, name=name, **settings)

        original = work.PhaseFit
        patch.setattr(work, "PhaseFit", counted)


@pytest.fixture
def fits(monkeypatch):
    return Fits(monkeypatch).count


@pytest.fixture(scope="module")
def table7(reviews, options, tmp_path_factory):
    """All ten rows, one seed: the table and what was trained for it."""
    with pytest.MonkeyPatch.context() as patch:
        fits = Fits(patch)
        table = ablate("table7", reviews, out=tmp_path_factory.mktemp("table7"), **options)
    return table, dict(fits.count)


@pytest.fixture
def copy7(table7, tmp_path):
    """Table 7 and a copy of its folder, to be added to."""
    return table7[0], Path(shutil.copytree(table7[0].folder, tmp_path / "table7"))


def folders(out: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in out.glob(pattern))


# --------------------------------------------------------------------------------------------------- what can be shared
SAME = {"name": "x", "classifier.bs": 8, "classifier.stages.0.lr": 0.5, "evaluate": "validation", "n_labels": 20,
        "model.head_hidden": 7, "model.classifier_dropouts.input": 0.3, "model.head_dropout": 0.3, "pretrain.bs": 8,
        "model.pretrain_dropouts.input": 0.3, "class_weights": (1.0, 2.0),
        "adversarial.weight": 1.0}
OTHER = {"seed": 1, "lm_seed": 3, "lm.bs": 8, "lm.stages.0.lr": 0.5, "weights": "wiki-small", "max_vocab": 999,
         "min_freq": 2, "model.n_hid": 40, "model.lm_dropouts.input": 0.3, "lm_texts": "labelled",
         "protocol": "tutorial",
         "valid_fraction": 0.2, "precision": "bf16", "fast": False, "model.tie_weights": False}


@pytest.mark.parametrize("field", SAME)
def test_what_only_the_classifier_reads_leaves_the_language_model_as_it_is(field, base):
    changed = base.replace(**{field: SAME[field]})
    assert changed != base
    assert language_model_recipe(changed, "forward").hash == language_model_recipe(base, "forward").hash


def test_runs_with_an_lm_seed_share_their_language_model(base, reviews):
    one, other = (base.replace(lm_seed=0, seed=seed, n_labels=20) for seed in (1, 2))
    assert language_model_recipe(one, "forward") == language_model_recipe(other, "forward")
    assert language_model_recipe(one, "forward").hash == language_model_recipe(base, "forward").hash
    a, b, alone = (rows_for(recipe, reviews) for recipe in (one, other, base))
    assert a.lm_train.tolist() == b.lm_train.tolist() == alone.lm_train.tolist()
    assert a.lm_valid.tolist() == b.lm_valid.tolist() == alone.lm_valid.tolist()
    assert a.train.tolist() != b.train.tolist()
    few = [recipe.replace(lm_texts="labelled") for recipe in (one, other)]  # they read the labelled texts: not the same
    assert language_model_recipe(few[0], "forward").hash != language_model_recipe(few[1], "forward").hash


def test_seeds_that_share_a_language_model_train_other_classifiers_and_say_so(reviews, options, fits, tmp_path):
    table = ablate("table7", reviews, out=tmp_path, rows=["last"], seeds=(0, 1), lm_seed=0, **options)
    assert fits == {"lm": 1, "classifier": 2}
    one, other = (tensors(tmp_path / f"table7.last-seed{seed}" / "classifier_forward.safetensors") for seed in (0, 1))
    assert one["1.layers.1.2.weight"] != other["1.layers.1.2.weight"]
    assert any("are those of seed 0 for all seeds" in note for note in table.notes)
    alone = ablate("table7", reviews, out=tmp_path / "alone", rows=["last"], **options)
    assert alone.errors["last"][0] == table.errors["last"][0] and "for all seeds" not in repr(alone)


@pytest.mark.parametrize("field", OTHER)
def test_what_the_language_model_depends_on_tells_two_apart(field, base):
    changed = base.replace(**{field: OTHER[field]})
    assert language_model_recipe(changed, "forward").hash != language_model_recipe(base, "forward").hash


def test_every_field_of_a_recipe_is_known_to_be_shared_or_not(base):
    known = {name.split(".")[0] for name in (*SAME, *OTHER)} | {"directions"}
    assert set(base.to_dict()) == known


def test_directions_have_language_models_of_their_own(base):
    both = base.replace(directions=("forward", "backward"))
    assert language_model_recipe(both, "forward") == language_model_recipe(base, "forward")
    assert language_model_recipe(both, "backward") != language_model_recipe(both, "forward")


def test_the_labels_matter_to_a_language_model_that_reads_only_labelled_texts(base):
    few, more = (low_shot_recipe("supervised", n, base=base) for n in (10, 20))
    assert language_model_recipe(few, "forward") != language_model_recipe(more, "forward")
    few, more = (low_shot_recipe("semi_supervised", n, base=base) for n in (10, 20))
    assert language_model_recipe(few, "forward") == language_model_recipe(more, "forward")


def test_pretraining_belongs_to_the_language_model_where_there_is_any(base):
    pretrained = base.replace(weights="pretrain")
    for change in ({"pretrain.bs": 8}, {"model.pretrain_dropouts.input": 0.3}):
        assert language_model_recipe(pretrained.replace(**change), "forward") != language_model_recipe(
            pretrained, "forward")


def test_reducing_a_reduced_recipe_changes_nothing(base):
    once = language_model_recipe(base, "backward")
    assert language_model_recipe(once, "backward") == once
    with pytest.raises(ValueError, match="no LM fine-tuning"):
        language_model_recipe(base.replace(lm=None), "forward")


def test_seeds_are_measured_on_the_same_texts_and_trained_on_others(base, reviews):
    one, other = (rows_for(low_shot_recipe("supervised", 20, base=base).replace(seed=seed), reviews) for seed in (0, 1))
    assert one.valid.tolist() == other.valid.tolist()
    assert one.train.tolist() != other.train.tolist() and not set(other.train) & set(one.valid)


# ------------------------------------------------------------------------------------------------------------- the grid
def test_the_rows_of_a_table_share_one_language_model(table7):
    table, fits = table7
    assert fits == {"lm": 1, "classifier": 10}
    assert len(folders(table.folder, "shared/*")) == 1
    assert table.finished and table.rows["row"].tolist() == list(ROWS["table7"])


def test_with_a_borrowed_language_model_a_run_is_as_it_would_be_alone(table7, reviews, base, cache, tmp_path):
    table, _ = table7
    alone = runs.run(ablation("table7.freez", "imdb", base), reviews, tmp_path / "alone", cache=cache, progress=False)
    shared = table.folder / "table7.freez-seed0"
    a, b = (json.loads((folder / "run.json").read_text()) for folder in (alone, shared))
    assert a["metrics"] == b["metrics"] and a["recipe_hash"] == b["recipe_hash"]
    a, b = (pd.read_csv(folder / "history.csv").drop(columns="seconds") for folder in (alone, shared))
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    for name in ("lm_forward.safetensors", "classifier_forward.safetensors"):
        assert tensors(alone / name) == tensors(shared / name)
    assert Result.load(shared).history["phase"].tolist()[:1] == ["lm"]


def tensors(path: Path) -> dict[str, list]:
    from safetensors.torch import load_file

    return {name: value.flatten().tolist() for name, value in load_file(path).items()}


def test_nothing_is_trained_twice(table7, reviews, options, fits):
    table, _ = table7
    again = ablate("table7", reviews, out=table.folder, **options)
    assert fits == {}
    pd.testing.assert_frame_equal(again.rows, table.rows, check_exact=True)


def test_another_table_takes_the_full_method_and_its_language_model_from_the_first(copy7, reviews, options, fits):
    table, folder = copy7
    second = ablate("table6", reviews, out=folder, **options)
    assert fits == {"lm": 2, "classifier": 3}  # the third language model, and the full method, are table 7's
    assert second.errors["full_discr_stlr"] == table.errors["freez_discr_stlr"]
    assert second.rows["paper"].tolist() == [6.99, 5.86, 5.55, 5.00]


def test_killed_between_two_runs_it_goes_on_to_the_same_table(table7, reviews, options, tmp_path, monkeypatch):
    table, _ = table7
    calls = []

    def killed(*args, **settings):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return runs.run(*args, **settings)

    monkeypatch.setattr(grid, "run", killed)
    rows = ["full", "last", "chain_thaw"]
    with pytest.raises(KeyboardInterrupt):
        ablate("table7", reviews, out=tmp_path, rows=rows, **options)
    part = AblationTable.load(tmp_path / "table7.json")
    assert list(part.missing) == ["table7.chain_thaw-seed0"] and "missing" in repr(part)
    assert math.isnan(part.rows["error"].iloc[2]) and not part.rows["error"].iloc[:2].isna().any()
    monkeypatch.undo()
    whole = ablate("table7", reviews, out=tmp_path, rows=rows, **options)
    assert whole.finished and whole.errors == {row: table.errors[row] for row in rows}


@pytest.mark.parametrize("n", [2, 12])  # in the language model; in the classifier
def test_stopped_within_a_run_it_goes_on_to_the_same_table(n, table7, reviews, options, tmp_path, monkeypatch):
    table, _ = table7
    monkeypatch.setattr(session, "Budget", lambda *_: StopAt(n))
    part = ablate("table7", reviews, out=tmp_path, rows=["full_discr"], **options)
    assert part.missing == {"table7.full_discr-seed0": "not run yet"}
    monkeypatch.undo()
    whole = ablate("table7", reviews, out=tmp_path, rows=["full_discr"], **options)
    assert whole.errors["full_discr"] == table.errors["full_discr"]


def test_rows_take_the_language_model_of_a_run_that_is_given(table7, reviews, options, tmp_path):
    table, _ = table7
    given = next((table.folder / "shared").glob("lm-forward-*"))
    plan = ablate("table7", reviews, out=tmp_path, rows=["last", "full"], lm_from=[given], dry_run=True, **options)
    assert plan.rows and not any("language model" in what for what, *_ in plan.rows)
    found = ablate("table7", reviews, out=tmp_path, rows=["last", "full"], lm_from=given, **options)
    assert found.errors["last"] == table.errors["last"]
    shared = next((tmp_path / "shared").glob("lm-forward-*"))
    record = json.loads((shared / "run.json").read_text())
    assert (shared / record["language_model_of"]["forward"]).resolve() == given.resolve()


def test_a_language_model_that_no_row_would_lead_to_is_refused(table7, reviews, options, tmp_path):
    table, _ = table7
    given = next((table.folder / "shared").glob("lm-forward-*"))
    for dry_run in (True, False):
        with pytest.raises(RunMismatch, match="lm.bptt"):
            ablate("table7", reviews, out=tmp_path, rows=["last"], lm_from=[given], dry_run=dry_run,
                   **options | {"lm.bptt": 9})
    with pytest.raises(RunMismatch, match="no run here fine-tunes a language model"):
        ablate("table7", reviews, out=tmp_path, rows=["from_scratch"], lm_from=[given], **options)
    assert not list(tmp_path.glob("*/run.json"))


def test_the_time_budget_is_for_all_runs_together(reviews, options, tmp_path, monkeypatch):
    clock, left = [0.0], []
    monkeypatch.setattr(grid.time, "monotonic", lambda: clock[0])

    def slow(recipe, dataset, folder, *, time_budget, **settings):
        left.append(time_budget)
        clock[0] += 4
        Path(folder).mkdir(parents=True)
        data = {"fingerprint": dataset.fingerprint}
        run = {"schema": 1, "status": "finished", "recipe_hash": recipe.hash, "data": data}
        (Path(folder) / "run.json").write_text(json.dumps(run))

    monkeypatch.setattr(grid, "run", slow)
    cells = table_cells("table7", "imdb", base=options["base"])
    missing = grid.run_grid(cells, reviews, tmp_path, time_budget=10)
    assert left == [10, 6, 2]
    assert len(missing) == 8  # from_scratch and, with the language model before it, full are there


def test_a_diverged_run_is_named_and_the_others_go_on(reviews, options, tmp_path, monkeypatch):
    def diverges(recipe, *args, **settings):
        if recipe.name == "table7.full":
            raise FloatingPointError("the training loss is no longer a number")
        return runs.run(recipe, *args, **settings)

    monkeypatch.setattr(grid, "run", diverges)
    table = ablate("table7", reviews, out=tmp_path, rows=["full", "from_scratch"], **options)
    assert table.missing == {"table7.full-seed0": "diverged: the training loss is no longer a number"}
    assert table.errors["from_scratch"] and not table.errors["full"]
    assert "diverged" in repr(table)


def test_a_folder_with_other_runs_is_refused(table7, reviews, options):
    table, _ = table7
    with pytest.raises(RunMismatch, match="classifier.bs: .* choose another out=$"):  # it has no resume=
        ablate("table7", reviews, out=table.folder, rows=["last"], **{**options, "classifier.bs": 8})


def test_a_language_model_of_another_making_is_refused(table7, base, reviews, tmp_path):
    table, _ = table7
    source = next((table.folder / "shared").iterdir())
    folder = RunFolder(tmp_path / "run")
    recipe = ablation("table7.full", "imdb", base)
    header = {"recipe": recipe.to_dict(), "recipe_hash": recipe.hash, "data": {"fingerprint": "other"}}
    folder.open(header)
    with pytest.raises(RunMismatch, match="seed: 0 there, 5 here"):
        adopt_language_model(folder, recipe.replace(seed=5), "forward", source)
    with pytest.raises(RunMismatch, match="same texts"):
        adopt_language_model(folder, recipe, "forward", source)
    folder.run["data"]["fingerprint"] = reviews.fingerprint
    adopt_language_model(folder, recipe, "forward", source)
    folder.run["phases_done"].clear()  # as after a kill in the middle of it
    adopt_language_model(folder, recipe, "forward", source)
    assert [row["phase"] for row in folder.history] == ["lm"] and folder.phase_done("forward", "lm")


def test_a_plan_counts_what_is_still_to_be_run(table7, base, reviews, cache):
    table, _ = table7
    cells = table_cells("table7", "imdb", base=base, rows=["full", "freez"], seeds=(0, 1, 2))
    plan = plan_grid(cells, reviews, table.folder, cache=cache, progress=False)
    assert sorted((what.split(" of ")[0], number) for what, number, _ in plan.rows) == [
        ("forward language model", 2), ("table7.freez", 2), ("table7.full", 2)]
    assert all(seconds > 0 for *_, seconds in plan.rows)
    assert plan.seconds == pytest.approx(sum(number * seconds for _, number, seconds in plan.rows))
    assert "in all about" in str(plan)


def test_a_dry_run_trains_nothing(reviews, options, fits, tmp_path):
    plan = ablate("table7", reviews, out=tmp_path / "none", rows=["last"], dry_run=True, **options)
    assert plan.seconds > 0 and not fits and not (tmp_path / "none").exists()


# ------------------------------------------------------------------------------------------------------------ the table
def test_mean_spread_and_interval_are_those_of_the_seeds(copy7, reviews, options):
    table, folder = copy7
    two = ablate("table7", reviews, out=folder, rows=["last", "from_scratch"], seeds=(0, 1), **options)
    for row in two.rows.itertuples():
        errors = list(two.errors[row.row].values())
        assert list(two.errors[row.row]) == [0, 1] and row.n_seeds == 2
        assert row.error == pytest.approx(fmean(errors)) and row.sd == pytest.approx(stdev(errors))
        assert (row.low, row.high) == pytest.approx(paper.interval(errors, row.n_texts))
    assert two.rows["n_texts"].tolist() == [6, 6]  # a tenth of 60 training texts, and no test text
    assert two.errors["last"][0] == table.errors["last"][0]


def test_errors_are_those_of_the_runs_on_the_validation_set(table7):
    table, _ = table7
    for row, errors in table.errors.items():
        name = "ulmfit" if row == "freez_discr_stlr" else f"table7.{row}"
        run = json.loads((table.folder / f"{name}-seed0" / "run.json").read_text())
        assert errors == {0: run["metrics"]["validation"]["forward"]["error"]}
        assert run["recipe"]["evaluate"] == "validation" and not (table.folder / name / "predictions.csv").exists()


def test_what_is_written_says_how_it_was_made(table7, base):
    table, _ = table7
    frame = pd.read_csv(table.folder / "table7.csv")
    assert frame["paper"].tolist() == table.rows["paper"].tolist()
    assert frame["error"].to_numpy() == pytest.approx(table.rows["error"].to_numpy(), rel=1e-5)
    record = json.loads((table.folder / "table7.json").read_text())["record"]
    assert record["full_method"]["hash"] == full_method("imdb", base).hash
    assert record["seeds"] == [0] and record["versions"]["torch"] and record["data"]["synthetic"]
    assert len(record["recipe_hashes"]) == 10 and len(set(record["recipe_hashes"].values())) == 10
    assert (table.folder / "table7.png").stat().st_size > 1000 and b"<svg" in (table.folder / "table7.svg").read_bytes()


def test_a_saved_table_comes_back(table7):
    table, _ = table7
    loaded = AblationTable.load(table.folder / "table7.json")
    pd.testing.assert_frame_equal(loaded.rows, table.rows, check_dtype=False)
    assert repr(loaded) == repr(table) and loaded.errors == table.errors


def test_a_table_says_where_it_is_not_the_papers_experiment(table7):
    text = repr(table7[0])
    assert "synthetic" in text and "hidden units 48" in text and "not pretrained" in text
    assert "Chain-thaw" in text and "5.39" in text and "<table" in table7[0]._repr_html_()


def made(theirs: list[float], ours: dict[str, dict[int, float]]) -> AblationTable:
    rows = pd.DataFrame({"row": list(ours), "label": list(ours), "paper": theirs,
                         "error": [fmean(e.values()) if e else math.nan for e in ours.values()], "sd": math.nan,
                         "low": math.nan, "high": math.nan, "n_seeds": 1, "n_texts": 100})
    return AblationTable("table7", "imdb", "Table 7", "validation", rows, ours)


def test_rank_correlation_is_spearmans():
    theirs, ours = [5.0, 6.86, 6.86, 16.09, 9.0], [10.0, 14.0, 13.0, 30.0, 31.0]
    assert spearman(theirs, ours) == pytest.approx(spearmanr(theirs, ours).statistic)
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # by hand: ranks 1 2.5 2.5 4 5 and 1 3 2 5 4, squared differences 0 .25 .25 1 1, in Pearson's formula for ties
    assert spearman(theirs, ours) == pytest.approx(8.5 / math.sqrt(9.5 * 10))


def test_rank_correlation_is_of_the_rows_that_have_both_numbers():
    nan = math.nan
    assert spearman([1, 2, 3, nan, 4], [4, 3, 2, 9, nan]) == pytest.approx(-1)
    assert spearman([1, 2, nan], [1, 2, 3]) is None and spearman([1, 1, 1], [1, 2, 3]) is None


def test_rank_correlation_is_given_for_the_mean_and_for_each_seed():
    table = made([1, 2, 3], {"a": {0: 1.0, 1: 9.0}, "b": {0: 2.0, 1: 5.0}, "c": {0: 30.0, 1: 1.0}})
    assert table.rank_correlation_by_seed == pytest.approx({0: 1.0, 1: -1.0})
    assert "single seeds -1.00 to 1.00" in table.agreement and "3 rows" in table.agreement


def test_of_two_rows_only_the_order_can_be_compared():
    assert made([1, 2], {"a": {0: 3.0}, "b": {0: 4.0}}).agreement == "the order of the rows is the paper's"
    assert made([1, 2], {"a": {0: 4.0}, "b": {0: 3.0}}).agreement == "the order of the rows is not the paper's"
    assert made([1, 2], {"a": {0: 4.0}, "b": {}}).agreement == ""


def test_table4_is_with_and_without_pretrained_weights(table7, reviews, options, fits, tmp_path):
    weights = next((table7[0].folder / "shared").iterdir())
    table = ablate("table4", reviews, out=tmp_path, **{**options, "weights": str(weights)})
    assert fits == {"lm": 2, "classifier": 2} and table.finished
    used = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*-seed0/run.json"))]
    assert [run["recipe"]["weights"] for run in used] == ["none", str(weights)]
    assert [bool(run.get("weights")) for run in used] == [False, True]
    with pytest.raises(ValueError, match="Table 4"):
        ablate("table4", reviews, out=tmp_path, **options)


CORPUS = [f"the {word} of the {word} is a {other} , and the {other} was a {word} ." * 8
          for word in ("film", "book", "town", "king", "sea", "road") for other in ("tale", "name", "song")]


def test_pretraining_is_done_once_for_all_rows_that_share_it(reviews, options, fits, tmp_path):
    settings = {**options, "weights": "pretrain", "corpus": CORPUS}
    table = ablate("table6", reviews, out=tmp_path, rows=["none", "full", "full_discr_stlr"], **settings)
    assert fits == {"pretrain": 1, "lm": 2, "classifier": 3} and table.finished
    used = [json.loads(path.read_text()) for path in tmp_path.glob("*-seed0/run.json")]
    assert len({run["weights"]["forward"]["vocab_hash"] for run in used}) == 1 and len(used) == 3
    assert {run["corpus"]["source"] for run in used} == {"given as texts"}
    again = ablate("table6", reviews, out=tmp_path, rows=["none"], **settings)
    assert fits["pretrain"] == 1 and again.errors["none"] == table.errors["none"]
    with pytest.raises(ValueError, match="another corpus than elsewhere.txt"):
        ablate("table6", reviews, out=tmp_path, rows=["none"], **{**settings, "corpus": Path("elsewhere.txt")})


def test_with_a_borrowed_pretrained_model_a_run_is_as_it_would_be_alone(reviews, base, options, cache, tmp_path):
    settings = {**options, "weights": "pretrain", "corpus": CORPUS}
    table = ablate("table6", reviews, out=tmp_path / "table", rows=["full"], **settings)
    recipe = ablation("table6.full", "imdb", base.replace(weights="pretrain"))
    alone = runs.run(recipe, reviews, tmp_path / "alone", corpus=CORPUS, cache=cache, progress=False)
    shared = table.folder / "table6.full-seed0"
    for name in ("pretrain_forward", "lm_forward", "classifier_forward"):
        assert tensors(alone / f"{name}.safetensors") == tensors(shared / f"{name}.safetensors")
    a, b = (json.loads((folder / "run.json").read_text()) for folder in (alone, shared))
    assert a["metrics"] == b["metrics"] and sorted(a["phases_done"]) == sorted(b["phases_done"])


def test_table5_is_a_language_model_with_dropout_and_one_without(reviews, options, fits, tmp_path):
    table = ablate("table5", reviews, out=tmp_path, **options)
    assert fits == {"lm": 2, "classifier": 2} and table.finished
    assert folders(tmp_path, "*-seed0") == ["table5.vanilla-seed0", "ulmfit-seed0"]


def test_one_run_of_both_directions_has_the_three_errors(reviews, options, fits, tmp_path):
    table = ablate("direction", reviews, out=tmp_path, **options)
    assert fits == {"lm": 2, "classifier": 2} and folders(tmp_path, "*-seed0") == ["direction.both-seed0"]
    metrics = json.loads((tmp_path / "direction.both-seed0" / "run.json").read_text())["metrics"]
    assert table.errors == {row: {0: metrics[name]["error"]} for row, name in
                            (("forward", "forward"), ("backward", "backward"), ("both", "averaged"))}
    assert table.rows["n_texts"].tolist() == [20] * 3 and table.measured_on == "test"
    assert table.rows["paper"].fillna(0).tolist() == [5.30, 0, 4.58]


def test_backward_language_models_can_be_asked_for(reviews, options, tmp_path):
    table = ablate("table7", reviews, out=tmp_path, rows=["last"], directions=("backward",), **options)
    assert folders(tmp_path, "*-seed0") == ["table7.last-backward-seed0"] and table.finished
    assert folders(tmp_path, "shared/*")[0].startswith("lm-backward-")


@pytest.mark.parametrize("change, message", [
    ({"rows": ["latest"]}, "no row 'latest'"), ({"seeds": 0}, "1 to 1,000, found 0"), ({"seeds": (1, 1)}, "distinct")])
def test_what_makes_no_table_is_refused(change, message, reviews, options, tmp_path):
    with pytest.raises(ValueError, match=message):
        ablate("table7", reviews, out=tmp_path, **{**options, **change})
    with pytest.raises(ValueError, match="no table 'table9'"):
        ablate("table9", reviews, out=tmp_path, **options)


def test_seeds_are_a_number_or_a_list():
    assert seed_list(3) == (0, 1, 2) and seed_list([4, 2]) == (4, 2)


# ------------------------------------------------------------------------------------------------------------- low-shot
@pytest.fixture(scope="module")
def curves(reviews, options, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        fits = Fits(patch)
        found = lowshot(reviews, (10, 30), out=tmp_path_factory.mktemp("lowshot"), **options)
    return found, dict(fits.count)


def test_semi_supervised_points_share_a_language_model_and_supervised_ones_do_not(curves):
    found, fits = curves
    assert fits == {"lm": 1 + 2, "classifier": 6} and found.finished
    assert len(folders(found.folder, "shared/*")) == 3


def test_every_point_of_a_curve_is_measured_on_the_same_texts(curves):
    found, _ = curves
    assert set(found.points["n_texts"]) == {6}
    assert found.points.groupby("kind")["labels"].apply(list).to_dict() == {
        kind: [10, 30] for kind in ("from_scratch", "supervised", "semi_supervised", "tfidf", "nbsvm")}


def test_bags_of_words_are_trained_on_the_labels_of_the_runs(curves, reviews, base):
    found, _ = curves
    rows = rows_for(low_shot_recipe("supervised", 10, "imdb", base), reviews)
    assert len(rows.train) == 10
    assert found.errors["tfidf/10"] == {0: tfidf_baseline(reviews, rows.train, rows.valid)["error"]}
    assert found.errors["nbsvm/10"] == {0: nbsvm_baseline(reviews, rows.train, rows.valid)["error"]}


def test_low_shot_runs_are_not_made_twice(curves, reviews, options, fits, monkeypatch):
    found, _ = curves
    monkeypatch.setattr(label_curves, "BASELINES", {name: None for name in label_curves.BASELINES})
    again = lowshot(reviews, (10, 30), out=found.folder, **options)
    assert not fits
    pd.testing.assert_frame_equal(again.points, found.points, check_exact=True)


def test_curves_are_written_and_drawn(curves):
    found, _ = curves
    frame = pd.read_csv(found.folder / "lowshot.csv")
    assert len(frame) == 10 and frame["error"].to_numpy() == pytest.approx(found.points["error"].to_numpy(), rel=1e-5)
    assert json.loads((found.folder / "lowshot.json").read_text())["record"]["seeds"] == [0]
    axes = found.plot().axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log") and len(axes.get_lines()) == 5
    assert "semi-supervised with 10 labels is as good as training from scratch with" in repr(found)


def test_a_curve_may_average_both_directions(reviews, options, tmp_path, fits):
    how = {"kinds": ["semi_supervised"], "baselines": False, "out": tmp_path, **options}
    found = lowshot(reviews, (10, 30), directions=("forward", "backward"), **how)
    assert fits == {"lm": 2, "classifier": 4}
    runs = [Result.load(tmp_path / name) for name in folders(tmp_path, "lowshot.*-seed0")]
    assert [set(run.errors) for run in runs] == [{"forward", "backward", "averaged"}] * 2
    assert {n: by_seed[0] for n, by_seed in found.errors.items()} == {
        f"semi_supervised/{run.recipe.n_labels}": run.errors["averaged"] for run in runs}
    for run in runs:
        alone = found.by_direction[f"semi_supervised/{run.recipe.n_labels}"]
        assert alone == {name: {0: run.errors[name]} for name in ("forward", "backward")}
        assert (f"semi-supervised with {run.recipe.n_labels} labels: forward alone {run.errors['forward']:.2f}, "
                f"backward alone {run.errors['backward']:.2f}") in repr(found)
    assert json.loads((tmp_path / "lowshot.json").read_text())["by_direction"].keys() == found.by_direction.keys()
    assert "forward and backward language model, the paper's forward" in found.notes
    assert not lowshot(reviews, (10, 30), **how).by_direction
    lowshot(reviews, (10, 30), **how)
    assert fits == {"lm": 2, "classifier": 6}, "the forward language model serves both"


def test_curves_may_be_trained_as_the_preset_has_it(curves, reviews, options, tmp_path, monkeypatch):
    monkeypatch.setattr(label_curves, "BASELINES", {})
    found = lowshot(reviews, (10,), kinds=["from_scratch"], training="preset", out=tmp_path, **options)
    folder, = folders(tmp_path, "lowshot-preset.from_scratch.*")
    recipe = Result.load(tmp_path / folder).recipe
    stages = recipe.classifier.stages
    assert stages == options["base"].classifier.stages  # of the preset `tiny`, which is never lengthened
    assert recipe.n_labels == 10 and recipe.weights == "none" and recipe.lm is None
    assert any("not as in the paper" in note for note in found.notes)
    assert not any("not as in the paper" in note for note in curves[0].notes)


def test_curves_without_any_run_yet_are_returned(reviews, options, tmp_path):
    found = lowshot(reviews, (10,), baselines=False, time_budget=0, out=tmp_path, **options)
    assert len(found.missing) == 3 and found.points["error"].isna().all() and (tmp_path / "lowshot.json").exists()


def test_labels_may_be_all_there_are_and_no_more(reviews, base):
    cells = label_curves.lowshot_cells(reviews, (10, None), base=base)
    assert [c.row for c in cells[3:]] == ["from_scratch/54", "supervised/54", "semi_supervised/54"]
    for wrong in (55, 1):
        with pytest.raises(ValueError, match="from 2 .* to 54"):
            label_curves.lowshot_cells(reviews, (wrong,), base=base)


CURVE = {100: 30.0, 1000: 20.0, 10000: 10.0}  # 50 - 10 log10(labels)


@pytest.mark.parametrize("error, labels, text", [
    (20.0, 1000.0, "1,000"), (25.0, 10**2.5, "316"), (12.0, 10**3.8, "6,310"), (10.5, 10**3.95, "8,913"),
    (30.0, 100.0, "100"), (9.9, None, "more than 10,000"), (30.1, None, "at most 100")])
def test_labels_are_interpolated_on_a_logarithmic_axis_and_never_beyond_it(error, labels, text):
    needed = labels_needed(CURVE, error)
    assert str(needed) == text
    assert needed.labels is None if labels is None else needed.labels == pytest.approx(labels)


def test_a_curve_that_goes_up_again_needs_the_fewest_labels_that_do():
    assert labels_needed({100: 30.0, 1000: 10.0, 10000: 20.0}, 20.0).labels == pytest.approx(10**2.5)
    assert labels_needed({100: 20.0, 1000: 30.0, 10000: 10.0}, 15.0).labels == pytest.approx(10**3.75)
    assert labels_needed({100: 30.0, 1000: math.nan, 10000: 10.0}, 20.0).labels == pytest.approx(1000)


def test_factors_stand_beside_the_papers():
    points = pd.DataFrame([("from_scratch", n, e) for n, e in CURVE.items()] + [("supervised", 100, 20.0)],
                          columns=["kind", "labels", "error"])
    points[["sd", "low", "high"]] = math.nan
    needed = label_curves.LowShot("imdb", points.assign(n_seeds=1, n_texts=9), {}).needed
    assert len(needed) == 1 and needed["needed"].item() == pytest.approx(1000)
    assert needed["factor"].item() == pytest.approx(10) and needed["paper"].item() == 10


def test_figure_4_follows_full_to_its_last_epoch(copy7, reviews, options, base, fits):
    table, folder = copy7
    found = figure4(reviews, out=folder, **options)
    assert fits == {"classifier": 1}  # ULMFiT, and the language model, are table 7's
    epochs = full_method("imdb", base).classifier.epochs
    assert {name: [len(frame) for frame in frames] for name, frames in found.curves.items()} == {
        "Full": [epochs], "ULMFiT": [epochs]}
    history = pd.read_csv(folder / "ulmfit-seed0" / "history.csv").query("phase == 'classifier'")
    assert found.curves["ULMFiT"][0]["error"].tolist() == pytest.approx((100 * (1 - history["accuracy"])).tolist())
    assert found.curves["ULMFiT"][0]["error"].iloc[-1] == pytest.approx(table.errors["freez_discr_stlr"][0])
    assert len(pd.read_csv(folder / "figure4.csv")) == 2 * epochs and "after epoch 1" in repr(found)
    record = json.loads((folder / "figure4.json").read_text())["record"]
    assert record["seeds"] == [0] and set(record["runs"]) == {"figure4.full-seed0", "ulmfit-seed0"}
    assert "the model has embedding size" in repr(found)
    assert repr(found).count("not the paper's experiment") == 1 < len(found.notes)


# ------------------------------------------------------------------------------------------------------- bags of words
def words(rows: list[tuple[str, str]]):
    return from_frame(pd.DataFrame(rows, columns=["t", "l"]).assign(s="train"), text="t", label="l", split="s")


def test_log_count_ratios_are_as_computed_by_hand():
    counts = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1]])
    ratio = log_count_ratio(counts, np.array([True, True, False]))
    p, q = np.array([3, 2, 1]) / 6, np.array([1, 2, 2]) / 5
    assert ratio == pytest.approx(np.log(p / q))


@pytest.mark.parametrize("classes", [2, 3])
def test_nb_svm_learns_which_word_makes_the_class(classes):
    names = ["red", "green", "blue"][:classes]
    rows = [(f"it was {name} {filler}", name) for name in names for filler in "a b c d e f g h".split()]
    data = words(rows)
    train = np.array([i for i in range(len(rows)) if i % 8 < 6])
    test = np.setdiff1d(np.arange(len(rows)), train)
    record = nbsvm_baseline(data, train, test)
    assert (record["error"], record["n"], record["n_train"]) == (0.0, 2 * classes, 6 * classes)


# ----------------------------------------------------------------------------------------------------- Tables 2 and 3
def test_what_cannot_be_had_is_skipped_and_named(reviews, base, cache, tmp_path, monkeypatch):
    def load(name, path=None):
        raise ValueError(f"fetch {name} by hand")

    monkeypatch.setattr(main_results, "load_task", load)
    table = reproduce_all(("imdb", "ag"), base, data={"imdb": reviews}, out=tmp_path, progress=False)
    assert table.rows["task"].tolist() == ["imdb", "ag"] and table.rows["paper"].tolist() == [4.6, 5.01]
    ours = json.loads((tmp_path / "imdb" / "run.json").read_text())["metrics"]["forward"]["error"]
    assert table.rows["error"].iloc[0] == ours and table.rows["status"].tolist() == ["no claim", "skipped"]
    assert "fetch ag by hand" in repr(table) and table.exit_code == 0
    assert pd.read_csv(tmp_path / "tables2and3.csv")["status"].tolist() == ["no claim", "skipped"]


def test_a_folder_of_data_sets_is_searched_by_name(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(main_results, "load_task", lambda name, path=None: asked.append((name, path)) or no_data())

    def no_data():
        raise OSError("no network")

    (tmp_path / "ag.parquet").touch()
    (tmp_path / "trec6").mkdir()
    table = reproduce_all(data=tmp_path, out=tmp_path / "out")
    assert dict(asked) == {"trec6": tmp_path / "trec6", "ag": tmp_path / "ag.parquet", "imdb": None, "dbpedia": None,
                           "yelp-bi": None, "yelp-full": None}
    assert set(table.rows["status"]) == {"skipped"} and len(table.rows) == 6
    with pytest.raises(ValueError, match="no data set 'mnist'"):
        reproduce_all(("mnist",))


# ------------------------------------------------------------------------------------------------------------- commands
def test_commands_run_the_experiments(reviews, cache, tmp_path, monkeypatch, capsys):
    asked = []
    for module in ("tables", "label_curves", "epoch_curves"):
        monkeypatch.setattr(f"ulmfit_fastai.experiments.{module}.load_task",
                            lambda *args, **how: asked.append((args, how)) or reviews)
    monkeypatch.setenv("ULMFIT_CACHE", str(cache))
    common = f"--task imdb --data here --no-verify --train-part dev --preset tiny --out {tmp_path} --device cpu"
    settings = ["--set", "precision=fp32", "--set", "lm.max_docs=30"]
    assert main([*f"ablate table7 --rows last,freez_discr_stlr {common}".split(), *settings]) == 0
    assert "Last" in capsys.readouterr().out and (tmp_path / "table7.csv").exists()
    assert main([*f"lowshot --labels 10,all --kinds from_scratch {common}".split(), *settings]) == 2
    assert "lm.max_docs" in capsys.readouterr().err  # there is no language model for it to change
    assert main([*f"lowshot --labels 10,all --kinds from_scratch {common}".split(), *settings[:2]]) == 0
    assert "NB-SVM" in capsys.readouterr().out and len(pd.read_csv(tmp_path / "lowshot.csv")) == 6
    assert main([*f"figure4 {common} --time-budget 0.01s".split(), *settings]) == 3
    assert "missing: figure4.full-seed0" in capsys.readouterr().out
    assert asked == [(("imdb", "here"), {"verify": False, "train": "dev"})] * len(asked)


def test_a_wrong_number_of_labels_is_a_users_error(reviews, monkeypatch, capsys):
    monkeypatch.setattr("ulmfit_fastai.texts.sources.load_task", lambda *args, **how: reviews)
    assert main("lowshot --labels 10,many".split()) == 2
    assert "many" in capsys.readouterr().err
    assert main("reproduce trec6 ag --no-verify".split()) == 2
    assert "one TASK" in capsys.readouterr().err


def test_reproduce_hands_on_what_was_typed(monkeypatch, capsys, tmp_path):
    calls = []
    monkeypatch.setattr("ulmfit_fastai.texts.sources.load_task", lambda name, path, **how: (name, path, how))
    monkeypatch.setattr("ulmfit_fastai.experiments.reproduction.reproduce",
                        lambda *a, **k: calls.append((a, k)) or "an error")
    typed = "reproduce trec6 --data x.parquet --preset quick --direction both --lm-from a --seed 2 --dry-run"
    assert main(typed.split()) == 0
    assert calls == [(("trec6", "quick"), {
        "data": "x.parquet", "verify": True, "train": None, "out": "runs/trec6", "corpus": None,
        "directions": ("forward", "backward"), "device": None, "resume": True, "time_budget": None, "dry_run": True,
        "parallel": None, "seed": 2, "lm_from": ["a"]})]
    assert main([*typed.split(), "--no-verify", "--train-part", "dev"]) == 0
    told = calls.pop()[1]
    assert (told["verify"], told["train"]) == (False, "dev")
    assert main("reproduce trec6 ag --lm-from a".split()) == 2
    assert "for one data set" in capsys.readouterr().err
    monkeypatch.setattr(main_results, "reproduce_all", lambda *a, **k: calls.append((a, k)) or Shown())
    assert main(f"reproduce all --data {tmp_path} --time-budget 8h".split()) == 1
    assert calls[1][0] == (None, "fastai") and calls[1][1]["out"] == "runs" and calls[1][1]["time_budget"] == 28800
    assert "Tables 2 and 3" in capsys.readouterr().out


class Shown:
    exit_code, rows, folder = 1, (), "runs"

    def __str__(self):
        return "Tables 2 and 3"
