"""What a verb says: lines for people on standard error, and what was asked for on standard output.

Both are written at once. Nothing is left for Python to flush at its exit, when an error could no longer be told.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import TYPE_CHECKING, NoReturn

from pytracecon.outputs.sink import standard_output
from pytracecon.text import one_line

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

__all__ = ["Parser", "log_to_stderr", "reserve_descriptors", "say", "show"]


def say(text: str) -> None:
    """One line, at once, behind the name of the program."""
    # Nobody is left to be told when standard error is closed, and the run goes on.
    with contextlib.suppress(OSError):
        os.write(2, f"pytracecon: {one_line(text)}\n".encode(errors="backslashreplace"))


def reserve_descriptors() -> None:
    """Closed standard descriptors are filled: else what is opened next would get our output."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)


def show(text: str) -> None:
    """What was asked for and is no stream of events. Raises `OutputFailed` or `ReaderGone`."""
    standard_output().begin(text.encode(errors="backslashreplace"))


class Parser(argparse.ArgumentParser):
    """An error is one line; the usage is for --help. No option may be shortened."""

    def __init__(self, *, prog: str, description: str, usage: str | None = None, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog, description=description, usage=usage, epilog=epilog, formatter_class=_Help, allow_abbrev=False
        )

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        if file is None:
            show(self.format_help())
        else:
            super().print_help(file)

    def error(self, message: str) -> NoReturn:
        say(f"{message} (see {self.prog} --help)")
        self.exit(2)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Of a fixed width: argparse would import half of what makes archives to learn that of the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=80, max_help_position=28)


def log_to_stderr(verbosity: int) -> None:
    """What the package logs: from INFO at 1, everything from 2."""
    import logging  # noqa: PLC0415 - not for --help

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            for line in record.getMessage().splitlines():
                say(line)

    logger = logging.getLogger("pytracecon")
    logger.addHandler(Lines())
    logger.setLevel(logging.INFO if verbosity == 1 else logging.DEBUG)
    logger.propagate = False
