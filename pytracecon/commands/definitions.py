"""What the parsers define, as those need it who tell others of it: completion and the man page."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from pytracecon.commands import VERBS, Verb

__all__ = ["Definition", "Group", "Option", "definitions"]

_ALTERNATIVES = {"HOW": ("auto", "fentry", "kprobe", "tracepoint"), "out|in": ("out", "in"), "tcp|udp": ("tcp", "udp")}
"""What may stand for these, where the parser leaves it to others to judge."""


@dataclass(frozen=True, slots=True)
class Option:
    """`names` are none for an argument without dashes; `value` is what stands for its value, if it takes one."""

    names: tuple[str, ...]
    value: str | None
    help: str
    choices: tuple[str, ...] = ()
    repeatable: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    title: str
    about: str
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Definition:
    """A verb. `takes_command`: what follows `--` is another program's."""

    verb: str
    summary: str
    about: str
    usage: str
    groups: tuple[Group, ...]
    examples: str
    takes_command: bool

    @property
    def options(self) -> tuple[Option, ...]:
        return tuple(option for group in self.groups for option in group.options)


def definitions() -> list[Definition]:
    """Of every verb, in the order of the help."""
    return [_definition(name, summary) for name, summary in VERBS.items()]


def _definition(name: str, summary: str) -> Definition:
    verb = cast(Verb, importlib.import_module(f"pytracecon.commands.{name}"))
    parser = verb.parser()
    usage = parser.format_usage().removeprefix("usage: ").rstrip()
    examples = (parser.epilog or "").partition("examples:\n")[2].rstrip()
    return Definition(
        name, summary, parser.description or "", usage, tuple(_groups(parser)), examples, " -- COMMAND" in usage
    )


def _groups(parser: argparse.ArgumentParser) -> Iterator[Group]:
    # argparse has no other way to ask, in any release.
    for group in parser._action_groups:  # noqa: SLF001
        options = tuple(_option(action) for action in group._group_actions)  # noqa: SLF001
        if options:
            yield Group(group.title or "options", group.description or "", options)


def _option(action: argparse.Action) -> Option:
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    takes_value = action.nargs != 0
    choices = tuple(map(str, action.choices or ())) or _ALTERNATIVES.get(metavar, ())
    return Option(
        tuple(action.option_strings),
        metavar if takes_value else None,
        " ".join((action.help or "").split()),
        choices if takes_value else (),
        type(action).__name__ in ("_AppendAction", "_CountAction"),
    )
