"""`json_lines.c`, compiled with sanitizers: with libFuzzer, which is clang's, or for inputs that are given."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

from pytracecon import wire
from pytracecon.json_lines import _vocabulary
from unit.test_render import plain

__all__ = ["build", "input_of", "seeds"]

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
_SANITIZERS = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
_NOW = 1_795_166_000 * 10**9


def build(folder: Path, *, fuzzer: bool) -> Path:
    """The program, in that folder."""
    (folder / "words.h").write_text(_words())
    program = folder / ("json_in_c-fuzzer" if fuzzer else "json_in_c")
    includes = [f"-I{path}" for path in (folder, TOP / "pytracecon", TOP / "bpf")]
    compiler = [shutil.which("clang") or "clang", "-fsanitize=fuzzer", "-DLIBFUZZER"] if fuzzer else ["cc"]
    subprocess.run([*compiler, *_SANITIZERS, *includes, "-o", program, HERE / "json_in_c.c"], check=True)
    return program


def _words() -> str:
    lines, tables = [], []
    for name, words in _vocabulary().items():
        rows = ", ".join(f"{{{len(word)}, {_literal(word)}}}" for word in words)
        lines.append(f"static const word {name}_words[] = {{{rows}}};")
        tables.append(f".{name} = {{{name}_words, {len(words)}}}")
    return "\n".join([*lines, f"#define ALL_WORDS {', '.join(tables)}", ""])


def _literal(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def seeds() -> list[bytes]:
    edge = bytes(10) + b"\xff\xff\xc0\x00\x02\x01"
    records = [plain(kind, comm=b"curl", remote_addr=edge, direction=1) for kind in wire.KINDS]
    heads = [struct.pack("=BHBBBxxq", how, 0, 255, 0, 9, _NOW) for how in (0, 1, 3, 5, 9, 15)]
    return [head + record for head in heads for record in [*records, b"".join(records)]]


def input_of(data: bytes) -> bytes:
    """As the program without a fuzzer reads it."""
    return struct.pack("=I", len(data)) + data
