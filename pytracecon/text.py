r"""Foreign text made safe: command names, thread names, host names are bytes that somebody else chose.

`decode` is the one place where such bytes become `str`. `safe` is for people's eyes, `cell` for spreadsheets, and
`restore` and `restore_cell` undo them. What must not get through (escape sequences, newlines, C1 controls, bidi
controls, invisible characters) is all that `str.isprintable` refuses; it is shown as `\x1b`, `\u202e`, `\U000e0041`,
and a backslash as two.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["cell", "decode", "one_line", "restore", "restore_cell", "safe", "width"]

# What a spreadsheet takes for a formula, also after blanks and in the full-width forms that East Asian editions take;
# and the apostrophe itself, so that removing one is always right.
_FORMULA = re.compile(r" *[=+\-@'\uff1d\uff0b\uff0d\uff20\uff07]")
_ESCAPE = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4})|U(00(?:0[0-9a-f]|10)[0-9a-f]{4}))")


# What is longer is not kept: somebody else chose how long, and so many of it would take much memory.
_USUAL = 128


def decode(raw: bytes) -> str:
    r"""The text in a C character array, up to its first NUL. What is not UTF-8 becomes `\xNN`, visibly."""
    return _decode(raw) if len(raw) <= _USUAL else _decode.__wrapped__(raw)


@lru_cache(maxsize=4096)
def _decode(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def safe(text: str) -> str:
    r"""`text` with nothing that a terminal would obey and nothing invisible; `restore` gives it back exactly."""
    if text.isprintable() and "\\" not in text:
        return text
    return _made_visible(text.replace("\\", "\\\\"))


def cell(text: str) -> str:
    """`safe`, and behind an apostrophe if a spreadsheet would run it; `restore_cell` gives it back exactly."""
    shown = safe(text)
    return "'" + shown if _FORMULA.match(shown) else shown


def one_line(text: str) -> str:
    """`safe` for messages: backslashes stay single, since nobody has to undo it."""
    return text if text.isprintable() else _made_visible(text)


def restore(shown: str) -> str:
    """The inverse of `safe`."""
    return _ESCAPE.sub(_unescaped, shown)


def restore_cell(shown: str) -> str:
    """The inverse of `cell`."""
    return restore(shown.removeprefix("'"))


def width(text: str) -> int:
    """Columns that printable `text` takes on a terminal."""
    if text.isascii():
        return len(text)
    return _width(text) if len(text) <= _USUAL else _width.__wrapped__(text)


def _made_visible(text: str) -> str:
    return _escaped(text) if len(text) <= _USUAL else _escaped.__wrapped__(text)


@lru_cache(maxsize=1024)
def _escaped(text: str) -> str:
    return "".join(character if character.isprintable() else _escape(ord(character)) for character in text)


def _escape(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _unescaped(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3]
    return chr(int(code, 16)) if code else "\\"


@lru_cache(maxsize=1024)
def _width(text: str) -> int:
    from unicodedata import combining, east_asian_width  # noqa: PLC0415 - most runs never meet such text

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
