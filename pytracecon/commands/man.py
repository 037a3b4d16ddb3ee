"""The man page, from the definitions of the parsers: `pytracecon --man`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytracecon.commands.definitions import Definition, Group, Option

__all__ = ["STATUSES", "man"]

STATUSES = {
    0: "ended as asked: Ctrl-C, SIGTERM, --duration, --count, or the reader closed the pipe",
    2: "wrong usage, or the file given to explain is not there, cut off or none of ours",
    69: "this kernel or libbpf cannot do it, or descriptors or memory do not suffice; the line says what would help",
    74: "the output could not be written, or the file given to explain not read",
    75: "something was lost, and --fail-on-loss was given, or run was told what is allowed",
    76: "run: the command reached what is not allowed",
    77: "a privilege is missing, or one that should have been given up was not; the line says which, and for what",
    126: "run: the command cannot be executed",
    127: "run: there is no such command",
}
_NAME = "every TCP connection of a Linux host, as it happens"
_COMMON = 3
"""An option that so many verbs have alike is described once."""


def man() -> str:
    from pytracecon import __version__  # noqa: PLC0415 - neither is for --help
    from pytracecon.commands.definitions import definitions  # noqa: PLC0415

    return "".join(f"{line}\n" for line in _page(definitions(), __version__))


def _page(verbs: list[Definition], version: str) -> Iterator[str]:
    common = _common(verbs)
    yield r".\" Made by pytracecon --man"
    yield f'.TH PYTRACECON 8 "" "pytracecon {_escaped(version)}"'
    yield ".nh"  # a name of an option, broken and hyphenated, is found by no search
    yield ".ad l"
    yield ".SH NAME"
    yield rf"pytracecon \- {_escaped(_NAME)}"
    yield ".SH SYNOPSIS"
    yield ".nf"
    yield from (f".B {_escaped(line.strip())}" for verb in verbs for line in verb.usage.splitlines())
    yield ".fi"
    yield ".SH VERBS"
    for verb in verbs:
        yield ".TP"
        yield f".B {_escaped(verb.verb)}"
        yield _text(verb.summary)
    yield ".SH OPTIONS OF MOST VERBS"
    for title, about, options in common:
        yield f".SS {_escaped(title.capitalize())}"
        yield from [_text(about)] if about else []
        yield from _options(options)
    shared = {option for _, _, options in common for option in options}
    for verb in verbs:
        yield f".SH PYTRACECON {_escaped(verb.verb.upper())}"
        yield from _paragraphs(verb.about)
        yield from _of(verb, shared)
    yield ".SH EXIT STATUS"
    for status, meaning in STATUSES.items():
        yield ".TP"
        yield f".B {status}"
        yield _text(meaning)


def _common(verbs: list[Definition]) -> list[tuple[str, str, tuple[Option, ...]]]:
    """By groups: what several verbs have alike, in the order in which it is met first."""
    counted = Counter(option for verb in verbs for option in set(verb.options))
    found: dict[str, tuple[str, dict[Option, None]]] = {}
    for verb in verbs:
        for group in verb.groups:
            options = [option for option in group.options if counted[option] >= _COMMON]
            if options:
                _, so_far = found.setdefault(group.title, (group.about, {}))
                already = {option for _, others in found.values() for option in others}
                so_far.update(dict.fromkeys(option for option in options if option not in already))
    return [(title, about, tuple(options)) for title, (about, options) in found.items() if options]


def _of(verb: Definition, shared: set[Option]) -> Iterator[str]:
    for group in verb.groups:
        own = [option for option in group.options if option not in shared]
        if own:
            yield f".SS {_escaped(_title(group))}"
            yield from _options(tuple(own))
    others = [max(option.names, key=len) for option in verb.options if option in shared and option.names]
    if others:
        yield ".SS Beside these"
        yield _text(", ".join(others))
    if verb.examples:
        yield ".SS Examples"
        yield ".nf"
        yield from (_literal(line) for line in verb.examples.splitlines())
        yield ".fi"


def _title(group: Group) -> str:
    return {"positional arguments": "Arguments"}.get(group.title, group.title.capitalize())


def _options(options: tuple[Option, ...]) -> Iterator[str]:
    for option in options:
        yield ".TP"
        names = ", ".join(rf"\fB{_escaped(name)}\fR" for name in option.names)
        value = "" if option.value is None else rf"\fI{_escaped(option.value)}\fR"
        yield f"{names} {value}".strip()
        yield _text(option.help)


def _paragraphs(about: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", about):
        yield ".PP"
        yield _text(paragraph)


def _text(text: str) -> str:
    return _literal(" ".join(text.split()))


def _literal(line: str) -> str:
    """A line that is no request, whatever it begins with."""
    escaped = _escaped(line)
    return rf"\&{escaped}" if escaped[:1] in (".", "'") else escaped


def _escaped(text: str) -> str:
    return text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
