"""The pages beside the code: their links lead somewhere, and the site is built of them without a warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ulmfit_fastai
from ulmfit_fastai.cli.app import COMMANDS

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md",
         ROOT / "ulmfit_fastai" / "data" / "README.md"]


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_their_anchors_lead_somewhere(page):
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        place, _, heading = link.partition("#")
        target = page if not place else page.parent / place
        if "://" in link or (target.exists() and not heading):
            continue
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.M) if target.exists() else []
        if heading not in map(anchor, headings):
            lost.append(link)
    assert lost == []


def test_every_page_of_docs_can_be_reached_from_its_index_and_from_the_sites_navigation():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    others = [page.relative_to(ROOT / "docs").as_posix() for page in DOCS if page != ROOT / "docs" / "README.md"]
    assert others and [name for name in others if f"({name})" not in index] == []
    assert [name for name in others if f": {name}\n" not in navigation] == []


def test_what_is_said_beside_others_is_shown_by_tests_that_are_there():
    rows = (ROOT / "docs" / "beside-others.md").read_text(encoding="utf-8").splitlines()
    shown = [row.split("|")[-2] for row in rows if row.startswith("|")][2:]
    for proof in shown:
        tests, made = re.findall(r"`(tests/[^`]+)`", proof), re.findall(r"`make ([^`]+)`", proof)
        assert tests or made or "](" in proof, proof
        for place, _, name in (test.partition("::") for test in tests):
            assert f"def {name}" in (ROOT / place).read_text(encoding="utf-8"), proof
        for target in made:
            assert f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), proof
    assert len(shown) > 20


def test_every_public_name_has_its_place_in_the_reference():
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    shown = {name.split(".")[-1] for name in re.findall(r"^::: (\S+)$", pages, flags=re.M)}
    assert set(ulmfit_fastai.__all__) - {"__version__"} <= shown


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `make docs` builds it: strictly, so that a warning is an error."""
    for name in ("mkdocs", "mkdocstrings", "material", "nbconvert"):
        pytest.importorskip(name, reason="pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "-d", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_has_every_page_every_notebook_and_the_reports(site):
    pages = [page.relative_to(ROOT / "docs").with_suffix(".html") for page in DOCS if page.name != "README.md"]
    notebooks = [Path("notebooks") / f"{path.stem}.html" for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")]
    reports = [path.relative_to(ROOT) for path in (ROOT / "data" / "results").glob("*/report.html")]
    assert len(notebooks) == 5 and reports
    assert [path for path in (Path("index.html"), *pages, *notebooks, *reports) if not (site / path).is_file()] == []


@pytest.mark.slow
def test_the_sites_reference_has_names_with_their_parameters_and_every_command(site):
    own = (site / "reference" / "own-texts.html").read_text(encoding="utf-8")
    assert 'id="ulmfit_fastai.classifier.estimator.ULMFiT.fit"' in own and "unlabelled" in own
    shell = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    assert [command.name for command in COMMANDS if f'id="{command.name}"' not in shell] == []


@pytest.mark.slow
def test_the_site_shows_without_a_network(site):
    tags = r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?(https?:)?//[^\s\">]+"
    pages = [path for path in site.rglob("*.html") if "data" not in path.relative_to(site).parts]
    assert [path.name for path in pages if re.search(tags, path.read_text(encoding="utf-8"))] == []


@pytest.mark.slow
def test_the_links_between_the_sites_pages_lead_somewhere(site):
    lost = set()
    for page in site.rglob("*.html"):
        for link in re.findall(r'<(?:a|img)\b[^>]*? (?:href|src)="([^"#?]+)', page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", link) and not (page.parent / link).exists():
                lost.add((page.relative_to(site).as_posix(), link))
    assert lost == {("404.html", link) for name, link in lost if name == "404.html"}
