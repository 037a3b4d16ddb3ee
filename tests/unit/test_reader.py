"""The reader, on pages that a test fills as the kernel side does."""

from __future__ import annotations

import asyncio
import mmap
import os
import select
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from pytracecon import reader as reading
from pytracecon import wire
from pytracecon.errors import TracerClosed
from pytracecon.events import Lost
from pytracecon.reader import Events, Reader
from pytracecon.resting import rest
from unit.test_decode import record

PAGE = mmap.PAGESIZE
SIZE = 1 << 16
CPUS = 2
DEADLINE = 30


class Pages:
    """The kernel side: the ring, its counters, and the page that both sides write."""

    def __init__(self) -> None:
        sizes = {"ring": 2 * PAGE + 2 * SIZE, "counters": PAGE, "shared": PAGE}
        self.maps = {name: SimpleNamespace(fd=os.memfd_create(name), max_entries=SIZE) for name in sizes}
        for name, size in sizes.items():
            os.ftruncate(self.maps[name].fd, size)
        self._mapped = {name: mmap.mmap(self.maps[name].fd, size) for name, size in sizes.items()}

    def put(self, *records: bytes) -> None:
        """As they are wanted: the ring never goes round here."""
        ring = self._mapped["ring"]
        for each in records:
            (at,) = struct.unpack_from("=Q", ring, PAGE)
            struct.pack_into(f"=II{len(each)}s", ring, 2 * PAGE + at, len(each), 0, each)
            struct.pack_into("=Q", ring, PAGE, at + (len(each) + 15 & ~7))
            self.count("wanted")

    def count(self, column: str, number: int = 1) -> None:
        at = 8 * [name for name, _ in wire.COUNTERS].index(column)
        (before,) = struct.unpack_from("=Q", self._mapped["counters"], at)
        struct.pack_into("=Q", self._mapped["counters"], at, before + number)

    @property
    def resting(self) -> int:
        (how,) = struct.unpack_from("=I", self._mapped["shared"])
        return int(how)

    def close(self) -> None:
        for name, mapped in self._mapped.items():
            mapped.close()
            os.close(self.maps[name].fd)


class Epoll:
    """One that takes files, too, and says nothing of them."""

    def __init__(self) -> None:
        self._epoll = select.epoll()

    def register(self, fd: int, events: int) -> None:
        with suppress(PermissionError):
            self._epoll.register(fd, events)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)


@pytest.fixture
def pages() -> Iterator[Pages]:
    pages = Pages()
    yield pages
    pages.close()


@pytest.fixture
def reader(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.setattr(reading, "select", SimpleNamespace(**{**vars(select), "epoll": Epoll}))
    opened = SimpleNamespace(lib=SimpleNamespace(num_possible_cpus=lambda: CPUS), maps=pages.maps)
    loaded: Any = SimpleNamespace(object=opened, modules=None, probes=[], misses=lambda: (0, 0))
    reader = Reader(loaded, None, None, 0)
    yield reader
    if not reader.closed:
        reader.close()


def connects(*numbers: int) -> list[bytes]:
    return [record("connect", id=number) for number in numbers]


USES: dict[str, Callable[[Reader], object]] = {
    "rest": lambda reader: reader.rest(wire.ASLEEP),
    "wait": lambda reader: reader.wait(None),
    "take": lambda reader: reader.take(Events()),
    "take until": lambda reader: reader.take_until(time.monotonic_ns(), Events()),
    "settle": lambda reader: reader.settle(Events()),
    "wanted": lambda reader: reader.wanted,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_closed_reader_says_so_and_reads_no_memory_that_is_gone(
    reader: Reader, use: Callable[[Reader], object]
) -> None:
    reader.close()
    with pytest.raises(TracerClosed):
        use(reader)


def test_who_wakes_a_closed_reader_touches_nobodys_descriptor(reader: Reader) -> None:
    reader.close()
    others = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(8)]
    reader.wake()
    for each in others:
        os.eventfd_write(each, 1)
    reader.calm()
    assert [os.eventfd_read(each) for each in others] == [1] * len(others)
    for each in others:
        os.close(each)


def test_a_signal_handler_may_close_what_waits(reader: Reader, pages: Pages) -> None:
    def at_signal(*_: object) -> None:
        reader.wake()
        reader.close()

    def send() -> None:
        deadline = time.monotonic() + DEADLINE
        while pages.resting != wire.ASLEEP and time.monotonic() < deadline:
            time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, at_signal)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(TracerClosed):
            reader.wait(None)
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)


class Closing(Events):
    """Somebody's signal comes while a batch is decoded, and its handler closes the tracer."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self._reader = reader

    def records(self, batch: memoryview, offset_ns: int) -> Any:
        self._reader.close()
        return super().records(batch, offset_ns)


def test_one_may_close_what_is_about_to_decode(reader: Reader, pages: Pages) -> None:
    pages.put(*connects(1, 2))
    with pytest.raises(TracerClosed):
        reader.take(Closing(reader))


class Interrupted(Events):
    """Ctrl-C while the first batch is decoded."""

    times = 1

    def records(self, batch: memoryview, offset_ns: int) -> Any:
        if self.times:
            self.times -= 1
            raise KeyboardInterrupt
        return super().records(batch, offset_ns)


def test_what_was_read_and_not_handed_over_is_lost_and_counted(reader: Reader, pages: Pages) -> None:
    form = Interrupted()
    pages.put(*connects(1, 2, 3))
    with pytest.raises(KeyboardInterrupt):
        reader.take(form)
    assert reader.wanted == reader.delivered + reader.lost_ring == 3
    assert not reader.drained
    pages.put(*connects(4))
    told = reader.take(form)
    assert [each.event for each in told] == ["lost", "connect"]
    (lost,) = (each for each in told if isinstance(each, Lost))
    assert (lost.count, lost.where) == (3, "queue")
    assert (lost.from_ns or 0) <= (lost.to_ns or 0)
    assert (reader.dropped, reader.delivered) == (3, 4)
    assert reader.take(form) == []


def rested(reader: Reader, pages: Pages, close: Callable[[Callable[[], None]], object]) -> None:
    """An event loop rests, and then somebody closes."""
    lock = threading.RLock()

    def closes() -> None:
        with lock:
            reader.close()

    async def both() -> None:
        resting = asyncio.create_task(rest(reader, lock, lambda: False))
        deadline = time.monotonic() + DEADLINE
        while not reader.when_closed and time.monotonic() < deadline:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.001)
        assert pages.resting == wire.ASLEEP
        close(closes)
        await asyncio.wait_for(resting, DEADLINE)

    asyncio.run(both())
    assert not reader.when_closed


def test_an_event_loop_that_rests_goes_on_when_it_is_closed_by_the_loop_itself(reader: Reader, pages: Pages) -> None:
    rested(reader, pages, lambda closes: closes())


def test_an_event_loop_that_rests_goes_on_when_it_is_closed_by_another_thread(reader: Reader, pages: Pages) -> None:
    rested(reader, pages, lambda closes: threading.Thread(target=closes).start())


def test_an_event_loop_that_naps_touches_nothing_that_is_closed(reader: Reader) -> None:
    async def both() -> None:
        resting = asyncio.create_task(rest(reader, threading.RLock(), lambda: False))
        await asyncio.sleep(0)
        reader.close()
        await asyncio.wait_for(resting, DEADLINE)

    asyncio.run(both())
