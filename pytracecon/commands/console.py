"""Lines for people, on standard error; and a parser whose errors are such lines."""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import NoReturn

from pytracecon.text import one_line

__all__ = ["Parser", "log_to_stderr", "reserve_descriptors", "say"]


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


class Parser(argparse.ArgumentParser):
    """An error is one line; the usage is for --help."""

    def error(self, message: str) -> NoReturn:
        say(f"{message} (see {self.prog} --help)")
        self.exit(2)


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
