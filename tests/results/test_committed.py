"""The committed results are found wherever a notebook runs, and where there are none that is said."""

from __future__ import annotations

import json
from pathlib import Path

from ulmfit_fastai._files import has_changed
from ulmfit_fastai.results import committed

ROOT = Path(__file__).parents[2]


def test_a_clone_has_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert committed.committed_results() == ROOT / "data" / "results"


def test_installed_from_a_wheel_they_are_looked_for_beside_the_notebook_and_missed_in_words(tmp_path, monkeypatch,
                                                                                            caplog):
    installed = tmp_path / "site-packages" / "ulmfit_fastai" / "results" / "committed.py"
    monkeypatch.setattr(committed, "__file__", str(installed))
    (tmp_path / "here" / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "notebooks")
    assert not committed.committed_results().exists()
    assert "copy its folder data/results" in caplog.text
    run = tmp_path / "here" / "data" / "results" / "imdb-quick" / "run.json"
    run.parent.mkdir(parents=True)
    run.write_text("{}")
    assert (committed.committed_results() / "imdb-quick" / "run.json").samefile(run)


def test_no_committed_record_was_changed_after_it_was_sealed():
    records = sorted((ROOT / "data" / "results").rglob("run.json"))
    assert records
    assert not [path for path in records if has_changed(json.loads(path.read_text(encoding="utf-8")))]
