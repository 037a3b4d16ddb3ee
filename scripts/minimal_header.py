"""Writes a C header of just those kernel types, and of these just the members, that a compiled BPF object relocates.

    minimal_header.py OBJECT TYPES.json KNOWN.i SOURCE... > vmlinux.h

OBJECT was compiled against the whole of a kernel's types, TYPES is its BTF (`bpftool --json btf dump file OBJECT`),
KNOWN the preprocessed C that the programs see besides the kernel's types, and SOURCE are the programs themselves.
No layout is kept: the loader relocates every access by name. What is read as a whole is written as a whole.
"""

from __future__ import annotations

import json
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Type = dict[str, Any]

ANONYMOUS = "(anon)"
COMPOSITE = ("STRUCT", "UNION")
ENUMS = ("ENUM", "ENUM64")
QUALIFIERS = {"CONST": "const ", "VOLATILE": "volatile ", "RESTRICT": "", "TYPE_TAG": ""}
ENUM_VALUE = (10, 11)  # enum bpf_core_relo_kind: all others tell of fields or of types
TYPE_KINDS = (6, 7, 8, 9, 12)


def section(elf: bytes, wanted: bytes) -> bytes:
    """A section of a 64-bit little-endian ELF file."""
    table = struct.unpack_from("<Q", elf, 40)[0]
    size, count, names_index = struct.unpack_from("<HHH", elf, 58)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + number * size) for number in range(count)]
    names = headers[names_index][4]
    for name, _, _, _, offset, length in headers:
        if elf[names + name :].startswith(wanted + b"\0"):
            return elf[offset : offset + length]
    sys.exit(f"minimal_header.py: the object has no section {wanted.decode()}")


def relocations(object_file: Path) -> Iterator[tuple[int, list[int], int]]:
    """The type, the path of indexes into it and the kind of each CO-RE relocation (struct bpf_core_relo)."""
    elf = object_file.read_bytes()
    btf, ext = section(elf, b".BTF"), section(elf, b".BTF.ext")
    strings = struct.unpack_from("<I", btf, 4)[0] + struct.unpack_from("<I", btf, 16)[0]
    header, start, length = struct.unpack_from("<I", ext, 4)[0], *struct.unpack_from("<II", ext, 24)
    position, end = header + start + 4, header + start + length
    while position < end:
        count = struct.unpack_from("<I", ext, position + 4)[0]
        position += 8
        for _ in range(count):
            _, type_id, access, kind = struct.unpack_from("<IIII", ext, position)
            text = btf[strings + access : btf.index(b"\0", strings + access)].decode()
            yield type_id, [int(index) for index in text.split(":")], kind
            position += 16


def defined_in(preprocessed: str) -> set[str]:
    """What this C text defines: "struct sock", "union …", "enum …", and typedefs by their bare name."""
    tags = re.findall(r"\b((?:struct|union|enum)\s+\w+)\s*(?:__attribute__\s*\(\(.*?\)\)\s*)?\{", preprocessed)
    typedefs = re.findall(r"\btypedef\b[^;{}]*?\b(\w+)\s*(?:\[\w*\])?;", preprocessed)
    return {*(" ".join(tag.split()) for tag in tags), *typedefs}


def tag_of(entry: Type) -> str:
    return f"{entry.get('fwd_kind', entry['kind'].lower().removesuffix('64'))} {entry['name']}"


class Touched:
    """The members that relocations go through, and the structs that are read as a whole."""

    def __init__(self, types: dict[int, Type]) -> None:
        self.types = types
        self.members: dict[int, set[int]] = {}
        self.enums: set[str] = set()

    def bare(self, type_id: int) -> tuple[int, Type]:
        """The type without its qualifiers and typedefs."""
        entry = self.types[type_id]
        while entry["kind"] in QUALIFIERS or entry["kind"] == "TYPEDEF":
            type_id = entry["type_id"]
            entry = self.types[type_id]
        return type_id, entry

    def add(self, type_id: int, path: list[int], kind: int) -> None:
        type_id, entry = self.bare(type_id)
        if kind in ENUM_VALUE:
            self.enums.add(tag_of(entry))
            return
        if entry["kind"] in COMPOSITE:
            self.members.setdefault(type_id, set())
        if kind in TYPE_KINDS:
            return
        for index in path[1:]:
            if entry["kind"] in COMPOSITE:
                self.members.setdefault(type_id, set()).add(index)
                type_id, entry = self.bare(entry["members"][index]["type_id"])
            else:
                type_id, entry = self.bare(entry["type_id"])
        self.add_whole(type_id)

    def add_whole(self, type_id: int) -> None:
        if type_id == 0:
            return
        type_id, entry = self.bare(type_id)
        if entry["kind"] == "ARRAY":
            self.add_whole(entry["type_id"])
        if entry["kind"] in COMPOSITE:
            self.members[type_id] = set(range(len(entry["members"])))
            for member in entry["members"]:
                self.add_whole(member["type_id"])


class Header:
    """C for what was touched, in the order in which C wants it."""

    def __init__(self, touched: Touched, known: set[str]) -> None:
        self.types = touched.types
        self.touched = touched
        self.known = known
        self.forward: set[str] = set()
        self.typedefs: list[str] = []
        self.definitions: list[str] = []
        self.written: set[str] = set()

    def declare(self, type_id: int, name: str, indent: str = "") -> str:
        """C for "NAME is of this type", with all that it needs written or noted before."""
        if type_id == 0:
            return f"void {name}".rstrip()
        entry = self.types[type_id]
        kind = entry["kind"]
        text = f"{entry['name']} {name}"
        if kind in QUALIFIERS:
            text = QUALIFIERS[kind] + self.declare(entry["type_id"], name, indent)
        elif kind == "PTR":
            text = self.pointer(entry["type_id"], f"*{name}")
        elif kind == "ARRAY":
            text = self.declare(entry["type_id"], f"{name}[{entry['nr_elems']}]", indent)
        elif kind in COMPOSITE and (entry["name"] == ANONYMOUS or not name):
            # Linux since 6.19 (-fms-extensions): a named struct as an anonymous member. Plain C spells it out.
            text = f"{kind.lower()} {self.body(type_id, indent)} {name}"
        elif kind in COMPOSITE:
            self.define(type_id)
            text = f"{tag_of(entry)} {name}"
        elif kind in ENUMS:
            sign = "" if entry["encoding"] == "SIGNED" else "unsigned "
            text = f"{sign}{'long long' if entry['size'] == 8 else 'int'} {name}"
        elif kind == "TYPEDEF":
            self.typedef(entry)
        return text.rstrip()

    def pointer(self, type_id: int, name: str) -> str:
        """A pointee is only named, so that what the programs follow keeps its type."""
        if type_id == 0:
            return f"void {name}"
        entry = self.types[type_id]
        kind = entry["kind"]
        if kind in QUALIFIERS:
            return QUALIFIERS[kind] + self.pointer(entry["type_id"], name)
        if kind == "PTR":
            return self.pointer(entry["type_id"], f"*{name}")
        if kind == "FUNC_PROTO" or (kind in COMPOSITE and entry["name"] == ANONYMOUS):
            return f"void {name}"
        if kind in COMPOSITE or kind == "FWD":
            self.forward.add(tag_of(entry))
            return f"{tag_of(entry)} {name}"
        return self.declare(type_id, name)

    def body(self, type_id: int, indent: str) -> str:
        lines = ["{"]
        for index in sorted(self.touched.members.get(type_id, ())):
            member = self.types[type_id]["members"][index]
            name = "" if member["name"] == ANONYMOUS else member["name"]
            bits = f" : {member['bitfield_size']}" if member.get("bitfield_size") else ""
            lines.append(f"{indent}\t{self.declare(member['type_id'], name, indent + chr(9))}{bits};")
        return "\n".join([*lines, f"{indent}}}"])

    def typedef(self, entry: Type) -> None:
        name = entry["name"]
        if name in self.known or name in self.written:
            return
        self.written.add(name)
        text = f"typedef {self.declare(entry['type_id'], name)};"
        (self.definitions if re.search(r"\b(struct|union)\b", text) else self.typedefs).append(text)

    def define(self, type_id: int) -> None:
        tag = tag_of(self.types[type_id])
        if tag in self.known or tag in self.written:
            return
        self.written.add(tag)
        self.definitions.append(f"{tag} {self.body(type_id, '')};")

    def define_all(self) -> None:
        named = {tag_of(self.types[type_id]): type_id for type_id in self.touched.members}
        for tag, type_id in sorted(named.items()):
            if not tag.endswith(ANONYMOUS):
                self.define(type_id)
        for entry in self.types.values():
            if entry["kind"] in ENUMS and tag_of(entry) in self.touched.enums - self.known:
                values = "".join(f"\t{value['name']} = {value['val']},\n" for value in entry["values"])
                self.definitions.append(f"{tag_of(entry)} {{\n{values}}};")

    def mention(self, sources: str) -> None:
        """Structs that the programs pass on and never look into."""
        code = re.sub(r"/\*.*?\*/", "", sources, flags=re.DOTALL)
        named = {" ".join(tag.split()) for tag in re.findall(r"\b(?:struct|union)\s+\w+", code)}
        self.forward |= named & {tag_of(entry) for entry in self.types.values()}

    def text(self) -> str:
        forward = sorted(self.forward - self.written - self.known)
        return "\n".join(
            [
                "#ifndef __VMLINUX_H__",
                "#define __VMLINUX_H__",
                "",
                "#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)",
                "",
                *self.typedefs,
                "",
                *(f"{tag};" for tag in forward),
                "",
                *(f"{definition}\n" for definition in self.definitions),
                "#pragma clang attribute pop",
                "",
                "#endif",
            ]
        )


def main(object_file: str, types: str, known: str, *sources: str) -> None:
    touched = Touched({entry["id"]: entry for entry in json.loads(Path(types).read_text())["types"]})
    for type_id, path, kind in relocations(Path(object_file)):
        touched.add(type_id, path, kind)
    header = Header(touched, defined_in(Path(known).read_text()))
    header.define_all()
    header.mention("".join(Path(source).read_text() for source in sources))
    sys.stdout.write(header.text() + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
