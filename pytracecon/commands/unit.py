"""systemd's unit for a run as a service: `pytracecon --service-unit`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from pytracecon.commands.console import show

__all__ = ["UNIT", "show_unit", "unit"]

UNIT = Path(__file__).parents[1] / "pytracecon.service"
_USUAL = "/usr/local/bin/pytracecon"


def show_unit() -> None:
    """For this program, as it was called."""
    show(unit(_command(sys.argv[0])))


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
