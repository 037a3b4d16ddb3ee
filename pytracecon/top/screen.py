"""What kind of terminal this is: whether a screen can be drawn on it, and with what."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pytracecon.errors import InvalidValue
from pytracecon.top.columns import Glyphs

__all__ = ["glyphs_of", "is_monochrome", "is_plain", "judge"]

_ASCII = ("linux", "vt", "ansi", "cons", "xterm-mono")
_MONOCHROME = ("vt1", "vt2", "vt3", "xterm-mono")


def judge(environment: Mapping[str, str]) -> None:
    """Raises `InvalidValue` where there is no terminal that a screen can be drawn on."""
    instead = "pytracecon flows --watch 1 tells the same line by line, and top --once a screen as text"
    for descriptor, name in ((1, "standard output"), (0, "standard input")):
        if not os.isatty(descriptor):
            raise InvalidValue(f"top: {name} is no terminal: {instead}")
    kind = environment.get("TERM", "")
    if kind in ("", "dumb", "unknown"):
        said = f"TERM is {kind}" if kind else "TERM is not set"
        raise InvalidValue(f"top: {said}, so text cannot be placed: set it to what this terminal is, or {instead}")


def glyphs_of(environment: Mapping[str, str], encoding: str) -> Glyphs:
    """The console of Linux and terminals of old have no letters for bars."""
    utf8 = encoding.lower().replace("-", "") == "utf8"
    return Glyphs() if utf8 and not is_plain(environment) else Glyphs.plain()


def is_plain(environment: Mapping[str, str]) -> bool:
    """No more than ECMA-48 can be expected of it."""
    return environment.get("TERM", "").startswith(_ASCII)


def is_monochrome(environment: Mapping[str, str]) -> bool:
    return environment.get("TERM", "").startswith(_MONOCHROME)
