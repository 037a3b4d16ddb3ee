"""Which privileges there are, and what is told of them, without giving up any."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from pytracecon import capabilities
from pytracecon.capabilities import Held
from pytracecon.dropping import named_user
from pytracecon.errors import InvalidValue
from pytracecon.probes import NEEDS
from pytracecon.upkeep import READING, TABLE, users_engines

TOP = Path(__file__).parents[2]


def test_capabilities_have_the_numbers_of_the_kernels_header() -> None:
    header = Path("/usr/include/linux/capability.h").read_text()
    named = {name: int(number) for name, number in re.findall(r"^#define (CAP_\w+)\s+(\d+)$", header, re.MULTILINE)}
    assert named == capabilities.NUMBERS


def test_what_this_process_has_is_what_the_kernel_says() -> None:
    status = Path("/proc/self/status").read_text()
    (effective,) = re.findall(r"^CapEff:\s*(\w+)$", status, re.MULTILINE)
    assert capabilities.held().effective == int(effective, 16)


@pytest.mark.parametrize("name", [b"a\rCapEff:\t0", b"b\x0cc", b"\xe2\x80\xa8d", b"\xff:\xfe"])
def test_a_name_of_a_process_says_nothing_of_what_it_may(name: bytes) -> None:
    before = capabilities.held()
    comm = Path("/proc/thread-self/comm")
    own = comm.read_bytes().removesuffix(b"\n")
    comm.write_bytes(name)
    try:
        assert b"\nName:\t" + name in b"\n" + Path("/proc/thread-self/status").read_bytes()
        assert capabilities.held() == before
    finally:
        comm.write_bytes(own)


def test_a_capability_that_is_newer_than_this_is_its_number() -> None:
    assert Held(0, 1 << 63 | 1 << 21, 0, 0, 0, no_new_privs=False).names() == {"63", "CAP_SYS_ADMIN"}


def test_for_a_while_there_can_be_less_and_then_there_is_as_much_as_before() -> None:
    before = capabilities.held()
    with capabilities.only(()):
        assert capabilities.held().effective == 0
        assert capabilities.held().permitted == before.permitted
        with capabilities.only({"CAP_CHOWN"}):
            chown = 1 << capabilities.NUMBERS["CAP_CHOWN"]
            assert capabilities.held().effective == chown & before.permitted
        assert capabilities.held().effective == 0
    assert capabilities.held() == before


@pytest.mark.parametrize("wanted", ["", "no-such-user", "4294967296", "-1", "nobody\n"])
def test_a_user_that_there_is_not_is_refused(wanted: str) -> None:
    with pytest.raises(InvalidValue, match=r"--user: .* is no user here"):
        named_user("--user", wanted)


def test_what_stays_is_told_of_needs_that_there_are() -> None:
    assert {each.need for each in TABLE} <= {need.name for need in NEEDS}
    assert {name for each in TABLE for name in each.capabilities} <= capabilities.NUMBERS.keys()


def test_the_page_has_the_tables_that_its_data_make() -> None:
    done = subprocess.run([TOP / "scripts" / "privileges", "check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_data_have_a_row_for_each_need() -> None:
    for told in json.loads((TOP / "docs" / "privileges.json").read_text()).values():
        assert list(told["needs"]) == [*(need.name for need in NEEDS), READING]


def test_only_a_socket_of_the_users_own_is_an_engine(tmp_path: Path) -> None:
    """A user's folder holds what the user likes."""
    me = str(os.getuid())
    podman = tmp_path / me / "podman"
    podman.mkdir(parents=True)
    docker = tmp_path / me / "docker.sock"
    docker.touch()
    podman.joinpath("podman.sock").symlink_to("x" * 300)
    tmp_path.joinpath("a file").touch()
    assert users_engines(str(tmp_path)) == users_engines(str(tmp_path / "nothing")) == []
    docker.unlink()
    docker.symlink_to("y" * 4095)
    podman.joinpath("podman.sock").unlink()
    podman.rmdir()
    podman.symlink_to("a" * 300)
    assert users_engines(str(tmp_path)) == []
    docker.unlink()
    somebodys = tmp_path / "4294967294" / "docker.sock"
    somebodys.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as engine, socket.socket(socket.AF_UNIX) as other:
        other.bind(str(somebodys))
        assert users_engines(str(tmp_path)) == []
        engine.bind(str(docker))
        assert users_engines(str(tmp_path)) == [str(docker)]
