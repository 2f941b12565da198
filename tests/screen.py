"""A terminal of a given width without a window: commands run in it, and the lines that are on its screen at the end."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import sys
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

STEP = re.compile(r"\x1b\[([\d;?]*)([A-Za-z])|[\r\n]|[^\x1b\r\n]", re.DOTALL)


class Screen:
    """What a terminal shows of the characters it was sent; only what lines of text and bars need of a terminal."""

    def __init__(self, columns: int) -> None:
        self.columns, self.rows, self.row, self.column = columns, [[" "] * columns], 0, 0

    def write(self, text: str) -> None:
        for step in STEP.finditer(text):
            number = int(step[1]) if step[1] and step[1].isdigit() else 1
            if step[2] == "A":
                self.row = max(self.row - number, 0)
            elif step[2] == "K":
                self.rows[self.row][self.column :] = [" "] * (self.columns - self.column)
            elif step[2] not in (None, "m"):
                raise NotImplementedError(repr(step[0]))
            elif step[0] == "\r":
                self.column = 0
            elif step[0] == "\n":
                self._down()
            elif step[2] is None:
                self._put(step[0])

    def _put(self, character: str) -> None:
        if self.column == self.columns:  # as terminals do: not before there is something for the next line
            self.column = 0
            self._down()
        self.rows[self.row][self.column] = character
        self.column += 1

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append([" "] * self.columns)

    def lines(self) -> list[str]:
        return "\n".join("".join(row).rstrip() for row in self.rows).rstrip("\n").split("\n")


def run_in_terminal(command: list[str], columns: int, **how: object) -> tuple[str, list[str]]:
    """All that a command sent to a terminal of that width, and the lines of the screen when it has ended."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, **how)  # type: ignore[call-overload]
    os.close(theirs)
    sent = b""
    try:
        while part := os.read(ours, 1 << 16):
            sent += part
    except OSError:  # Linux's way to say that nobody holds the other end any more
        pass
    os.close(ours)
    assert process.wait() == 0, sent.decode()
    text, screen = sent.decode("utf8"), Screen(columns)
    screen.write(text)
    return text, screen.lines()


if __name__ == "__main__":  # python tests/screen.py COLUMNS COMMAND ...
    print(*run_in_terminal(sys.argv[2:], int(sys.argv[1]), cwd=Path.cwd())[1], sep="\n")
