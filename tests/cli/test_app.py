"""The command line: what is typed arrives where it should, and what goes wrong is said in one message."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from fake_run import write_fake_run

import ulmfit_fastai
from ulmfit_fastai import _progress
from ulmfit_fastai._errors import UlmfitError
from ulmfit_fastai.cli import app as cli
from ulmfit_fastai.cli import doctor
from ulmfit_fastai.cli.app import COMMANDS, build_parser, main
from ulmfit_fastai.cli.help import fill
from ulmfit_fastai.cli.options import seconds, setting

NAMES = [command.name for command in COMMANDS]


def python(*args: str, **settings) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=120, **settings)


@pytest.fixture
def fake_module(monkeypatch):
    """Put a module of the package out of the way for functions of our own, so that nothing is trained here."""

    def put(name: str, **functions) -> None:
        module = ModuleType(f"ulmfit_fastai.{name}")
        module.__dict__.update(functions)
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


@pytest.fixture
def reproduced(fake_module) -> list[tuple]:
    """The calls that `imdb` makes of reproduce_imdb."""
    calls = []
    fake_module("experiments.reproduction",
                reproduce_imdb=lambda *args, **settings: calls.append((args, settings)) or "a result")
    return calls


# ---------------------------------------------------------------------------------------------------------------- help
def test_help_needs_none_of_the_heavy_libraries():
    code = "import sys; from ulmfit_fastai.cli import build_parser; build_parser().format_help(); print(*sys.modules)"
    loaded = set(python("-c", code, check=True).stdout.split())
    assert "argparse" in loaded
    assert not loaded & {"torch", "fastai", "pandas", "numpy", "spacy", "matplotlib"}


def test_help_names_every_command_with_its_summary():
    text = build_parser().format_help()
    for command in COMMANDS:
        assert command.name in text
        assert command.run.__doc__.partition("\n")[0] in " ".join(text.split())


@pytest.mark.parametrize("command", NAMES)
def test_each_command_explains_itself_with_examples_that_parse(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    whole = capsys.readouterr().out.split("examples:")[1].split("options:")[0].replace("\\\n", "")
    lines = whole.split("positional arguments:")[0].splitlines()
    examples = [shlex.split(line.split(">")[0]) for line in lines if line.strip().startswith("ulmfit-fastai")]
    assert examples
    for example in examples:
        assert build_parser().parse_args(example[1:]).command == command


def test_help_of_imdb_lists_exactly_the_presets_there_are():
    from ulmfit_fastai.recipe.presets import PRESETS

    section = cli.imdb.__doc__.split("presets:")[1].split("--dry-run")[0]
    assert {line.split()[0] for line in section.splitlines() if line.strip()} == set(PRESETS) - {"demo"}


def test_version_is_the_packages():
    answer = python("-m", "ulmfit_fastai", "--version", check=True)
    assert answer.stdout.strip() == f"ulmfit-fastai {ulmfit_fastai.__version__}"


@pytest.mark.parametrize("columns", [50, 80, 200])
def test_help_is_as_wide_as_the_terminal_and_its_examples_can_be_pasted(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    for name in ("train", "imdb"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        prose = capsys.readouterr().out
        described = prose.split("\n\n", 1)[1].split("options:")[0]
        assert max(map(len, described.splitlines())) <= min(columns, 100)
        assert "  --" in prose and all(line == "" or line.strip() for line in described.splitlines())
        for line in described.split("examples:")[1].replace("\\\n", "").splitlines():
            assert not line.strip().startswith("--")


def test_a_list_keeps_its_columns_and_a_paragraph_loses_its_line_ends():
    text = "a paragraph\nof two lines\n\nnames:\n  one    what it is, in words\n  ulmfit-fastai a --b 'c d' --e f"
    assert fill(text, 24).splitlines() == [
        "a paragraph of two lines", "", "names:", "  one    what it is, in", "         words", "  ulmfit-fastai a \\",
        "      --b 'c d' --e f"]


def test_an_option_means_the_same_in_every_command():
    seen = {}
    for command in COMMANDS:
        for item in command.options:
            if not item.flags[0].startswith("--") or item.flags[0] in ("--task", "--out", "--text", "--set"):
                continue  # the task of the paper or of a table; a folder or a file; one column or several
            meaning = item.settings.get("metavar"), item.settings.get("action"), item.settings.get("type")
            assert seen.setdefault(item.flags[0], meaning) == meaning, (command.name, item.flags[0])
    assert seen["--valid"][0] == "PATH" and seen["--valid-share"][0] == "SHARE"


def test_every_command_with_a_result_gives_it_as_json_and_every_one_that_trains_takes_weights():
    options = {command.name: {flag for item in command.options for flag in item.flags} for command in COMMANDS}
    assert {name for name, flags in options.items() if "--json" not in flags} == {"completion"}
    trains = {name for name, flags in options.items() if "--set" in flags}
    assert trains == {"imdb", "train", "reproduce", "ablate", "lowshot", "figure4", "pretrain"}
    assert all("--weights" in options[name] for name in trains)


@pytest.mark.parametrize(("typed", "expected"), [
    ("ulmfit-fastai pre", "predict pretrain"), ("ulmfit-fastai imdb --direction b", "backward both"),
    ("ulmfit-fastai explain model --ht", "--html"), ("ulmfit-fastai completion z", "zsh"),
    ("ulmfit-fastai imdb --data x", "")])
def test_a_shell_completes_commands_options_and_values(typed, expected, capsys):
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    words = typed.split()
    ask = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _ulmfit_fastai; echo ${{COMPREPLY[@]}}"
    found = subprocess.run(["bash", "-c", script + ask], capture_output=True, text=True, timeout=60)
    assert (found.stdout.strip(), found.stderr) == (expected, "")


# ----------------------------------------------------------------------------------------------------------- arguments
@pytest.mark.parametrize("text, expected", [("90m", 5400), ("2h", 7200), ("1h30m", 5400), ("45s", 45), ("600", 600),
                                            ("1.5h", 5400), ("2H", 7200)])
def test_durations_are_read_as_people_write_them(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "m", "0", "0h", "-5", "1m2h", "2 hours"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a duration"):
        seconds(text)


@pytest.mark.parametrize("text, expected", [
    ("classifier.bs=32", ("classifier.bs", 32)), ("lm=null", ("lm", None)), ("weights=none", ("weights", "none")),
    ("n_labels=None", ("n_labels", None)), ("fast=False", ("fast", False)), ("fast=true", ("fast", True)),
    ("optimizer.moms=[0.8,0.7]", ("optimizer.moms", [0.8, 0.7])), ("weights=a=b", ("weights", "a=b"))])
def test_settings_are_json_where_they_can_be_and_words_otherwise(text, expected):
    assert setting(text) == expected


def test_a_setting_without_a_value_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        main(["imdb", "--set", "classifier.bs"])
    assert end.value.code == 2
    assert "FIELD=VALUE" in capsys.readouterr().err


def test_imdb_hands_on_everything_that_was_typed(reproduced, capsys):
    typed = ("imdb --preset quick --data here.tgz --corpus wiki --out there --direction both --device cpu "
             "--lm-from other --time-budget 90m --dry-run --no-resume --no-parallel --seed 3 --set classifier.bs=32 "
             "--set weights=none")
    assert main(typed.split()) == 0
    assert reproduced == [(("quick",), {
        "data": "here.tgz", "corpus": "wiki", "out": "there", "directions": ("forward", "backward"), "device": "cpu",
        "lm_from": ["other"], "resume": False, "time_budget": 5400.0, "dry_run": True, "parallel": False, "seed": 3,
        "classifier.bs": 32, "weights": "none"})]
    assert "a result" in capsys.readouterr().out


def test_imdb_leaves_to_the_recipe_what_was_not_typed(reproduced):
    assert main(["imdb"]) == 0
    assert reproduced == [(("fastai",), {"data": None, "corpus": None, "out": "runs/imdb", "directions": None,
                                         "lm_from": None, "device": None, "resume": True, "time_budget": None,
                                         "dry_run": False, "parallel": None})]


def test_pretrain_hands_on_everything_that_was_typed(fake_module, tmp_path, capsys):
    calls = []
    (tmp_path / "run.json").write_text('{"status": "stopped"}')
    fake_module("training.pretraining", pretrain=lambda *args, **settings: calls.append((args, settings)) or tmp_path)
    typed = ("pretrain wiki.jsonl --size full --direction both --valid v.txt --evaluate a.tokens --evaluate b.tokens "
             "--out there --device cpu --time-budget 8h --no-resume --seed 2 --set epochs=3")
    assert main(typed.split()) == 3
    assert calls == [(("wiki.jsonl",), {
        "size": "full", "directions": ("forward", "backward"), "valid": "v.txt", "evaluate": ["a.tokens", "b.tokens"],
        "out": "there", "device": "cpu", "time_budget": 28800.0, "resume": False, "lang": "en", "tokenizer": "spacy",
        "seed": 2, "epochs": 3})]
    assert capsys.readouterr().out == f"language model, stopped: {tmp_path}\n"
    assert main([*typed.split(), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["status"] == "stopped"


@pytest.mark.parametrize("status, code", [("finished", 0), ("stopped", 3)])
def test_a_run_that_its_time_budget_ended_says_so_by_its_exit_code(fake_module, status, code):
    fake_module("experiments.reproduction", reproduce_imdb=lambda *args, **settings: SimpleNamespace(status=status))
    assert main(["imdb", "--time-budget", "1m"]) == code


@pytest.mark.parametrize("missing, code", [({}, 0), ({"table7.last": "time"}, 3)])
def test_an_experiment_with_runs_to_come_says_so_by_its_exit_code(fake_module, missing, code):
    fake_module("experiments.tables", ablate=lambda *args, **settings: SimpleNamespace(missing=missing))
    assert main(["ablate", "table7"]) == code


def test_a_recipe_that_cannot_be_is_refused_before_the_data_is_read(capsys):
    assert main(["imdb", "--data", "nowhere", "--set", "classifier.nothing=1"]) == 2
    assert "nothing" in capsys.readouterr().err


def test_the_path_of_the_report_is_shown_at_the_end(fake_module, tmp_path, capsys):
    fake_module("experiments.reproduction", demo=lambda **settings: "error 12.0 %")
    (tmp_path / "report.html").write_text("<html>")
    assert main(["demo", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == ["error 12.0 %", f"report: {tmp_path / 'report.html'}"]


@pytest.mark.parametrize(("typed", "level", "bars"), [
    ((), "INFO", True), (("-q",), "WARNING", False), (("-v",), "DEBUG", True), (("--no-progress",), "INFO", False),
    (("-q", "--dry-run"), "INFO", False)])
def test_how_much_is_said_while_running(fake_module, typed, level, bars, capsys):
    seen = []

    def run(*args, **settings):
        seen.append((logging.getLevelName(logging.getLogger("ulmfit_fastai").level), not _progress.hidden))

    fake_module("experiments.reproduction", reproduce_imdb=run)
    assert main(["imdb", *typed]) == 0
    assert seen == [(level, bars)] and not _progress.hidden


@pytest.mark.parametrize("hidden", [False, True])
def test_a_bar_that_is_hidden_draws_nothing(hidden, caplog):
    caplog.set_level(logging.INFO, "ulmfit_fastai")
    with _progress.without_bars(hidden):
        bar = _progress.Bar("work", 2.0, log_every=0.0)
        bar.show(1.0)
        bar.close()
    assert (caplog.messages == []) == hidden


def test_weights_are_a_setting_and_are_not_given_twice(reproduced, capsys):
    assert main(["imdb", "--weights", "runs/mine"]) == 0
    assert reproduced[0][1]["weights"] == "runs/mine"
    assert main(["imdb", "--weights", "a", "--set", "weights=b"]) == 2
    assert "weights is given twice" in capsys.readouterr().err


def test_a_runs_numbers_come_as_json(fake_module, tmp_path, capsys):
    from ulmfit_fastai.results.result import Result

    folder = write_fake_run(tmp_path / "run", curves=False)
    fake_module("experiments.reproduction", reproduce_imdb=lambda *args, **settings: Result.load(folder))
    assert main(["imdb", "--json", "--out", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["error"] == Result.load(folder).error and found["verdict"]["status"] and found["folder"] == str(folder)
    assert main(["imdb", "--json", "--dry-run"]) == 2
    assert "leave out --json" in capsys.readouterr().err
    main(["check", str(folder), "--json"])
    assert json.loads(capsys.readouterr().out)[0]["runs"] == [str(folder)]


# -------------------------------------------------------------------------------------------------------------- errors
def fails_with(fake_module, error: BaseException) -> None:
    def fail(*args, **settings):
        raise error

    fake_module("experiments.reproduction", reproduce_imdb=fail)


def test_a_users_error_is_one_message_and_exit_code_2(fake_module, capsys):
    fails_with(fake_module, UlmfitError("expected 25,000 reviews, found 24,999"))
    assert main(["imdb"]) == 2
    shown = capsys.readouterr()
    assert shown.err == "ulmfit-fastai: expected 25,000 reviews, found 24,999\n"
    assert shown.out == ""


@pytest.mark.parametrize(("error", "hint"), [
    (UlmfitError("no"), False), (FileNotFoundError(2, "no such file", "x"), False), (MemoryError(), False),
    (ValueError("of a library"), True), (KeyError("x"), True), (RuntimeError("a fault"), True)])
def test_where_it_is_in_the_program_is_offered_for_faults_of_the_program_only(fake_module, capsys, error, hint):
    fails_with(fake_module, error)
    assert main(["imdb"]) == 2
    assert ("--traceback" in capsys.readouterr().err) == hint


def test_a_file_that_cannot_be_read_is_named(fake_module, capsys):
    fails_with(fake_module, FileNotFoundError(2, "No such file or directory", "imdb.tgz"))
    assert main(["imdb"]) == 2
    assert "FileNotFoundError" in (shown := capsys.readouterr().err) and "imdb.tgz" in shown


def test_a_diverged_run_is_a_message_too(fake_module, capsys):
    fails_with(fake_module, FloatingPointError("the training loss is no longer a number"))
    assert main(["imdb"]) == 2
    assert "no longer a number" in capsys.readouterr().err


def test_traceback_lets_the_error_through(fake_module):
    fails_with(fake_module, ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        main(["imdb", "--traceback"])


def test_an_error_of_our_own_is_not_hidden(fake_module):
    fails_with(fake_module, AssertionError("a bug"))
    with pytest.raises(AssertionError):
        main(["imdb"])


def test_interrupting_says_how_to_go_on(fake_module, capsys):
    fails_with(fake_module, KeyboardInterrupt())
    assert main(["imdb"]) == 130
    assert "go on" in capsys.readouterr().err


def test_an_unknown_preset_is_named_without_a_traceback():
    answer = python("-m", "ulmfit_fastai", "recipe", "grand")
    assert answer.returncode == 2
    assert "grand" in answer.stderr and "Traceback" not in answer.stderr


def test_output_into_a_closed_pipe_is_no_error():
    program = f"{sys.executable} -m ulmfit_fastai recipe fastai --json | head -n 1; echo ${{PIPESTATUS[0]}}"
    answer = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=120)
    assert answer.stdout.split() == ["{", "0"] and answer.stderr == ""


# --------------------------------------------------------------------------------------------------------------- check
@pytest.mark.parametrize("codes, code", [((0,), 0), ((0, 0), 0), ((1,), 1), ((0, 1), 1), ((1, 0), 1)])
def test_check_fails_when_any_run_is_short(codes, code, fake_module, capsys):
    class Verdict(SimpleNamespace):
        __str__ = lambda self: f"verdict with code {self.exit_code}"  # noqa: E731

    fake_module("results.result", Result=SimpleNamespace(load=lambda folder: SimpleNamespace(folder=folder)))
    fake_module("results.verdict", experiments_of=lambda results: [[result] for result in results],
                check=lambda result: Verdict(exit_code=codes[int(result.folder)]))
    assert main(["check", *map(str, range(len(codes)))]) == code
    shown = capsys.readouterr().out.splitlines()
    assert shown[::2] == list(map(str, range(len(codes)))) and "verdict with code" in shown[1]


def test_seeds_of_one_experiment_are_judged_together(tmp_path, capsys):
    for number, (name, seed) in enumerate([("a", 1), ("b", 2), ("c", 1)]):
        folder = write_fake_run(tmp_path / name)
        run = json.loads((folder / "run.json").read_text())
        run["recipe"]["seed"] = seed
        run["recipe"]["classifier"]["bs"] = 32 if number < 2 else 64
        (folder / "run.json").write_text(json.dumps(run))
    main(["check", *(str(tmp_path / name) for name in "acb")])
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if not line.startswith(" ")] == [
        f"{tmp_path / 'a'}, {tmp_path / 'b'}", str(tmp_path / "c")]


def test_a_run_named_twice_is_not_two_seeds(tmp_path, capsys):
    folder = str(write_fake_run(tmp_path / "a"))
    main(["check", folder, folder + "/", folder])
    assert "seeds" not in capsys.readouterr().out


def test_check_of_a_folder_that_is_no_run_is_a_users_error(tmp_path, capsys):
    assert main(["check", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- recipe
def test_a_recipe_printed_as_json_comes_back_the_same(capsys, tmp_path):
    from ulmfit_fastai.recipe.presets import preset
    from ulmfit_fastai.recipe.recipe import Recipe

    assert main(["recipe", "quick", "--json"]) == 0
    text = capsys.readouterr().out
    assert Recipe.from_json(text) == preset("quick")
    (tmp_path / "mine.json").write_text(text)
    assert main(["recipe", "diff", "quick", str(tmp_path / "mine.json")]) == 0
    assert capsys.readouterr().out == "no difference\n"


def test_the_difference_between_a_preset_and_a_run_is_shown_field_by_field(capsys, tmp_path):
    from ulmfit_fastai.recipe.presets import preset

    changed = preset("tiny").replace(seed=17)
    (tmp_path / "run.json").write_text(json.dumps({"recipe": json.loads(changed.to_json())}))
    assert main(["recipe", "diff", "tiny", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].split() == ["seed", str(preset("tiny").seed), "->", "17"]


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_the_recipe_of_a_damaged_run_is_a_users_error(content, capsys, tmp_path):
    (tmp_path / "run.json").write_text(content)
    assert main(["recipe", str(tmp_path)]) == 2
    assert str(tmp_path / "run.json") in capsys.readouterr().err


def test_a_row_of_the_papers_tables_is_a_recipe_with_one_difference(capsys):
    assert main(["recipe", "diff", "ulmfit", "table6.none", "--task", "trec6"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["name", "lm"]


def test_a_difference_needs_two_recipes(capsys):
    assert main(["recipe", "diff", "tiny"]) == 2
    assert "recipe diff" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- doctor
@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty cache of fastai's."""
    monkeypatch.setenv("FASTAI_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def silent_network(monkeypatch):
    monkeypatch.setattr(doctor, "unreachable", lambda url: "no answer (cut off)")


def found(diagnosis: doctor.Diagnosis, section: str, word: str) -> doctor.Line:
    return next(line for line in diagnosis.sections[section] if word in line.text)


def test_for_texts_the_doctor_needs_neither_fastai_nor_the_network(tmp_path):
    code = ("import sys; from ulmfit_fastai.cli import doctor; doctor.unreachable = None\n"
            "print(doctor.diagnose('texts').verdict, 'torch' in sys.modules, 'fastai' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("ready for the demo") and done.stdout.split()[-2:] == ["True", "False"], done.stderr


def test_the_doctors_device_is_fastais():
    from fastai.torch_core import default_device

    from ulmfit_fastai.model.devices import best_device

    assert best_device() == default_device()


def test_doctor_changes_nothing(home):
    doctor.diagnose(network=False)
    assert not home.exists()


def test_doctor_sees_data_in_the_cache_and_says_where_to_put_what_is_missing(home, silent_network):
    before = doctor.diagnose()
    line = found(before, "Data and weights", "imdb: ")
    assert line.status == doctor.MISSING and before.ready_for("texts") and not before.ready_for("imdb")
    assert str(home / "archive" / "imdb.tgz") in line.advice and "https://" in line.advice
    (home / "data" / "imdb" / "train").mkdir(parents=True)
    for direction in ("fwd", "bwd"):
        (home / "models" / f"wt103-{direction}" / "lstm").mkdir(parents=True)
    after = doctor.diagnose()
    assert found(after, "Data and weights", "imdb: ").status == doctor.OK
    assert after.count(doctor.MISSING) == 0


@pytest.mark.parametrize(("kind", "words"), [
    ("cuda", "rehearsed on a look-alike"), ("mps", "rehearsed on a look-alike"), ("cpu", "CPU threads")])
def test_doctor_says_of_a_device_what_is_measured_and_what_is_not(kind, words, monkeypatch):
    monkeypatch.setattr("ulmfit_fastai.model.devices.best_device", lambda: torch.device(kind))
    monkeypatch.setattr("ulmfit_fastai.results.environment.describe_device", lambda device: {"name": "a device"})
    monkeypatch.setattr("ulmfit_fastai.model.precision.resolve", lambda precision, device: "fp16")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=2**34))
    lines = list(doctor._device())
    assert any(words in line.text for line in lines) and all(line.status in (doctor.OK, doctor.NOTE) for line in lines)
    assert any("look-alike" in line.text for line in lines) == (kind != "cpu")


@pytest.mark.parametrize(("load", "said"), [(0.4, False), (15.3, True)])
def test_doctor_says_when_others_are_at_work(load, said, monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    assert any(f"{load} programs at work" in line.text for line in doctor._device()) == said


def test_threads_wait_without_turning_unless_the_user_says_otherwise():
    for before, after in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        settings = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        settings |= {} if before is None else {"OMP_WAIT_POLICY": before}
        code = "import ulmfit_fastai, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True)
        assert done.stdout.split() == [after, "False"]


def test_what_a_reachable_host_has_is_not_missing(home, monkeypatch):
    monkeypatch.setattr(doctor, "unreachable", lambda url: None)
    assert doctor.diagnose().count(doctor.MISSING) == 0


def test_bundled_weights_do_where_wt103_cannot_be_had(home, silent_network, monkeypatch, tmp_path):
    monkeypatch.setattr("ulmfit_fastai.model.pretrained.BUNDLED", tmp_path)
    assert found(doctor.diagnose(), "Data and weights", "wt103-fwd").status == doctor.MISSING
    (tmp_path / "wiki-small-forward.safetensors").touch()
    assert found(doctor.diagnose(), "Data and weights", "wt103-fwd").status == doctor.NOTE


def test_doctor_takes_fastais_own_settings_for_its_folders(home):
    home.mkdir()
    (home / "config.ini").write_text("[DEFAULT]\ndata = elsewhere\n")
    assert doctor.fastai_folder("data") == home / "elsewhere"
    assert doctor.fastai_folder("model") == home / "models"


def test_doctor_finds_a_missing_and_an_unsuitable_package(home, monkeypatch):
    monkeypatch.setattr(doctor, "required", lambda: ["no-such-package>=1", "torch>=99", "numpy>=1", 'x; extra == "a"'])
    lines = doctor.diagnose(network=False).sections["Installed"]
    assert [line.status for line in lines] == [doctor.PROBLEM, doctor.PROBLEM, doctor.OK]
    assert "not installed" in lines[0].text and "no-such-package" in lines[0].advice


def test_doctors_exit_code_is_its_verdict(monkeypatch, capsys):
    sick = doctor.Diagnosis({"Device": [doctor.Line(doctor.PROBLEM, "none")]})
    well = doctor.Diagnosis({"Device": [doctor.Line(doctor.OK, "cpu")]})
    short = doctor.Diagnosis({"Data": [doctor.Line(doctor.MISSING, "imdb")]})
    monkeypatch.setattr(doctor, "diagnose", lambda purpose, network: short)
    assert main(["doctor", "--json"]) == 0 and json.loads(capsys.readouterr().out)["ready"]
    assert main(["doctor", "--for", "imdb"]) == 1
    monkeypatch.setattr(doctor, "diagnose", lambda purpose, network: sick)
    assert main(["doctor"]) == 1
    assert "not ready" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "diagnose", lambda purpose, network: well)
    assert main(["doctor", "--offline"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("doctor --for imdb")
    well.sections["Data and weights"] = [doctor.Line(doctor.OK, "imdb")]
    assert main(["doctor", "--for", "imdb"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("ready")


def test_a_section_that_cannot_be_looked_at_is_a_line_and_not_a_crash(home, monkeypatch):
    def broken():
        raise RuntimeError("driver too old")

    monkeypatch.setattr(doctor, "_device", broken)
    diagnosis = doctor.diagnose(network=False)
    assert "driver too old" in found(diagnosis, "Device", "found out").text and diagnosis.sections["Memory and disk"]


def test_hosts_that_hang_hold_the_doctor_up_no_longer_than_its_limit(home, monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(doctor, "unreachable", lambda url: never.wait(60))
    monkeypatch.setattr(doctor, "TIMEOUT", 0.2)
    started = time.monotonic()
    answers = doctor._asked_hosts()()
    assert time.monotonic() - started < 20 and len(answers) > 1
    assert set(answers.values()) == {"no answer in 0.2 s"}
    never.set()


def test_a_host_that_does_not_answer_is_told_in_words():
    assert "no answer" in doctor.unreachable("http://127.0.0.1:9/file.tgz")
