"""The house: twelve rooms, one direction, no circle, and faces behind which no module is hidden."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ulmfit_fastai"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(PACKAGE.rglob("*.py"))
           if not path.name.startswith("__")]


def lint_imports(config: Path) -> subprocess.CompletedProcess[str]:
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run([sys.executable, "-c", script, "--no-cache", "--config", str(config)], cwd=config.parent,
                          capture_output=True, text=True)


def test_imports_go_one_way_and_in_no_circle():
    pytest.importorskip("importlinter", reason="the extra `lint`")
    done = lint_imports(ROOT / "setup.cfg")
    assert done.returncode == 0, done.stdout


def test_an_import_that_runs_back_up_is_found(tmp_path):
    pytest.importorskip("importlinter", reason="the extra `lint`")
    for path in PACKAGE.rglob("*.py"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "setup.cfg").write_text((ROOT / "setup.cfg").read_text(encoding="utf-8"), encoding="utf-8")
    with open(tmp_path / "ulmfit_fastai" / "texts" / "sampling.py", "a", encoding="utf-8") as file:
        file.write("\nfrom ..training import runs  # noqa\n")
    done = lint_imports(tmp_path / "setup.cfg")
    assert done.returncode == 1 and "ulmfit_fastai.texts is not allowed to import ulmfit_fastai.training" in done.stdout


def test_there_are_twelve_rooms():
    assert ROOMS == ["batches", "classifier", "cli", "experiments", "model", "predict", "recipe", "report", "results",
                     "texts", "tokens", "training"]


@pytest.mark.parametrize("room", ROOMS)
def test_the_face_of_a_room_has_a_sentence_and_hides_no_module(room):
    face = importlib.import_module(f"ulmfit_fastai.{room}")
    modules = {path.stem for path in (PACKAGE / room).glob("*.py")}
    assert face.__doc__ and 2 <= len(face.__all__) <= 10
    assert not modules & set(face.__all__), "a face must not hand on a name that one of its modules has"
    for name in face.__all__:
        assert getattr(face, name).__doc__ or name.isupper(), f"{room}.{name} has no docstring"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_and_can_be_imported_under_its_own_name(module):
    assert ast.get_docstring(ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")))
    assert sys.modules.get(module) is importlib.import_module(module) or importlib.import_module(module)
    parent, _, name = module.rpartition(".")
    assert getattr(importlib.import_module(parent), name) is sys.modules[module]


@pytest.mark.parametrize(("room", "name"), [
    ("recipe", "Recipe"), ("tokens", "TokenStore"), ("results", "Result"), ("classifier", "ULMFiT"),
    ("report", "write_report"), ("cli", "main")])
def test_the_addresses_that_people_use_stay_true(room, name):
    assert callable(getattr(importlib.import_module(f"ulmfit_fastai.{room}"), name))
