"""What the commands that look at a model say of runs and of the weights that come with the package."""

from __future__ import annotations

import json

from fake_run import write_fake_run

from ulmfit_fastai.cli.app import main
from ulmfit_fastai.cli.models import about_folder


def test_the_bundled_language_model_writes_and_the_same_seed_writes_the_same(capsys):
    command = ["generate", "The film begins", "--tokens", "5", "--json"]
    assert main(command) == 0
    (first,) = json.loads(capsys.readouterr().out)
    assert first["prompt"] == "The film begins" and first["text"].lower().startswith("the film begins")
    assert main(command) == 0 and json.loads(capsys.readouterr().out) == [first]
    assert main([*command[:-1], "--seed", "1", "--number", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and first["text"] not in lines


def test_no_language_model_writes_nothing(capsys):
    assert main(["generate", "x", "--weights", "none"]) == 2
    assert "give another --weights" in capsys.readouterr().err
    assert main(["generate", "x", "--weights", "/nope"]) == 2
    assert main(["generate", "x", "--tokens", "0"]) == 2


def test_a_run_is_told_by_its_record(tmp_path, capsys):
    folder = write_fake_run(tmp_path / "run", curves=False)
    found = about_folder(folder)
    assert found["classes"] == ["neg", "pos"] and found["directions"] == ["forward", "backward"]
    assert found["what"] == "a run without weights" and found["status"] == "finished"
    assert main(["info", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "25,000 train" in shown and "AWD-LSTM 400/1152/3" in shown and "wt103" in shown


def test_a_language_model_that_went_on_says_from_which_one_and_which_direction_it_has(tmp_path, capsys):
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"text": f"The film {n} was good . " * 4}) + "\n"
                                              for n in range(24)))
    sets = ["--set", "bs=2", "--set", "bptt=8", "--set", "min_freq=1"]
    command = ["pretrain", str(tmp_path / "c.jsonl"), "--json", *sets]
    model = ["--set", 'model={"emb_sz": 8, "n_hid": 10, "n_layers": 2}']
    assert main([*command, *model, "--weights", "none", "--out", str(tmp_path / "a")]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["metrics"]["forward"]["perplexity"] > 1
    assert main([*command, "--weights", str(tmp_path / "a"), "--out", str(tmp_path / "b")]) == 0
    capsys.readouterr()
    assert main(["info", str(tmp_path / "a")]) == 0 and "random numbers" in capsys.readouterr().out
    assert main(["info", str(tmp_path / "b")]) == 0
    assert "started from  small, c.jsonl" in capsys.readouterr().out
    assert main(["generate", "The", "--weights", str(tmp_path / "b"), "--direction", "backward"]) == 2
    assert "found a language model of the other direction only" in capsys.readouterr().err


def test_an_empty_argument_is_named_as_it_was_given(capsys):
    assert main(["info", ""]) == 2 and "MODEL is empty" in capsys.readouterr().err


def test_a_language_model_on_its_own_is_one_to_start_from(tmp_path):
    folder = write_fake_run(tmp_path / "run", curves=False)
    (folder / "pretrain_forward.safetensors").write_bytes(b"weights")
    found = about_folder(folder)
    assert found["what"] == "a language model, to start from" and not found["digests_recorded"]
    assert found["files"] == {"pretrain_forward.safetensors": 7} == dict.fromkeys(found["digests"], 7)
