"""The pages beside the code: their links lead somewhere, and the API pages can be built."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ulmfit_fastai

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
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


def test_every_page_of_docs_can_be_reached_from_its_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    others = [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md"]
    assert others and [name for name in others if f"({name})" not in index] == []


@pytest.mark.slow
def test_the_api_pages_are_built_with_a_page_for_every_module(tmp_path):
    if importlib.util.find_spec("pdoc") is None:
        pytest.skip("pdoc is not installed: pip install -e '.[docs]'")
    command = [sys.executable, str(ROOT / "docs" / "build.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    start = (tmp_path / "ulmfit_fastai.html").read_text(encoding="utf-8")
    assert [name for name in ulmfit_fastai.__all__ if f'id="{name}"' not in start] == []
    package = ROOT / "ulmfit_fastai"
    modules = {path.relative_to(package).with_suffix("") for path in package.glob("*/*.py") if path.stem[0] != "_"}
    pages = {page.relative_to(tmp_path / "ulmfit_fastai").with_suffix("") for page in tmp_path.glob("*/*/*.html")}
    assert modules <= pages
