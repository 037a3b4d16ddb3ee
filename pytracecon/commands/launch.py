"""From the options of a verb that traces to its run: what all of them have in common."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from pytracecon.commands import privileges, show
from pytracecon.commands.console import log_to_stderr
from pytracecon.commands.signals import Signals
from pytracecon.errors import InvalidValue

if TYPE_CHECKING:
    from pytracecon.commands.session import Session
    from pytracecon.events import Event
    from pytracecon.outputs import Output
    from pytracecon.outputs.sink import Sink
    from pytracecon.tracer import Tracer
    from pytracecon.upkeep import Upkeep
    from pytracecon.views.beginnings import Beginnings

__all__ = ["coloured", "launch"]


def launch(
    options: argparse.Namespace,
    signals: Signals,
    keywords: dict[str, Any],
    *,
    what: str,
    table: Callable[[Sink], Output],
    shows: Callable[[Event], bool] | None,
    every_format: bool = False,
    interval: float | None = None,
    holds: Callable[[Tracer], Beginnings] | None = None,
    run: Callable[..., Session] | None = None,
    uses: Collection[Upkeep] = (),
    lists: bool = False,
) -> int:
    """The exit status. `keywords` are right; `table` is made if that is the format, `shows` chooses what is written.

    `holds` keeps back what is not complete yet. With `every_format` it is `table` that makes the output of each. One
    that sums up does so every `interval` seconds too, not only at the end. `run` makes another kind of `Session`.
    `uses` are privileges that the verb itself needs later; `lists`: it takes snapshots.
    """
    # Imported now: --help needs none of it.
    from pytracecon.commands.heap import give_large_blocks_back  # noqa: PLC0415
    from pytracecon.filters import values  # noqa: PLC0415

    _judge_output(options)
    privileges.judge(options)
    give_large_blocks_back()
    count = None if options.count is None else values.number("--count", options.count, 1, 1 << 62)
    duration = None if options.duration is None else values.seconds("--duration", options.duration)
    if options.output is not None or os.environ.get("NOTIFY_SOCKET"):
        signals.reload_at_hangup()
    output = table if every_format else _output(options, table)
    if options.verbose:
        log_to_stderr(options.verbose)
    with contextlib.ExitStack() as at_end:
        from pytracecon.kernel_types import chosen_ahead  # noqa: PLC0415

        at_end.enter_context(chosen_ahead())
        from pytracecon import meanwhile  # noqa: PLC0415
        from pytracecon.commands.session import Session  # noqa: PLC0415

        meanwhile.ALSO[:] = () if options.privileges == "all" else ("pytracecon.upkeep", "pytracecon.dropping")

        target = None if privileges.leaves(options) else _opened(options, at_end)

        def opens(tracer: Tracer) -> Sink:
            if lists:
                tracer.prepare_snapshots()
            again = () if target is None or options.output is None else privileges.reopening(options.output)
            privileges.give_up(options, tracer, (*uses, *again))
            return target or _opened(options, at_end)

        return (run or Session)(
            keywords,
            output,
            opens,
            what=what,
            shows=shows,
            count=count,
            duration=duration,
            interval=interval,
            holds=holds,
            fail_on_loss=options.fail_on_loss,
            verbose=options.verbose,
            json=options.format == "json" and not every_format,
        ).run(signals)


def _opened(options: argparse.Namespace, at_end: contextlib.ExitStack) -> Sink:
    target = _target(options)
    at_end.callback(target.close)
    return target


def _judge_output(options: argparse.Namespace) -> None:
    if options.append and options.output is None:
        raise InvalidValue("-a: appends to which file? Give it with -o FILE")
    if options.format == "journal" and options.output is not None:
        raise InvalidValue("-o: the journal is no file; leave it out, or take another --format")
    if options.format != "journal" and options.journal_socket is not None:
        raise InvalidValue("--journal-socket: nothing is sent there without --format journal")
    show.keys(options)


def _target(options: argparse.Namespace) -> Sink:
    from pytracecon.outputs import sink  # noqa: PLC0415

    if options.format == "journal":
        from pytracecon.outputs.journal import SOCKET, JournalSink  # noqa: PLC0415

        return JournalSink(SOCKET if options.journal_socket is None else options.journal_socket)
    if options.output is None:
        return sink.standard_output()
    return sink.open_file(options.output, append=options.append)


def _output(options: argparse.Namespace, table: Callable[[Sink], Output]) -> Callable[[Sink], Output]:
    """What makes the output for a sink. A template is judged before there is one."""
    # The one that is asked for, not the others: msgspec alone takes as long to import as the rest together.
    if options.template is not None:
        from pytracecon.outputs.template import Template, TemplateLines  # noqa: PLC0415

        template = Template.parse("--template", options.template)
        return lambda _: TemplateLines(template)
    if options.format == "table":
        return lambda target: coloured(table(target), options.color, target)
    return lambda _: _of_events(options.format)


def _of_events(form: str) -> Output:
    """All that events have, in this format."""
    if form == "json":
        from pytracecon.outputs.json_lines import JsonLines  # noqa: PLC0415

        return JsonLines()
    if form == "csv":
        from pytracecon.outputs.csv_rows import CsvRows  # noqa: PLC0415

        return CsvRows()
    from pytracecon.outputs.journal import Journal  # noqa: PLC0415

    return Journal()


def coloured(output: Output, choice: str, target: Sink) -> Output:
    """A table with the colours that --color asks for. What is none has no colours."""
    from pytracecon.outputs import colour, table  # noqa: PLC0415

    if isinstance(output, table.Table):
        output.coloured = colour.wanted(choice, terminal=target.is_terminal)
    return output
