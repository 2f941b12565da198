"""One HTML page that needs nothing else: its templates, its style, and matplotlib figures drawn into it.

Figures are inline SVG whose colours are the page's CSS variables, so that one drawing serves light and dark.
"""

from __future__ import annotations

import io
import re
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from .._words import duration
from ..results.drawing import Palette
from ..results.figures import show_name

# Colours that nobody would draw with, each standing for a CSS variable until the drawing is text.
_STAND_INS = {
    "#010203": "--ink", "#010204": "--muted", "#010205": "--line", "#010206": "--accent", "#010207": "--second",
    "#010301": "--group-1", "#010302": "--group-2", "#010303": "--group-3", "#010304": "--group-4",
    "#010305": "--group-5",
}
IN_PAGE = Palette(ink="#010203", muted="#010204", grid="#010205", accent="#010206", second="#010207",
                  groups=("#010301", "#010302", "#010303", "#010304", "#010305"))
"""The palette for figures that go through `figure_html`."""


@cache
def _templates() -> Environment:
    """The templates beside this file; what they are given is escaped, unless it is Markup."""
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
                            trim_blocks=True, lstrip_blocks=True)
    templates.filters |= {"number": number, "share": share, "thousands": "{:,}".format, "duration": duration,
                          "phase_name": show_name, "short": "{:.4g}".format}
    return templates


def render(template: str, **values: Any) -> Markup:
    """A template of this room, filled in."""
    return Markup(_templates().get_template(template).render(values))


def number(value: Any, digits: int) -> str:
    """A number with so many decimals; nothing where there is none."""
    return "" if value is None or value != value else f"{float(value):.{digits}f}"


def share(value: Any) -> str:
    """A share of 1 in %; nothing where there is none."""
    return "" if value is None or value != value else f"{100 * float(value):.2f} %"


def figure_html(figure: Figure, name: str, *, alt: str, css: str = "") -> Markup:
    """A figure drawn with the palette `IN_PAGE`, as inline SVG.

    Words stay words (searchable, in the page's font); colours become CSS variables.

    Args:
        name: unique in the page; stands before all ids, since those of two inline SVGs share one namespace.
        alt: what the figure says, in words.
        css: classes of the element around it.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True,
                       metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.S)  # would style the whole page
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = svg.replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r"font: ((?:bold |[0-9]+ )?)([0-9.]+px) [^;\"]*",
                 lambda m: f"font-size: {m[2]}{'; font-weight: 700' if m[1] else ''}; font-family: inherit", svg)
    svg = re.sub(r"#0102[0-9a-f]{2}|#0103[0-9a-f]{2}", lambda m: f"var({_STAND_INS[m[0]]})", svg)
    drawn = re.search(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>(.*)</svg>', re.sub(r"\n\s*", " ", svg), flags=re.S)
    assert drawn is not None
    return render("figure.html.jinja", box=drawn[1], drawing=Markup(drawn[2]), alt=alt, css=css)
