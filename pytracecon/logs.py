"""Loggers whose module is not imported before there is something to log: a start would wait for it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger

__all__ = ["DEBUG", "INFO", "WARNING", "is_heard", "logger", "warn"]

DEBUG, INFO, WARNING = 10, 20, 30
"""As logging has them."""


def logger(name: str) -> Logger:
    """The one of that name. What nobody has asked for goes nowhere, not to logging's handler of last resort."""
    import logging  # noqa: PLC0415 - see above

    found = logging.getLogger(name)
    if not found.handlers:
        found.addHandler(logging.NullHandler())
    return found


def is_heard(name: str, level: int) -> bool:
    """Whether somebody wants what it says at this level. Who never imported logging has not asked for it."""
    return "logging" in sys.modules and logger(name).isEnabledFor(level)


def warn(name: str, text: str, *arguments: object) -> None:
    """For who listens, if any. Processes that cannot be looked at are usual: no start imports logging for it."""
    if is_heard(name, WARNING):
        logger(name).warning(text, *arguments)
