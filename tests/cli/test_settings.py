"""`--set` and `--preset` in a shell: wrong settings cost a message, and a printed recipe can be given back."""

from __future__ import annotations

import json

import pytest
from some_texts import reviews

from ulmfit_fastai.cli.app import COMMANDS, build_parser, main
from ulmfit_fastai.recipe.presets import preset
from ulmfit_fastai.recipe.recipe import Recipe

DOORS = {"imdb": "imdb --data {nowhere}", "train": "train {nowhere} --out {out}",
         "reproduce": "reproduce trec6 --data {nowhere}", "several": "reproduce trec6 ag --data {nowhere}",
         "ablate": "ablate table7 --data {nowhere}", "lowshot": "lowshot --data {nowhere} --labels 100,all",
         "figure4": "figure4 --data {nowhere}"}
WRONG = {"classifier.bs=abc": "classifier.bs is 'abc'; expected a whole number",
         "classifier.bs=3.5": "classifier.bs is 3.5; expected a whole number",
         "clasifier.bs=3": "did you mean classifier.bs?", "seed=-1": "seed is -1; expected at least 0",
         "directions=sideways": "directions is 'sideways'; expected a list of words",
         "classifier.stages.0.lr=0": "lr is 0.0; expected a positive number"}


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """What a command says to stderr, given its exit code; nothing may have been written."""
    monkeypatch.chdir(tmp_path)

    def run(command: str, code: int = 2) -> str:
        typed = command.format(nowhere=tmp_path / "nowhere", out=tmp_path / "out")
        assert main(typed.split()) == code
        assert list(tmp_path.iterdir()) == []
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize("setting", WRONG)
@pytest.mark.parametrize("door", DOORS)
def test_a_wrong_setting_is_named_before_anything_is_read(door, setting, said):
    message = said(f"{DOORS[door]} --set {setting}")
    assert WRONG[setting] in message and "nowhere" not in message


@pytest.mark.parametrize(("setting", "message"), [
    ("bs=abc", "bs is 'abc'; expected a whole number"), ("bs=3.5", "bs is 3.5"), ("seed=-1", "seed is -1"),
    ("bqtt=3", "did you mean bptt?"), ("epochs=0", "epochs is 0"), ("valid_texts=9 --valid x", "valid_texts"),
    ("min_freq=2 --tokenizer sentencepiece", "min_freq (pieces of words are never too rare): no effect")])
def test_a_wrong_setting_of_pretraining_is_named_before_the_corpus_is_read(setting, message, said):
    found = said("pretrain {nowhere} --set " + setting)
    assert message in found and "nowhere" not in found


@pytest.mark.parametrize("setting", ["pretrain.bs=8", "lm.backward_factor=0.5",
                                     "classifier.stages.0.schedule.cut_frac=0.5"])
@pytest.mark.parametrize("door", ["imdb", "train", "reproduce", "several"])
def test_a_setting_without_effect_is_refused_before_anything_is_read(door, setting, said):
    message = said(f"{DOORS[door]} --preset few-labels --set {setting}")
    assert setting.split("=")[0] in message and "no effect" in message


@pytest.mark.parametrize(("setting", "advice"), [
    ("classifier.stages.0.lr=0.3", "leave it out"), ("evaluate=test", "leave it out"),
    ("protocol=tutorial", "leave it out"), ("seed=5", "--seeds"),
    ("classifier.stages.0.span=[0.0,0.5]", "leave it out"), ("pretrain.bs=8", "stage 1")])
@pytest.mark.parametrize("door", ["ablate", "lowshot", "figure4"])
def test_a_setting_that_an_experiment_would_lose_is_refused_before_anything_is_read(door, setting, advice, said):
    message = said(f"{DOORS[door]} --preset paper-small --set {setting}")
    assert f"lost: {setting.split('=')[0]} = " in message and advice in message and "nowhere" not in message


@pytest.mark.parametrize("door", ["ablate", "lowshot"])
def test_directions_may_be_named_either_way(door, said):
    for typed in ("--set directions=[\"backward\"]", "--direction backward"):
        assert "nowhere" in said(f"{DOORS[door]} {typed}")
    assert "directions is given twice" in said(f"{DOORS[door]} --direction forward --set directions=[\"backward\"]")
    assert "lost: directions = ['backward']" in said("figure4 --data {nowhere} --set directions=[\"backward\"]")


def test_numbers_of_labels_have_an_option_of_their_own_in_figure_3(said):
    assert "--labels" in said("lowshot --data {nowhere} --set n_labels=50")


@pytest.mark.parametrize("setting", ["valid_fraction=0.2", "classifier.early_stopping=3", "classifier.bs=8",
                                     "lm_seed=0", "lm.max_docs=5", "evaluate=validation"])
@pytest.mark.parametrize("door", ["ablate", "lowshot", "figure4"])
def test_a_setting_that_an_experiment_takes_is_not_refused(door, setting, said):
    assert "nowhere" in said(f"{DOORS[door]} --preset paper-small --set {setting}")  # the next thing that is wrong


@pytest.mark.parametrize(("settings", "message"), [
    ("--set classifier.bs=8 --set classifier.bs=9", "classifier.bs is given twice: 8 and 9"),
    ("--seed 3 --set seed=5", "seed is given twice: 3 and 5"),
    ("--direction forward --set directions=[\"backward\"]", "directions is given twice")])
@pytest.mark.parametrize("door", ["imdb", "train"])
def test_a_field_that_is_given_twice_is_refused(door, settings, message, said):
    assert message in said(f"{DOORS[door]} {settings}")


@pytest.mark.parametrize("door", DOORS)
def test_a_preset_that_is_not_there_is_named_before_anything_is_read(door, said):
    assert "there is no recipe my.json" in said(f"{DOORS[door]} --preset my.json")


@pytest.mark.parametrize("command", [c for c in COMMANDS if any("--set" in o.flags for o in c.options)],
                         ids=lambda command: command.name)
def test_the_help_of_every_command_with_settings_says_where_they_are_listed(command, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args([command.name, "--help"])
    assert "recipe --fields" in " ".join(capsys.readouterr().out.split())


def test_all_fields_are_listed_with_type_default_and_line(capsys):
    assert main(["recipe", "--fields"]) == 0
    shown = capsys.readouterr().out
    assert "classifier.bs  (a whole number; 64)\n    Texts, or streams" in shown and "model.lm_dropouts.embed" in shown
    assert main(["recipe", "tiny", "--fields"]) == 0
    assert "classifier.stages.3.lr  (a number; 0.01)" in capsys.readouterr().out
    assert main(["recipe", "tiny", "--fields", "--json"]) == 0
    assert {"name", "kind", "value", "line"} == set(json.loads(capsys.readouterr().out)[0])
    assert main(["recipe", "--fields", "pretrain"]) == 0
    assert "limit_words  (a whole number or None; None)" in capsys.readouterr().out


def test_a_recipe_that_was_printed_edited_and_given_back_is_the_one_that_runs(tmp_path, capsys):
    assert main(["recipe", "tiny", "--json"]) == 0
    mine = Recipe.from_json(capsys.readouterr().out).replace(**{"lm": None, "classifier.bs": 8})
    mine.save(tmp_path / "my.json")
    texts, labels = reviews(24)
    rows = "\n".join(f'"{text}",{label}' for text, label in zip(texts, labels))
    (tmp_path / "t.csv").write_text(f"text,label\n{rows}\n")
    train = ["train", str(tmp_path / "t.csv"), "--device", "cpu", "--preset"]
    assert main([*train, str(tmp_path / "my.json"), "--out", str(tmp_path / "a")]) == 0
    ran = Recipe.from_dict(json.loads((tmp_path / "a" / "run.json").read_text())["recipe"])
    assert {name for name, *_ in ran.diff(mine)} == {"evaluate", "pretrain"}  # its own texts have no test set
    assert main([*train, str(tmp_path / "a"), "--out", str(tmp_path / "b")]) == 0  # the folder of that run
    again = Recipe.from_dict(json.loads((tmp_path / "b" / "run.json").read_text())["recipe"])
    assert again == ran and preset("tiny") != ran
