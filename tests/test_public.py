"""What the project promises about itself: names resolve, versions agree, imports go one way, the README is true."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ulmfit_fastai
from ulmfit_fastai.cli.app import COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ulmfit_fastai"
MODULES = sorted(PACKAGE.rglob("*.py"))
IMPORTED_AS = {"scikit-learn": "sklearn", "Jinja2": "jinja2"}


@pytest.fixture(scope="module")
def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def requirements(text: str) -> list[Requirement]:
    return [Requirement(line) for line in text.splitlines() if line.strip()]


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1].split(";")[0].strip() for line in lines}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def libraries_imported(path: Path) -> set[str]:
    """Top-level names of all that a file imports from outside the package, anywhere in it."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
    return found


@pytest.mark.parametrize("name", ulmfit_fastai.__all__)
def test_every_public_name_is_there(name):
    assert getattr(ulmfit_fastai, name) is not None


def test_an_unknown_name_is_refused_as_by_any_module():
    with pytest.raises(AttributeError, match="no_such_name"):
        ulmfit_fastai.no_such_name  # noqa: B018


def test_importing_the_package_loads_none_of_the_heavy_libraries():
    code = "import sys, ulmfit_fastai; dir(ulmfit_fastai); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "ulmfit_fastai" in loaded and not {"torch", "fastai", "pandas", "numpy", "spacy"} & set(loaded)


def test_what_is_imported_is_asked_for(config):
    asked = requirements(config["options"]["install_requires"])
    asked += [item for extra in config["options.extras_require"].values() for item in requirements(extra)]
    known = {IMPORTED_AS.get(item.name, item.name) for item in asked} | set(sys.stdlib_module_names) | {"ulmfit_fastai"}
    known |= {"fastcore", "fastdownload", "packaging"}  # fastai's own foundations, which it asks for itself
    known |= {"IPython"}  # asked for in a notebook only, which has it
    for path in MODULES:
        assert libraries_imported(path) <= known, path.name


@pytest.mark.parametrize("section", ["install_requires", "test", "lint", "docs", "release", "parquet", "zstd", "hub",
                                     "sentencepiece"])
def test_each_dependency_is_pinned_within_its_range(config, section):
    text = config["options"][section] if section in config["options"] else config["options.extras_require"][section]
    for requirement in requirements(text):
        assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)]), requirement.name


def test_what_lies_beside_the_code_travels_with_the_package(config):
    everywhere = config["options.package_data"]["*"].split()
    patterns = [*config["options.package_data"]["ulmfit_fastai"].split(), "*.py", *(f"*/{name}" for name in everywhere)]
    files = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.is_file()]
    files = [name for name in files if "__pycache__" not in name]
    assert {"py.typed", "report/page.css", "report/page.html.jinja", "predict/model_card.md.jinja"} <= set(files)
    assert [name for name in files if not any(fnmatch(name, one) for one in (*patterns, *everywhere))] == []


# -------------------------------------------------------------------------------------------------------------- README
@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readmes_commands_exist(readme):
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", readme, flags=re.S))
    typed = set(re.findall(r"ulmfit-fastai ([a-z0-9]+)", code))
    assert {"demo", "imdb", "check", "doctor"} <= typed <= {command.name for command in COMMANDS}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert {"demo", "test"} <= set(re.findall(r"make ([a-z]+)", code)) <= targets


def test_the_readme_is_read_in_one_sitting(readme):
    assert len(readme.splitlines()) <= 150


def test_ci_and_make_run_the_test_command_that_the_readme_names(readme):
    command = "python -m pytest -n 2"
    assert command in readme
    assert command in (ROOT / ".ci" / "run").read_text().replace(".venv/bin/", "")
    assert command in (ROOT / "Makefile").read_text().replace("$(python)", "python")


def test_the_readmes_links_lead_somewhere(readme):
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", readme) if "://" not in link]
    assert [link for link in links if link and not (ROOT / link).exists()] == []


def test_the_documentation_names_every_room_of_the_house():
    section = (ROOT / "docs" / "house.md").read_text(encoding="utf-8").split("\n## ")[0]
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(re.findall(r"`([a-z]+)/`", section)) == rooms
