"""One HTML page that needs nothing else: its style, its pieces, and matplotlib figures drawn into it.

Figures are inline SVG whose colours are the page's CSS variables, so that one drawing serves light and dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ..results.drawing import Palette

# Colours that nobody would draw with, each standing for a CSS variable until the drawing is text.
_STAND_INS = {
    "#010203": "--ink", "#010204": "--muted", "#010205": "--line", "#010206": "--accent", "#010207": "--second",
    "#010301": "--group-1", "#010302": "--group-2", "#010303": "--group-3", "#010304": "--group-4",
    "#010305": "--group-5",
}
IN_PAGE = Palette(ink="#010203", muted="#010204", grid="#010205", accent="#010206", second="#010207",
                  groups=("#010301", "#010302", "#010303", "#010304", "#010305"))
"""The palette for figures that go through `figure_html`."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfaf8; --card: #ffffff; --ink: #1c2430; --muted: #5d6778; --line: #e3e1dc; --accent: #1d5fbf;
  --second: #b8500f; --good: #18794e; --good-soft: #e3f3ea; --warn: #8a5a00; --warn-soft: #fbf0d9;
  --bad: #b42318; --bad-soft: #fdeae7; --calm-soft: #eceef2;
  --group-1: #3b5ba9; --group-2: #23869a; --group-3: #4f9140; --group-4: #b98309; --group-5: #c9482f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171c; --card: #1b2027; --ink: #e9ecf1; --muted: #9aa4b4; --line: #2f3641; --accent: #7db1ff;
    --second: #f2a065; --good: #6fd3a0; --good-soft: #16352a; --warn: #f0c264; --warn-soft: #372c14;
    --bad: #ff9b8e; --bad-soft: #42211e; --calm-soft: #272d36;
    --group-1: #8aa5f0; --group-2: #5cc4d6; --group-3: #93cf83; --group-4: #edc158; --group-5: #f58a72;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1040px; margin: 0 auto; padding: 40px 28px 72px; }
h1, h2, h3, p, dl, table, figure { margin: 0; }
h2 { font-size: 21px; line-height: 1.25; letter-spacing: -.01em; margin: 56px 0 4px; }
h3 { font-size: 15px; margin: 0 0 10px; }
h2 + .card, h2 + .pair { margin-top: 14px; }
.lead { color: var(--muted); max-width: 68ch; margin-bottom: 18px; }
.lead.below { margin: 8px 0 14px; font-size: 14.5px; }
.eyebrow { color: var(--muted); font-size: 14px; }
.eyebrow b { color: var(--ink); font-weight: 600; }
.hero { display: flex; flex-wrap: wrap; align-items: flex-end; gap: 6px 22px; margin: 14px 0 18px; }
.number { font-size: clamp(52px, 11vw, 84px); line-height: .95; font-weight: 700; letter-spacing: -.04em; }
.number small { font-size: .45em; font-weight: 600; letter-spacing: 0; color: var(--muted); margin-left: .1em; }
.number.words { font-size: clamp(34px, 7vw, 52px); letter-spacing: -.025em; }
.explain { color: var(--muted); padding-bottom: 4px; font-size: 16px; font-weight: 400; line-height: 1.45; }
.explain b { color: var(--ink); font-weight: 600; display: block; }
.verdict, .note { border-radius: 10px; padding: 12px 16px; margin: 0 0 12px; max-width: 820px; }
.verdict b { display: block; }
.verdict.good { background: var(--good-soft); } .verdict.good b { color: var(--good); }
.verdict.bad { background: var(--bad-soft); } .verdict.bad b { color: var(--bad); }
.verdict.calm { background: var(--calm-soft); }
.note { background: var(--warn-soft); } .note b { color: var(--warn); }
.note ul { margin: 4px 0 0; padding-left: 20px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 22px 0 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; }
.tile span { display: block; color: var(--muted); font-size: 13.5px; line-height: 1.3; }
.tile b { font-size: 24px; line-height: 1.35; font-weight: 650; letter-spacing: -.02em; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 16px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px 18px; min-width: 0; }
.card + .card, .card + .pair, .pair + .card, .pair + .pair { margin-top: 16px; }
.pair > .card { margin-top: 0; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figure.wide-only { display: block; } figure.narrow-only { display: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; }
th, td { text-align: left; padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--muted); font-weight: 500; font-size: 13.5px; vertical-align: bottom; }
td:last-child, th:last-child { padding-right: 0; }
tr:last-child > td { border-bottom: 0; }
tr.part td[colspan] { white-space: normal; } td { overflow-wrap: anywhere; } code { overflow-wrap: anywhere; }
.r { text-align: right; white-space: nowrap; }
tr.ours td { font-weight: 650; } tr.part td { color: var(--muted); padding-top: 16px; font-size: 13.5px; }
td.name { white-space: nowrap; }
td.bar { min-width: 92px; }
td.bar i { display: block; height: 3px; border-radius: 2px; background: var(--accent); opacity: .55;
  margin: 3px 0 0 auto; }
table.matrix { width: auto; border-collapse: separate; border-spacing: 3px; }
table.matrix th, table.matrix td { border: 0; padding: 8px 12px; text-align: right; }
table.matrix th[scope=row] { padding-left: 0; max-width: 12em; overflow-wrap: anywhere; }
table.matrix td { border-radius: 6px; min-width: 64px;
  background: color-mix(in srgb, var(--cell) calc(var(--share) * 42%), var(--calm-soft)); }
table.matrix td.right { --cell: var(--accent); } table.matrix td.wrong { --cell: var(--bad); }
table.matrix td.corner { background: none; }
table.matrix small { display: block; color: var(--muted); font-size: 12px; }
.mistake { padding: 14px 0; border-bottom: 1px solid var(--line); }
.mistake:last-child { border: 0; padding-bottom: 2px; } .mistake:first-of-type { padding-top: 2px; }
.mistake p { overflow-wrap: anywhere; max-width: 82ch; }
.mistake .what { color: var(--muted); font-size: 14px; display: flex; flex-wrap: wrap; gap: 2px 14px;
  margin-bottom: 4px; }
.mistake .what b { color: var(--ink); font-weight: 600; }
details { border-top: 1px solid var(--line); padding: 10px 0; }
details:first-of-type { border-top: 0; }
.card > details:first-child { padding-top: 0; } .card > details:last-child { padding-bottom: 0; }
details details:first-of-type { border-top: 1px solid var(--line); margin-top: 12px; }
summary { cursor: pointer; font-weight: 600; font-size: 15px; }
summary span { color: var(--muted); font-weight: 400; }
pre { font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-x: auto;
  margin: 10px 0 4px; }
dl.facts { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 5px 20px; font-size: 14.5px; }
dl.facts dt { color: var(--muted); } dl.facts dd { margin: 0; overflow-wrap: anywhere; }
footer { color: var(--muted); font-size: 13.5px; margin-top: 48px; border-top: 1px solid var(--line);
  padding-top: 14px; }
a { color: var(--accent); }
@media (max-width: 640px) {
  main { padding: 24px 16px 48px; }
  body { font-size: 15.5px; }
  h2 { margin-top: 42px; }
  .card { padding: 14px; }
  figure.wide-only { display: none; } figure.narrow-only { display: block; }
  dl.facts { grid-template-columns: 1fr; gap: 0; } dl.facts dd { margin-bottom: 8px; }
  table { font-size: 13.5px; } th { font-size: 12.5px; } th, td { padding-right: 8px; }
  .roomy { display: none; } td.name { white-space: nowrap; }
td.bar { min-width: 0; }
  .tiles { grid-template-columns: repeat(2, 1fr); }
}
@media print { body { background: none; } .card, .tile { break-inside: avoid; } }
"""


def text(value: Any) -> str:
    """A value as text that is safe anywhere in the page."""
    return escape(str(value), quote=True)


def document(title: str, body: str) -> str:
    """The whole page; it fetches nothing and holds no script, and tells the browser to allow neither."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n"
            f"</html>\n")


def details(title: str, body: str, *, aside: str = "") -> str:
    """A part that opens on a click; `body` is HTML, `title` and `aside` are text."""
    extra = f" <span>{text(aside)}</span>" if aside else ""
    return f"<details><summary>{text(title)}{extra}</summary>{body}</details>"


def pairs(cards: Iterable[str]) -> str:
    """Cards beside each other, under each other on a phone."""
    return '<div class="pair">' + "".join(f'<div class="card">{card}</div>' for card in cards) + "</div>"


def number(value: Any, digits: int) -> str:
    """A number with so many decimals; nothing where there is none."""
    return "" if value is None or value != value else f"{float(value):.{digits}f}"


def share(value: Any) -> str:
    """A share of 1 in %; nothing where there is none."""
    return "" if value is None or value != value else f"{100 * float(value):.2f} %"


def table_html(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = (),
               ours: int | None = None) -> str:
    """A table whose cells are HTML already; `right` are the columns of numbers, `ours` the row to stress."""
    right = set(right)
    mark = {i: ' class="r"' for i in right}
    top = "".join(f"<th{mark.get(i, '')}>{cell}</th>" for i, cell in enumerate(head))
    lines = []
    for number, row in enumerate(rows):
        cells = "".join(f"<td{mark.get(i, '')}>{cell}</td>" for i, cell in enumerate(row))
        lines.append(f"<tr{' class=ours' if number == ours else ''}>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def figure_html(figure: Figure, name: str, *, alt: str, css: str = "") -> str:
    """A figure drawn with the palette IN_PAGE, as inline SVG; `name` is unique in the page, `alt` says it in words.

    Words stay words (searchable, in the page's font); colours become CSS variables; ids get `name` before them, since
    the ids of two inline SVGs share one namespace.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True,
                       metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.S)  # would style the whole page
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r"font: ((?:bold |[0-9]+ )?)([0-9.]+px) [^;\"]*",
                 lambda m: f"font-size: {m[2]}{'; font-weight: 700' if m[1] else ''}; font-family: inherit", svg)
    svg = re.sub(r"#0102[0-9a-f]{2}|#0103[0-9a-f]{2}", lambda m: f"var({_STAND_INS[m[0]]})", svg)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>',
                 lambda m: f'<svg viewBox="{m[1]}" role="img" aria-label="{text(alt)}">', svg, count=1)
    svg = re.sub(r"\n\s*", " ", svg).strip()
    return f'<figure{f" class={css}" if css else ""}>{svg}</figure>'
