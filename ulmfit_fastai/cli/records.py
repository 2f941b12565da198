"""What a command came to, as JSON has it: `--json` prints it instead of the words for people."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import UlmfitError
from .._files import plain
from .options import STOPPED, say

if TYPE_CHECKING:
    from ..results.result import Result


def tell(args: argparse.Namespace, text: Any, record: Any) -> None:
    """Print what a command came to: for people, or with `--json` the record of it, as one JSON value."""
    if args.json:
        print(json.dumps(plain(record_of(record)), indent=2, ensure_ascii=False))
    else:
        say(text)


def record_of(value: Any) -> Any:
    """Tables as lists of rows, what has fields or a `to_dict` as mappings, and so on down to what JSON has."""
    if hasattr(value, "columns") and hasattr(value, "to_dict"):
        return value.to_dict("records")
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: record_of(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {key: record_of(item) for key, item in value.items()}
    return [*map(record_of, value)] if isinstance(value, (list, tuple)) else value


def of_run(result: Result) -> dict[str, Any]:
    """The numbers of a run: errors in %, and what the paper says to them."""
    return {"status": result.status, "task": result.task, "recipe": result.recipe.name, "seed": result.recipe.seed,
            "directions": result.directions, "evaluated": result.evaluated, "errors": result.errors,
            "error": result.error, "interval": result.interval, "texts": result.n_test, "seconds": result.seconds,
            "verdict": result.verdict}


def show(args: argparse.Namespace, result: Result | None, folder: str) -> int:
    """Print a run's result and the path of its report; returns the exit code."""
    if result is None:  # a dry run has none
        return 0
    page = Path(folder) / "report.html"
    report = str(page.resolve()) if page.is_file() else None
    tell(args, f"{result}\nreport: {report}" if report else result,
         {**of_run(result), "folder": str(Path(folder).resolve()), "report": report} if args.json else None)
    return STOPPED if getattr(result, "status", "finished") == "stopped" else 0


def refuse_plan_as_json(args: argparse.Namespace) -> None:
    """Refuse `--dry-run --json` of a run, whose plan is said in words while it is measured."""
    if args.dry_run and args.json:
        raise UlmfitError(f"the plan of {args.command} is for people to read: leave out --json, or --dry-run")
