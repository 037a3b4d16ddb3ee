"""The command `pytracecon`: finds the verb, and turns every error into one line and an exit status.

Everything is imported inside: --help needs little of it.
"""
# ruff: noqa: PLC0415

from __future__ import annotations

import gc
import signal
import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """The exit status, as the README lists them. For a process of its own: SIGINT ends it from now on."""
    # Until a verb takes it over; KeyboardInterrupt would show a traceback from somewhere in an import.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    # Nothing here leaves cycles behind; looking for them takes 5 ms of the start and 7 % of a flood.
    gc.set_threshold(100_000, 20, 20)

    from pytracecon.commands import verb_and_rest
    from pytracecon.commands.console import reserve_descriptors, say
    from pytracecon.errors import PytraceconError, limit_reached
    from pytracecon.outputs.sink import ReaderGone

    reserve_descriptors()
    try:
        verb, rest = verb_and_rest(sys.argv[1:] if argv is None else argv)
        return verb.run(verb.parser().parse_args(rest))
    except ReaderGone:
        return 0
    except PytraceconError as error:
        say(str(error))
        return error.exit_status
    except (OSError, MemoryError) as error:
        limit = limit_reached(error)
        if limit is None:
            raise
        say(str(limit))
        return limit.exit_status
    except SystemExit as ended:  # --help, --version, wrong usage
        return ended.code if isinstance(ended.code, int) else 0
