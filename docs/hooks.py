"""What mkdocs adds to docs/ when it builds the site: notebooks, committed results, and pages that lie elsewhere.

The pages link to files as they lie in the repository; here these links become those of the site.
"""

from __future__ import annotations

import argparse
import posixpath
import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File
from nbconvert import MarkdownExporter

from ulmfit_fastai.cli import build_parser

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {
    "CHANGELOG.md": "CHANGELOG.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "SECURITY.md": "SECURITY.md",
    "ulmfit_fastai/data/README.md": "weights.md", "ulmfit_fastai/data/LICENSE.md": "weights-licence.md",
    "benchmarks/gpu/README.md": "gpu-jobs.md", "tests/devices/README.md": "rehearsal.md",
}
SHOWN = {".html", ".md", ".png"}
"""Of a folder of results; the records and tables stay in the repository."""


def site_path(path: str) -> str | None:
    """Where a file or folder of the repository lies in the site; None: it has no page."""
    if path == "README.md":
        return "README.md"  # of docs/: the site's first page
    if path in ELSEWHERE:
        return ELSEWHERE[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("notebooks/"):
        return path.removesuffix(".ipynb") + ".md" if path.endswith(".ipynb") else None
    if path.startswith("data/results/"):
        return _result(ROOT / path)
    return None


def _result(path: Path) -> str | None:
    """A shown file of results; of a folder the report, else its first page or picture."""
    found = sorted(path.glob("*.*"), key=lambda file: (file.suffix != ".html", file.suffix != ".md", file.name))
    file = next((file for file in found if file.suffix in SHOWN), None) if path.is_dir() else path
    return file.relative_to(ROOT).as_posix() if file is not None and file.suffix in SHOWN else None


def on_files(files: Any, config: Any) -> Any:
    """Add what lies outside docs/."""
    for source, place in ELSEWHERE.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    for path in sorted((ROOT / "data" / "results").rglob("*")):
        if path.suffix in SHOWN:
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        for place, content in notebook_pages(path).items():
            files.append(File.generated(config, f"notebooks/{place}", content=content))
    files.append(File.generated(config, "reference/command-line.md", content=command_line()))
    return files


def notebook_pages(path: Path) -> dict[str, str | bytes]:
    """A notebook with its outputs as a page, and its pictures, by name."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"output_files_dir": f"{path.stem}_files", "unique_key": path.stem}
    page, resources = MarkdownExporter().from_notebook_node(notebook, resources=resources)
    return {f"{path.stem}.md": page, **resources["outputs"]}


def command_line() -> str:
    """The help of every command, as the parser prints it."""
    parser = build_parser()
    lines = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    parts = ["# Command line", f"```text\n{parser.format_help()}```"]
    for name, command in lines.choices.items():
        parts.append(f"## {name}\n\n```text\n{command.format_help()}```")
    return "\n\n".join(parts)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files of the repository lead to their pages; one to a file that has none becomes its text."""
    here = page.file.src_uri
    lies = next((source for source, place in ELSEWHERE.items() if place == here), None)
    lies = lies or (here if here.startswith(("notebooks/", "data/")) else f"docs/{here}")

    def moved(found: re.Match[str]) -> str:
        text, target = found.group(1), found.group(2)
        place, mark, heading = target.partition("#")
        if not place or "://" in place or place.startswith("mailto:"):
            return found.group()
        if lies.startswith("notebooks/") and (ROOT / "notebooks" / place).suffix == ".png":
            return found.group()
        goal = site_path(posixpath.normpath(posixpath.join(posixpath.dirname(lies), place)))
        if goal is None:
            return text.removeprefix("!").removeprefix("[").removesuffix("]")
        return f"{text}({posixpath.relpath(goal, posixpath.dirname(here) or '.')}{mark}{heading})"

    return re.sub(r"(!?\[[^\]]*\])\(([^)\s]+)\)", moved, markdown)
