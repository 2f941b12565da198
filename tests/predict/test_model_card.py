"""The model card: Markdown that says what it should, whatever the names in it are."""

from __future__ import annotations

import ast
import re
from types import SimpleNamespace
from typing import Any

import pytest

from ulmfit_fastai.batches.targets import Target
from ulmfit_fastai.predict.config import Config
from ulmfit_fastai.predict.model_card import code, model_card
from ulmfit_fastai.recipe.presets import preset

ODD = ["<script>alert(1)</script>", "{{7*7}}", "a`b", "``", "`edge", "two\nlines\r\n\n## and a heading", "", "a|b"]
SCORES = {"error": 12.345, "n": 2000, "wrong": 247, "macro_f1": 0.87654}


def card(config: Config, *, metrics: dict[str, Any] | None = None, name: str = "mood", **options: Any) -> str:
    model = SimpleNamespace(config=config, target=config.target, recipe=preset("quick"), vocab=["a"] * 1200,
                            models={}, metrics=metrics or {})
    return model_card(model, name=name, **options)


def code_spans(markdown: str) -> list[str]:
    """What CommonMark reads as code spans: as many backticks behind as before, one space inside each end dropped."""
    found = re.findall(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", markdown, flags=re.S)
    return [said[1:-1] if said[0] == said[-1] == " " and said.strip() else said for _, said in found]


def test_class_names_stay_inside_their_code_spans():
    text = card(Config(Target("single", tuple(ODD))))
    paragraph = next(part for part in text.split("\n\n") if part.startswith("An [ULMFiT]"))
    assert code_spans(paragraph) == [" ".join(name.splitlines()) or " " for name in ODD]
    assert paragraph.split(" (", 1)[1].split("AWD-LSTM")[0].strip() == ", ".join(code(name) for name in ODD) + ")."
    assert "49" not in paragraph and text.count("\n## ") == 6  # of the card's own


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "two\n# lines", "{{7*7}}"])
def test_other_names_start_no_html_and_no_line(name):
    data = {"name": name, "weights": {"forward": name}, "device": name}
    text = card(Config(Target("single", ("a", "b")), data=data), name=name)
    assert "<" not in text and "\n# lines" not in text and "49" not in text
    assert text.count(" ".join(name.splitlines()).replace("<", "&lt;")) == 4


def test_the_code_that_the_card_shows_is_python():
    for columns in (None, ("text",), ("title", "body\nof it")):
        shown = re.search(r"```python\n(.*?)```", card(Config(Target("single", ("a", "b")), text=columns)), flags=re.S)
        assert "model.predict(" in ast.unparse(ast.parse(shown[1]))
    assert "title, body of it" in shown[1]


def test_a_card_says_what_was_measured_and_on_what():
    config = Config(Target("single", ("a", "b")))
    assert "Not measured." in card(config)
    text = card(config, metrics={"validation": {"forward": SCORES}})
    row = "forward | error 12.35 %, macro F1 0.877, 247 of 2,000 texts wrong |"
    assert f"| measured on | |\n|---|---|\n| held-out texts, {row}\n\nThe held-out texts were looked at" in text
    text = card(config, metrics={"validation": {"forward": SCORES}, "forward": SCORES, "loss": 2.0})
    assert f"| held-out texts, {row}\n| test set, {row}\n\n## How it was made" in text
    regression = {"mae": 0.12345, "rmse": 0.2, "r2": None, "n": 1234}
    text = card(Config(Target("regression")), metrics={"validation": {"forward": regression}})
    assert "| mean absolute error 0.1235, RMSE 0.2, 1,234 texts |" in text and "\n- text-regression\n" in text


def test_thirty_classes_are_named_and_more_are_hinted_at():
    thirty, more = (card(Config(Target("single", tuple(range(n))))) for n in (30, 31))
    assert "`29`)" in thirty and "`29`, …)" in more
