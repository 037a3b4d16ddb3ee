"""Addresses get their names in the background, and nobody waits for a resolver, not even at the end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytracecon.names import reverse as module
from pytracecon.names.reverse import Reverse, ptr_of

LOOPBACK = bytes(10) + b"\xff\xff\x7f\0\0\1"
DEADLINE = 60


def address(number: int) -> bytes:
    return bytes(10) + b"\xff\xff" + number.to_bytes(4)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Resolver:
    """Answers when it may. `asked` has the questions in their order; they have the names in `names`, or none."""

    def __init__(self) -> None:
        self.names: dict[bytes, str] = {}
        self.asked: list[bytes] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, asked: bytes) -> str | None:
        self.asked.append(asked)
        self.may_answer.wait()
        return self.names.get(asked)


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    resolver = Resolver()
    yield resolver
    resolver.may_answer.set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reverse(resolver: Resolver, clock: Clock) -> Iterator[Reverse]:
    reverse = Reverse(resolver, clock)
    yield reverse
    reverse.close()


def ask_and_wait(reverse: Reverse, *addresses: bytes) -> None:
    for one in addresses:
        reverse.ask(one)
    wait_until(lambda: not reverse._pending)


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pytracecon-ptr"]


def test_the_machines_own_resolver_names_loopback_as_its_hosts_file_does() -> None:
    lines = [line.partition("#")[0].split() for line in Path("/etc/hosts").read_text(encoding="utf-8").splitlines()]
    (first, *_) = [fields[1] for fields in lines if fields and fields[0] == "127.0.0.1"]
    assert ptr_of(LOOPBACK) == first
    reverse = Reverse()
    ask_and_wait(reverse, LOOPBACK)
    assert reverse.name_of(LOOPBACK) == first
    reverse.close()


def test_a_name_is_there_once_it_was_asked_for(reverse: Reverse, resolver: Resolver) -> None:
    resolver.names[address(1)] = "one.example"
    assert reverse.name_of(address(1)) is None
    ask_and_wait(reverse, address(1), address(2))
    assert reverse.name_of(address(1)) == "one.example"
    assert reverse.name_of(address(2)) is None


def test_a_name_is_asked_for_again_after_ten_minutes(reverse: Reverse, resolver: Resolver, clock: Clock) -> None:
    resolver.names[address(1)] = "one.example"
    ask_and_wait(reverse, address(1))
    clock.now += 599
    ask_and_wait(reverse, address(1))
    assert reverse.name_of(address(1)) == "one.example"
    assert resolver.asked == [address(1)]
    clock.now += 1
    assert reverse.name_of(address(1)) is None
    resolver.names[address(1)] = "other.example"
    ask_and_wait(reverse, address(1))
    assert reverse.name_of(address(1)) == "other.example"


def test_an_address_without_a_name_is_left_alone_for_a_minute(
    reverse: Reverse, resolver: Resolver, clock: Clock
) -> None:
    ask_and_wait(reverse, address(1))
    clock.now += 59
    ask_and_wait(reverse, address(1))
    assert resolver.asked == [address(1)]
    clock.now += 1
    ask_and_wait(reverse, address(1))
    assert resolver.asked == [address(1)] * 2


def test_a_question_that_is_under_way_is_not_asked_again(reverse: Reverse, resolver: Resolver) -> None:
    resolver.may_answer.clear()
    for _ in range(100):
        reverse.ask(address(1))
    resolver.may_answer.set()
    wait_until(lambda: not reverse._pending)
    assert resolver.asked == [address(1)]


def test_while_a_resolver_hangs_questions_are_dropped_and_counted_and_nobody_waits(
    reverse: Reverse, resolver: Resolver
) -> None:
    resolver.may_answer.clear()
    for number in range(module._THREADS):
        reverse.ask(address(number))
    wait_until(lambda: len(resolver.asked) == module._THREADS)
    for number in range(module._THREADS, module._THREADS + module._QUEUE + 7):
        reverse.ask(address(number))
    assert reverse.dropped == 7
    assert reverse.name_of(address(0)) is None
    resolver.may_answer.set()
    wait_until(lambda: not reverse._pending)
    assert sorted(resolver.asked) == [address(number) for number in range(module._THREADS + module._QUEUE)]


def test_names_are_bounded_and_those_asked_for_longest_ago_go_first(
    reverse: Reverse, resolver: Resolver, clock: Clock
) -> None:
    last = module._KNOWN + 8
    resolver.names = {address(number): f"{number}.example" for number in range(last + 1)}
    for number in range(10):
        ask_and_wait(reverse, address(number))
    clock.now += 600
    ask_and_wait(reverse, address(0))
    for start in range(10, last + 1, module._QUEUE):
        ask_and_wait(reverse, *map(address, range(start, min(start + module._QUEUE, last + 1))))
    assert reverse.dropped == 0
    assert sorted(reverse._known) == [address(number) for number in (0, *range(10, last + 1))]
    assert len(reverse._known) == module._KNOWN
    assert reverse.name_of(address(0)) == "0.example"


def test_no_thread_runs_before_the_first_question_nor_after_the_end(resolver: Resolver) -> None:
    wait_until(lambda: not workers())
    reverse = Reverse(resolver)
    reverse.name_of(address(1))
    assert workers() == []
    ask_and_wait(reverse, address(1))
    assert len(workers()) == module._THREADS
    reverse.close()
    reverse.close()
    wait_until(lambda: not workers())


def test_closing_waits_for_no_resolver_and_what_it_says_later_is_nothing(resolver: Resolver) -> None:
    resolver.may_answer.clear()
    reverse = Reverse(resolver)
    for number in range(module._THREADS + 5):
        reverse.ask(address(number))
    wait_until(lambda: len(resolver.asked) == module._THREADS)
    reverse.close()
    reverse.ask(address(99))
    assert not reverse._queue
    assert not resolver.may_answer.is_set()
    resolver.may_answer.set()
    wait_until(lambda: not workers())
    assert len(resolver.asked) == module._THREADS


HANGING = """
import os
from pytracecon.names.reverse import Reverse
begun, never = os.pipe(), os.pipe()
def resolve(address):
    os.write(begun[1], b"x")
    os.read(never[0], 1)
reverse = Reverse(resolve)
reverse.ask(bytes(16))
os.read(begun[0], 1)
print("done", flush=True)
"""
CROWDED = """
import resource, threading
from pytracecon.names.reverse import Reverse
threading.stack_size(1 << 30)
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (1 << 29, before[1]))
reverse = Reverse(lambda address: "one.example")
reverse.ask(bytes(16))
assert (reverse.dropped, reverse.name_of(bytes(16))) == (1, None)
resource.setrlimit(resource.RLIMIT_AS, before)
threading.stack_size(1 << 18)
reverse.ask(bytes(16))
while reverse.name_of(bytes(16)) is None:
    pass
print("done", flush=True)
"""


@pytest.mark.parametrize("program", [HANGING, CROWDED], ids=["a resolver hangs", "no thread may be started at first"])
def test_a_program_ends_as_it_should_though(program: str) -> None:
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "done\n", "")


def test_a_child_after_fork_asks_nothing_and_hangs_on_no_lock(reverse: Reverse, resolver: Resolver) -> None:
    resolver.names[address(1)] = "one.example"
    ask_and_wait(reverse, address(1))
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with reverse._changed:
            held.set()
            release.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork() with threads is what is tested
        child = os.fork()
    if child == 0:
        try:
            reverse.ask(address(2))
            os._exit(0 if reverse.name_of(address(1)) == "one.example" and not reverse._pending else 1)
        finally:
            os._exit(2)
    release.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ask_and_wait(reverse, address(3))
    assert resolver.asked == [address(1), address(3)]
