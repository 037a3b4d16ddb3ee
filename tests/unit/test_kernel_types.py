"""Of the kernel's types those are chosen that the programs ask for, whole and with all that lies within them."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pytracecon._ring import lib

from pytracecon.image import object_image

KERNEL = Path("/sys/kernel/btf/vmlinux")
BPFTOOL = shutil.which("bpftool", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
POINTS_TO_NOTHING = "a pointer"
Type = dict[str, Any]

STRUCT, INT = 4, 1


def btf(*types: bytes, names: bytes) -> bytes:
    body = b"".join(types)
    return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(names)) + body + names


def an_int(name: int) -> bytes:
    return struct.pack("=IIII", name, INT << 24, 4, 32)


def a_struct(name: int, *members: tuple[int, int]) -> bytes:
    return struct.pack("=III", name, STRUCT << 24 | len(members), 4 * len(members)) + b"".join(
        struct.pack("=III", *member, 32 * at) for at, member in enumerate(members)
    )


def chosen(kernel: bytes, image: bytes, folder: Path) -> bytes | None:
    path = folder / "few"
    with path.open("wb") as file:
        if not lib.few_types(kernel, len(kernel), image, len(image), file.fileno()):
            return None
    return path.read_bytes()


@pytest.fixture(scope="module")
def image() -> bytes:
    return object_image()


def dump(path: Path) -> list[Type]:
    assert BPFTOOL is not None
    shown = subprocess.run([BPFTOOL, "--json", "btf", "dump", "file", path], check=True, capture_output=True).stdout
    return list(json.loads(shown)["types"])


def described(number: int, types: dict[int, Type]) -> object:
    """A type with what lies in it; what a pointer points to does not."""
    each: Type = types[number] if number else {"kind": "VOID"}
    if each["kind"] == "PTR":
        return POINTS_TO_NOTHING
    own = {key: value for key, value in each.items() if not key.endswith("id") and key not in ("members", "params")}
    within = [described(each[key], types) for key in ("type_id", "index_type_id") if key in each]
    members = [
        (member["name"], member["bits_offset"], member.get("bitfield_size"), described(member["type_id"], types))
        for member in each.get("members", [])
    ]
    return own, within, members


@pytest.mark.skipif(BPFTOOL is None or not KERNEL.exists(), reason="needs bpftool, and a kernel with BTF")
def test_what_the_programs_ask_for_is_as_the_kernel_has_it(image: bytes, tmp_path: Path) -> None:
    few = chosen(KERNEL.read_bytes(), image, tmp_path)
    assert few is not None
    assert len(few) < 1 << 19
    kept: dict[int, Type] = {each["id"]: each for each in dump(tmp_path / "few")}
    whole: dict[int, Type] = {each["id"]: each for each in dump(KERNEL)}
    for name in ("sock", "tcp_sock", "task_struct", "io_kiocb", "inet_connection_sock"):
        (ours,) = [each["id"] for each in kept.values() if (each["kind"], each.get("name")) == ("STRUCT", name)]
        theirs = [each["id"] for each in whole.values() if (each["kind"], each.get("name")) == ("STRUCT", name)]
        assert described(ours, kept) in [described(number, whole) for number in theirs]


def test_types_of_other_names_are_left_out(image: bytes, tmp_path: Path) -> None:
    names = b"\0int\0sock\0sk\0nobody_asks\0sock___flavour\0"
    at = {name: names.index(b"\0" + name + b"\0") + 1 for name in (b"int", b"sock", b"sk", b"nobody_asks")}
    kernel = btf(
        an_int(at[b"int"]),
        a_struct(at[b"nobody_asks"], (at[b"sk"], 1)),
        a_struct(at[b"sock"], (at[b"sk"], 1)),
        a_struct(names.index(b"sock___"), (at[b"sk"], 1)),
        names=names,
    )
    few = chosen(kernel, image, tmp_path)
    assert few is not None
    assert (b"nobody_asks" in few, b"\0sock\0" in few, b"sock___flavour" in few) == (False, True, True)


@pytest.mark.parametrize(
    "kernel",
    [
        b"",
        b"\0" * 24,
        btf(names=b""),
        btf(names=b"\0x"),
        btf(an_int(9), names=b"\0int\0"),
        btf(struct.pack("=III", 0, 31 << 24, 0), names=b"\0"),
        btf(a_struct(1, (1, 7)), names=b"\0sock\0"),
        btf(a_struct(1, (99, 1)), names=b"\0sock\0"),
        btf(struct.pack("=III", 1, STRUCT << 24 | 500, 0), names=b"\0sock\0"),
    ],
)
def test_what_is_no_btf_is_refused(kernel: bytes, image: bytes, tmp_path: Path) -> None:
    assert chosen(kernel, image, tmp_path) is None


def test_what_is_cut_off_anywhere_does_no_harm(image: bytes, tmp_path: Path) -> None:
    names = b"\0int\0sock\0sk\0"
    kernel = btf(an_int(1), a_struct(5, (10, 1)), names=names)
    assert chosen(kernel, image, tmp_path) is not None
    assert [size for size in range(len(kernel)) if chosen(kernel[:size], image, tmp_path) is not None] == []
    for size in range(0, len(image), 9973):
        assert chosen(kernel, image[:size], tmp_path) is None


def test_a_file_gives_what_its_bytes_give(image: bytes, tmp_path: Path) -> None:
    names = b"\0int\0sock\0sk_num\0"
    kernel = btf(an_int(1), a_struct(5, (10, 1)), names=names)
    file, few = tmp_path / "kernel", tmp_path / "of_file"
    file.write_bytes(kernel)
    with few.open("wb") as out:
        assert lib.few_types_of(bytes(file), image, len(image), out.fileno())
    assert few.read_bytes() == chosen(kernel, image, tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"\x9f\xeb"])
def test_a_file_that_is_not_there_or_too_short_gives_nothing(
    image: bytes, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "kernel"
    if content is not None:
        file.write_bytes(content)
    with (tmp_path / "few").open("wb") as out:
        assert not lib.few_types_of(bytes(file), image, len(image), out.fileno())
