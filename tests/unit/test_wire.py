"""Holds what Python believes of the wire against the BTF in the compiled objects: every name, offset and size."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pytracecon import decode, wire

OBJECTS = sorted((Path(wire.__file__).parent / "bpf").glob("*.bpf.o"))
BPFTOOL = shutil.which("bpftool", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")

pytestmark = pytest.mark.skipif(BPFTOOL is None, reason="bpftool is not installed")


class Types:
    """The types in one object, by id and by name."""

    def __init__(self, path: Path) -> None:
        assert BPFTOOL is not None
        shown = subprocess.run(
            [BPFTOOL, "--json", "btf", "dump", "file", str(path)], check=True, capture_output=True, text=True
        )
        self.by_id: dict[int, dict[str, Any]] = {each["id"]: each for each in json.loads(shown.stdout)["types"]}

    def struct(self, name: str) -> dict[str, Any]:
        (found,) = [each for each in self.by_id.values() if each["kind"] == "STRUCT" and each["name"] == name]
        return found

    def enum(self, name: str) -> dict[str, int]:
        (found,) = [each for each in self.by_id.values() if each["kind"] == "ENUM" and each["name"] == name]
        return {value["name"]: value["val"] for value in found["values"]}

    def size(self, number: int) -> int:
        kind = self.by_id[number]
        if kind["kind"] == "ARRAY":
            return int(kind["nr_elems"]) * self.size(kind["type_id"])
        return int(kind["size"]) if "size" in kind else self.size(kind["type_id"])

    def members(self, name: str, base: int = 0) -> list[tuple[str, int, int]]:
        """Name, offset and size of every member, those of nested structs in their place."""
        found = []
        for member in self.struct(name)["members"]:
            at = base + member["bits_offset"] // 8
            kind = self.by_id[member["type_id"]]
            if kind["kind"] == "STRUCT":
                found.extend(self.members(kind["name"], at))
            else:
                found.append((member["name"], at, self.size(member["type_id"])))
        return found


def believed(*parts: tuple[wire.Field, ...]) -> list[tuple[str, int, int]]:
    found, at = [], 0
    for name, form in (field for part in parts for field in part):
        size = struct.calcsize("=" + form)
        found.append((name, at, size))
        at += size
    return found


@pytest.fixture(scope="module", params=OBJECTS, ids=lambda path: path.name)
def types(request: pytest.FixtureRequest) -> Types:
    return Types(request.param)


def test_both_architectures_have_an_object() -> None:
    assert [path.name for path in OBJECTS] == ["pytracecon-aarch64.bpf.o", "pytracecon-x86_64.bpf.o"]


@pytest.mark.parametrize("name", wire.RECORDS)
def test_a_record_is_laid_out_as_python_reads_it(types: Types, name: str) -> None:
    assert believed(wire.HEADER, wire.CONN, wire.RECORDS[name]) == types.members(name)
    assert wire.layout(wire.HEADER, wire.CONN, wire.RECORDS[name]).size == types.struct(name)["size"]


@pytest.mark.parametrize("name", wire.NAME_RECORDS)
def test_a_record_that_serves_names_is_laid_out_as_python_reads_it(types: Types, name: str) -> None:
    assert believed(wire.HEADER, wire.NAME_RECORDS[name]) == types.members(name)
    assert wire.layout(wire.HEADER, wire.NAME_RECORDS[name]).size == types.struct(name)["size"]


@pytest.mark.parametrize("name", wire.OWNER_RECORDS)
def test_a_record_that_tells_of_owners_is_laid_out_as_python_reads_it(types: Types, name: str) -> None:
    assert believed(wire.HEADER, wire.OWNER_RECORDS[name]) == types.members(name)
    assert wire.layout(wire.HEADER, wire.OWNER_RECORDS[name]).size == types.struct(name)["size"]


def test_the_record_of_a_beginning_is_laid_out_as_python_reads_it(types: Types) -> None:
    assert believed(wire.HEADER, wire.CONN) == types.members("beginning_event")


def test_a_record_of_a_translation_is_laid_out_as_python_reads_it(types: Types) -> None:
    assert believed(wire.HEADER, wire.TRANSLATION) == types.members("translation_event")
    assert wire.layout(wire.HEADER, wire.TRANSLATION).size == types.struct("translation_event")["size"]


def test_a_row_of_a_snapshot_is_laid_out_as_python_reads_it(types: Types) -> None:
    assert believed(*wire.ROW) == types.members("row")
    assert wire.layout(*wire.ROW).size == types.struct("row")["size"]


@pytest.mark.parametrize(
    ("name", "fields"), [("settings", wire.SETTINGS), ("counters", wire.COUNTERS), ("shared", wire.SHARED)]
)
def test_a_page_is_laid_out_as_python_uses_it(types: Types, name: str, fields: tuple[wire.Field, ...]) -> None:
    assert believed(fields) == types.members(name)
    assert wire.layout(fields).size == types.struct(name)["size"]


def test_every_record_fits_the_byte_that_tells_its_size(types: Types) -> None:
    sizes = [types.struct(name)["size"] for name in wire.RECORDS]
    assert all(size % 8 == 0 and size <= wire.LARGEST_RECORD for size in sizes)


def test_the_offsets_that_the_walker_and_the_decoder_jump_to(types: Types) -> None:
    offsets = {name: at for name, at, _ in types.members("header")}
    assert (offsets["kind"], offsets["words"]) == (wire.KIND_OFFSET, wire.WORDS_OFFSET)


def test_every_kind_has_its_number(types: Types) -> None:
    assert types.enum("kind") == {
        f"KIND_{name.upper()}": number for name, number in (wire.KINDS | wire.NAME_KINDS | wire.OWNER_KINDS).items()
    } | {"KIND_TRANSLATION": wire.TRANSLATION_KIND, "KIND_BEGINNING": wire.BEGINNING_KIND}


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("filter_bits", ""),
        ("resting", "READER_"),
        ("attempt_hook", ""),
        ("conn_flags", "CONN_"),
        ("name_flags", ""),
        ("row_known", ""),
    ],
)
def test_every_constant_has_its_value(types: Types, name: str, prefix: str) -> None:
    values = {full.removeprefix(prefix): value for full, value in types.enum(name).items()}
    assert values == {full: getattr(wire, full) for full in values}


@pytest.mark.parametrize(
    ("name", "prefix", "words"),
    [
        ("protocol", "PROTO_", "PROTOCOLS"),
        ("direction", "DIRECTION_", "DIRECTIONS"),
        ("owner_source", "OWNER_", "OWNERS"),
        ("ended", "ENDED_", "ENDED"),
        ("tcp_states", "STATE_", "STATES"),
        ("segment", "SEGMENT_", "SEGMENTS"),
        ("app", "APP_", "APPS"),
    ],
)
def test_every_number_has_its_word(types: Types, name: str, prefix: str, words: str) -> None:
    table = getattr(decode, words)
    for full, value in types.enum(name).items():
        word = full.removeprefix(prefix)
        expected = word if name == "tcp_states" else word.lower()
        assert table[value] == (None if expected == "unknown" and name != "direction" else expected)
    assert len(table) == max(types.enum(name).values()) + 1


def test_the_functions_of_a_libc_have_their_numbers(types: Types) -> None:
    numbers = {full.removeprefix("FUNCTION_").lower(): value for full, value in types.enum("resolver_function").items()}
    assert numbers | {"gethostbyname2": numbers["gethostbyname"]} == wire.FUNCTIONS
    resolvers = {full.removeprefix("RESOLVER_").lower(): value for full, value in types.enum("resolver").items()}
    assert {word: at for at, word in enumerate(wire.RESOLVERS) if word} == resolvers
