"""Build the API pages from the docstrings: `python docs/build.py [FOLDER]` (default docs/api), with pdoc."""

from __future__ import annotations

import sys
from pathlib import Path

import pdoc
import pdoc.render

ROOT = Path(__file__).resolve().parents[1]


def modules() -> list[str]:
    """The package, whose page has the public names, and every module of it."""
    names = sorted(path.stem for path in (ROOT / "ulmfit_fastai").glob("*.py"))
    return ["ulmfit_fastai", *(f"ulmfit_fastai.{name}" for name in names if not name.startswith("__"))]


def build(folder: Path) -> Path:
    """Write one page a module; returns the page to start from."""
    pdoc.render.configure(docformat="google", footer_text="ulmfit_fastai")
    pdoc.pdoc(*modules(), output_directory=folder)
    return folder / "ulmfit_fastai.html"


if __name__ == "__main__":
    print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "api"))
