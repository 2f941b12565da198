"""Build the API pages from the docstrings: `python docs/build.py [FOLDER]` (default docs/api), with pdoc."""

from __future__ import annotations

import sys
from pathlib import Path

import pdoc
import pdoc.render

ROOT = Path(__file__).resolve().parents[1]


def modules() -> list[str]:
    """The package, whose page has the public names, and every module of it."""
    package = ROOT / "ulmfit_fastai"
    files = [path.relative_to(ROOT).with_suffix("") for path in sorted(package.rglob("*.py"))]
    names = [".".join(path.parts[:-1] if path.name == "__init__" else path.parts) for path in files]
    return [name for name in names if name == "ulmfit_fastai" or not name.split(".")[-1].startswith("_")]


def build(folder: Path) -> Path:
    """Write one page a module; returns the page to start from."""
    pdoc.render.configure(docformat="google", footer_text="ulmfit_fastai")
    pdoc.pdoc(*modules(), output_directory=folder)
    return folder / "ulmfit_fastai.html"


if __name__ == "__main__":
    print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "api"))
