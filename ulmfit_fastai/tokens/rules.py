"""fastai's text rules (`fastai.text.core.defaults.text_proc_rules`), on whole texts and on single chunks.

A *chunk* is a run of non-space characters. All rules but `fix_html` and `mark_word_repeats` act on chunks one by one,
which is what makes the fast tokenizer possible; the functions here give the same result on a chunk as on the text
around it. They are fastai's rules without fastai, so that a worker process needs no torch.
"""

from __future__ import annotations

import html
import re

BOS = "xxbos"
SPECIAL_TOKENS = ("xxunk", "xxpad", BOS, "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj")

# The literal replacements of fastai's `fix_html`, in its order, in groups that need the same character. No group makes
# a character that an earlier one needs.
_HTML = (
    (";", (("#39;", "'"), ("amp;", "&"), ("#146;", "'"), ("nbsp;", " "), ("#36;", "$"))),
    ("\\", (("\\n", "\n"),)),
    (";", (("quot;", "'"),)),
    ("<", (("<br />", "\n"),)),
    ("\\", (('\\"', '"'),)),
    ("<", (("<unk>", "xxunk"),)),
    ("@", ((" @.@ ", "."), (" @-@ ", "-"))),
    (".", (("...", " …"),)),
)
WHITE_SPACE = re.compile(r"(\s+)")
_THRICE = re.compile(r"(\S)(\1{2,})")
_WORD_THRICE = re.compile(r"(?:\s|^)(\w+)\s+((?:\1\s+)+)\1(\s|\W|$)")
_SLASHES = re.compile(r"([/#\\])")
_SPACES = re.compile(" {2,}")
_UPPER = re.compile("[A-Z]+[^a-z]*")
_TITLE = re.compile("[A-Z][^A-Z]*")


def fix_html(text: str) -> str:
    """Undo the HTML leftovers that fastai undoes."""
    for needed, replacements in _HTML:
        if needed in text:  # most texts lack most of these characters
            for old, new in replacements:
                text = text.replace(old, new)
    return html.unescape(text)


def mark_repeats(text: str) -> str:
    """`soooo` -> `s xxrep 4 o `."""
    return _THRICE.sub(lambda m: f" xxrep {len(m[2]) + 1} {m[1]} ", text)


def mark_word_repeats(text: str) -> str:
    """`so so so` -> ` xxwrep 3 so `."""
    return _WORD_THRICE.sub(lambda m: f" xxwrep {len(m[2].split()) + 2} {m[1]} {m[3]}", text)


def single_spaces(text: str) -> str:
    """No two spaces in a row."""
    return _SPACES.sub(" ", text) if "  " in text else text


def space_out(text: str) -> str:
    """Spaces around `/`, `#` and the backslash, then no two spaces in a row."""
    if "/" in text or "#" in text or "\\" in text:
        text = _SLASHES.sub(r" \1 ", text)
    return single_spaces(text)


def mark_case(chunk: str) -> str:
    """`GOOD` -> `xxup good`, `Good` -> `xxmaj good`, `gOOd` -> `good`; `chunk` holds no white space.

    fastai has two rules here, all capitals then capitalised. The first leaves no ASCII capital in what it changes,
    so a chunk meets at most one of them.
    """
    if len(chunk) > 1 and "A" <= chunk[0] <= "Z":
        if _UPPER.fullmatch(chunk):
            return f"xxup {chunk.lower()}"
        if _TITLE.fullmatch(chunk):
            return f"xxmaj {chunk.lower()}"
    return chunk.lower()


def lower_marked(text: str) -> str:
    """`mark_case` on every chunk, white space as it was."""
    parts = WHITE_SPACE.split(text)
    if len(parts) == 1:
        return mark_case(text)
    return "".join(part if i % 2 else mark_case(part) for i, part in enumerate(parts))


def apply_rules(text: str) -> str:
    """All of fastai's text rules on a whole text: what it gives to spaCy."""
    text = space_out(mark_word_repeats(mark_repeats(fix_html(text))))
    return f"{BOS} {lower_marked(text).strip()}"
