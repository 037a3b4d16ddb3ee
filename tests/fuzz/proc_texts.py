"""What /proc tells of processes and mounts. The kernel writes the lines; names and paths in them are others' choice."""

from __future__ import annotations

from pathlib import Path

from fuzz.source import Source
from pytracecon.doctor.machine import mount_points
from pytracecon.filters.places import cgroup2_mounts
from pytracecon.libcs.places import mapped_in, slow_in
from pytracecon.owners.proc import args_in, stat_in

_STAT = b"1234 (%s) S 1 1234 1234 0 -1 4194304 100 0 0 0 1 2 0 0 20 0 1 0 4711 2310144 222 18446744073709551615\n"
_MAP = b"7f0000000000-7f0000026000 r-xp 00000000 fe:01 1234 %21s%s\n"
_MOUNT = b"36 35 98:0 /%s /mnt/%s rw,noatime master:1 - %s %s rw\n"
_KINDS = (b"ext4", b"cgroup2", b"fuse.sshfs", b"nfs4")


def escaped(raw: bytes) -> bytes:
    """As the kernel has paths in lines of words."""
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\" else bytes((byte,)) for byte in raw if byte)


def seeds() -> list[bytes]:
    return [
        b"\0curl",
        b"\0) S 1 (x",
        b"\1/bin/sh\0-c\0true\0",
        b"\1" + Path("/proc/self/cmdline").read_bytes(),
        b"\2/usr/lib/x86_64-linux-gnu/libc.so.6",
        b"\2/lib/ld-musl-x86_64.so.1 (deleted)",
        b"\3\1unified",
        b"\3\2my folder",
        b"\4" + Path("/proc/self/maps").read_bytes()[:2000],
        b"\5" + Path("/proc/self/mountinfo").read_bytes()[:2000],
    ]


def run(data: bytes) -> None:
    source = Source(data)
    kind = source.number(1) % 6
    if kind == 0:
        assert stat_in(_STAT % source.take(64).replace(b"\0", b"?")) == (1, 4711)
    elif kind == 1:
        args, cut = args_in(source.rest())
        assert cut is None or args
        assert all("\0" not in each for each in args or ())
    elif kind == 2:
        path = source.rest().replace(b"\0", b"").replace(b"\n", b"\\012")
        for each in mapped_in(_MAP % (b"", b"/" + path)):
            assert (each.range, each.inode) == ("7f0000000000-7f0000026000", 1234)
            assert b"\n" not in each.path
    elif kind == 3:
        of = _KINDS[source.number(1) % len(_KINDS)]
        path = escaped(source.rest())
        line = _MOUNT % (path, path, of, path or b"none")
        text = line.decode("utf-8", "surrogateescape")
        assert len(cgroup2_mounts(text)) == (of == b"cgroup2")
        assert len(mount_points(text, "cgroup2")) == (of == b"cgroup2")
        assert len(slow_in(line)) == (of in (b"fuse.sshfs", b"nfs4"))
    elif kind == 4:
        mapped_in(source.rest())
    else:
        slow_in(source.rest())
