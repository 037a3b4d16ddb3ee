"""What cannot be asked is an error, and not a number."""

from __future__ import annotations

import errno
import os

from pytracecon._ring import ffi, lib


def test_what_is_no_program_is_an_error() -> None:
    nothing = os.open("/dev/null", os.O_RDONLY)
    try:
        assert lib.sum_of_infos(ffi.new("int[]", [nothing]), 1, 0) == -1
        assert ffi.errno in (errno.EINVAL, errno.EPERM)  # the second where this process may not ask for anything
    finally:
        os.close(nothing)


def test_a_place_behind_the_end_is_an_error_before_anything_is_asked() -> None:
    assert lib.sum_of_infos(ffi.new("int[]", 0), 0, 32) == -1
    assert ffi.errno == errno.EINVAL
    assert lib.sum_of_infos(ffi.new("int[]", 0), 0, 31) == 0
