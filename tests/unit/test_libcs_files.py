"""Files in a root that somebody else fills: what is opened, what is not, and that nothing waits."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from pytracecon.libcs.files import identity, inside, is_stacked, place, readable, status


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "lib").mkdir(parents=True)
    (root / "lib" / "libc.so.6").write_text("inside")
    (root / "lib" / "outside.so").write_text("inside")
    (tmp_path / "outside.so").write_text("outside")
    return root


def read(root: Path, path: str) -> str:
    with place(str(root)) as at, inside(at, path.encode()) as found:
        descriptor = readable(found)
    with open(descriptor) as file:
        return file.read()


@pytest.mark.parametrize(
    "target",
    [
        "/lib/outside.so",  # as the process whose root it is would read it
        "outside.so",
        "../../../../lib/outside.so",
        "/../lib/outside.so",
        "//lib//./outside.so",
    ],
)
def test_a_link_is_followed_within_the_root(root: Path, target: str) -> None:
    (root / "lib" / "link.so").symlink_to(target)
    assert read(root, "/lib/link.so") == "inside"


@pytest.mark.parametrize("target", ["/outside.so", "../../outside.so", "{tmp}/outside.so"])
def test_no_link_leads_out_of_the_root(root: Path, target: str) -> None:
    (root / "lib" / "link.so").symlink_to(target.format(tmp=root.parent))
    with pytest.raises(FileNotFoundError):
        read(root, "/lib/link.so")


def test_a_link_to_a_folder_is_followed_within_the_root_too(root: Path) -> None:
    (root / "usr").mkdir()
    (root / "usr" / "lib").symlink_to("/lib")
    assert read(root, "/usr/lib/libc.so.6") == "inside"


def test_links_that_go_round_are_an_error(root: Path) -> None:
    (root / "lib" / "a").symlink_to("b")
    (root / "lib" / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        read(root, "/lib/a")


@pytest.mark.parametrize("magic", ["/proc/self/exe", "/proc/self/root/bin/sh", "/proc/self/cwd"])
def test_a_magic_link_of_proc_is_an_error(magic: str) -> None:
    with pytest.raises(OSError, match=r"Too many levels|cross-device"):
        read(Path("/"), magic)


@pytest.mark.parametrize("path", [b"/none", b"/lib/none", b"/lib/" + b"a" * 255])
def test_what_is_not_there_is_not_found(root: Path, path: bytes) -> None:
    with place(str(root)) as at, pytest.raises(FileNotFoundError), inside(at, path):
        pass


@pytest.mark.parametrize(
    ("make", "kind"), [(os.mkfifo, stat.S_ISFIFO), (os.mkdir, stat.S_ISDIR), (Path.touch, stat.S_ISREG)]
)
def test_anything_can_be_looked_at_and_nothing_waits(
    root: Path, make: Callable[..., object], kind: Callable[[int], bool]
) -> None:
    make(root / "it")
    with place(str(root)) as at, inside(at, b"/it") as found:
        assert kind(status(at=found).mode)


def test_a_place_is_no_descriptor_to_read_from(root: Path) -> None:
    with place(str(root)) as at, inside(at, b"/lib/libc.so.6") as found, pytest.raises(OSError, match="Bad file"):
        os.read(found, 1)


def test_a_status_is_what_the_system_says(root: Path) -> None:
    path = root / "lib" / "libc.so.6"
    truth, found = path.stat(), status(bytes(path))
    assert (found.device, found.inode, found.mode) == (truth.st_dev, truth.st_ino, truth.st_mode)
    assert (found.size, found.changed, found.modified) == (truth.st_size, truth.st_ctime_ns, truth.st_mtime_ns)
    assert 0 < found.born <= truth.st_ctime_ns
    with path.open("rb") as file:
        assert status(at=file.fileno()) == found
        assert not is_stacked(file.fileno())


def test_what_is_missing_is_told_by_name() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        status(b"/none")
    assert caught.value.filename == "/none"
    with pytest.raises(FileNotFoundError):
        identity(b"/none")


def test_two_names_of_a_file_have_one_identity_and_two_files_have_two(root: Path) -> None:
    one, other = root / "lib" / "libc.so.6", root / "lib" / "outside.so"
    (root / "link").hardlink_to(one)
    assert identity(bytes(one)) == identity(bytes(root / "link")) != identity(bytes(other))


def test_every_descriptor_is_closed_again(root: Path) -> None:
    before = os.listdir("/proc/self/fd")
    test_what_is_not_there_is_not_found(root, b"/none")
    test_a_place_is_no_descriptor_to_read_from(root)
    read(root, "/lib/libc.so.6")
    assert os.listdir("/proc/self/fd") == before
