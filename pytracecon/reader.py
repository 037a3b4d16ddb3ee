"""Reads the ring: batches of events in the kernel's order, with every loss in its place among them."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from pytracecon import wire
from pytracecon.builder import Builder
from pytracecon.clock import SECOND, wall_offset
from pytracecon.errors import PytraceconError, TracerClosed
from pytracecon.events import Event, Lost
from pytracecon.iterators import run
from pytracecon.logs import warn
from pytracecon.ring import Batch, Ring, SharedPages
from pytracecon.settings import WAKE_SHARE
from pytracecon.sweep import sweep_of

if TYPE_CHECKING:
    from pytracecon.loaded import Loaded
    from pytracecon.names.joiner import Joiner
    from pytracecon.owners.processes import Owners
    from pytracecon.translations import Translations
    from pytracecon.uprobes import LibcUprobes

_LOGGER = "pytracecon.reader"

NAP = 0.025
"""Seconds that a reader rests while traffic flows, so that it reads batches and not single records."""

_MISSES_EVERY = 0.5
_SETTLED_WITHIN = 1.0
_LATE = 0.001  # epoll counts in milliseconds

_ELSEWHERE = {"map": "lost_map", "names": "lost_names", "probe": "unseen"}
"""Losses that no record tells of: `where` they are said to be, and the column that counts them."""

T = TypeVar("T")


Shown = Callable[[Event], bool]
"""Whether an event is handed over, where the kernel side could not decide that."""


class Counts(NamedTuple):
    lookups: int
    """Events that were made of several records."""
    left_out: int


def seen(events: list[Event], names: Joiner | None, shown: Shown | None) -> tuple[list[Event], Counts]:
    """What of decoded events is handed over, and what it counts for."""
    lookups = 0 if names is None else names.counted()
    if shown is None:
        return events, Counts(lookups, 0)
    handed = list(filter(shown, events))
    return handed, Counts(lookups, len(events) - len(handed))


class Form(Protocol[T]):
    """What the user gets: events, or lines that tell them."""

    def walk(self, ring: Ring, offset_ns: int) -> Batch:
        """Take what is ready out of the ring. `offset_ns` leads from the records' clock to ours."""

    def records(self, batch: memoryview, offset_ns: int) -> tuple[list[T], Counts]:
        """What whole records make: the `data` of what `walk` took."""

    def events(self, events: list[Event]) -> list[T]:
        """What events make that no record carried."""


class Events:
    """Each event as its dataclass."""

    def __init__(
        self,
        names: Joiner | None = None,
        shown: Shown | None = None,
        owners: Owners | None = None,
        translations: Translations | None = None,
    ) -> None:
        self._builder = Builder(names, owners, translations)
        self._names = names
        self._shown = shown
        self._owners = owners
        self.note: Callable[[list[Event]], None] | None = None
        """Called with what is handed over, by whoever wants to know."""

    def walk(self, ring: Ring, _offset_ns: int) -> Batch:
        return ring.take()

    def records(self, batch: memoryview, offset_ns: int) -> tuple[list[Event], Counts]:
        if self._owners is not None:
            self._owners.refresh()
        events = self._builder.events(batch, offset_ns)
        events, counts = seen(events, self._names, self._shown)
        if self.note is not None:
            self.note(events)
        return events, counts

    def events(self, events: list[Event]) -> list[Event]:
        return events


class Reader:
    """One per tracer. What it has counted never falls: records read, and those that it knows to be lost."""

    def __init__(self, loaded: Loaded, names: Joiner | None, libcs: LibcUprobes | None, idle_ns: int) -> None:
        cpus = loaded.object.lib.num_possible_cpus()
        self._ring = Ring(loaded.object.maps["ring"], cpus)
        self._pages = SharedPages(loaded.object.maps["counters"], loaded.object.maps["shared"], cpus)
        self._loaded = loaded
        self._names = names
        self._libcs = libcs
        self._modules = loaded.modules
        self._sweep = sweep_of(loaded, self._pages, idle_ns)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.epoll = select.epoll()
        # Told once: that there is something to read is no reason to read it, until the kernel side wakes the reader.
        self.epoll.register(loaded.object.maps["ring"].fd, select.EPOLLIN | select.EPOLLET)
        self.epoll.register(self._wake, select.EPOLLIN)
        if self._modules is not None and self._modules.fd is not None:
            self.epoll.register(self._modules.fd, select.EPOLLIN)
        self._read = 0
        self._lookups = 0
        self.left_out = 0
        """Events that the kernel side could not leave out: it does not know names."""
        self.lost_ring = 0
        self.dropped = 0
        """Events that were read, and lost as something was raised meanwhile: by a signal's handler, mostly."""
        self._untold: list[Event] = []
        self.when_closed: set[Callable[[], None]] = set()
        """Called as it is closed, by whoever does that, for who waits elsewhere than in `wait`."""
        self._elsewhere = dict.fromkeys(_ELSEWHERE, 0)
        self._missed = 0
        self._passed_by = 0
        self.drained = True
        """The last batch was all that there was: time to rest before the next."""
        self._looked = time.monotonic_ns()
        self._much = loaded.object.maps["ring"].max_entries // WAKE_SHARE
        self._known_until = time.monotonic_ns()
        self._misses_asked = time.monotonic_ns()

    @property
    def wanted(self) -> int:
        """Events that were to be told, and the lookups that were made."""
        return sum(self._pages.column("wanted")) + self._lookups

    @property
    def lost_map(self) -> int:
        return self._elsewhere["map"]

    @property
    def lost_names(self) -> int:
        return self._elsewhere["names"]

    @property
    def lost_probe(self) -> int:
        """Runs of a program that the kernel skipped, and nothing stood in for; ends that no tracepoint told."""
        return self._elsewhere["probe"]

    @property
    def delivered(self) -> int:
        """Events that were read, and lookups that were made of what was read."""
        return self._read + self._lookups

    def wake(self) -> None:
        """End a wait, now or the next one. Safe in a signal handler. Nobody waits for what is closed."""
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def calm(self) -> None:
        """`wake()` was heard."""
        with contextlib.suppress(BlockingIOError):
            if self._wake >= 0:
                os.eventfd_read(self._wake)

    def take(self, form: Form[T]) -> list[T]:
        """What is ready, perhaps nothing. Losses stand where they happened, the latest ones at the end."""
        offset = wall_offset()
        self._looked = now = time.monotonic_ns()  # whatever happened before is in the ring by now
        batch = form.walk(self._ring, offset)
        losses = self._untold
        if batch.lost:
            self.lost_ring += batch.lost
            first = batch.first + offset
            losses.append(Lost(first, batch.lost, "ring", self._known_until + offset, first))
        made: list[T] = []
        if batch.records:
            self._read += batch.records - batch.names
            try:
                made, counts = form.records(batch.data, offset)
            except BaseException:
                self.dropped += batch.records - batch.names
                losses.append(self._lost(batch.records - batch.names, "queue", batch.last, offset))
                self.drained = False  # they are to be told, by whoever reads next
                raise
            self._lookups += counts.lookups
            self.left_out += counts.left_out
            self._known_until = max(self._known_until, batch.last)
        taken = made
        if losses:
            taken = form.events(losses) + made
            self._untold = []
        self.drained = not batch.more
        if self.drained and not batch.busy:
            taken += form.events(self._unanswered(now, offset) + self._late_losses(offset))
            for each in (self._libcs, self._modules, self._sweep):
                if each is not None:
                    each.look()
        elif self._libcs is not None:
            self._libcs.look()  # programs that have just started are about to ask for names
        return taken

    def take_until(self, time_ns: int, form: Form[T]) -> list[T]:
        """Everything that happened before then, by the kernel's clock, and was not read yet."""
        taken: list[T] = []
        deadline = time.monotonic() + _SETTLED_WITHIN
        while True:
            before = self._ring.unread()
            taken += self.take(form)
            if self._ring.unread() == 0 or self._known_until >= time_ns:
                return taken
            if self._ring.unread() < before:
                deadline = time.monotonic() + _SETTLED_WITHIN
            elif time.monotonic() > deadline:  # a record that is being written stands before it
                return taken

    def _unanswered(self, now: int, offset: int) -> list[Event]:
        """Lookups that end because their time is over."""
        if self._names is None or self._names.deadline is None:
            return []
        events = self._names.expired(now, offset)
        self._lookups += len(events)
        return events

    def until_due(self, timeout: float | None) -> float | None:
        """`timeout`, or less if something has to be done before although nothing happens."""
        others = (self._libcs, self._modules, self._sweep)
        deadlines = [each.deadline for each in (self._names, *others) if each is not None]
        due = [deadline for deadline in deadlines if deadline is not None]
        if not due:
            return timeout
        left = max(0, min(due) - time.monotonic_ns()) / SECOND + _LATE
        return left if timeout is None else min(left, timeout)

    def _late_losses(self, offset: int) -> list[Event]:
        """What was lost after the last record, or elsewhere than in the ring."""
        losses: list[Event] = []
        count = self._unannounced_ring_losses()
        if count:
            self.lost_ring += count
            losses.append(self._lost(count, "ring", max(self._pages.column("lost_ring_at")), offset))
        if time.monotonic_ns() - self._misses_asked >= _MISSES_EVERY * SECOND:
            self._ask_for_misses()
        return losses + self._losses_elsewhere(offset)

    def _losses_elsewhere(self, offset: int) -> list[Event]:
        losses: list[Event] = []
        for where, column in _ELSEWHERE.items():
            total, at = sum(self._pages.column(column)), max(self._pages.column(f"{column}_at"))
            if where == "probe":
                # An end that was passed by is found missing later: these are not two.
                skipped = self._missed + max(0, self._passed_by - total)
                total, at = total + skipped, max(at, self._misses_asked if skipped else 0)
            if total > self._elsewhere[where]:
                count, self._elsewhere[where] = total - self._elsewhere[where], total
                losses.append(self._lost(count, where, at, offset))
        return losses

    def _unannounced_ring_losses(self) -> int:
        """Counts the losses that no record has told of, and has the walker know them, or they would come again."""
        if self._ring.unread():
            return 0
        count = 0
        for cpu, lost in enumerate(self._pages.column("lost_ring")):
            count += (lost - self._ring.lost[cpu]) & 0xFFFF_FFFF
            self._ring.lost[cpu] = lost & 0xFFFF_FFFF
        return count

    def _ask_for_misses(self) -> None:
        """Runs of a program that the kernel skipped, because the program was interrupted on that very CPU.

        Of the first of two, those are no losses that the second stood in for. It counts them, after the kernel did.
        """
        self._misses_asked = time.monotonic_ns()
        self._missed, first = self._loaded.misses()
        self._passed_by = first - sum(self._pages.column("stood_in"))

    def _lost(self, count: int, where: str, at: int, offset: int) -> Lost:
        start, end = min(self._known_until, at), max(self._known_until, at)
        self._known_until = end
        return Lost(end + offset, count, where, start + offset, end + offset)

    def rest(self, how: int) -> bool:
        """Tell the kernel side; False if there is something to read instead."""
        self._pages.rest(how)
        return self._ring.unread() == 0

    def wait(self, timeout: float | None) -> None:
        """Rest until there is something to read or to do, `wake()` was called, or `timeout` seconds are over."""
        left = NAP - (time.monotonic_ns() - self._looked) / SECOND
        if left <= 0 and self._ring.unread():
            return
        timeout = self.until_due(timeout)
        begin = time.monotonic()
        if left > 0 and self._nap(left if timeout is None else min(left, timeout)):
            return
        if timeout is not None:
            timeout -= time.monotonic() - begin
            if timeout <= 0:
                return
        # The kernel side may have looked at the word just before it was written: the first sleep is a short one.
        if self.rest(wire.ASLEEP):
            first = NAP if timeout is None else min(NAP, timeout)
            if not self._poll(first) and self.rest(wire.ASLEEP) and (timeout is None or timeout > first):
                # What is to be done may have changed meanwhile, without a wake-up: the reader was awake.
                self._poll(self.until_due(None if timeout is None else timeout - first))
        self._pages.rest(wire.AWAKE)

    def _nap(self, seconds: float) -> bool:
        """What is left of a short rest since the last look, ended early only by a ring that fills or by `wake()`: True.

        What came meanwhile waits for its end: where connections come one by one every few microseconds there is always
        something to read, and to read it so would cost more than to make it.
        """
        self._pages.rest(wire.NAPS)
        ended = self._ring.unread() >= self._much or self._poll(seconds)
        self._pages.rest(wire.AWAKE)
        return ended

    def _poll(self, seconds: float | None) -> bool:
        """Whether there was a reason to wake up before."""
        if self.closed:
            raise TracerClosed
        try:
            ready = self.epoll.poll(seconds)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            raise TracerClosed from None  # by a signal handler, while it waited
        if any(descriptor == self._wake for descriptor, _ in ready):
            self.calm()
        return bool(ready)

    def audit(self) -> None:
        """Before detaching: have ends counted that the kernel kept from all programs that would have told of them.

        Also where it says that it skipped none: there are kernels, changed by who builds them, that call no program
        while process 1 runs, nor for what an interrupt brings to it, and count nothing. Where none was skipped it stops
        all the same if that cannot be done, as no file is left, or not the privilege.
        """
        audit = self._loaded.audit
        if audit is None:
            return
        try:
            run(audit, struct.pack("=I", self._loaded.object.maps["socks"].fd))
        except (PytraceconError, OSError) as error:
            if any(program.info().recursion_misses for program in self._loaded.stand_ins):
                raise
            warn(_LOGGER, "ends that no program saw are not counted: %s", error)

    def settle(self, form: Form[T]) -> list[T]:
        """After detaching: everything that is still in the ring, until the books are closed."""
        taken: list[T] = []
        deadline = time.monotonic() + _SETTLED_WITHIN
        if self._sweep is not None:
            self._sweep.stop()
        while True:
            before = self._ring.unread()
            taken += self.take(form)
            if self._sweep is not None and self._sweep.unfinished:
                deadline = time.monotonic() + _SETTLED_WITHIN
            elif self.drained and self.wanted == self.delivered + self.lost_ring:
                break
            if self._ring.unread() < before:  # however long reading all takes
                deadline = time.monotonic() + _SETTLED_WITHIN
            elif time.monotonic() > deadline:
                break
        self._ask_for_misses()
        return taken + form.events(self._losses_elsewhere(wall_offset()))

    @property
    def closed(self) -> bool:
        return self.epoll.closed

    def close(self) -> None:
        self.epoll.close()
        for each in self.when_closed:
            each()
        wake, self._wake = self._wake, -1  # the number may be another's from now on
        os.close(wake)
        self._ring.close()
        self._pages.close()
