"""The command `pytracecon`: finds the verb, and turns every error into one line and an exit status.

Imports nothing that `--help` does not need.
"""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """The exit status, as the README lists them."""
    from pytracecon.commands import console  # noqa: PLC0415 - inside, so that Ctrl-C meets no traceback

    console.reserve_descriptors()
    try:
        status = _run(sys.argv[1:] if argv is None else argv)
        return _flushed(status)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _flushed(0)


def _run(arguments: list[str]) -> int:
    from pytracecon.commands import verb_and_rest  # noqa: PLC0415
    from pytracecon.commands.console import say  # noqa: PLC0415
    from pytracecon.errors import PytraceconError  # noqa: PLC0415

    try:
        verb, rest = verb_and_rest(arguments)
        return verb.run(verb.parser().parse_args(rest))
    except PytraceconError as error:
        say(str(error))
        return error.exit_status
    except SystemExit as ended:  # --help, --version, wrong usage
        return ended.code if isinstance(ended.code, int) else 0


def _flushed(status: int) -> int:
    """Python would flush at its exit, and tell of a closed pipe then."""
    from pytracecon.commands.console import say  # noqa: PLC0415

    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # What is left in Python's buffer goes nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            say(f"standard output cannot be written: {error.strerror}")
            return 74
    return status
