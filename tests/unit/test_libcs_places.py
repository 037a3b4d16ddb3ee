"""What a process has mapped, and where loaders look."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from mmap import MAP_PRIVATE, PROT_EXEC, PROT_READ, mmap
from pathlib import Path

import pytest

from pytracecon.libcs.places import Mapped, default_places, mapped, place_by_interpreter

Map = Callable[[Path], None]


@pytest.fixture
def map_() -> Iterator[Map]:
    """Maps a file into this process so that it could be run."""
    with ExitStack() as stack:

        def map_(path: Path, protection: int = PROT_READ | PROT_EXEC) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(4096))
            with path.open("rb") as file:
                stack.enter_context(mmap(file.fileno(), 4096, MAP_PRIVATE, protection))

        yield map_


def below(folder: Path) -> list[Mapped]:
    return [each for each in mapped(os.getpid()) if each.path.startswith(bytes(folder))]


NAMED_LIKE_ONE = [
    "libc.so.6",
    "libc-2.31.so",
    "libc-2.33.9000.so",
    "ld-musl-x86_64.so.1",
    "ld-musl-aarch64.so.1",
    "libc.musl-x86_64.so.1",
    "libc.so",
    "a b\tc/libc.so.6",
    "x (deleted)/libc.so",
    "\N{HEAVY BLACK HEART}/libc.so.6",
]
OTHERS = ["libc.so.6.1", "mylibc.so.6", "libcrypt.so.1", "libc-2.31.so.bak", "ld-linux-x86-64.so.2", "libc.so.6/it"]


@pytest.mark.parametrize("name", NAMED_LIKE_ONE)
def test_a_library_is_found_by_its_name(tmp_path: Path, map_: Map, name: str) -> None:
    map_(tmp_path / name)
    (found,) = below(tmp_path)
    truth = (tmp_path / name).stat()
    assert (found.device, found.inode) == (truth.st_dev, truth.st_ino)
    assert not found.deleted
    assert os.fsdecode(found.path) == str(tmp_path / name)


@pytest.mark.parametrize("name", OTHERS)
def test_another_is_not(tmp_path: Path, map_: Map, name: str) -> None:
    map_(tmp_path / name)
    assert below(tmp_path) == []


def test_what_cannot_be_run_is_not_found(tmp_path: Path, map_: Callable[[Path, int], None]) -> None:
    map_(tmp_path / "libc.so.6", PROT_READ)
    assert below(tmp_path) == []


def test_a_deleted_one_is_found_and_said_to_be(tmp_path: Path, map_: Map) -> None:
    map_(tmp_path / "libc.so.6")
    (tmp_path / "libc.so.6").unlink()
    (found,) = below(tmp_path)
    assert found.deleted
    assert found.path == bytes(tmp_path / "libc.so.6")


def test_a_name_with_a_line_break_makes_no_second_line(tmp_path: Path, map_: Map) -> None:
    forged = "x\n7f0000000000-7f0000001000 r-xp 00000000 08:01 1 "
    map_(tmp_path / forged / "libc.so.6")
    (found,) = below(tmp_path)
    assert found.inode == (tmp_path / forged / "libc.so.6").stat().st_ino


def test_each_file_is_told_once(tmp_path: Path, map_: Map) -> None:
    path = tmp_path / "libc.so.6"
    map_(path)
    with path.open("rb") as file, mmap(file.fileno(), 4096, MAP_PRIVATE, PROT_READ | PROT_EXEC):
        assert len(re.findall(re.escape(str(path)), Path("/proc/self/maps").read_text())) >= 1
        assert len(below(tmp_path)) == 1


def test_the_range_names_a_file_of_map_files(tmp_path: Path, map_: Map) -> None:
    map_(tmp_path / "libc.so.6")
    assert below(tmp_path)[0].range in os.listdir("/proc/self/map_files")


def test_a_process_that_has_ended_has_none() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert mapped(child.pid) == []
    child.wait()
    with pytest.raises((FileNotFoundError, ProcessLookupError)):
        mapped(child.pid)


def test_the_default_places_are_those_of_this_machine() -> None:
    """The libc of this Python is one that a distribution installed."""
    there = {Path(os.fsdecode(path)).resolve() for path in default_places() if Path(os.fsdecode(path)).exists()}
    mine = {Path(os.fsdecode(each.path)).resolve() for each in mapped(os.getpid())}
    assert mine
    assert mine <= there


@pytest.mark.parametrize(
    ("interpreter", "library"),
    [
        (b"/lib64/ld-linux-x86-64.so.2", b"/lib64/libc.so.6"),
        (b"/lib/ld-linux-aarch64.so.1", b"/lib/libc.so.6"),
        (b"/nix/store/0a1-glibc-2.40-36/lib/ld-linux-x86-64.so.2", b"/nix/store/0a1-glibc-2.40-36/lib/libc.so.6"),
        (b"/lib/ld-musl-x86_64.so.1", b"/lib/ld-musl-x86_64.so.1"),
        (b"/opt/musl/lib/libc.so", b"/opt/musl/lib/libc.so"),
    ],
)
def test_a_library_lies_beside_its_loader_or_is_it(interpreter: bytes, library: bytes) -> None:
    assert place_by_interpreter(interpreter) == library
