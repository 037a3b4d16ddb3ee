"""Each library is told once, and what is none is refused, counted and logged once."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytracecon.libcs.files import place
from pytracecon.libcs.libc import Libc
from pytracecon.libcs.register import MOST_LIBCS, MOST_OF_OTHERS, MOST_OF_OURS, MOST_REFUSALS, Register

HOME, AWAY, ELSEWHERE = "mnt:[1]", "mnt:[2]", "mnt:[3]"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A C library that has nothing but lookups."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "it.c").write_text("void gnu_get_libc_version(void) {} int getaddrinfo(void) { return 0; }")
    subprocess.run(["cc", "-shared", "-nostdlib", "-o", folder / "it.so", folder / "it.c"], check=True)
    return folder / "it.so"


@pytest.fixture
def register() -> Register:
    return Register(HOME)


Take = Callable[..., Libc | None]


@pytest.fixture
def take(register: Register) -> Iterator[Take]:
    with ExitStack() as stack:

        def take(path: Path, namespace: str = HOME, shown: str = "libc.so.6") -> Libc | None:
            with place(str(path)) as descriptor:
                libc = register.take(descriptor, shown, namespace)
            return stack.enter_context(libc) if libc else None

        yield take


def test_a_library_is_told_once(take: Take, small: Path) -> None:
    libc = take(small, shown="/lib/libc.so.6")
    assert libc
    assert (libc.device, libc.inode) == (small.stat().st_dev, small.stat().st_ino)
    assert (libc.path_shown, libc.flavour, list(libc.offsets)) == ("/lib/libc.so.6", "glibc", ["getaddrinfo"])
    assert take(small) is None
    assert take(small, AWAY) is None


def test_another_name_of_it_is_the_same(take: Take, small: Path, tmp_path: Path) -> None:
    copy = tmp_path / "a"
    shutil.copy(small, copy)
    (tmp_path / "b").hardlink_to(copy)
    (tmp_path / "c").symlink_to(copy)
    assert take(copy)
    assert take(tmp_path / "b") is None
    assert take(tmp_path / "c") is None


def test_its_path_leads_to_it_until_it_is_closed(take: Take, small: Path, tmp_path: Path) -> None:
    path = tmp_path / "libc.so.6"
    shutil.copy(small, path)
    libc = take(path)
    assert libc
    path.unlink()
    assert Path(libc.attach_path).read_bytes() == small.read_bytes()
    libc.close()
    libc.close()
    assert libc.descriptor == -1


def test_one_that_takes_anothers_place_is_another(take: Take, small: Path, tmp_path: Path) -> None:
    path = tmp_path / "libc.so.6"
    shutil.copy(small, path)
    first = take(path)
    shutil.copy(small, tmp_path / "new")
    (tmp_path / "new").rename(path)
    second = take(path)
    assert first
    assert second
    assert first.inode != second.inode


def test_one_that_is_written_over_comes_again(take: Take, small: Path, tmp_path: Path) -> None:
    path = tmp_path / "libc.so.6"
    shutil.copy(small, path)
    first = take(path)
    with path.open("ab") as file:
        file.write(b"more")
    second = take(path)
    assert first
    assert second
    assert (first.device, first.inode) == (second.device, second.inode)
    assert take(path) is None


def test_one_with_another_owner_mode_or_name_stays_known(take: Take, small: Path, tmp_path: Path) -> None:
    path = tmp_path / "libc.so.6"
    shutil.copy(small, path)
    assert take(path)
    path.chmod(0o700)
    path.rename(tmp_path / "other")
    assert take(tmp_path / "other") is None


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 30)


def text(path: Path) -> None:
    path.write_text("GROUP ( /lib/libc.so.6 )")  # as /usr/lib/libc.so is for the linker


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (os.mkfifo, "no regular file"),
        (os.mkdir, "no regular file"),
        (sparse, "no 64-bit little-endian ELF"),
        (Path.touch, "no 64-bit little-endian ELF"),
        (text, "no 64-bit little-endian ELF"),
        (lambda path: shutil.copy("/bin/sh", path), "neither glibc nor musl"),
    ],
)
def test_what_is_no_library_is_refused_once(
    register: Register,
    take: Take,
    tmp_path: Path,
    make: Callable[[Path], object],
    why: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make(tmp_path / "libc.so.6")
    for _ in range(3):
        assert take(tmp_path / "libc.so.6", shown="/lib/libc.so.6") is None
    assert register.refused == 1
    (said,) = caplog.messages
    assert said.startswith("/lib/libc.so.6: not traced: ")
    assert why in said


def test_a_device_is_not_opened(register: Register, take: Take) -> None:
    assert take(Path("/dev/tty")) is None
    assert register.refused == 1


def test_one_that_was_refused_is_looked_at_again_when_it_changed(
    register: Register, take: Take, small: Path, tmp_path: Path
) -> None:
    """It may have been half written."""
    path = tmp_path / "libc.so.6"
    path.write_bytes(small.read_bytes()[:5000])
    assert take(path) is None
    path.write_bytes(small.read_bytes())
    assert take(path)
    assert register.refused == 1


def test_no_control_character_gets_into_a_log_or_a_path(
    take: Take, small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "x\x1b]52;c;YQ==\x07\n\u202e\x9b/libc.so.6"
    libc = take(small, shown=name)
    (tmp_path / "none").mkdir()
    take(tmp_path / "none", shown=name)
    assert libc
    assert libc.path_shown == r"x\x1b]52;c;YQ==\x07\n\u202e\x9b/libc.so.6".replace(r"\n", r"\x0a")
    (said,) = caplog.messages
    assert said.isprintable()


def test_refusals_are_logged_up_to_a_limit_and_counted_beyond(
    register: Register, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(MOST_REFUSALS + 100):
        register.refuse(number, "libc.so.6", "why not")
        register.refuse(0, "libc.so.6", "why not")
    assert register.refused == MOST_REFUSALS + 100
    assert len(caplog.messages) == MOST_REFUSALS
    assert all(record.levelno == logging.WARNING for record in caplog.records)


@pytest.fixture
def copies(small: Path, tmp_path: Path) -> Callable[[int], list[Path]]:
    def copies(number: int) -> list[Path]:
        paths = [tmp_path / f"{each}.so" for each in range(number)]
        for path in paths:
            shutil.copy(small, path)
        return paths

    return copies


@pytest.mark.parametrize(("namespace", "most"), [(HOME, MOST_OF_OURS), (AWAY, MOST_OF_OTHERS)])
def test_a_mount_namespace_has_its_limit(
    register: Register,
    take: Take,
    copies: Callable[[int], list[Path]],
    namespace: str,
    most: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    paths = copies(most + 3)
    assert sum(take(path, namespace) is not None for path in paths) == most
    assert register.refused == 3
    assert f"{most} C libraries of its mount namespace are known" in caplog.messages[0]
    assert take(paths[-1], ELSEWHERE), "another namespace has room"


def test_one_file_that_is_written_over_and_over_uses_up_the_limit(take: Take, small: Path, tmp_path: Path) -> None:
    path = tmp_path / "libc.so.6"
    shutil.copy(small, path)
    told = 0
    for _ in range(MOST_OF_OTHERS + 5):
        with path.open("ab") as file:
            file.write(b"more")
        told += take(path, AWAY) is not None
    assert told == MOST_OF_OTHERS


def test_all_but_ours_have_a_limit_together(take: Take, copies: Callable[[int], list[Path]]) -> None:
    paths = copies(MOST_LIBCS + 20)
    names = [f"mnt:[{100 + number // 10}]" for number in range(len(paths))]
    told = 0
    for path, name in zip(paths, names, strict=True):
        libc = take(path, name)
        if libc:
            told += 1
            libc.close()
    assert told == MOST_LIBCS
    assert take(paths[-1], HOME), "ours has a limit of its own"


def test_those_of_namespaces_that_are_gone_are_forgotten(
    register: Register, take: Take, copies: Callable[[int], list[Path]]
) -> None:
    ours, both, theirs = copies(3)
    for path, namespace in ((ours, HOME), (both, HOME), (both, AWAY), (theirs, AWAY)):
        take(path, namespace)
    assert register.forget_all_but({HOME, AWAY}) == []
    assert register.forget_all_but({HOME}) == [(theirs.stat().st_dev, theirs.stat().st_ino)]
    assert register.forget_all_but({HOME}) == []
    assert take(both) is None
    assert take(theirs, ELSEWHERE), "it may be told again"


def test_one_that_was_only_met_again_elsewhere_stays(
    register: Register, take: Take, copies: Callable[[int], list[Path]]
) -> None:
    (path,) = copies(1)
    take(path, AWAY)
    assert register.knows(path.stat().st_dev, path.stat().st_ino, ELSEWHERE)
    assert register.forget_all_but({HOME, ELSEWHERE}) == []


def test_room_that_becomes_free_is_used(
    register: Register, take: Take, copies: Callable[[int], list[Path]], caplog: pytest.LogCaptureFixture
) -> None:
    paths = copies(MOST_OF_OTHERS + 1)
    for path in paths[:-1]:
        take(path, AWAY)
    take(paths[0], ELSEWHERE)
    assert take(paths[-1], AWAY) is None
    assert len(register.forget_all_but({HOME, ELSEWHERE})) == MOST_OF_OTHERS - 1
    assert take(paths[-1], AWAY)
    assert len(caplog.messages) == 1


def test_an_unknown_is_not_known(register: Register) -> None:
    assert not register.knows(1, 2, HOME)


def test_no_descriptor_is_left_of_what_is_refused(take: Take, tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for make in (os.mkfifo, os.mkdir, text):
        make(tmp_path / make.__name__)
        take(tmp_path / make.__name__)
    assert os.listdir("/proc/self/fd") == before


def test_the_logger_says_nothing_by_itself() -> None:
    """logging's handler of last resort would print warnings on standard error."""
    handlers = logging.getLogger("pytracecon.libcs").handlers
    assert [type(handler) for handler in handlers] == [logging.NullHandler]
