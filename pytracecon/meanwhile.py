"""What can be done while the kernel verifies the programs: that takes most of a start, and no Python."""

from __future__ import annotations

import contextlib
import threading
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytracecon.libcs import Finder, Libc

__all__ = ["Imports", "Search"]


class Search:
    """Looks for the libcs of this host in a thread of its own, and brings along the modules that names need."""

    def __init__(self) -> None:
        self._found: tuple[Finder, list[Libc]] | None = None
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pytracecon: looks for libcs", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            from pytracecon.libcs import Finder  # noqa: PLC0415 - this is what takes the time
            from pytracecon.names import joiner  # noqa: F401, PLC0415

            finder = Finder()
            self._found = finder, finder.of_this_host()
        except BaseException as error:  # noqa: BLE001 - result() raises it
            self._failed = error

    def result(self) -> tuple[Finder, list[Libc] | None]:
        """What it found, to whoever asks first; then a finder that has not looked. Waits, and raises its error."""
        from pytracecon.libcs import Finder  # noqa: PLC0415

        self._thread.join()
        if self._failed is not None:
            raise self._failed
        found, self._found = self._found, None
        return found or (Finder(), None)

    def close(self) -> None:
        """Give up what nobody asked for."""
        self._thread.join()
        if self._found is not None:
            for libc in self._found[1]:
                libc.close()
            self._found = None


class Imports:
    """Imports modules in a thread of its own. Whoever imports one of them waits for it, and sees what keeps it off."""

    def __init__(self, *names: str) -> None:
        self._thread = threading.Thread(target=self._run, args=names, name="pytracecon: imports", daemon=True)
        self._thread.start()

    @staticmethod
    def _run(*names: str) -> None:
        for name in names:
            # Said by the import statement that wants it.
            with contextlib.suppress(Exception):
                import_module(name)
