"""Where a cgroup lies is known from its id: as long as it is there, and afterwards if somebody said it before."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import timeit
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytracecon.owners import cgroups as module
from pytracecon.owners.cgroups import Cgroups
from pytracecon.owners.shapes import Place
from traffic.actor import cgroup2_mount

ID = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970"
DOCKER = f"docker-{ID}.scope"
NOWHERE = 1 << 62
"""No cgroup has this id."""


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cgroups(clock: Clock) -> Iterator[Cgroups]:
    with Cgroups(clock) as cgroups:
        yield cgroups


def number_of(cgroup: Path) -> int:
    return cgroup.stat().st_ino


def path_of(cgroup: Path) -> str:
    """From the root of the hierarchy, as /proc/PID/cgroup has it."""
    mount = cgroup2_mount()
    assert mount is not None
    return f"/{cgroup.relative_to(mount)}"


def made(cgroup: Path) -> tuple[int, str]:
    cgroup.mkdir()
    return number_of(cgroup), path_of(cgroup)


def gone(cgroup: Path) -> tuple[int, str]:
    """One that was there."""
    told = made(cgroup)
    cgroup.rmdir()
    return told


def test_a_cgroup_is_found_by_its_id_while_it_is_there(cgroups: Cgroups, cgroup: Path) -> None:
    (cgroup / "child" / DOCKER).mkdir()
    try:
        assert cgroups.path(number_of(cgroup)) == path_of(cgroup)
        assert cgroups.path(number_of(cgroup / "child")) == path_of(cgroup / "child")
        assert cgroups.place(number_of(cgroup / "child" / DOCKER)) == Place(ID, None, DOCKER)
    finally:
        (cgroup / "child" / DOCKER).rmdir()


def test_the_root_is_a_place_without_a_name(cgroups: Cgroups) -> None:
    root = cgroup2_mount()
    assert root is not None
    assert cgroups.place(number_of(root)) == Place(None, None, None)
    assert cgroups.path(number_of(root)) == "/"


def test_one_that_is_gone_is_known_if_it_was_told_or_asked_for_before(cgroups: Cgroups, cgroup: Path) -> None:
    told, told_path = gone(cgroup / DOCKER)
    cgroups.made(told, told_path.encode())
    asked, asked_path = made(cgroup / DOCKER)
    assert asked != told
    assert cgroups.place(asked) == Place(ID, None, DOCKER)
    (cgroup / DOCKER).rmdir()
    never_told, _ = gone(cgroup / DOCKER)
    assert cgroups.path(told) == told_path
    assert cgroups.place(told) == Place(ID, None, DOCKER)
    assert cgroups.path(asked) == asked_path
    assert (cgroups.path(never_told), cgroups.place(never_told)) == (None, None)


def test_what_the_kernel_told_ends_at_its_first_nul(cgroups: Cgroups) -> None:
    cgroups.made(NOWHERE, b"/system.slice/ssh.service\0/docker/rest of a longer one")
    assert cgroups.path(NOWHERE) == "/system.slice/ssh.service"
    assert cgroups.place(NOWHERE) == Place(None, None, "ssh.service")


@pytest.mark.parametrize("name", [b"x (deleted)", b" \xff\x1b[31m", "\N{HEAVY BLACK HEART}".encode(), b"x" * 255])
def test_any_name_is_told_as_it_is_and_what_is_no_text_visibly(cgroups: Cgroups, cgroup: Path, name: bytes) -> None:
    number, _ = made(cgroup / os.fsdecode(name))
    try:
        assert cgroups.path(number) == f"{path_of(cgroup)}/{name.decode('utf-8', 'backslashreplace')}"
    finally:
        (cgroup / os.fsdecode(name)).rmdir()


@pytest.mark.parametrize("name", ["short", "short (deleted)"])
def test_one_that_is_removed_while_it_is_looked_up_has_its_own_name(
    cgroups: Cgroups, cgroup: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, path = made(cgroup / name)
    by_handle = module._open_by_handle_at

    def and_remove(*arguments: object) -> int:
        descriptor: int = by_handle(*arguments)
        (cgroup / name).rmdir()
        return descriptor

    monkeypatch.setattr(module, "_open_by_handle_at", and_remove)
    assert cgroups.path(number) == path


def test_one_that_was_not_found_is_looked_for_again_after_a_second(
    cgroups: Cgroups, cgroup: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    looked_up = module._path_by_handle

    def counted(mount: module._Mounted, number: int) -> str | None:
        asked.append(number)
        return looked_up(mount, number)

    monkeypatch.setattr(module, "_path_by_handle", counted)
    number, path = gone(cgroup / "short")
    assert [cgroups.path(number), cgroups.place(number)] == [None, None]
    clock.now += 0.9
    assert cgroups.path(number) is None
    assert asked == [number]
    clock.now += 0.2
    assert cgroups.path(number) is None
    assert asked == [number, number]
    cgroups.made(number, path.encode())
    assert cgroups.path(number) == path
    assert asked == [number, number]


@pytest.mark.slow
def test_thousands_are_bounded_and_those_asked_for_longest_ago_go(cgroups: Cgroups) -> None:
    last = NOWHERE + 3 * module._KNOWN
    for number in range(NOWHERE, last):
        cgroups.made(number, b"/system.slice/%d.service" % number)
        assert cgroups.place(NOWHERE) == Place(None, None, f"{NOWHERE}.service")
    assert len(cgroups._paths) == module._KNOWN
    assert cgroups.path(last - 1) == f"/system.slice/{last - 1}.service"
    assert cgroups.path(NOWHERE + 1) is None
    for number in range(last, last + 2 * module._KNOWN):
        assert cgroups.place(number) is None
    assert len(cgroups._missing) == module._KNOWN


@pytest.mark.slow
def test_what_is_known_is_told_within_a_microsecond(cgroups: Cgroups, cgroup: Path) -> None:
    number = number_of(cgroup)
    assert cgroups.place(number) is not None
    taken = min(timeit.repeat(lambda: cgroups.place(number), number=10_000, repeat=10)) / 10_000
    assert taken < 1e-6


def test_closing_forgets_nothing_and_leaves_no_descriptor(cgroup: Path) -> None:
    before = os.listdir("/proc/self/fd")
    cgroups = Cgroups()
    assert cgroups.path(number_of(cgroup)) == path_of(cgroup)
    cgroups.close()
    cgroups.close()
    assert os.listdir("/proc/self/fd") == before
    assert cgroups.path(number_of(cgroup)) == path_of(cgroup)
    assert cgroups.path(number_of(cgroup / "child")) is None


ASK = textwrap.dedent("""
    import sys
    from pytracecon.owners.cgroups import Cgroups
    with Cgroups() as cgroups:
        print([cgroups.path(int(number)) for number in sys.argv[1:]], cgroups._by_handle)
""")
ELSEWHERE = ["unshare", "--mount", "--propagation", "private", "sh", "-euc"]


def asked(before: list[str], *numbers: int) -> str:
    """What another process is told, which these words start."""
    command = [*before, sys.executable, "-c", ASK, *map(str, numbers)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_without_the_privilege_all_cgroups_are_walked_over(cgroup: Path) -> None:
    unprivileged = ["setpriv", "--bounding-set", "-dac_read_search", "--inh-caps", "-dac_read_search"]
    numbers = [number_of(cgroup / "child"), number_of(cgroup), 1, NOWHERE]
    paths = [path_of(cgroup / "child"), path_of(cgroup), "/", None]
    assert asked([], *numbers) == f"{paths} True"
    assert asked(unprivileged, *numbers) == f"{paths} False"


def test_a_walk_takes_a_twentieth_of_the_time_at_most(cgroups: Cgroups, cgroup: Path, clock: Clock) -> None:
    cgroups._by_handle = False
    first = number_of(cgroup)
    assert cgroups.path(first) == path_of(cgroup)
    second, path = made(cgroup / "later")
    try:
        assert cgroups.path(second) is None
        clock.now += 1.1
        assert cgroups.path(second) == path
    finally:
        (cgroup / "later").rmdir()


def test_where_only_a_part_is_mounted_its_paths_are_told_from_the_root_and_no_others(
    cgroup: Path, tmp_path: Path
) -> None:
    script = f'mount --bind "{cgroup / "child"}" "{tmp_path}"; umount --lazy "{cgroup2_mount()}"; exec "$@"'
    (cgroup / "child" / "below").mkdir()
    try:
        places = [cgroup / "child", cgroup / "child" / "below", cgroup]
        told = asked([*ELSEWHERE, script, "sh"], *map(number_of, places), 1)
    finally:
        (cgroup / "child" / "below").rmdir()
    assert told == f"{[path_of(cgroup / 'child'), path_of(cgroup / 'child' / 'below'), None, None]} True"


@pytest.mark.parametrize(
    "script",
    ['umount --lazy "{mount}"; exec "$@"', 'mount -t tmpfs none "{mount}"; exec "$@"'],
    ids=["not mounted", "mounted over"],
)
def test_where_there_is_no_cgroup2_nothing_is_known(cgroup: Path, script: str) -> None:
    told = asked([*ELSEWHERE, script.format(mount=cgroup2_mount()), "sh"], number_of(cgroup), 1)
    assert told == "[None, None] True"


def test_in_a_cgroup_namespace_paths_begin_at_its_root(cgroup: Path) -> None:
    mount = cgroup2_mount()
    remount = f'umount --lazy "{mount}"; mount -t cgroup2 none "{mount}"; exec "$@"'
    enter = f'echo $$ >"{cgroup}/cgroup.procs"; exec unshare --cgroup "$@"'
    told = asked(["sh", "-euc", enter, "sh", *ELSEWHERE, remount, "sh"], number_of(cgroup), number_of(cgroup / "child"))
    assert told == "['/', '/child'] True"


def test_above_a_cgroup_namespace_paths_begin_where_the_mount_does(cgroup: Path) -> None:
    enter = f'echo $$ >"{cgroup}/child/cgroup.procs"; exec unshare --cgroup "$@"'
    told = asked(["sh", "-euc", enter, "sh"], number_of(cgroup), number_of(cgroup / "child"))
    assert told == f"{[path_of(cgroup), path_of(cgroup / 'child')]} True"
