"""Stage 1: alone and within a run, on files and on texts, in both directions, and resumed at any batch."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from stops import StopAt

from ulmfit_fastai._errors import UlmfitError
from ulmfit_fastai.model import pretrained
from ulmfit_fastai.model.layers import build_language_model
from ulmfit_fastai.model.weights import LMWeights
from ulmfit_fastai.recipe.fields import plain
from ulmfit_fastai.recipe.parts import Model
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.results.folder import RunMismatch
from ulmfit_fastai.results.result import Result
from ulmfit_fastai.texts.synthetic import synthetic_reviews
from ulmfit_fastai.tokens.store import TokenStore
from ulmfit_fastai.training import pretraining, runs, session
from ulmfit_fastai.training.corpus import general_text
from ulmfit_fastai.training.pretraining import perplexity
from ulmfit_fastai.training.pretraining import pretrain as pretrain_corpus
from ulmfit_fastai.training.session import Conditions
from ulmfit_fastai.training.stage_one import SIZES

ARTICLES = [f"The {animal} lives in the {place} . It eats {food} and sleeps at {time} . "
            f"A {animal} is seldom seen near the {place} ."
            for animal in ("fox", "owl", "bear", "hare") for place in ("forest", "hills", "valley")
            for food in ("berries", "mice", "grass") for time in ("night", "noon")]
SMALL = {"model": Model(emb_sz=12, n_hid=16, n_layers=2), "max_vocab": 200, "min_freq": 1, "bs": 4, "bptt": 12,
         "precision": "fp32"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def jsonl(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "articles.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in ARTICLES))
    return path


@pytest.fixture(scope="module")
def wikitext(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "wiki.valid.tokens"
    path.write_text("".join(f" \n = {n} = \n \n {text} \n" for n, text in enumerate(ARTICLES[:8])))
    return path


def pretrain(corpus, out, cache, **options):
    return pretrain_corpus(corpus, out=out, cache=cache, progress=False, device="cpu", **{**SMALL, **options})


def independent_perplexity(weights, model, documents):
    """exp of the mean negative log-probability: the documents in one stream for each of 8 rows, one pass, no code of
    the loaders or of the loss."""
    numbers = weights.vocab.numbers
    step = -1 if weights.direction == "backward" else 1
    row = [numbers.get(word, 0) for document in documents for word in document[::step]]
    length = (len(row) - 1) // 8
    x = torch.tensor(row[: 8 * length]).view(8, length)
    y = torch.tensor(row[1 : 8 * length + 1]).view(8, length)
    net = build_language_model(len(weights.vocab), model, fast=False)
    net.load_state_dict(weights.full_state(), strict=False)
    net.eval()
    net.reset()
    with torch.no_grad():
        probability = net(x)[0].log_softmax(-1).gather(-1, y[..., None])
    return math.exp(-float(probability.mean()))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_pretraining_on_json_lines_learns_and_its_perplexity_is_the_independent_one(direction, jsonl, wikitext, cache,
                                                                                    tmp_path):
    out = pretrain(jsonl, tmp_path / "run", cache, directions=(direction,), valid=wikitext, evaluate=[wikitext],
                   epochs=30, lr=0.02)
    run = json.loads((out / "run.json").read_text())
    assert run["status"] == "finished" and run["data"]["counts"]["articles"] == len(ARTICLES) + 8
    weights = LMWeights.load(out / f"pretrain_{direction}.safetensors")
    assert weights.direction == direction and weights.meta["tokens"] == run["data"]["tokens"]
    documents = list(TokenStore.make(pretraining.read_corpus(wikitext), cache=cache, progress=False))
    expected = independent_perplexity(weights, SMALL["model"], documents)
    measured = run["metrics"][f"perplexity_{direction}"][wikitext.name]
    assert measured["perplexity"] == pytest.approx(expected, rel=1e-4)
    assert measured["tokens"] == sum(map(len, documents))
    assert expected < 0.4 * len(weights.vocab)
    untrained = LMWeights.from_model(build_language_model(len(weights.vocab), SMALL["model"]), weights.vocab,
                                        name="random", direction=direction)
    texts = list(pretraining.read_corpus(wikitext))
    assert perplexity(untrained, SMALL["model"], texts, cache=cache)["perplexity"] > 2 * expected


def test_a_backward_model_knows_the_texts_backward_only(jsonl, cache, tmp_path):
    out = pretrain(jsonl, tmp_path / "run", cache, directions=("backward",), epochs=30, lr=0.02)
    weights = LMWeights.load(out / "pretrain_backward.safetensors")
    other = LMWeights(weights.name, "forward", weights.vocab, weights.state, weights.meta)
    right, wrong = (perplexity(w, SMALL["model"], ARTICLES, cache=cache)["perplexity"] for w in (weights, other))
    assert wrong > 1.5 * right


@pytest.fixture(scope="module")
def general(jsonl, cache, tmp_path_factory):
    """A finished pretraining on articles, of another size than SMALL."""
    return pretrain(jsonl, tmp_path_factory.mktemp("general") / "run", cache, epochs=20, lr=0.02,
                    model=Model(emb_sz=10, n_hid=18, n_layers=2))


REVIEWS = [f"The {animal} lives in the {place} . It eats {food} and I {felt} the film ."
           for animal in ("fox", "owl", "bear") for place in ("forest", "hills") for food in ("berries", "mice")
           for felt in ("loved", "hated", "left")]


def goes_on(general, folder, cache, **options):
    """A pretraining on reviews from those weights, whose sizes are not given."""
    texts = folder / "reviews.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in REVIEWS))
    return pretrain(texts, folder / "run", cache,
                    **{"weights": str(general), "model": None, "max_vocab": None, **options})


def test_pretraining_goes_on_from_weights_in_their_sizes_and_with_their_words(general, cache, tmp_path):
    before = LMWeights.load(general / "pretrain_forward.safetensors")
    out = goes_on(general, tmp_path, cache, lr=1e-9, wd=0.0)
    after = LMWeights.load(out / "pretrain_forward.safetensors")
    assert (after.emb_sz, after.n_hid, after.n_layers) == (10, 18, 2)
    common = [word for word in ("fox", "owl", "the", ".") if word in after.vocab.numbers]
    assert len(common) == 4 and {"film", "loved"} <= {*after.vocab} - {*before.vocab}
    for word in common:
        rows = (w.state["0.encoder.weight"][w.vocab.numbers[word]] for w in (before, after))
        torch.testing.assert_close(*rows, atol=1e-6, rtol=0)
    torch.testing.assert_close(after.state["0.rnns.0.weight_hh_l0_raw"], before.state["0.rnns.0.weight_hh_l0_raw"],
                               atol=1e-6, rtol=0)
    run = json.loads((out / "run.json").read_text())
    start = run["weights"]["forward"]
    assert start["vocab_hash"] == before.vocab.hash and run["data"]["reading"]["weights"] == str(general)
    assert 4 < start["words_kept"] < len(after.vocab) == start["words"]


def test_what_weights_know_helps_on_other_texts(general, cache, tmp_path):
    (tmp_path / "new").mkdir()
    anew = goes_on(general, tmp_path / "new", cache, weights=None, model=Model(emb_sz=10, n_hid=18, n_layers=2),
                   max_vocab=200)
    on = goes_on(general, tmp_path, cache)
    losses = [json.loads((out / "run.json").read_text())["stages"][-1]["metrics"]["valid_loss"] for out in (on, anew)]
    assert losses[0] < losses[1] - 0.2


def test_going_on_from_weights_is_resumed_and_other_weights_are_refused(general, jsonl, cache, tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    whole = goes_on(general, tmp_path / "whole", cache, epochs=2)
    monkeypatch.setattr(session, "Budget", lambda *_: StopAt(3))
    goes_on(general, tmp_path, cache, epochs=2)
    monkeypatch.undo()
    kept = (general / "pretrain_forward.safetensors").read_bytes()
    other = pretrain(jsonl, tmp_path / "other", cache, model=Model(emb_sz=10, n_hid=18, n_layers=2))
    with pytest.raises(RunMismatch, match="weights"):
        goes_on(other, tmp_path, cache, epochs=2)
    out = goes_on(general, tmp_path, cache, epochs=2)
    assert (general / "pretrain_forward.safetensors").read_bytes() == kept
    states = [LMWeights.load(run / "pretrain_forward.safetensors").state for run in (whole, out)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("corpus", [["A long text. " * 500, "Another."], "A long text. " * 500])
def test_texts_in_the_place_of_files_are_refused_in_words(corpus, cache, tmp_path):
    with pytest.raises(UlmfitError, match=r"expected the path of a file or folder, found 'A long text\. .*\.\.\."):
        pretrain(corpus, tmp_path / "run", cache)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("changes, words", [
    ({"weights": "pretrain"}, "random weights"), ({"weights": "nowhere"}, "found 'nowhere'"),
    ({"directions": ("backward",)}, "backward"), ({"tokenizer": "sentencepiece"}, "spm.model"),
    ({"model": Model(emb_sz=12, n_hid=16, n_layers=2)}, r"\(10, 18, 2\)")])
def test_weights_that_dont_fit_are_refused_before_the_corpus_is_read(changes, words, general, cache, tmp_path):
    with pytest.raises(UlmfitError, match=words):
        goes_on(general, tmp_path, cache, **changes)
    assert not (tmp_path / "run").exists()


def test_in_a_smaller_vocabulary_the_other_words_count_as_one(cache):
    logits, targets = torch.randn(3, 4, 9), torch.randint(9, (3, 4))
    others = torch.tensor([True, False, True, False, False, True, False, False, False])
    chances = logits.softmax(-1).flatten(0, 1)
    expected = [chances[i, others].sum() if others[t] else chances[i, t] for i, t in enumerate(targets.flatten())]
    found = pretraining.shared_loss(logits, targets, others)
    assert float(found) == pytest.approx(-float(torch.stack(expected).log().mean()), rel=1e-5)
    store = TokenStore.make(ARTICLES, cache=cache, progress=False)
    vocab = store.vocab(np.arange(len(store)), max_vocab=200, min_freq=1)
    weights = LMWeights.from_model(build_language_model(len(vocab), SMALL["model"]), vocab, name="random",
                                   direction="forward")
    own, smaller, same = (perplexity(weights, SMALL["model"], ARTICLES, cache=cache, shared=words)
                          for words in (None, list(vocab)[:20], vocab))
    assert same["shared"]["perplexity"] == pytest.approx(own["perplexity"], rel=1e-5)
    assert own.items() <= smaller.items() and own.items() <= same.items()  # and in its own words as without
    assert smaller["shared"]["perplexity"] < own["perplexity"]
    of_the_few = store.numericalize(list(vocab)[:20])
    assert smaller["shared"]["unknown"] == pytest.approx(float(np.mean(of_the_few.ids == 0)))  # as they count them


def test_pretraining_stopped_at_a_batch_goes_on_to_the_same_weights(jsonl, cache, tmp_path, monkeypatch):
    options = {"directions": ("forward", "backward"), "epochs": 2}
    whole = pretrain(jsonl, tmp_path / "whole", cache, **options)
    for n in (5, 40):
        monkeypatch.setattr(session, "Budget", lambda *_, n=n: StopAt(n))
        parts = pretrain(jsonl, tmp_path / "parts", cache, **options)
        assert json.loads((parts / "run.json").read_text())["status"] == "stopped"
    monkeypatch.undo()
    pretrain(jsonl, parts, cache, **options)
    for direction in options["directions"]:
        expected, found = (LMWeights.load(folder / f"pretrain_{direction}.safetensors").state
                           for folder in (whole, parts))
        assert all(torch.equal(found[key], value) for key, value in expected.items())


def as_it_was_before(folder, **settings):
    """Turn a folder into one from before stage 1 was a recipe: settings by name, under a hash of their own."""
    run = json.loads((folder / "run.json").read_text())
    flat = {"size": "small", "epochs": 1, "lr": 5e-3, "wd": 0.01, "valid_texts": 200, "seed": 0, **SMALL, **settings}
    run["recipe"], run["recipe_hash"] = {**flat, "model": plain(SMALL["model"])}, "0123456789abcdef"
    del run["data"]["reading"], run["digest"]
    (folder / "run.json").write_text(json.dumps(run))
    if (folder / "state" / "state.pt").exists():
        state = torch.load(folder / "state" / "state.pt", weights_only=True)
        torch.save({**state, "recipe_hash": run["recipe_hash"]}, folder / "state" / "state.pt")
    return run


def test_a_folder_from_before_stage_1_was_a_recipe_goes_on_and_is_usable(jsonl, cache, tmp_path, monkeypatch):
    whole = pretrain(jsonl, tmp_path / "whole", cache, epochs=2)
    monkeypatch.setattr(session, "Budget", lambda *_: StopAt(5))
    folder = pretrain(jsonl, tmp_path / "earlier", cache, epochs=2)
    monkeypatch.undo()
    begun = as_it_was_before(folder, epochs=2)
    with pytest.raises(RunMismatch, match="pretrain.stages.0.epochs: 2 there, 3 here"):
        pretrain(jsonl, folder, cache, epochs=3)
    with pytest.raises(RunMismatch, match="valid_texts: 200 there, 9 here"):
        pretrain(jsonl, folder, cache, epochs=2, valid_texts=9)
    assert json.loads((folder / "run.json").read_text()) == begun
    pretrain(jsonl, folder, cache, epochs=2)
    run = json.loads((folder / "run.json").read_text())
    assert run["status"] == "finished" and run["recipe"] == begun["recipe"] and len(run["sessions"]) == 2
    expected, found = (pretrained.load(place) for place in (whole, folder))
    assert all(torch.equal(found.state[key], value) for key, value in expected.state.items())
    assert run["samples"] == json.loads((whole / "run.json").read_text())["samples"]
    content = (folder / "run.json").read_bytes()
    pretrain(jsonl, folder, cache, epochs=2)
    assert (folder / "run.json").read_bytes() == content
    assert Result.load(folder).status == "finished"


def test_a_pretraining_is_a_recipe_and_says_how_its_corpus_was_read(jsonl, cache, tmp_path):
    folder = pretrain(jsonl, tmp_path / "run", cache, limit_words=500, valid_texts=3)
    run = json.loads((folder / "run.json").read_text())
    recipe = Result.load(folder).recipe
    assert recipe.weights == "pretrain" and recipe.phases[0] == "pretrain" and recipe.hash == run["recipe_hash"]
    assert run["task"] == "pretrain" and run["until"] == "pretrain"
    assert run["data"]["reading"] == {"limit_words": 500, "valid_texts": 3, "lang": "en", "tokenizer": "spacy"}
    with pytest.raises(RunMismatch, match="valid_texts: 3 there, 4 here"):
        pretrain(jsonl, folder, cache, limit_words=500, valid_texts=4)
    with pytest.raises(RunMismatch, match="directions.*there.*here"):
        pretrain(jsonl, folder, cache, limit_words=500, valid_texts=3, directions=("backward",))


def test_a_setting_that_pretraining_does_not_have_is_named(jsonl, cache, tmp_path):
    with pytest.raises(ValueError, match="epoch: no such field; expected one of .*did you mean epochs"):
        pretrain(jsonl, tmp_path / "run", cache, epoch=3)
    assert not (tmp_path / "run").exists()


def test_the_held_out_articles_are_the_last_tenth_and_their_words_not_counted(cache):
    text = general_text([*ARTICLES, *["Unheard words only ."] * 8], max_vocab=200, min_freq=1, cache=cache,
                        progress=False)
    assert len(text.train) == 72 and text.valid.tolist() == list(range(72, 80))
    assert "unheard" not in text.ids.vocab and (text.ids.doc(79) == 0).sum() >= 2


def test_a_corpus_of_one_text_is_refused(cache):
    with pytest.raises(ValueError, match="expected several texts, found 1"):
        general_text(["Only this ."], max_vocab=100, min_freq=1, cache=cache, progress=False)


def test_sizes_and_directions_are_checked_by_name(jsonl, tmp_path):
    with pytest.raises(ValueError, match="size: expected one of small, full, found 'huge'"):
        pretrain_corpus(jsonl, size="huge", out=tmp_path)
    with pytest.raises(ValueError, match="directions is .*sideways.*expected"):
        pretrain_corpus(jsonl, directions=("sideways",), out=tmp_path)
    assert set(SIZES) == {"small", "full"}


# -- within a run -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reviews():
    return synthetic_reviews(n_train=40, n_test=20, n_unsup=20, seed=3)


def recipe(**changes):
    return preset("tiny").replace(**{"weights": "pretrain", "precision": "fp32", "pretrain.bs": 4, **changes})


def numbers(folder):
    run = json.loads((folder / "run.json").read_text())
    tables = [(folder / name).read_text().splitlines() for name in ("predictions.csv", "rates.csv")]
    history = [line.split(",")[:6] for line in (folder / "history.csv").read_text().splitlines()]
    return run["metrics"], run["weights"], tables, history


@pytest.fixture(scope="module")
def uninterrupted(reviews, cache, tmp_path_factory):
    r = recipe(directions=("forward", "backward"))
    return r, runs.run(r, reviews, tmp_path_factory.mktemp("whole") / "run", corpus=ARTICLES, cache=cache,
                       progress=False)


def test_a_run_pretrains_each_direction_first_and_keeps_what_it_started_from(uninterrupted, reviews, cache):
    r, out = uninterrupted
    run = json.loads((out / "run.json").read_text())
    done = [(s["direction"], s["phase"]) for s in run["stages"]]
    assert list(dict.fromkeys(done)) == [(d, p) for d in r.directions for p in ("pretrain", "lm", "classifier")]
    assert run["corpus"]["articles"] == len(ARTICLES) and run["corpus"]["name"] == f"{len(ARTICLES)} texts"
    words = json.loads((out / "vocab.json").read_text())["words"]
    for direction in r.directions:
        general = LMWeights.load(out / f"pretrain_{direction}.safetensors")
        assert (general.direction, general.n_hid) == (direction, r.model.n_hid)
        assert {"fox", "berries"} <= set(general.vocab) and "fox" not in words
        said = run["weights"][direction]
        kept = {word for word in words if word in general.vocab and word != "xxfake"}
        assert said["words_kept"] == len(kept) < said["words"] == len(words)
        assert said["vocab_hash"] == general.vocab.hash and said["metrics"]["perplexity"] > 1
        assert said["epochs"] == 1


def test_language_model_fine_tuning_starts_from_the_pretrained_rows(uninterrupted, reviews, cache, tmp_path):
    r, out = uninterrupted
    work = runs.Run(r, runs.prepare(r, reviews, cache=cache, progress=False), runs.RunFolder(out).read(),
                    Conditions(torch.device("cpu")))
    start = work.match_starting_weights("forward")
    general = LMWeights.load(out / "pretrain_forward.safetensors")
    rows, before = start.state["0.encoder.weight"], general.state["0.encoder.weight"]
    for word in ("the", "a", "xxbos"):
        assert torch.equal(rows[start.vocab.index(word)], before[general.vocab.index(word)])
    learn = work.build_lm(r.lm, "forward", start)
    assert torch.equal(learn.model[0].encoder.weight.detach(), rows)
    lstm = "0.rnns.1.weight_hh_l0_raw"
    assert torch.equal(learn.model.state_dict()[lstm], general.state[lstm])


@pytest.mark.parametrize("stops", [(2,), (9, 3, 25)])
def test_a_run_stopped_within_pretraining_goes_on_to_the_same_numbers(stops, uninterrupted, reviews, cache, tmp_path,
                                                                      monkeypatch):
    r, whole = uninterrupted
    for n in stops:
        monkeypatch.setattr(session, "Budget", lambda *_, n=n: StopAt(n))
        runs.run(r, reviews, tmp_path / "run", corpus=ARTICLES, cache=cache, progress=False)
        assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "stopped"
    monkeypatch.undo()
    runs.run(r, reviews, tmp_path / "run", corpus=ARTICLES, cache=cache, progress=False)
    assert numbers(tmp_path / "run") == numbers(whole)


def test_a_recipe_that_pretrains_asks_for_a_corpus_before_anything_is_written(reviews, cache, tmp_path):
    with pytest.raises(ValueError, match="recipe 'tiny' pretrains.*give corpus=.*such as 'wt103'"):
        runs.run(recipe(), reviews, tmp_path / "run", cache=cache, progress=False)
    with pytest.raises(ValueError, match="nowhere"):
        runs.run(recipe(), reviews, tmp_path / "run", corpus=tmp_path / "nowhere", cache=cache, progress=False)
    assert not (tmp_path / "run").exists()


def test_a_run_that_has_pretrained_needs_its_corpus_no_more_and_refuses_another(reviews, cache, tmp_path, monkeypatch):
    r, out = recipe(), tmp_path / "run"
    monkeypatch.setattr(session, "Budget", lambda *_: StopAt(2))
    runs.run(r, reviews, out, corpus=ARTICLES, cache=cache, progress=False)
    monkeypatch.undo()
    with pytest.raises(RunMismatch, match="pretrained on another corpus"):
        runs.run(r, reviews, out, corpus=ARTICLES[1:], cache=cache, progress=False)
    monkeypatch.setattr(session, "Budget", lambda *_: StopAt(200))
    monkeypatch.setattr(runs.Run, "build_lm", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # killed right after pretraining
        runs.run(r, reviews, out, corpus=ARTICLES, cache=cache, progress=False)
    monkeypatch.undo()
    runs.run(r, reviews, out, cache=cache, progress=False)
    assert json.loads((out / "run.json").read_text())["status"] == "finished"


def test_a_dry_run_plans_the_pretraining_too(reviews, cache, tmp_path, caplog):
    with caplog.at_level("INFO"):
        runs.run(recipe(directions=("forward", "backward")), reviews, tmp_path / "run", corpus=ARTICLES, cache=cache,
                 dry_run=True, progress=False)
    plan = next(record.getMessage() for record in caplog.records if "what this run does" in record.getMessage())
    phases = [line.split()[1] for line in plan.splitlines() if line.split()[0] in ("forward", "backward")]
    assert list(dict.fromkeys(phases)) == ["pretrain", "lm", "classifier"] and phases.count("pretrain") == 2
    assert not (tmp_path / "run").exists()


def test_the_pretraining_phase_obeys_its_own_dropouts_and_limit_of_texts(reviews, cache, tmp_path):
    r = recipe(**{"pretrain.max_docs": 10, "model.pretrain_dropouts.weight": 0.37})
    data = runs.prepare(r, reviews, cache=cache, progress=False)
    data.general = runs.read_general(r, ARTICLES, cache=cache, progress=False)
    work = runs.Run(r, data, runs.RunFolder(tmp_path), Conditions(torch.device("cpu")))
    learn = work.build_general_lm(r.pretrain, "forward")
    assert len(learn.dls.train_ds) == 10 and learn.model[0].rnns[0].weight_p == pytest.approx(0.37)
    assert np.isin(data.general.valid, np.arange(65, 72)).all()


def test_the_column_of_the_texts_and_their_encoding_are_given_and_recorded(cache, tmp_path):
    rows = "\n".join(f"{number};{text.replace(';', ' ')} schön" for number, text in enumerate(ARTICLES))
    (tmp_path / "a.csv").write_bytes(f"id;body\n{rows}\n".encode("cp1252"))
    with pytest.raises(UlmfitError, match="no column `text` of texts; found id, body.*name the column by text="):
        pretrain(tmp_path / "a.csv", tmp_path / "run", cache, encoding="cp1252")
    folder = pretrain(tmp_path / "a.csv", tmp_path / "run", cache, text="body", encoding="cp1252", min_freq=1)
    run = json.loads((folder / "run.json").read_text())
    assert run["data"]["reading"]["text"] == "body" and run["data"]["reading"]["encoding"] == "cp1252"
    assert "schön" in LMWeights.load(folder / "pretrain_forward.safetensors").vocab
