"""What can be done while the kernel verifies the programs: that takes most of a start, and no Python."""

from __future__ import annotations

import contextlib
import threading
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytracecon._libbpf import Libbpf
    from pytracecon.libcs import Finder, Libc
    from pytracecon.sandbox import Attempt
    from pytracecon.uprobe_multi import MultiLink

__all__ = ["ALSO", "Imports", "Meanwhile"]

ALSO: list[str] = []
"""Modules that a command needs before it says that it traces."""


class Meanwhile:
    """If names are wanted it looks for the libcs of this host; then it imports modules, first what attaches to them.

    After that one it tries uretprobes, where they have to be tried. Whoever registers a uprobe waits for RCU, 8 to 20
    ms, but who does so within a grace period of another does not: the kernel's dup_mmap_sem is still its writers'
    (kernel/events/uprobes.c). So the trial is to be done just before libcs are attached to, and not long before.
    """

    def __init__(self, modules: tuple[str, ...], *, names: bool) -> None:
        self._modules = ("pytracecon.uprobes", *modules, "pytracecon.names.joiner") if names else modules
        self._modules += (*ALSO,)
        self._names = names
        self._done = False
        self._attempt: Attempt | None = None
        self._looked = False
        self._found: tuple[Finder, list[Libc]] | None = None
        self._failed: Exception | None = None

    def make_ready(self, lib: Libbpf) -> None:
        """To try uretprobes if they have to be tried, before anything is loaded. For a kernel that has links of many.

        What fails is told to who asks for it.
        """
        if not self._names:
            return
        from pytracecon import sandbox  # noqa: PLC0415 - for those who want names

        try:
            if sandbox.needed():
                self._attempt = sandbox.Attempt(lib)
        except Exception as error:  # noqa: BLE001 - libcs() raises it
            self._failed = error

    def begin(self) -> None:
        """Try uretprobes, in a thread."""
        if self._attempt is not None:
            self._attempt.begin()

    def run(self, between: Callable[[], None]) -> None:
        """`between` is called after each module. Again: nothing. What fails is told to who asks for it."""
        if self._done:
            return
        self._done = True
        self.look_around()
        for place, name in enumerate(self._modules):
            # Said by the import statement that wants it.
            with contextlib.suppress(Exception):
                import_module(name)
            if place == 0:  # before what `between` may begin, which asks for it
                self.begin()
            between()

    def look_around(self) -> None:
        """For the libcs of this host. Again: nothing. What fails is told to who asks for them."""
        if self._looked or not self._names:
            return
        self._looked = True
        try:
            from pytracecon.libcs import Finder  # noqa: PLC0415 - this is what takes the time

            finder = Finder()
            self._found = finder, finder.of_this_host()
        except Exception as error:  # noqa: BLE001 - libcs() raises it
            self._failed = error

    def libcs(self) -> tuple[Finder, list[Libc] | None]:
        """What was found, to whoever asks first; then a finder that has not looked. Raises its error."""
        from pytracecon.libcs import Finder  # noqa: PLC0415 - imported by now

        if self._failed is not None:
            raise self._failed
        found, self._found = self._found, None
        return found or (Finder(), None)

    def tried(self) -> MultiLink | None:
        """The link of a uretprobe that was tried, to whoever asks first. Waits, and raises its error."""
        attempt, self._attempt = self._attempt, None
        return None if attempt is None else attempt.result()

    def close(self) -> None:
        """Give up what nobody asked for."""
        attempt, self._attempt = self._attempt, None
        found, self._found = self._found, None
        with contextlib.ExitStack() as last_to_first:
            for libc in () if found is None else found[1]:
                last_to_first.callback(libc.close)
            if attempt is not None:
                last_to_first.callback(attempt.close)


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
