"""`Tracer`: attach, iterate, close.

    with Tracer(port=443) as tracer:             # keywords: the filters of the command line, by the same names
        for event in tracer:                     # or `async for`; ends after tracer.stop()
            ...

    tracer.read(timeout=1.0)                     # one batch instead, [] if nothing came
    tracer.read_json(timeout=1.0)                # the same as JSON lines, for a file or pipe
    tracer.batches()                             # the same as columns of numbers, for who counts millions
    tracer.snapshot()                            # what is open now, and what ended since the snapshot before
    tracer.complete(event)                       # fills in where it really goes, if that became known since
    tracer.stats                                 # what was sent, delivered and lost; adds up exactly
    tracer.probes                                # what is attached, what is not and why

Tracing is on when `Tracer(...)` returns and off after `stop()` or `close()`. A tracer belongs to its process: in a
child after fork() it raises TracerClosed. Several tracers do not disturb each other.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar, Unpack

# No events, and nothing that reads them: that is imported while the kernel verifies the programs.
from pytracecon import existing, forks, loader, told
from pytracecon.errors import TracerClosed
from pytracecon.filters import Filters, Keywords
from pytracecon.resting import rest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pytracecon.batches import Batch, Columns
    from pytracecon.events import ConnectionEvent, Event
    from pytracecon.json_lines import Json, JsonBatch
    from pytracecon.listing import Listing
    from pytracecon.names.joiner import Joiner
    from pytracecon.names.records import ProgramStarted
    from pytracecon.owners.processes import Owners
    from pytracecon.probes import Probe
    from pytracecon.reader import Events, Form, Reader
    from pytracecon.snapshots import Snapshot, Snapshots
    from pytracecon.upkeep import Upkeep
    from pytracecon.waiting import Waiting

T = TypeVar("T")


class Stats(NamedTuple):
    """Counts since the start; none ever falls.

    `wanted` events were to be told by the kernel side: `delivered` of them were read, `lost_ring` found the ring full.
    `handed` went to the user's code, `lost` events among them, and `left_out` did not: `host` left them out, which the
    kernel side does not know, or they were told for a name's sake alone; `lost_queue` were read by `snapshot()`, and
    dropped as 65,536 of them waited already for somebody who iterates. `lost_names` records from which names
    and programs are learnt found the ring full, too: some events may lack them, and lookups be missing;
    `evicted_names` had to make room for others.
    `lost_map` times something did not fit into a table of the kernel side, and `lost_probe` times the kernel passed a
    hook by.
    """

    wanted: int
    delivered: int
    handed: int
    left_out: int
    lost_ring: int
    lost_map: int
    lost_names: int
    lost_probe: int
    evicted_names: int = 0
    lost_queue: int = 0

    @property
    def lost(self) -> int:
        """Everything that is missing from the stream."""
        return self.lost_ring + self.lost_map + self.lost_names + self.lost_probe + self.lost_queue


class Tracer:
    """Follows every TCP connection that the keywords let through. All of them are checked before anything is loaded.

    Keywords: `events` (names, default: connect, established, failed, accept, close, lookup; [] for none, which makes
    the start of who only takes a snapshot quick), `pid` with `children`, `uid`, `comm`, `family` (4 or 6), `port` and
    `local_port`, `remote` and `local`, `netns`, `cgroup`, `direction` ("out" or "in"), `failed`, `min_latency`
    (milliseconds), `not_port`, `not_remote`, `existing`, `names` (False: none), `reverse` (True: ask for PTR records),
    `processes` (False: of owners nothing but number and name), `host`, `container`, `unit`, `exe` (patterns, applied
    here), `ring_size`, `max_connections`, `probes` ("auto", "fentry", "kprobe", "tracepoint"), `btf` and `libbpf`
    (paths). One value or several; several conditions must all hold.
    """

    def __init__(self, **keywords: Unpack[Keywords]) -> None:
        self.filters = Filters.parse(**keywords)
        self._pid = os.getpid()
        self._closed = False
        self._stopping = False
        self._released = False
        """The programs are off."""
        self._detached = False
        """… and all that they had told was read."""
        self._nudged = False
        self._handed = 0
        self._batch: deque[Event] = deque()  # what an iteration has read and not given out yet
        self._waiting: Waiting | None = None
        self._listing: Listing | None = None
        self._snapshots: Snapshots | None = None
        self._json: Json | None = None
        self._columns: Columns | None = None
        self._sorted: deque[Batch] = deque()
        self._turn = threading.RLock()  # of who reads: held while it waits for events
        self._lock = threading.RLock()
        modules: tuple[str, ...] = ("pytracecon.reader", "pytracecon.translations")
        if self.filters.processes:
            modules += ("pytracecon.owners.processes",)
        with contextlib.ExitStack() as on_failure:
            self._loaded = loader.load(self.filters, modules=modules)
            on_failure.callback(self._loaded.close)
            from pytracecon.decode import address  # noqa: PLC0415 - imported meanwhile
            from pytracecon.reader import Events, Reader  # noqa: PLC0415 - imported meanwhile
            from pytracecon.translations import Translations  # noqa: PLC0415 - imported meanwhile

            self._owners = self._new_owners() if self.filters.processes else None
            self._names = self._joiner() if self.filters.names else None
            self._shown = told.shown(self.filters)
            self._translations = Translations(address)
            self._events: Events = Events(self._names, self._shown, self._owners, self._translations)
            self._reader: Reader = Reader(self._loaded, self._names, self._loaded.libcs, self.filters.udp_idle_ns)
            on_failure.callback(self._reader.close)
            existing.follow_children(self._loaded, self.filters)
            existing.read_existing(self._loaded)
            if self._loaded.modules is not None:
                self._loaded.modules.on_attached = lambda _module: self._read_services()
            if any(probe.need == "services" and probe.attached for probe in self._loaded.probes):
                self._read_services()
            on_failure.pop_all()
        forks.cut_off(self, self._let_go)

    def _joiner(self) -> Joiner:
        from pytracecon.decode import address  # noqa: PLC0415 - imported meanwhile
        from pytracecon.names.joiner import Joiner  # noqa: PLC0415 - for those who want names

        def started(program: ProgramStarted) -> None:
            if self._loaded.libcs is not None:
                self._loaded.libcs.started(program.pid, program.time)

        return Joiner(self.filters, address, started, self._owners)

    def _read_services(self) -> None:
        from pytracecon.ipvs_table import decided  # noqa: PLC0415 - for where there is IPVS

        self._translations.take_table(decided(self.filters.netns))

    def _new_owners(self) -> Owners:
        from pytracecon.owners.processes import Owners  # noqa: PLC0415 - for those who want to know

        return Owners()

    @property
    def probes(self) -> list[Probe]:
        """What was tried for each need: what is attached, what is not and why."""
        return list(self._loaded.probes)

    @property
    def upkeep(self) -> list[Upkeep]:
        """What of this process's privileges its needs use from now on; for `pytracecon.drop_privileges`."""
        from pytracecon.upkeep import upkeep  # noqa: PLC0415 - for those who drop them

        self._use()
        return list(upkeep(self._loaded))

    @property
    def stats(self) -> Stats:
        """What was counted so far; after close(), at its end."""
        if self._closed:
            return self._final
        reader = self._use()
        return Stats(
            wanted=reader.wanted,
            delivered=reader.delivered,
            handed=self._handed,
            left_out=reader.left_out,
            lost_ring=reader.lost_ring,
            lost_map=reader.lost_map,
            lost_names=reader.lost_names,
            lost_probe=reader.lost_probe,
            evicted_names=0 if self._names is None else self._names.evicted,
            lost_queue=reader.dropped + (0 if self._waiting is None else self._waiting.lost),
        )

    @property
    def stopped(self) -> bool:
        """stop() was called, and everything up to then was handed over."""
        return self._detached and not self._batch and not self._sorted and not self._waiting

    def _use(self) -> Reader:
        if os.getpid() != self._pid:
            raise TracerClosed("this tracer belongs to the parent process: make a new one after fork()")
        if self._closed:
            raise TracerClosed
        return self._reader

    def read(self, timeout: float | None = None) -> list[Event]:
        """One batch, in the kernel's order. [] after `timeout` seconds without an event, or when stopped."""
        with self._turn:
            events = self._read(self._events, timeout)
            self._handed += len(events)
            return events

    def read_json(self, timeout: float | None = None) -> JsonBatch:
        """What `read` would return, as the lines of `--format json`, at a fraction of its cost."""
        from pytracecon.json_lines import Json, joined  # noqa: PLC0415 - for those who want JSON

        with self._turn:
            with self._lock:
                if self._json is None:
                    self._json = Json(self._names, self._shown, self._owners, self._translations)
                    if self._snapshots is not None:
                        self._json.note = self._snapshots.note
            batch = joined(self._read(self._json, timeout))
            self._handed += batch.events
            return batch

    def batches(self) -> Iterator[Batch]:
        """The same events as columns, kind by kind: see `pytracecon.batches`. Ends after stop()."""
        from pytracecon.batches import Columns  # noqa: PLC0415 - for those who want columns

        with self._lock:
            self._use()
            if self._columns is None:
                self._columns = Columns(
                    self._names,
                    self._shown,
                    self._owners,
                    self._translations,
                    untold=told.untold(self.filters),
                    by_event=told.asks_of_each(self.filters),
                )
                if self._snapshots is not None:
                    self._columns.note = self._snapshots.note
        while not self.stopped:
            if not self._sorted:
                with self._turn:
                    self._sorted.extend(self._read(self._columns, None))
            while self._sorted:
                batch = self._sorted.popleft()
                self._handed += batch.count
                yield batch
                del batch  # its memory may be used again as soon as nobody else has it

    def snapshot(self, limit: int | None = 10_000) -> Snapshot:
        """What is open now in every network namespace, and what ended since the snapshot before, which comes first.

        Each of these is told once, if `close` and `failed` are among the tracer's events. At most `limit` rows; None
        for all. InvalidValue if that is no number; a leaf of `pytracecon.errors` where this kernel cannot do it.
        Events that are read on the way are kept for who iterates, 65,536 of them. Another thread may do that.
        """
        from pytracecon.clock import wall_offset  # noqa: PLC0415 - imported meanwhile
        from pytracecon.snapshots import check  # noqa: PLC0415 - for those who take them

        check(limit)
        with self._lock:
            reader = self._use()
            if self._stopping:
                raise TracerClosed("this tracer is stopped, and does not know what became of anything: take it before")
            snapshots, listing, waiting = self._ready_for_snapshots(reader)
            now = time.monotonic_ns()
            rows = listing.rows()
            waiting.add(reader.take_until(time.monotonic_ns(), self._events))
            if waiting:
                reader.wake()
            return snapshots.take(rows, now, wall_offset(), limit)

    def prepare_snapshots(self) -> None:
        """Load what `snapshot()` takes, which else the first one does: for who drops privileges before that."""
        with self._lock:
            self._use()
            self._list()

    def _list(self) -> Listing:
        from pytracecon.listing import Listing  # noqa: PLC0415 - for those who take snapshots

        if self._listing is None:
            self._listing = Listing(self._loaded, self.filters, loader.object_image())
        return self._listing

    def _ready_for_snapshots(self, reader: Reader) -> tuple[Snapshots, Listing, Waiting]:
        """Before the first one nothing of this is loaded, and nobody takes note of what ends."""
        from pytracecon.rows import Rows  # noqa: PLC0415 - for those who take them
        from pytracecon.snapshots import Snapshots  # noqa: PLC0415 - for those who take them
        from pytracecon.waiting import Waiting  # noqa: PLC0415 - for those who take them

        listing = self._list()
        if self._snapshots is None or self._waiting is None:
            self._waiting = Waiting()
            self._waiting.add(reader.take_until(time.monotonic_ns(), self._events))
            rows = Rows(self._names, self._owners, self._translations, told.fits(self.filters))
            self._snapshots = Snapshots(rows)
            self._events.note = self._snapshots.note
            if self._json is not None:
                self._json.note = self._snapshots.note
            if self._columns is not None:
                self._columns.note = self._snapshots.note
        return self._snapshots, listing, self._waiting

    def complete(self, event: ConnectionEvent) -> None:
        """Fill in `service` and `nat`, if they became known since: they come just behind a connection's first event."""
        self._translations.complete(event)

    def _read(self, form: Form[T], timeout: float | None) -> list[T]:
        reader = self._use()
        deadline = None if timeout is None else time.monotonic() + timeout
        taken = self._pending(form)
        while not taken and not self._detached:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if reader.drained and not self._stopping and left != 0:
                reader.wait(left)
            with self._lock:
                taken = self._pending(form) + self._take(reader, form)
            if left == 0 or self._nudged:
                break
        self._nudged = False
        return taken

    def _pending(self, form: Form[T]) -> list[T]:
        """What was read already."""
        if not self._batch and not self._waiting:
            return []
        with self._lock:
            events = [*self._batch, *(self._waiting or ())]
            self._batch.clear()
            if self._waiting is not None:
                self._waiting.clear()
            return form.events(events)

    def _take(self, reader: Reader, form: Form[T]) -> list[T]:
        if not self._stopping:
            return reader.take(form)
        if not self._released:
            reader.audit()
            self._loaded.detach()
            self._released = True
        taken = reader.settle(form)
        self._detached = True
        return taken

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        if not self._batch:
            self._use()
            events = self.read()
            if not events:
                raise StopIteration
            self._handed -= len(events)
            self._batch.extend(events)
        self._handed += 1
        return self._batch.popleft()

    async def __aiter__(self) -> AsyncIterator[Event]:
        reader = self._use()
        while not self.stopped:
            if not self._batch and not self._waiting:
                await rest(reader, self._lock, lambda: self._stopping)
            for event in self.read(timeout=0):
                yield event

    def stop(self) -> None:
        """Detach, and end the iteration after all that is in the ring. From any thread, and in a signal handler."""
        self._use()
        self._stopping = True
        self._reader.wake()

    def nudge(self) -> None:
        """End a `read` that waits, or the next one, though nothing came. From any thread, and in a signal handler."""
        self._use()
        self._nudged = True
        self._reader.wake()

    def close(self) -> None:
        """Detach and free everything. What was not read yet is gone. Again: nothing."""
        if self._closed or os.getpid() != self._pid:
            return
        self._stopping = True
        self._reader.wake()
        with self._turn, self._lock:
            if self._closed:
                return
            self._final = self.stats
            self._closed = True
            forks.forget(self)
            if self._names is not None:
                self._names.close()
            if self._owners is not None:
                self._owners.close()
            self._reader.close()
            self._loaded.close()

    def _let_go(self) -> None:
        """In a child after fork(): give up the descriptors, or they would keep the parent's programs alive after it."""
        self._turn, self._lock = threading.RLock(), threading.RLock()  # who holds the old ones is not here
        self._reader.when_closed.clear()  # they are the parent's
        self._reader.close()
        self._loaded.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
