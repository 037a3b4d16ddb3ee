"""A large block that was freed leaves no room behind: the C library itself tells where its blocks lie."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

BLOCKS = """
import ctypes
from pytracecon.commands.heap import give_large_blocks_back

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks".split()]
    _fields_ += [(name, ctypes.c_size_t) for name in "fsmblks uordblks fordblks keepcost".split()]

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.mallinfo2.restype = Info
{call}
libc.free(libc.malloc(4 << 20))
before = libc.mallinfo2().hblks
libc.malloc({size})
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallinfo2() is glibc's")
@pytest.mark.parametrize(
    ("call", "size", "outside"),
    [
        ("", 2 << 20, 0),
        ("give_large_blocks_back()", 2 << 20, 1),
        ("give_large_blocks_back()", 600 << 10, 0),
    ],
    ids=["as it is", "a table", "a buffer"],
)
def test_large_blocks_lie_outside_the_heap_though_one_was_freed_before(call: str, size: int, outside: int) -> None:
    script = BLOCKS.format(call=call, size=size)
    done = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True)
    assert int(done.stdout) == outside
