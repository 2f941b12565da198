"""What a user can put right: one family of errors, whose fields say what was expected, what was found, what to do."""

from __future__ import annotations

import re
from typing import Any


class UlmfitError(ValueError):
    """Input, data or a folder that the package can't work with, and how that can be put right.

    `str(error)` is the whole message in Python's words; the command line says the same with `in_shell_words`.

    Attributes:
        message: what is wrong, without advice.
        path: the file or folder that is meant, if one is.
        field: the parameter, column or field that is meant, by its dotted name.
        expected: what should have been there.
        found: what was.
        advice: what to do, naming settings as Python does, in backticks: "choose another `out=`", "`resume=False`
            starts anew". The command line turns them into its options.
    """

    def __init__(self, message: str = "", *, path: Any = None, field: str | None = None, expected: Any = None,
                 found: Any = None, advice: str = "") -> None:
        super().__init__(message)
        self.message, self.path, self.field = message, path, field
        self.expected, self.found, self.advice = expected, found, advice

    def __str__(self) -> str:
        return _joined(self.message, self.advice.replace("`", ""))

    @property
    def in_shell_words(self) -> str:
        """The message with its advice in the words of the command line: `out=` as --out, `resume=False` as --no-resume.
        """
        return _joined(self.message, re.sub(r"`(\w+)=([^`]*)`", _option, self.advice))

    def __reduce__(self) -> tuple[Any, ...]:  # fields survive the way back from another process
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[UlmfitError], args: tuple[Any, ...], fields: dict[str, Any]) -> UlmfitError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


def _joined(message: str, advice: str) -> str:
    return f"{message}; {advice}" if message and advice else message or advice


_OPTIONS = {"base": "preset", "directions": "direction", "train": "train-part", "validation_fraction": "valid-share"}
"""Where the command line has another word than Python."""


def _option(match: re.Match[str]) -> str:
    name = _OPTIONS.get(match[1], match[1].replace("_", "-"))
    value = match[2].strip("'\"")
    if value == "False":
        return f"--no-{name}"
    return f"--{name}" if value in ("", "True") else f"--{name} {value}"
