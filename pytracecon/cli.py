"""The command `pytracecon`: finds the verb, and turns every error into one line and an exit status.

Everything is imported inside, so that Ctrl-C meets no traceback, and `--help` imports little.
"""
# ruff: noqa: PLC0415

from __future__ import annotations

import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """The exit status, as the README lists them."""
    try:
        from pytracecon.commands import console

        console.reserve_descriptors()
        return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return 130


def _run(arguments: list[str]) -> int:
    from pytracecon.commands import verb_and_rest
    from pytracecon.commands.console import say
    from pytracecon.errors import PytraceconError
    from pytracecon.outputs.sink import ReaderGone

    try:
        verb, rest = verb_and_rest(arguments)
        return verb.run(verb.parser().parse_args(rest))
    except ReaderGone:
        return 0
    except PytraceconError as error:
        say(str(error))
        return error.exit_status
    except SystemExit as ended:  # --help, --version, wrong usage
        return ended.code if isinstance(ended.code, int) else 0
