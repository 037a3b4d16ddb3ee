"""Files that are moved away while events are written: every event is in one of them, in a line that is whole."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from traffic.network import Network
from traffic.started import Started, await_true

pytestmark = pytest.mark.slow(reason="files are user space's, whatever the kernel")

EVENTS_EACH = 5
FORMATS = {
    "json": ("--format", "json"),
    "csv": ("--format", "csv", "-a"),
    "table": ("-v", "--events", "connect,established,accept,close"),
    "template": ("--template", "{event} {conn} {local_port}", "--events", "connect,established,accept,close"),
}


@pytest.fixture
def start() -> Iterator[Callable[..., Started]]:
    with ExitStack() as stack:

        def started(*options: object) -> Started:
            command = Started(*options)
            stack.callback(command.kill)
            return command

        yield started


def rotate(commands: dict[Path, Started], number: int) -> None:
    """As logrotate does it."""
    for file, command in commands.items():
        file.rename(file.with_suffix(f".{number}"))
        command.process.send_signal(signal.SIGHUP)
    for file in commands:
        await_true(file.exists, "the file is there again")


def lines(files: list[Path]) -> list[str]:
    text = [file.read_text() for file in files]
    assert all(not each or each.endswith("\n") for each in text), "the last line of each is whole"
    return [line for each in text for line in each.splitlines()]


def told_in(name: str, files: list[Path]) -> list[str]:
    """What is told of each event, in order. Headers are checked, and left out."""
    if name == "json":
        events = [json.loads(line) for line in lines(files)]
        return [f"{event['event']} {event['conn']}" for event in events]
    if name == "csv":
        tables = [list(csv.reader(file.read_text().splitlines())) for file in files]
        (header,) = {tuple(each[0]) for each in tables}
        assert all(len(row) == len(header) for each in tables for row in each)
        at = header.index("conn")
        return [f"{row[1]} {row[at]}" for each in tables for row in each[1:]]
    if name == "table":
        assert all(file.read_text().startswith("TIME") for file in files)
        rows = [line.split() for line in lines(files) if not line.startswith("TIME")]
        return [f"{row[3]} {' '.join(row[4:6])}" for row in rows]
    return [line.rsplit(maxsplit=1)[0] for line in lines(files)]


@pytest.mark.parametrize("times", [12, pytest.param(200, marks=pytest.mark.long)])
def test_no_event_is_lost_or_torn_however_often_files_are_moved_away(
    start: Callable[..., Started], network: Network, tmp_path: Path, times: int
) -> None:
    flood = network.actor("flood")
    commands = {
        tmp_path / name: start("--netns", network.path, "--no-names", *options, "-o", tmp_path / name)
        for name, options in FORMATS.items()
    }
    for number in range(times):
        flood.begin("flood", 100, 5)
        rotate(commands, number)
        flood.finish()
    expected = times * 100 * EVENTS_EACH
    for file, command in commands.items():
        status, said = command.end(signal.SIGTERM)
        assert status == 0, said
        assert f"{expected} events in" in said and "none lost" in said, said
        files = [*(file.with_suffix(f".{number}") for number in range(times)), file]
        told = told_in(file.name, files)
        assert len(told) == expected, file.name
        assert file.name == "table" or len(set(told)) == expected, "none is told twice"
        assert sum(each.stat().st_size > 2000 for each in files) > times / 2, "it was moved amid events"


def test_where_no_new_file_can_be_it_says_so_once_and_goes_on_in_the_old_one(
    start: Callable[..., Started], network: Network, tmp_path: Path
) -> None:
    flood = network.actor("flood")
    file, moved = tmp_path / "events", tmp_path / "events.1"
    command = start("--netns", network.path, "--no-names", "--format", "json", "-o", file)
    file.rename(moved)
    file.mkdir()
    command.process.send_signal(signal.SIGHUP)
    remedy = "give another file; it goes on in the file that it had"
    assert command.await_said("events") == f"pytracecon: {file} cannot be opened: Is a directory; {remedy}\n"
    flood.do("flood", 10, 5)
    file.rmdir()
    command.process.send_signal(signal.SIGHUP)
    await_true(file.exists, "the file is there again")
    flood.do("flood", 10, 5)
    status, said = command.end(signal.SIGTERM)
    assert status == 0
    assert said.count("\n") == 3, said
    assert len(told_in("json", [moved, file])) == 20 * EVENTS_EACH


def test_without_a_file_of_its_own_a_hangup_ends_it(start: Callable[..., Started], network: Network) -> None:
    status, said = start("--netns", network.path, "--no-names").end(signal.SIGHUP)
    assert status == 0
    assert "0 events in" in said
