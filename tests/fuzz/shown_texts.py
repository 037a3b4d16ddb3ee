"""Text that was written for people or spreadsheets, on its way back; and any text on its way there."""

from __future__ import annotations

from pytracecon.text import cell, decode, one_line, restore, restore_cell, safe, width
from unit.test_text import HOSTILE


def seeds() -> list[bytes]:
    shown = [rb"\x1b[31m", rb"\u202e", rb"\U000e0041", rb"\\x1b", b"'=cmd", rb"\Uffffffff", rb"\udc80"]
    return shown + [text.encode("utf-8", "surrogatepass") for text in HOSTILE]


def run(data: bytes) -> None:
    for text in (decode(data), data.decode("utf-8", "surrogateescape"), data.decode("utf-16", "replace")):
        restore(text)
        restore_cell(text)
        assert restore(safe(text)) == restore_cell(cell(text)) == text
        assert safe(text).isprintable() and cell(text).isprintable() and one_line(text).isprintable()
        assert width(safe(text)) >= 0
