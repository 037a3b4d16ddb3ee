"""What can be done while the kernel verifies the programs: that takes most of a start, and no Python.

Nothing of it begins earlier: who waits for Python's lock, as this thread would after each call of libbpf, waits for
5 ms where another computes.
"""

from __future__ import annotations

import contextlib
import threading
from importlib import import_module
from typing import TYPE_CHECKING

from pytracecon.tasks import Task

if TYPE_CHECKING:
    from pytracecon._libbpf import Libbpf
    from pytracecon.libcs import Finder, Libc
    from pytracecon.uprobe_multi import MultiLink

__all__ = ["Imports", "Meanwhile"]


class Meanwhile:
    """Looks for the libcs of this host and tries uretprobes, where names are wanted; then imports modules."""

    def __init__(self, modules: tuple[str, ...], *, names: bool) -> None:
        self._modules = (*modules, "pytracecon.names.joiner") if names else modules
        self._names = names
        self._found: tuple[Finder, list[Libc]] | None = None
        self._link: MultiLink | None = None
        self._imports: Imports | None = None
        self._search = Task("looks for libcs", self._look)
        self._trial: Task | None = None

    def begin(self, lib: Libbpf, *, many: bool) -> None:
        """Again: nothing. `many`: this kernel has links of many uprobes."""
        if self._names and many and self._trial is None:
            self._trial = Task("tries uretprobes", lambda: self._try(lib))
            self._trial.begin()
        self._search.begin()

    def _look(self) -> None:
        try:
            if self._names:
                from pytracecon.libcs import Finder  # noqa: PLC0415 - this is what takes the time

                finder = Finder()
                self._found = finder, finder.of_this_host()
        finally:
            # In a thread of its own, as whoever waits for what was found does not wait for that.
            self._imports = Imports(*self._modules)

    def _try(self, lib: Libbpf) -> None:
        from pytracecon.sandbox import try_many  # noqa: PLC0415 - for those who want names

        self._link = try_many(lib)

    def libcs(self) -> tuple[Finder, list[Libc] | None]:
        """What was found, to whoever asks first; then a finder that has not looked. Waits, and raises its error."""
        from pytracecon.libcs import Finder  # noqa: PLC0415 - imported by now

        self._search.result()
        found, self._found = self._found, None
        return found or (Finder(), None)

    def tried(self) -> MultiLink | None:
        """The link of a uretprobe that was tried, to whoever asks first. Waits, and raises its error."""
        if self._trial is not None:
            self._trial.result()
        link, self._link = self._link, None
        return link

    def close(self) -> None:
        """Give up what nobody asked for."""
        with contextlib.ExitStack() as last_to_first:
            for task in (self._search, self._trial):
                if task is not None:
                    task.wait()
            for libc in () if self._found is None else self._found[1]:
                last_to_first.callback(libc.close)
            if self._link is not None:
                last_to_first.callback(self._link.close)
            self._found = self._link = None


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
