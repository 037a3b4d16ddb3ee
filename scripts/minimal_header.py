"""Writes a C header of just those kernel types, and their members, that compiled BPF programs touch.

    minimal_header.py WHOLE.json TOUCHED.json KNOWN.i MENTIONED... > vmlinux.h

WHOLE is a kernel's BTF, TOUCHED what `bpftool gen min_core_btf` left of it (both from `bpftool --json btf dump`),
KNOWN the preprocessed C that the programs have without any kernel header, MENTIONED their sources.
bpftool's own C dump of TOUCHED does not do: it fills the gaps between members with pages of padding, and to it a
pointer to anything is a `void *`. The loader relocates each access by name, so no layout is kept here.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

Type = dict[str, Any]

ANONYMOUS = "(anon)"
COMPOSITE = ("STRUCT", "UNION")
ENUMS = ("ENUM", "ENUM64")
QUALIFIERS = {"CONST": "const ", "VOLATILE": "volatile ", "RESTRICT": "", "TYPE_TAG": ""}


def load(path: str) -> dict[int, Type]:
    return {entry["id"]: entry for entry in json.loads(Path(path).read_text())["types"]}


def defined_in(preprocessed: str) -> set[str]:
    """What this C text defines: "struct sock", "union …", "enum …", and typedefs by their bare name."""
    tags = re.findall(r"\b((?:struct|union|enum)\s+\w+)\s*(?:__attribute__\s*\(\(.*?\)\)\s*)?\{", preprocessed)
    typedefs = re.findall(r"\btypedef\b[^;{}]*?\b(\w+)\s*(?:\[\w*\])?;", preprocessed)
    return {*(" ".join(tag.split()) for tag in tags), *typedefs}


def tag_of(entry: Type) -> str:
    return f"{entry.get('fwd_kind', entry['kind'].lower().removesuffix('64'))} {entry['name']}"


class Header:
    """What has been written so far, and of which types it was."""

    def __init__(self, whole: dict[int, Type], touched: dict[int, Type], known: set[str]) -> None:
        self.whole = whole
        self.known = known
        self.touched = {
            tag_of(entry): self.members_of(entry, touched)
            for entry in touched.values()
            if entry["kind"] in COMPOSITE and entry["name"] != ANONYMOUS
        }
        self.complete: dict[str, Type] = {}
        for entry in whole.values():
            if entry["kind"] in COMPOSITE:
                self.complete.setdefault(tag_of(entry), entry)
        self.enums = {tag_of(entry): entry for entry in whole.values() if entry["kind"] in ENUMS}
        self.forward: set[str] = set()
        self.typedefs: list[str] = []
        self.definitions: list[str] = []
        self.written: set[str] = set()

    def members_of(self, entry: Type, types: dict[int, Type]) -> dict[tuple[str, int], Any]:
        """The touched members by name and place; for an anonymous struct or union in it, again such a mapping."""
        members: dict[tuple[str, int], Any] = {}
        for member in entry["members"]:
            inner = types.get(member["type_id"], {"kind": "VOID"})
            while inner["kind"] in QUALIFIERS or inner["kind"] in ("TYPEDEF", "ARRAY"):
                inner = types.get(inner["type_id"], {"kind": "VOID"})
            nested = inner["kind"] in COMPOSITE and inner["name"] == ANONYMOUS
            members[member["name"], member["bits_offset"]] = self.members_of(inner, types) if nested else None
        return members

    def declare(self, type_id: int, name: str, touched: dict[tuple[str, int], Any] | None, indent: str) -> str:
        """C for "NAME is of this type", with all that it needs written or noted before."""
        if type_id == 0:
            return f"void {name}".rstrip()
        entry = self.whole[type_id]
        kind = entry["kind"]
        if kind in QUALIFIERS:
            inner = self.declare(entry["type_id"], name, touched, indent)
            return QUALIFIERS[kind] + inner
        if kind == "PTR":
            return self.pointer(entry["type_id"], name)
        if kind == "ARRAY":
            return self.declare(entry["type_id"], f"{name}[{entry['nr_elems']}]", touched, indent)
        if kind in COMPOSITE and entry["name"] == ANONYMOUS:
            body = self.body(entry, touched or {}, indent)
            return f"{kind.lower()} {body} {name}".rstrip()
        if kind in COMPOSITE and not name:
            # Linux builds with -fms-extensions since 6.19: a named struct as an anonymous member. Plain C spells it out.
            return f"{kind.lower()} {self.body(entry, self.touched.get(tag_of(entry), {}), indent)}"
        if kind in COMPOSITE:
            self.define(entry)
            return f"{tag_of(entry)} {name}".rstrip()
        if kind in ENUMS:
            # An enumerator's width is all that matters to a reader of a member.
            sign = "" if entry["encoding"] == "SIGNED" else "unsigned "
            return f"{sign}{'long long' if entry['size'] == 8 else 'int'} {name}".rstrip()
        if kind == "TYPEDEF":
            self.typedef(entry, touched)
            return f"{entry['name']} {name}".rstrip()
        return f"{entry['name']} {name}".rstrip()

    def pointer(self, type_id: int, name: str) -> str:
        """A pointee needs no definition, only to be known as the struct that it is."""
        qualifier = ""
        entry = self.whole.get(type_id)
        while entry is not None and (entry["kind"] in QUALIFIERS or entry["kind"] == "TYPEDEF"):
            qualifier += QUALIFIERS.get(entry["kind"], "")
            type_id = entry["type_id"]
            entry = self.whole.get(type_id)
        if entry is None or entry["kind"] == "FUNC_PROTO" or entry["name"] == ANONYMOUS and entry["kind"] in COMPOSITE:
            return f"{qualifier}void *{name}"
        if entry["kind"] == "PTR":
            return self.pointer(entry["type_id"], f"*{qualifier}{name}")
        if entry["kind"] in COMPOSITE or entry["kind"] == "FWD":
            self.forward.add(tag_of(entry))
            return f"{qualifier}{tag_of(entry)} *{name}"
        return qualifier + self.declare(type_id, f"*{name}", None, "")

    def body(self, entry: Type, touched: dict[tuple[str, int], Any], indent: str) -> str:
        lines = ["{"]
        for member in entry["members"]:
            key = (member["name"], member["bits_offset"])
            if key not in touched:
                continue
            name = "" if member["name"] == ANONYMOUS else member["name"]
            bits = f" : {member['bitfield_size']}" if member.get("bitfield_size") else ""
            lines.append(f"{indent}\t{self.declare(member['type_id'], name, touched[key], indent + chr(9))}{bits};")
        return "\n".join([*lines, f"{indent}}}"])

    def typedef(self, entry: Type, touched: dict[tuple[str, int], Any] | None) -> None:
        name = entry["name"]
        if name in self.known or name in self.written:
            return
        self.written.add(name)
        text = f"typedef {self.declare(entry['type_id'], name, touched, '')};"
        (self.definitions if "struct" in text or "union" in text else self.typedefs).append(text)

    def define(self, entry: Type) -> None:
        """A struct or union that is embedded in another, or stands for itself."""
        tag = tag_of(entry)
        if tag in self.known or tag in self.written:
            return
        self.written.add(tag)
        body = self.body(entry, self.touched.get(tag, {}), "")
        self.definitions.append(f"{tag} {body};")

    def define_all(self) -> None:
        for tag in sorted(self.touched):
            self.define(self.complete[tag])

    def mention(self, sources: str) -> None:
        """What the sources name and never look into, among what the kernel has: structs by name, enums whole."""
        code = re.sub(r"/\*.*?\*/|//[^\n]*", "", sources, flags=re.DOTALL)
        named = {" ".join(tag.split()) for tag in re.findall(r"\b(?:struct|union|enum)\s+\w+", code)}
        self.forward |= named & self.complete.keys()
        for tag, entry in sorted(self.enums.items()):
            if tag in named - self.known:
                values = "".join(f"\t{value['name']} = {value['val']},\n" for value in entry["values"])
                self.definitions.append(f"{tag} {{\n{values}}};")

    def text(self) -> str:
        forward = sorted(self.forward - self.written - self.known)
        return "\n".join([
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
        ])


def main(whole: str, touched: str, known: str, *mentioned: str) -> None:
    header = Header(load(whole), load(touched), defined_in(Path(known).read_text()))
    header.define_all()
    header.mention("".join(Path(path).read_text() for path in mentioned))
    sys.stdout.write(header.text() + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
