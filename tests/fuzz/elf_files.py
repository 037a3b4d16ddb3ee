"""A file that is called like a C library, in somebody's root: what it has of resolvers, or `NotALibc`."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from subprocess import run as started
from tempfile import TemporaryDirectory

from pytracecon.filters.files import _is_btf
from pytracecon.libcs.elf import Elf, NotALibc
from pytracecon.libcs.libc import recognise

_SOURCE = """
struct addrinfo; struct hostent;
int getaddrinfo(const char *a, const char *b, const struct addrinfo *c, struct addrinfo **d)
{ return a == b && (void *)c == d; }
struct hostent *gethostbyname(const char *a) { return (void *)a; }
int gnu_get_libc_version(void) { return 1; }
"""


@cache
def seeds() -> list[bytes]:
    """Small libraries, of each kind of hash table."""
    made = []
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "it.c"), Path(folder, "it.so")
        source.write_text(_SOURCE)
        for style in ("gnu", "sysv", "both"):
            flags = ("-s", f"-Wl,--hash-style={style}", "-Wl,-z,max-page-size=512,-z,norelro,--build-id=none")
            started(["cc", "-shared", "-fPIC", "-nostdlib", *flags, "-o", target, source], check=True)
            made.append(target.read_bytes())
    return made


def run(data: bytes) -> None:
    descriptor = os.memfd_create("libc.so.6")
    try:
        os.write(descriptor, data)
        try:
            recognise(descriptor)
        except NotALibc as error:
            assert str(error).isprintable()
        try:
            Elf(descriptor).interpreter()
        except NotALibc as error:
            assert str(error).isprintable()
        _is_btf(descriptor, len(data))
    finally:
        os.close(descriptor)
