"""A disk that is full, a reader that is stuck, too few descriptors, too little memory: one line says what helps.

Whatever happens, nothing stays in the kernel (the check of the whole session), and what is lost is told to one.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from traffic.actor import DEADLINE
from traffic.leftovers import await_gone, bpf_ids_of
from traffic.network import NAME, Network
from traffic.started import TOP, Started, await_true

EVENTS_EACH = 5
elsewhere = pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")

# In a mount namespace of its own: a disk of 64 KiB; what is on it at the end is copied to where the test can see it.
ON_A_SMALL_DISK = """
disk=$1 copy=$2; shift 2
mount -t tmpfs -o size=64k tmpfs "$disk"
"$@" -o "$disk/events" & child=$!
trap 'kill -TERM $child' TERM
wait $child; status=$?
cp "$disk/events" "$copy"
exit $status
"""


@pytest.fixture
def start() -> Iterator[Callable[..., Started]]:
    with ExitStack() as stack:

        def started(*options: object, **more: Any) -> Started:
            command = Started(*options, **more)
            stack.callback(command.kill)
            return command

        yield started


def run(*options: object, within: tuple[object, ...] = ()) -> tuple[int, str]:
    """Exit status and standard error of a command that does not get far."""
    command = [*map(str, within), sys.executable, "-m", "pytracecon", *map(str, options)]
    done = subprocess.run(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TOP,
        check=False,
        timeout=2 * DEADLINE,
    )
    return done.returncode, done.stderr


@elsewhere
def test_a_disk_that_fills_up_ends_it_with_whole_lines_and_the_number_of_those_lost(
    start: Callable[..., Started], network: Network, tmp_path: Path
) -> None:
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    small = ("unshare", "--mount", "sh", "-c", ON_A_SMALL_DISK, "sh", disk, copy)
    command = start("--format", "json", "--netns", network.path, "--no-names", within=small)
    (tracer,) = Path(f"/proc/{command.process.pid}/task/{command.process.pid}/children").read_text().split()
    os.kill(int(tracer), signal.SIGSTOP)  # so that all is in the ring when the disk is full
    network.actor("flood").do("flood", 400, 5)
    os.kill(int(tracer), signal.SIGCONT)
    status, said = command.end()
    assert status == 74
    tracing, failed, totals = said.splitlines()
    assert tracing.startswith("pytracecon: tracing")
    told = [json.loads(line) for line in copy.read_text().splitlines()]
    assert copy.read_text().endswith("\n")
    assert 0 < len(told) < 400 * EVENTS_EACH
    assert f"{disk}/events cannot be written: No space left on device; " in failed
    assert failed.endswith("events lost; make room, or give another file with -o")
    lost = int(totals.partition("(output ")[2].rstrip(")"))
    assert len(told) + lost == 400 * EVENTS_EACH


@elsewhere
def test_a_device_that_is_full_is_said_in_one_line(start: Callable[..., Started], network: Network) -> None:
    command = start("--format", "json", "--netns", network.path, "--no-names", "-o", "/dev/full")
    held = bpf_ids_of(command.process.pid)
    network.actor("flood").do("flood", 1, 5)
    status, said = command.end()
    assert status == 74
    assert len(said.splitlines()) == 3, "that it traces, what failed, the totals"
    assert "pytracecon: /dev/full cannot be written: No space left on device; " in said
    assert await_gone(held) == set()


def memory_of(pid: int) -> int:
    """Bytes of its own: what is mapped of the ring stays as large as it is."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) << 10


@elsewhere
@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.long)])
def test_a_reader_that_is_stuck_costs_no_memory_and_learns_what_it_missed(
    start: Callable[..., Started], network: Network, seconds: float
) -> None:
    flood = network.actor("flood")
    options = ("--format", "json", "--netns", network.path, "--no-names", "--no-processes", "--ring-size", "256K")
    command = start(*options, stdout=subprocess.PIPE)
    assert command.process.stdout
    made = 0
    memory = 0
    stuck_until = time.monotonic() + seconds
    while time.monotonic() < stuck_until or made < 2000:
        made += flood.do("flood", 500, 5).result
        memory = memory or memory_of(command.process.pid)
        time.sleep(0.05)
    assert memory_of(command.process.pid) - memory < 2 << 20

    told: list[dict[str, Any]] = []
    reading = threading.Thread(target=lambda: told.extend(map(json.loads, command.process.stdout or ())))
    reading.start()
    await_true(lambda: sum_of(told) == made * EVENTS_EACH, "all that was is told, or told as lost")
    losses = [event for event in told if event["event"] == "lost"]
    made += flood.do("flood", 10, 5).result
    await_true(lambda: sum_of(told) == made * EVENTS_EACH, "it goes on")
    assert [event for event in told if event["event"] == "lost"] == losses
    command.process.send_signal(signal.SIGTERM)
    reading.join(DEADLINE)
    status, said = command.end()
    assert status == 0
    lost = sum(event["count"] for event in losses)
    assert lost > 0
    assert f"{made * EVENTS_EACH - lost} events in" in said
    assert f"{lost} lost (ring {lost})" in said


def sum_of(told: list[dict[str, Any]]) -> int:
    """Events, each for one, and losses for as many as they are."""
    return sum(event.get("count", 1) for event in list(told))


@elsewhere
@pytest.mark.parametrize("descriptors", [6, 90])
def test_too_few_descriptors_to_start_are_said_in_one_line(descriptors: int) -> None:
    status, said = run("--duration", 0.1, within=("prlimit", f"--nofile={descriptors}"))
    assert (status, said.count("\n")) == (69, 1), said
    assert said.endswith(" failed: no more files can be opened: raise the limit (ulimit -n 4096, LimitNOFILE=)\n")


@elsewhere
def test_descriptors_that_run_out_later_cost_names_at_most(
    start: Callable[..., Started], network: Network, tmp_path: Path
) -> None:
    """Every program that starts is looked at, and its libc opened: there is one descriptor left for all that."""
    file = tmp_path / "events"
    command = start("--format", "json", "--netns", network.path, "-o", file)
    flood = network.actor("flood")
    flood.do("flood", 1, 5)
    await_true(lambda: file.stat().st_size, "all that it imports is there")
    left = len(os.listdir(f"/proc/{command.process.pid}/fd")) + 1
    resource.prlimit(command.process.pid, resource.RLIMIT_NOFILE, (left, left))
    for _ in range(5):
        subprocess.run(["true"], check=True)
        flood.do("flood", 10, 5)
    status, said = command.end(signal.SIGTERM)
    assert status == 0, said
    assert "Traceback" not in said
    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert len([event for event in told if event["event"] != "lookup"]) == 51 * EVENTS_EACH


@contextmanager
def memory_limit(size: int) -> Iterator[Path]:
    """A control group with so many bytes, of whichever version manages memory here."""
    old = Path("/sys/fs/cgroup/memory")
    top = old if old.is_dir() else Path("/sys/fs/cgroup")
    if top != old:
        (top / "cgroup.subtree_control").write_text("+memory")
    group = Path(tempfile.mkdtemp(prefix=NAME, dir=top))
    try:
        (group / ("memory.limit_in_bytes" if top == old else "memory.max")).write_text(str(size))
        yield group
    finally:
        group.rmdir()


@elsewhere
def test_too_little_memory_is_said_in_one_line() -> None:
    """BPF maps are charged to who makes them; one that does not fit is refused.

    If another thread wants a page at that very moment the kernel kills the process instead, and nothing is said.
    """
    with memory_limit(128 << 20) as group:
        enter = ("sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', group, "taskset", "--cpu-list", 0)
        tries = (run("--ring-size", "256M", "--no-names", "--duration", 0.1, within=enter) for _ in range(5))
        status, said = next(each for each in tries if each[0] != -signal.SIGKILL)
    assert (status, said.count("\n")) == (69, 1), said
    remedy = "allow more (MemoryMax=), or give a smaller --ring-size"
    assert said.endswith(f" failed: there is not enough memory: {remedy}\n")


HIDE_TRACEFS = """
for place in /sys/kernel/tracing /sys/kernel/debug; do [ ! -d $place ] || mount -t tmpfs tmpfs $place; done
exec "$@"
"""


@pytest.mark.once
def test_where_tracefs_is_not_mounted_all_is_told(
    start: Callable[..., Started], network: Network, tmp_path: Path
) -> None:
    file = tmp_path / "events"
    hidden = ("unshare", "--mount", "sh", "-ec", HIDE_TRACEFS, "sh")
    command = start("--format", "json", "--netns", network.path, "--no-names", "-o", file, within=hidden)
    network.actor("flood").do("flood", 3, 5)
    status, said = command.end(signal.SIGTERM)
    assert status == 0
    assert f"{3 * EVENTS_EACH} events in" in said
