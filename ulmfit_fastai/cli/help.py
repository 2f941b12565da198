"""Help that fits the terminal: paragraphs are filled, lists keep their columns, long examples break where a shell may.

A description is paragraphs, lists (`name   what it is`, indented) and examples (`ulmfit-fastai ...`, indented).
"""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from typing import Any

WIDEST = 100  # columns: longer lines of prose are hard to read on any screen
EXAMPLE = re.compile(r"  ulmfit-fastai (?!.*\S {2,})")  # with a gap it is a command and what it does: a list's line
PARTS = re.compile(r"""(?:--\S+ )?(?:[^\s"']|"[^"]*"|'[^']*')+""")  # words, quotes whole, an option with its value


class Help(argparse.HelpFormatter):
    """argparse's formatter, whose descriptions are as wide as the terminal."""

    def __init__(self, prog: str, **settings: Any) -> None:
        width = min(shutil.get_terminal_size().columns - 2, WIDEST)
        super().__init__(prog, **{"width": width, **settings})

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return fill(text, width)


def fill(text: str, width: int) -> str:
    """The text of a docstring in lines of at most `width` columns, as far as its words allow."""
    filled: list[str] = []
    prose: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.strip() and not line.startswith(" "):
            prose.append(line)
            continue
        filled += textwrap.wrap(" ".join(prose), width, break_long_words=False, break_on_hyphens=False)
        prose = []
        filled += _example(line, width) if EXAMPLE.match(line) else _item(line, width)
    return "\n".join(filled).rstrip()


def _item(line: str, width: int) -> list[str]:
    """A line of a list: what doesn't fit stands under its second column."""
    column = re.match(r" *\S+(?: \S+)* {2,}", line)
    indent = " " * (column.end() if column else len(line) - len(line.lstrip()))
    return textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False,
                         drop_whitespace=True) or [""]


def _example(line: str, width: int) -> list[str]:
    """A command in lines that can be pasted: all but the last end in a backslash."""
    first, *parts = PARTS.findall(line)
    lines = [f"  {first}"]
    for part in parts:
        if len(lines[-1]) + 1 + len(part) + 2 > width:
            lines[-1] += " \\"
            lines.append(" " * 6 + part)
        else:
            lines[-1] += f" {part}"
    return lines
