"""Texts as an attacker would choose them, made fast, and the same each time: as bytes, and as text."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from pytracecon import text
from unit.test_text import HOSTILE

__all__ = ["raw_texts", "texts"]

_PIECES = (
    *(bytes((code,)) for code in range(256)),
    *(each.encode("utf-8", "surrogatepass") for each in HOSTILE),
    *(chr(code).encode() for code in (*range(0x80, 0xA1), 0xAD, 0x61C, *range(0x2028, 0x202F), *range(0x2066, 0x206A))),
    *(chr(code).encode() for code in (0xFEFF, 0xFFF9, 0x1D173, 0xE0001, 0xE007F, 0x10FFFF, 0xFFFE, 0x3000, 0x200B)),
    *("=+-@'\t\uff1d\uff0b\uff0d\uff20".encode()[at : at + 1] for at in range(18)),
    *(
        formula.encode()
        for formula in ("=cmd|' /C calc'!A0", " =1+1", "@SUM(A1)", "-2+3", "\uff1d1", "'", "''", '"', '""')
    ),
    *(
        b'"},{"event":"lost"',
        b'\\"',
        b"\\",
        b"\\x1b",
        b"\\u202e",
        b"\\U000e0041",
        b"\\n",
        b"{pid}",
        b"{{",
        b"%s",
        b"$(",
    ),
    *(b"\nPRIORITY=0\nMESSAGE=all is well\n", b"\r\ncurl,1,2,3\r\n", b"a,b;c|d\te", b"--", b"\x1b[2J\x1b]0;x\x1b\\"),
    *(
        b"\xc3",
        b"\xf0\x9f\x90",
        b"\xed\xa0\x80",
        b"\xc0\xaf",
        b"\xff\xfe",
        b"\xe2\x80",
        b"e\xcc\x81",
        "日本語".encode(),
    ),
    *(b"curl", b"www.example.com", b"nginx: worker process", b"/usr/bin/", b"a" * 15, b" ", b"  ", b"", b"null", b"?"),
)


def raw_texts(number: int) -> Iterator[bytes]:
    """Without an end. Most are short, as names are; one in a thousand is longer than anything that holds one."""
    random = Random(number)  # noqa: S311 - they shall come again
    choose, several = random.choice, random.choices
    while True:
        kind = random.random()
        if kind < 0.9:
            yield b"".join(several(_PIECES, k=1 + int(kind * 5)))
        elif kind < 0.999:
            yield random.randbytes(int(kind * 100) % 17)
        else:
            yield choose(_PIECES) * random.randrange(200, 3000)


def texts(number: int) -> Iterator[str]:
    """What becomes of them on their way in, and as it may be otherwise: with NUL, and with lone surrogates."""
    for at, raw in enumerate(raw_texts(number)):
        yield text.decode(raw) if at % 4 else raw.decode("utf-8", "surrogateescape")
