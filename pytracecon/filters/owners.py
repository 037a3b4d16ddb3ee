"""Shell patterns for what an owner is: its container, its unit, its program.

A container is meant by its id, by the first digits of that (as `docker ps` shows them), or by its name; a program by
its path, or without a slash by its file's name.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from pytracecon.filters.hosts import PatternsLike
from pytracecon.filters.values import each, refusal

if TYPE_CHECKING:
    from pytracecon.events import Process

__all__ = ["matcher", "parse"]

_LONGEST = 4096
_RIGHT = "give a shell pattern, such as nginx*"
_DIGITS = re.compile(r"[0-9a-f]{12,63}")


def parse(option: str, value: PatternsLike | None) -> tuple[str, ...]:
    """Patterns as they were given; a comma is part of one."""
    if value is None:
        return ()
    return tuple(sorted({_pattern(option, item) for item in each(option, value, _RIGHT, commas=False)}))


def matcher(
    containers: tuple[str, ...], units: tuple[str, ...], exes: tuple[str, ...]
) -> Callable[[Process | None], bool] | None:
    """Whether all that is asked for fits, each by one of its patterns; what is not known fits none. None: any owner."""
    ids = _any((*containers, *(f"{each}*" for each in containers if _DIGITS.fullmatch(each))))
    names, services = _any(containers), _any(units)
    paths = _any(tuple(each for each in exes if "/" in each))
    files = _any(tuple(each for each in exes if "/" not in each))

    def fits(process: Process | None) -> bool:
        if process is None:
            return False
        if containers and not (ids(process.container) or names(process.container_name)):
            return False
        if units and not services(process.unit):
            return False
        exe = process.exe
        return not exes or (exe is not None and (paths(exe) or files(exe.rpartition("/")[2])))

    return fits if containers or units or exes else None


def _any(patterns: tuple[str, ...]) -> Callable[[str | None], bool]:
    fits = re.compile("|".join(map(fnmatch.translate, patterns)) if patterns else r"(?!)").match
    return lambda text: text is not None and fits(text) is not None


def _pattern(option: str, item: object) -> str:
    if not isinstance(item, str) or not item.strip():
        raise refusal(option, item, f"is no pattern; {_RIGHT}")
    if not item.isprintable():
        raise refusal(option, item, f"holds a control character; {_RIGHT}")
    if len(item) > _LONGEST:
        raise refusal(option, item, f"is longer than {_LONGEST} characters; {_RIGHT}")
    return item
