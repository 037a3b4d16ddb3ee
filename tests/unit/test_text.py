"""Foreign text cannot do anything to a terminal, a spreadsheet or a reader's eyes, and none of it is lost."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon import text

# What attackers have used: OSC 52, CSI, line breaks, bidi overrides, C1, tags, separators, a lone surrogate.
HOSTILE = [
    "\x1b]52;c;cm0gLXJm\x07",
    "\x1b[2J\x1b[31m",
    "a\r\nb",
    "a\tb\x0b\x0c",
    "\x7f",
    "\x9b31m",
    "\u202egpj.exe",
    "\u2066x\u2069",
    "\u200e\u200f\u061c",
    "\u2028\u2029",
    "a\u200bb\ufeff",
    "\U000e0041",
    "\udc80\ud800",
    "back\\slash \\x1b \\\\u202e",
]
FORBIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
any_text = st.one_of(st.text(st.characters(exclude_categories=[])), st.sampled_from(HOSTILE))


def harmless(shown: str) -> bool:
    return all(unicodedata.category(character) not in FORBIDDEN for character in shown)


@given(any_text)
def test_safe_text_holds_no_control_character_and_gives_the_original_back(original: str) -> None:
    shown = text.safe(original)
    assert harmless(shown)
    shown.encode()  # no lone surrogate either
    assert text.restore(shown) == original


@given(any_text)
def test_a_cell_is_safe_starts_no_formula_and_gives_the_original_back(original: str) -> None:
    shown = text.cell(original)
    assert harmless(shown)
    assert not shown.lstrip().startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
    assert text.restore_cell(shown) == original


@given(any_text)
def test_a_message_is_one_line(original: str) -> None:
    assert harmless(text.one_line(original))


@given(st.binary(max_size=16))
def test_any_bytes_decode_to_text_that_can_be_encoded(raw: bytes) -> None:
    text.decode(raw).encode()


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_utf8_is_kept_as_it_is(original: str) -> None:
    assert text.decode(original.encode()) == original


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"curl\0\0\0\0\0\0\0\0\0\0\0\0", "curl"),
        (b"curl\0left over", "curl"),
        (b"", ""),
        (b"\xff\xfe", r"\xff\xfe"),
        (b"caf\xc3\xa9", "café"),
        ("ääääääää".encode()[:15], r"äääääää\xc3"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),
    ],
)
def test_bytes_of_a_name_become_text(raw: bytes, expected: str) -> None:
    assert text.decode(raw) == expected


@pytest.mark.parametrize(
    ("original", "expected"),
    [
        ("nginx: worker", "nginx: worker"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\u202eabc", r"\u202eabc"),
        ("\U000e0041", r"\U000e0041"),
        ("a\\b", r"a\\b"),
        (r"\x1b", r"\\x1b"),
        ("größe 日本", "größe 日本"),
    ],
)
def test_what_is_escaped_is_seen(original: str, expected: str) -> None:
    assert text.safe(original) == expected


@pytest.mark.parametrize("formula", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "  =1+1", "\uff1d1"])
def test_a_formula_stands_behind_an_apostrophe(formula: str) -> None:
    assert text.cell(formula) == "'" + formula


def test_an_apostrophe_of_its_own_is_kept() -> None:
    assert text.cell("'quoted") == "''quoted"
    assert text.restore_cell("''quoted") == "'quoted"


@pytest.mark.parametrize(
    ("shown", "columns"), [("curl", 4), ("", 0), ("größe", 5), ("日本", 4), ("e\u0301", 1), ("🐧", 2)]
)
def test_width_is_what_a_terminal_takes(shown: str, columns: int) -> None:
    assert text.width(shown) == columns


@pytest.mark.parametrize("shown", [r"\U00110000", r"\Uffffffff", r"\x1", r"\u12", "\\"])
def test_what_is_no_escape_of_ours_stays_as_it_is(shown: str) -> None:
    assert text.restore(shown) == text.restore_cell(shown) == shown
