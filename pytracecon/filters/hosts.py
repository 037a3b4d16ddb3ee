"""Shell patterns for names, such as `*.example.com`: letters in any case, and a dot at the end makes no difference."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable

from pytracecon.filters.values import each, refusal

PatternsLike = str | Iterable[str]

_LONGEST = 255
_RIGHT = "give a shell pattern for names, such as *.example.com"


def parse(option: str, value: PatternsLike | None) -> tuple[str, ...]:
    """Patterns in lower case. A comma is part of one."""
    if value is None:
        return ()
    return tuple(sorted({_pattern(option, item) for item in each(option, value, _RIGHT, commas=False)}))


def matcher(patterns: tuple[str, ...]) -> Callable[[str | None], bool]:
    """Whether a name fits one of `patterns` (which `parse` made). One that is not known fits none, not even `*`."""
    fits = re.compile("|".join(map(fnmatch.translate, patterns)) if patterns else r"(?!)").match
    return lambda name: name is not None and fits(_plain(name)) is not None


def _pattern(option: str, item: object) -> str:
    if not isinstance(item, str) or not item.strip(". "):
        raise refusal(option, item, f"is no pattern; {_RIGHT}")
    if not item.isprintable():
        raise refusal(option, item, f"holds a control character; {_RIGHT}")
    if len(item) > _LONGEST:
        raise refusal(option, item, f"is longer than the {_LONGEST} characters that a name can have; {_RIGHT}")
    return _plain(item)


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")
