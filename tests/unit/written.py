"""What a verb of the frame `Tool` asks of its tracer, and what it writes, without a tracer."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from pytracecon.commands.tool import Tool
from pytracecon.events import Event
from pytracecon.outputs import Summary
from pytracecon.outputs.sink import open_file
from pytracecon.views.answers import Answers


def keywords(verb: Tool, line: str) -> dict[str, Any]:
    """Those it gives, and of two that cost something what they are if it does not."""
    return {"names": True, "processes": True} | verb.keywords(verb.parser().parse_args(line.split()))


def rows(verb: Tool, line: str, events: Iterable[Event]) -> list[str]:
    """The lines of its table in a file. Events come one at a time."""
    options = verb.parser().parse_args(line.split())
    target, answers = open_file(os.devnull, append=False), Answers()
    output, shows = verb.table(options, answers, target), verb.shows(options, answers)
    told = output.header()
    for event in events:
        if shows is None or shows(event):
            told += b"".join(piece for piece, _ in output.render([event]))
    if isinstance(output, Summary):
        told += b"".join(piece for piece, _ in output.sum_up(last=True))
    target.close()
    return told.decode().splitlines()
