"""The verbs of the command line. A verb is a module with `parser()` and `run(options)`, imported when it is named."""

from __future__ import annotations

import argparse
import importlib
from typing import Protocol, cast

from pytracecon.errors import InvalidValue

__all__ = ["SHELLS", "VERBS", "Verb", "verb_and_rest"]

VERBS = {
    "trace": "every TCP connection, as it happens (the default)",
    "connect": "who connects to what: tcpconnect",
    "accept": "who accepts whom: tcpaccept",
    "latency": "how long handshakes take: tcpconnlat",
    "life": "what went over connections that ended: tcplife",
    "states": "every change of a connection's state: tcpstates",
    "retrans": "what is sent again, and resets: tcpretrans",
    "flows": "what is open right now, once or every few seconds: nettop",
    "explain": "one connection's life on a screen, as it happened or of a file",
    "top": "who talks to whom, how much and how fast, on a live screen",
    "count": "events, counted by any of their keys",
    "lookups": "every name that is looked up: by whom, how fast, what came of it",
    "run": "a command, and what it does on the network; or may do",
    "doctor": "what of this can run here, and what is missing",
}


SHELLS = ("bash", "zsh", "fish")
"""What there is completion for."""


class Verb(Protocol):
    def parser(self) -> argparse.ArgumentParser: ...

    def run(self, options: argparse.Namespace) -> int:
        """The exit status."""


def verb_and_rest(arguments: list[str]) -> tuple[Verb, list[str]]:
    """The verb that the first argument names, `trace` if it names none; and the arguments that are its own."""
    name = "trace"
    if arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        if name not in VERBS:
            raise InvalidValue(f"{name} is no verb: {' or '.join(VERBS)} (see pytracecon --help)")
    return cast(Verb, importlib.import_module(f"pytracecon.commands.{name}")), arguments
