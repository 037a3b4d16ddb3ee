"""`--cgroupmap` and `--mntnsmap`: maps that others pin and change decide who is traced, from one moment to the next."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytracecon import Tracer
from pytracecon.errors import InvalidValue
from traffic.actor import Actor
from traffic.end import Listener, close, listen, pair
from traffic.story import Told, story
from traffic.trace import Trace

BPFFS = Path("/sys/fs/bpf")


def bpftool(*words: str | Path) -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    subprocess.run(["bpftool", *map(str, words)], check=True, capture_output=True, env={**os.environ, "PATH": path})


class Pinned:
    """A map in a BPF file system that is mounted for this."""

    def __init__(self, path: Path, *shape: str) -> None:
        self.path = path
        bpftool("map", "create", path, *shape, "entries", "16", "name", "pinned")

    def _change(self, verb: str, key: int, *words: str) -> None:
        in_bytes = [f"{byte:#x}" for byte in key.to_bytes(8, "little")]
        bpftool("map", verb, "pinned", self.path, "key", *in_bytes, *words)

    def add(self, key: int, value_size: int) -> None:
        self._change("update", key, "value", *["0"] * value_size)

    def remove(self, key: int) -> None:
        self._change("delete", key)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A BPF file system."""
    place = Path(tempfile.mkdtemp(prefix="pytracecon-bpffs-"))
    subprocess.run(["mount", "-t", "bpf", "bpf", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)
    place.rmdir()


@pytest.fixture
def listener(server: Actor) -> Listener:
    return listen(server)


def test_cgroups_are_followed_while_the_map_changes(
    traced: Callable[..., Trace], folder: Path, cgroup: Path, client: Actor, listener: Listener
) -> None:
    pinned = Pinned(folder / "cgroups", "type", "hash", "key", "8", "value", "8")
    client.do("write", f"{cgroup}/cgroup.procs", client.pid)
    assert client.cgroup
    trace = traced(cgroupmap=pinned.path)
    before, _ = pair(client, listener)
    pinned.add(client.cgroup, 8)
    during, far = pair(client, listener)
    close(during, far)
    pinned.remove(client.cgroup)
    after, _ = pair(client, listener)
    trace.tells(
        Told(during, "connect established close", ended="local_close"), alone=False, silent=[before, after, far]
    )


def test_mount_namespaces_are_followed(
    traced: Callable[..., Trace], folder: Path, client: Actor, listener: Listener
) -> None:
    pinned = Pinned(folder / "mounts", "type", "hash", "key", "8", "value", "4")
    client.do("mounts")
    pinned.add(Path(f"/proc/{client.pid}/ns/mnt").stat().st_ino, 4)
    trace = traced(mntnsmap=pinned.path)
    near, far = pair(client, listener)
    close(near, far)
    trace.tells(Told(near, "connect established close", ended="local_close"), alone=False, silent=[far])
    assert story(trace.events, far) == []


SHAPES = {
    "values of another size": (("type", "hash", "key", "8", "value", "2"), "values of 2 bytes"),
    "keys of another size": (("type", "hash", "key", "4", "value", "8"), "keys of 4"),
    "an array": (("type", "array", "key", "4", "value", "8"), "of type 2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_a_map_of_another_shape_is_refused_in_one_line(folder: Path, shape: str) -> None:
    words, said = SHAPES[shape]
    path = Pinned(folder / "wrong", *words).path
    with pytest.raises(InvalidValue, match=said) as refused:
        Tracer(cgroupmap=path)
    assert "\n" not in str(refused.value)


def test_what_is_no_map_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "absent", tmp_path):
        with pytest.raises(InvalidValue, match="--mntnsmap: "):
            Tracer(mntnsmap=path)
