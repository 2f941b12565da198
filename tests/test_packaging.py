"""What is given to others: a source distribution whose tests run, a wheel that holds what it needs, true pages."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from ulmfit_fastai._version import __version__

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def setting(section: str, name: str) -> str:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser[section][name]


def built(kind: str, source: Path, folder: Path) -> Path:
    """What the build system of pyproject.toml makes of `source`, without the network."""
    pytest.importorskip("setuptools", minversion="77", reason="pip install -e '.[test]'")
    done = subprocess.run([sys.executable, "-c", BUILD, kind, str(folder)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The source distribution, unpacked elsewhere; made of a copy, so that this folder stays as it is."""
    folder = tmp_path_factory.mktemp("sdist")
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("a source distribution is made of a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "copy" / name).write_bytes((ROOT / name).read_bytes())
    with tarfile.open(built("build_sdist", folder / "copy", folder)) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"ulmfit_fastai-{__version__}"


def test_a_source_distribution_holds_all_that_is_committed(source):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    assert names and [name for name in names if not (source / name).is_file()] == []


@pytest.mark.slow
def test_the_tests_of_a_source_distribution_run(source):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_public.py",
               "tests/recipe/test_presets.py", "tests/results/test_metrics.py", "-k", "not heavy"]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout


def test_a_wheel_holds_the_package_the_weights_and_both_licences(source, tmp_path):
    with zipfile.ZipFile(built("build_wheel", source, tmp_path)) as wheel:
        names = {name.split("/", 1)[1] for name in wheel.namelist() if "/" in name}
        metadata = wheel.read(f"ulmfit_fastai-{__version__}.dist-info/METADATA").decode()
    package = {path.relative_to(ROOT / "ulmfit_fastai").as_posix() for path in (ROOT / "ulmfit_fastai").rglob("*")
               if path.is_file() and "__pycache__" not in path.parts}
    assert package <= names
    assert {"licenses/LICENSE", "licenses/ulmfit_fastai/data/LICENSE.md"} <= names
    assert "Typing :: Typed" in metadata and "UNKNOWN" not in metadata


def test_the_page_of_an_index_has_no_picture_or_link_that_is_dead_there():
    page = (ROOT / setting("metadata", "long_description").removeprefix("file: ")).read_text(encoding="utf-8")
    assert [link for link in re.findall(r"\]\(([^)\s]+)", page) if not link.startswith("https://")] == []
    assert "![" not in page and "<img" not in page


def test_the_citation_names_this_version_and_the_paper():
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(cited["version"]) == __version__ and cited["license"] == setting("metadata", "license")
    paper = cited["preferred-citation"]
    assert paper["title"].startswith("Universal Language Model") and [a["family-names"] for a in paper["authors"]] == [
        "Howard", "Ruder"]


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")) + [ROOT / ".pre-commit-config.yaml"],
                         ids=lambda path: path.name)
def test_the_files_of_the_hosting_place_can_be_read(path):
    yaml = pytest.importorskip("yaml")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict) and content
    if path.parent.name == "ISSUE_TEMPLATE" and path.stem != "config":
        assert {"name", "description", "body"} <= content.keys()
        assert len({field["id"] for field in content["body"]}) == len(content["body"])


def test_the_weights_have_a_licence_that_says_what_they_were_learnt_from():
    folder = ROOT / "ulmfit_fastai" / "data"
    licence = (folder / "LICENSE.md").read_text(encoding="utf-8")
    assert "Apache License 2.0" in licence and "CC BY-SA 3.0" in licence and "Wikipedia" in licence
    assert "LICENSE.md" in (folder / "README.md").read_text(encoding="utf-8")
    for vocabulary in folder.glob("*.vocab.json"):
        assert json.loads(vocabulary.read_text(encoding="utf-8"))


def test_the_changes_stand_in_the_usual_categories():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.index("## [Unreleased]") < text.index("### Added") < text.index("### Fixed")
    found = set(re.findall(r"^### (.*)$", text, flags=re.M))
    assert found <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Measured"}
