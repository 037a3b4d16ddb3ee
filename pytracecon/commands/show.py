"""--show: columns of the user's own, beside those that a verb's table has."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pytracecon.commands.options import shows_table
from pytracecon.errors import InvalidValue

if TYPE_CHECKING:
    from pytracecon.views.columns import Cell

__all__ = ["columns", "keys", "shows_names"]


def keys(options: argparse.Namespace) -> list[str]:
    """Of events, as --show names them; none without it. Raises `InvalidValue`.

    A verb with the option `lists` has rows that are connections.
    """
    given = getattr(options, "show", None)  # a verb that counts has no such option
    if given is None:
        return []
    from pytracecon.filters.values import each, refusal  # noqa: PLC0415 - neither is for --help
    from pytracecon.views import shown  # noqa: PLC0415

    known = shown.of_connections() if getattr(options, "lists", False) else shown.KEYS
    if not shows_table(options):
        other = "a template names its own" if options.template is not None else f"{options.format} has every key"
        raise InvalidValue(f"--show: it adds columns to the table, and {other}; leave one of them out")
    found: list[str] = []
    for key in each("--show", given, "give keys of events, such as container,args"):
        if key not in known:
            near = shown.nearest(str(key), known)
            there_are = "is no key; " + ("near it are" if len(near) < len(known) else "there are")
            raise InvalidValue(f"{refusal('--show', key, there_are)} {', '.join(near)}")
        if key in found:
            raise refusal("--show", key, "is named twice")
        found.append(str(key))
    for key in found:
        if key in shown.OF_NAMES and not getattr(options, "names", True):
            raise InvalidValue(f"--show: --no-names leaves every connection without {key}; leave one of them out")
        if key in shown.OF_PROCESSES and not options.processes:
            raise InvalidValue(f"--show: --no-processes leaves every owner without {key}; leave one of them out")
    return found


def shows_names(options: argparse.Namespace) -> bool:
    """Whether a column tells of the names of connections."""
    found = keys(options)
    if not found:
        return False
    from pytracecon.views.shown import OF_NAMES  # noqa: PLC0415 - most runs show none

    return not OF_NAMES.isdisjoint(found)


def columns(options: argparse.Namespace) -> list[Cell]:
    found = keys(options)
    if not found:
        return []
    from pytracecon.views import shown  # noqa: PLC0415

    return shown.cells(found)
