"""A run folder knows its own run, by its recipe, and is one process's at a time, as long as that lives."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ulmfit_fastai._errors import UlmfitError
from ulmfit_fastai.recipe.recipe import Recipe
from ulmfit_fastai.results.folder import RunFolder, RunMismatch
from ulmfit_fastai.training.sharing import is_finished

RUNS = sorted((Path(__file__).parents[2] / "data" / "results").glob("*/run.json"))
HEADER = {"recipe": {}, "recipe_hash": "a", "data": {"fingerprint": "x"}}


def kept(tmp_path: Path, path: Path, **changes) -> dict:
    """A copy of a committed run.json in `tmp_path`, with other values."""
    run = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    if changes:
        run.pop("digest", None)
    (tmp_path / "run.json").write_text(json.dumps(run))
    return run


def header(run: dict) -> dict:
    recipe = Recipe.from_dict(run["recipe"])
    return {"recipe": recipe.to_dict(), "recipe_hash": recipe.hash, "data": run["data"]}


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("changes", [{}, {"recipe_hash": "0123456789abcdef"}], ids=["as it is", "another rule's hash"])
def test_every_committed_run_is_taken_as_the_run_that_it_is(path, changes, tmp_path):
    run = kept(tmp_path, path, **changes)
    assert RunFolder(tmp_path).open(header(run)) is True
    assert is_finished(tmp_path, Recipe.from_dict(run["recipe"]), run["data"]["fingerprint"])


def test_a_run_from_before_a_field_there_is_now_is_taken_as_the_run_that_it_is(tmp_path):
    run = kept(tmp_path, RUNS[0])
    for later in ("lm_seed", "class_weights"):
        run["recipe"].pop(later, None)
    kept(tmp_path, RUNS[0], recipe=run["recipe"], recipe_hash="0123456789abcdef")
    assert RunFolder(tmp_path).open(header(run)) is True


def test_another_recipe_is_another_run_though_the_hashes_be_equal(tmp_path):
    run = kept(tmp_path, RUNS[0])
    other = Recipe.from_dict(run["recipe"]).replace(seed=77)
    with pytest.raises(RunMismatch, match=r"another recipe \(seed: \d+ there, 77 here\)"):
        RunFolder(tmp_path).open({**header(run), "recipe": other.to_dict()})
    assert not is_finished(tmp_path, other, run["data"]["fingerprint"])


WHOLE = {**HEADER, "identity": {"lang": "en", "pieces": None, "kind": "single", "label_delim": None,
                                "weights": {"forward": "aa", "backward": "bb"}}}


def begun(folder: Path, header: dict = WHOLE, **changes) -> dict:
    """A run that has trained an epoch, with other values in its run.json."""
    RunFolder(folder).open(header)
    run = json.loads((folder / "run.json").read_text())
    run.pop("digest")
    run["stages"] = [{"direction": "forward", "phase": "lm", "stage": "a", "epochs_done": 1, "seconds": 1.0}]
    (folder / "run.json").write_text(json.dumps({**run, **changes}))
    return run


@pytest.mark.parametrize(("field", "value"), [
    ("lang", "de"), ("pieces", "0123"), ("kind", "multi"), ("label_delim", ";"), ("weights", {"forward": "cc"})])
def test_what_a_run_depends_on_besides_its_recipe_is_refused_by_name(field, value, tmp_path):
    begun(tmp_path / "run")
    other = {**WHOLE, "identity": {**WHOLE["identity"], field: value}}
    for use in (RunFolder(tmp_path / "run").open, RunFolder(tmp_path / "run").compare):
        with pytest.raises(RunMismatch, match=f"another {field}: ") as said:
            use(other)
        assert said.value.field == field


def test_weights_are_compared_for_the_directions_that_both_know(tmp_path):
    begun(tmp_path / "run")
    other = {**WHOLE, "identity": {**WHOLE["identity"], "weights": {"backward": "bb"}}}
    assert RunFolder(tmp_path / "run").open(other) is True


def test_a_record_that_was_changed_by_hand_or_by_a_bad_disk_is_refused(tmp_path):
    RunFolder(tmp_path).open(WHOLE)
    whole = (tmp_path / "run.json").read_text()
    assert RunFolder(tmp_path).read().run["status"] == "running"
    (tmp_path / "run.json").write_text(whole.replace('"running"', '"rumning"'))
    with pytest.raises(UlmfitError, match=r"run\.json is damaged, or was changed.*its own digest"):
        RunFolder(tmp_path).read()
    changed = json.loads(whole.replace('"running"', '"stopped"'))
    changed.pop("digest")  # a change that is meant
    (tmp_path / "run.json").write_text(json.dumps(changed))
    assert RunFolder(tmp_path).read().run["status"] == "stopped"


def test_a_folder_of_an_earlier_version_is_taken_for_what_its_config_says(tmp_path):
    begun(tmp_path / "run", HEADER)
    assert RunFolder(tmp_path / "run").open(WHOLE) is True
    (tmp_path / "run" / "config.json").write_text('{"format": "x", "lang": "de"}')
    with pytest.raises(RunMismatch, match="another lang: .* 'de' there, 'en' here"):
        RunFolder(tmp_path / "run").open(WHOLE)


def test_a_run_that_has_trained_nothing_gives_way_to_a_corrected_one(tmp_path):
    RunFolder(tmp_path / "run").open({**HEADER, "recipe": {"bs": 0}, "recipe_hash": "b"})
    assert RunFolder(tmp_path / "run").open(HEADER) is False
    assert json.loads((tmp_path / "run" / "run.json").read_text())["recipe"] == {}
    begun(tmp_path / "other", {**HEADER, "recipe": {"bs": 8}, "recipe_hash": "b"})
    with pytest.raises(RunMismatch, match="another recipe"):
        RunFolder(tmp_path / "other").open(HEADER)


def test_other_versions_are_said_in_one_line_and_the_run_goes_on(tmp_path, caplog):
    versions = {"torch": "2.13", "fastai": "2.8.12", "ulmfit_fastai": "0.1"}
    begun(tmp_path / "run", {**HEADER, "versions": versions}, status="stopped")
    assert RunFolder(tmp_path / "run").open({**HEADER, "versions": versions}) is True and not caplog.records
    assert RunFolder(tmp_path / "run").open({**HEADER, "versions": {**versions, "torch": "3.0"}}) is True
    assert "torch 2.13 there, 3.0 here" in caplog.text and len(caplog.records) == 1


def test_recipes_of_pretraining_are_told_apart_by_hash_or_by_their_fields(tmp_path):
    settings = {"size": "small", "wd": 0, "seed": 0}
    begun(tmp_path / "run", {**HEADER, "recipe": settings})
    RunFolder(tmp_path / "run").open({**HEADER, "recipe": {**settings, "wd": 0.0}, "recipe_hash": "b"})
    with pytest.raises(RunMismatch, match="seed: 0 there, 1 here"):
        RunFolder(tmp_path / "run").open({**HEADER, "recipe": {**settings, "seed": 1}, "recipe_hash": "c"})


def test_advice_is_worded_for_python_and_for_the_shell(tmp_path):
    shutil.copy(RUNS[0], tmp_path / "run.json")
    with pytest.raises(RunMismatch) as caught:
        RunFolder(tmp_path).open({**HEADER, "recipe": {"size": "small"}})
    assert str(caught.value).endswith("; choose another out=, or resume=False to start anew")
    assert caught.value.in_shell_words.endswith("; choose another --out, or --no-resume to start anew")
    assert caught.value.path == tmp_path


# -- the lock ----------------------------------------------------------------------------------------------------------

PROGRAM = f"""
import sys, time
from ulmfit_fastai.results.folder import RunFolder
folder = RunFolder(sys.argv[1])
folder.open({HEADER!r})
print("opened", flush=True)
time.sleep(600)
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    first = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True,
                             cwd=Path(__file__).parents[2])
    try:
        assert first.stdout is not None and first.stdout.readline() == "opened\n"
        with pytest.raises(ValueError, match="another process is running in this folder; wait for it to end, or "):
            RunFolder(tmp_path / "run").open(HEADER)
        with pytest.raises(ValueError, match="another process is running in this folder"):
            RunFolder(tmp_path / "run").open(HEADER, resume=False)
    finally:
        first.kill()
        first.wait()
    assert RunFolder(tmp_path / "run").open(HEADER)


def test_the_same_process_may_open_its_folder_again_by_any_of_its_names(tmp_path, monkeypatch):
    held = RunFolder(tmp_path / "run")
    held.open(HEADER)
    monkeypatch.chdir(tmp_path)
    assert RunFolder("run").open(HEADER) and RunFolder(tmp_path / "run").open(HEADER)


def test_a_run_moved_aside_leaves_a_folder_to_lock_anew(tmp_path):
    first = RunFolder(tmp_path / "run")
    first.open(HEADER)
    first.open(HEADER, resume=False)
    assert len(list(tmp_path.iterdir())) == 2
    again = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "run")], stderr=subprocess.PIPE, text=True,
                           cwd=Path(__file__).parents[2])
    assert "another process is running in this folder" in again.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has locks on all its file systems")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_no_error(number, tmp_path, monkeypatch):
    def none(*args):
        raise OSError(number, "no locks here")

    RunFolder(tmp_path / "run").open(HEADER)
    monkeypatch.setattr("fcntl.flock", none)
    for _ in range(2):
        assert RunFolder(tmp_path / "run").open(HEADER)
    assert {path.name for path in (tmp_path / "run" / "state").iterdir()} == {"lock"}


def test_a_half_written_state_of_a_killed_process_is_cleared_away(tmp_path):
    RunFolder(tmp_path / "run").open(HEADER)
    (tmp_path / "run" / "state" / ".state.pt.0d39daa0.part").write_text("half")
    assert RunFolder(tmp_path / "run").open(HEADER)
    assert not list((tmp_path / "run").rglob(".*.part"))
    (tmp_path / "run" / "run.json").rename(tmp_path / "run" / ".run.json.0d39daa0.part")  # killed in its first save
    assert not RunFolder(tmp_path / "run").open(HEADER)
    assert not list((tmp_path / "run").rglob(".*.part"))
