"""systemd's unit for a run as a service: `pytracecon --service-unit`."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from pytracecon.commands.console import show

__all__ = ["UNIT", "Unit", "unit"]

UNIT = Path(__file__).parents[1] / "pytracecon.service"
_USUAL = "/usr/local/bin/pytracecon"


class Unit(argparse.Action):
    """An option that prints it and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        show(unit(_command(sys.argv[0])))
        parser.exit()


def unit(command: str) -> str:
    """The unit, in which this command is what runs."""
    return UNIT.read_text().replace(f"ExecStart={_USUAL} ", f"ExecStart={command} ")


def _command(called: str) -> str:
    """How this program is started, from wherever."""
    found = shutil.which(called)
    if found is not None and Path(called).name != "__main__.py":
        return _quoted(str(Path(found).absolute()))
    return f"{_quoted(sys.executable)} -m pytracecon"


def _quoted(path: str) -> str:
    """As systemd reads a line: `%` is a specifier, and a path of blanks needs quotes."""
    doubled = path.replace("\\", "\\\\").replace("%", "%%").replace('"', '\\"')
    return f'"{doubled}"' if any(each in path for each in " \t\"'\\;") else doubled
