"""Where functions begin in a file, held against readelf and the running loader; and files that lie."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import struct
import subprocess
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytracecon.libcs import FUNCTIONS, NotALibc
from pytracecon.libcs.elf import LARGEST_READ, MOST_READS, Elf
from pytracecon.libcs.libc import Flavour, recognise

MUSL = Path(f"/lib/ld-musl-{os.uname().machine}.so.1")
MACHINE = {"x86_64": 62, "aarch64": 183}[os.uname().machine]
Offsets = dict[str, tuple[int, ...]]


@cache
def glibc() -> Path:
    """The one that this very program uses."""
    found = re.search(r"/\S*/libc(?:\.so\.6|-2\.\d+\.so)$", Path("/proc/self/maps").read_text(), re.MULTILINE)
    assert found, "this Python uses no glibc"
    return Path(found[0])


def recognised(path: Path) -> tuple[Flavour, Offsets]:
    with path.open("rb") as file:
        return recognise(file.fileno())


def functions(path: Path, name: str) -> tuple[int, ...]:
    with path.open("rb") as file:
        return Elf(file.fileno()).functions(name)


def interpreter(path: Path) -> bytes | None:
    with path.open("rb") as file:
        return Elf(file.fileno()).interpreter()


def by_readelf(path: Path) -> Offsets:
    """The same as `recognise` tells, from the section headers and another program's reading."""

    def lines(*options: str) -> list[list[str]]:
        said = subprocess.run(["readelf", "-W", *options, path], check=True, capture_output=True, text=True)
        return [line.split() for line in said.stdout.splitlines()]

    loads = [[int(word, 16) for word in words[1:5]] for words in lines("-l") if words[:1] == ["LOAD"]]
    found: dict[str, set[int]] = {}
    for words in lines("--dyn-syms"):
        if len(words) >= 8 and words[3] == "FUNC" and words[6] != "UND":
            address = int(words[1], 16)
            offset = next(o + address - start for o, start, _, size in loads if start <= address < start + size)
            found.setdefault(words[7].partition("@")[0], set()).add(offset)
    return {name: tuple(sorted(found[name])) for name in FUNCTIONS if name in found}


Compile = Callable[..., Path]


@pytest.fixture
def compile(tmp_path: Path) -> Compile:  # noqa: A001 - it is what it does
    def compile(source: str, *options: str, versions: str = "") -> Path:  # noqa: A001
        code, script, library = tmp_path / "it.c", tmp_path / "it.map", tmp_path / "it.so"
        code.write_text(source)
        script.write_text(versions)
        if versions:
            options = (*options, f"-Wl,--version-script={script}")
        subprocess.run(["cc", "-shared", "-fPIC", "-nostdlib", "-o", library, code, *options], check=True)
        return library

    return compile


def test_glibc_has_all_five_where_readelf_finds_them() -> None:
    flavour, offsets = recognised(glibc())
    assert flavour == "glibc"
    assert list(offsets) == list(FUNCTIONS)
    assert offsets == by_readelf(glibc())


def test_musl_has_all_five_where_readelf_finds_them() -> None:
    if not MUSL.exists():
        pytest.skip("musl is not installed")
    flavour, offsets = recognised(MUSL)
    assert flavour == "musl"
    assert list(offsets) == list(FUNCTIONS)
    assert offsets == by_readelf(MUSL)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_loader_has_put_each_function_where_its_offset_says(name: str) -> None:
    address = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
    assert address
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, offset, _, _, *path = line.split()
        start, end = (int(word, 16) for word in span.split("-"))
        if start <= address < end:
            assert path == [str(glibc())]
            assert recognised(glibc())[1][name] == (address - start + int(offset, 16),)
            return
    pytest.fail("it is in no mapping")


@pytest.mark.parametrize("style", ["gnu", "sysv", "both"])
@pytest.mark.parametrize("option", ["-Wl,-z,separate-code", "-Wl,-z,noseparate-code", "-Wl,-Ttext=0x7654000"])
def test_a_library_of_either_hash_and_any_layout(compile: Compile, style: str, option: str) -> None:  # noqa: A002
    many = "".join(f"void other_{number}(void) {{}}\n" for number in range(300))
    source = (
        many + "void gnu_get_libc_version(void) {} int getaddrinfo(void) { return 1; } void gethostbyname_r(void) {}"
    )
    library = compile(source, f"-Wl,--hash-style={style}", option)
    flavour, offsets = recognised(library)
    assert flavour == "glibc"
    assert list(offsets) == ["getaddrinfo", "gethostbyname_r"]
    assert offsets == by_readelf(library)


def test_a_library_without_section_headers(compile: Compile) -> None:  # noqa: A002
    library = compile("void __dls3(void) {} void gethostbyname2(void) {}")
    truth = by_readelf(library)
    data = bytearray(library.read_bytes())
    data[40:48], data[58:64] = bytes(8), bytes(6)  # e_shoff; e_shentsize, e_shnum, e_shstrndx
    library.write_bytes(data)
    assert recognised(library) == ("musl", truth)
    assert list(truth) == ["gethostbyname2"]


@pytest.mark.parametrize("style", ["gnu", "sysv"])
def test_all_versions_of_a_function_count(compile: Compile, style: str) -> None:  # noqa: A002
    source = """
        int old(void) { return 1; }  int new(void) { return 2; }
        __asm__(".symver old, getaddrinfo@V_1");
        __asm__(".symver new, getaddrinfo@@V_2");
    """
    library = compile(source, f"-Wl,--hash-style={style}", versions="V_1 { getaddrinfo; }; V_2 { getaddrinfo; } V_1;")
    found = functions(library, "getaddrinfo")
    assert len(found) == 2
    assert found == by_readelf(library)["getaddrinfo"]


@pytest.mark.parametrize(
    ("what", "source"),
    [
        ("used, but not defined", "void getaddrinfo(void); void mine(void) { getaddrinfo(); }"),
        ("no function", "int getaddrinfo = 1;"),
        ("its own, not others'", "static void getaddrinfo(void) {} void mine(void) { getaddrinfo(); }"),
        ("a resolver of it", "static void f(void) {} void *r(void) { return f; }\nint getaddrinfo(void) IFUNC;"),
        ("of a longer name", "void getaddrinfo_a(void) {} void xgetaddrinfo(void) {}"),
    ],
)
def test_what_is_not_the_function(compile: Compile, what: str, source: str) -> None:  # noqa: A002
    library = compile(source, '-DIFUNC=__attribute__((ifunc("r")))', "-O0")
    assert functions(library, "getaddrinfo") == (), what


def test_the_interpreter_is_the_path_that_readelf_shows() -> None:
    said = subprocess.run(["readelf", "-Wl", "/bin/sh"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"interpreter: (.+)]", said)
    assert found
    assert interpreter(Path("/bin/sh").resolve()) == found[1].encode()


def test_a_static_program_has_no_interpreter_and_no_function(tmp_path: Path) -> None:
    program = tmp_path / "it"
    (tmp_path / "it.c").write_text("int _start(void) { for (;;); }")
    subprocess.run(["cc", "-static", "-nostdlib", "-o", program, tmp_path / "it.c"], check=True)
    assert interpreter(program) is None
    with pytest.raises(NotALibc, match="linked statically"):
        recognised(program)


def changed(data: bytes, at: int, layout: str, *values: int) -> bytes:
    copy = bytearray(data)
    struct.pack_into(layout, copy, at, *values)
    return bytes(copy)


def tag_at(data: bytes, wanted: int) -> int:
    """Where in the file the value of an entry of the dynamic section lies."""
    table, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    for number in range(count):
        kind, _, offset, _, _, size, _, _ = struct.unpack_from("<IIQQQQQQ", data, table + 56 * number)
        if kind == 2:
            for at in range(offset, offset + size, 16):
                if struct.unpack_from("<Q", data, at)[0] == wanted:
                    return at + 8
    raise AssertionError(f"no entry {wanted:#x}")


def symbol_at(data: bytes, name: bytes) -> int:
    """Where in glibc its symbol lies; the tables are in the first segment, where addresses are offsets."""
    symbols, strings = (struct.unpack_from("<Q", data, tag_at(data, tag))[0] for tag in (SYMTAB, STRTAB))
    for at in range(symbols, strings, 24):
        text = strings + struct.unpack_from("<I", data, at)[0]
        if data[text : text + len(name) + 1] == name + b"\0":
            return at
    raise AssertionError("no such symbol")


def load_at(data: bytes, number: int) -> int:
    """Where in the file the program header of that segment lies."""
    headers = (64 + 56 * index for index in range(struct.unpack_from("<H", data, 56)[0]))
    return [at for at in headers if struct.unpack_from("<I", data, at)[0] == 1][number]


HASH, STRTAB, SYMTAB, STRSZ, SYMENT, GNU_HASH = 4, 5, 6, 10, 11, 0x6FFFFEF5


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        (lambda data: data[:0], "no 64-bit"),
        (lambda data: data[:63], "no 64-bit"),
        (lambda data: b"\x7fELF\x01" + data[5:], "no 64-bit"),
        (lambda data: changed(data, 5, "B", 2), "no 64-bit"),
        (lambda data: changed(data, 18, "<H", 3), "another machine"),
        (lambda data: changed(data, 16, "<H", 1), "neither a program nor a library"),
        (lambda data: changed(data, 16, "<H", 4), "neither a program nor a library"),
        (lambda data: changed(data, 54, "<H", 0), "program headers cannot be"),
        (lambda data: changed(data, 56, "<H", 0), "program headers cannot be"),
        (lambda data: changed(data, 56, "<H", 0xFFFF), "program headers cannot be"),
        (lambda data: changed(data, 32, "<Q", len(data)), "ends too early"),
        (lambda data: changed(data, 32, "<Q", 2**63 - 1), "what no file can hold"),
        (lambda data: changed(data, 32, "<Q", 2**64 - 1), "what no file can hold"),
        (lambda data: changed(data, tag_at(data, SYMTAB), "<Q", 2**64 - 1), "in none of its segments"),
        (lambda data: changed(data, tag_at(data, STRTAB), "<Q", 1 << 40), "in none of its segments"),
        (lambda data: changed(data, tag_at(data, GNU_HASH), "<Q", 1 << 40), "in none of its segments"),
        (lambda data: changed(data, tag_at(data, STRSZ), "<Q", 1), "outside its strings"),
        (lambda data: changed(data, tag_at(data, SYMENT), "<Q", 0), "symbols cannot be"),
        (lambda data: changed(data, tag_at(data, SYMTAB) - 8, "<Q", 0x7000), "lacks the entry"),
        (lambda data: changed(data, symbol_at(data, b"getaddrinfo") + 8, "<Q", 64), "not executable"),
        (lambda data: changed(data, symbol_at(data, b"getaddrinfo") + 8, "<Q", 1 << 50), "in none of its segments"),
        (lambda data: changed(data, load_at(data, 1) + 16, "<Q", 0), "overlap"),
        (lambda data: data[: len(data) // 2], "ends too early|none of its segments|neither glibc"),
    ],
)
def test_a_libc_that_was_damaged_is_refused_with_a_reason(
    lie: Callable[[bytes], bytes], why: str, tmp_path: Path
) -> None:
    damaged = tmp_path / "libc.so.6"
    damaged.write_bytes(lie(glibc().read_bytes()))
    with pytest.raises(NotALibc, match=why):
        recognised(damaged)


def test_a_function_that_is_only_wanted_of_others_is_none(tmp_path: Path) -> None:
    """A program that takes its address has one with an address of its own, but of no section."""
    data = glibc().read_bytes()
    copy = tmp_path / "libc.so.6"
    copy.write_bytes(changed(data, symbol_at(data, b"getaddrinfo") + 6, "<H", 0))
    assert list(recognised(copy)[1]) == [name for name in FUNCTIONS if name != "getaddrinfo"]


def with_chains(links: list[int]) -> bytes:
    """A library whose DT_HASH has one bucket, and these chains."""
    header, segments = 64, 2 * 56
    dynamic = header + segments
    table = dynamic + 5 * 16
    symbols = table + 4 * (3 + len(links))
    size = symbols + 24 * len(links)
    return b"".join(
        (
            struct.pack("<7s9xHHIQQQIHHH6x", b"\x7fELF\x02\x01\x01", 3, MACHINE, 1, 0, 64, 0, 0, 64, 56, 2),
            struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, size, size, 4096),
            struct.pack("<IIQQQQQQ", 2, 4, dynamic, dynamic, 0, 80, 80, 8),
            struct.pack("<10Q", HASH, table, STRTAB, 0, SYMTAB, symbols, STRSZ, 64, 0, 0),
            struct.pack(f"<{3 + len(links)}I", 1, len(links), 1, *links),
            bytes(24 * len(links)),
        )
    )


@pytest.mark.parametrize(
    ("links", "why"),
    [([0, 1], "go round"), ([0, 2, 1], "go round"), (list(range(1, 5001)), "too long"), ([0, 9999], "in none of its")],
)
def test_a_hash_table_that_goes_round_or_on_and_on(links: list[int], why: str, tmp_path: Path) -> None:
    library = tmp_path / "libc.so"
    library.write_bytes(with_chains(links))
    with pytest.raises(NotALibc, match=why):
        functions(library, "getaddrinfo")


def test_a_hash_table_that_ends_has_no_such_function(tmp_path: Path) -> None:
    """So the lies above are all that is wrong with theirs."""
    library = tmp_path / "libc.so"
    library.write_bytes(with_chains([0, 2, 0]))
    assert functions(library, "getaddrinfo") == ()


@cache
def damageable() -> tuple[bytes, tuple[int, ...]]:
    """glibc's bytes, and where the numbers lie that finding a function goes by."""
    data = glibc().read_bytes()
    tags = [tag_at(data, tag) for tag in (STRTAB, SYMTAB, STRSZ, SYMENT, GNU_HASH)]
    table = struct.unpack_from("<Q", data, tags[-1])[0]  # glibc's first segment begins at 0 in the file too
    places = [*range(0x40, 0x40 + 56 * 14), *range(table, table + 16), *range(16, 64)]
    for tag in tags:
        places += range(tag - 8, tag + 8)
    return data, tuple(places)


@pytest.fixture(scope="module")
def damaged() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pytracecon-"))
    yield folder / "libc.so.6"
    shutil.rmtree(folder)


@given(
    damage=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=12),
    size=st.one_of(st.none(), st.integers(0, 300_000)),
)
@example(damage=[(0, 4)], size=None)
def test_whatever_is_changed_in_a_libc_is_read_in_bounds(
    damage: list[tuple[int, int]], size: int | None, damaged: Path
) -> None:
    """Where nothing that matters was hit, it may still be one. What the kernel counted is the truth."""
    data, places = damageable()
    copy = bytearray(data[:size])
    for place, value in damage:
        at = places[place % len(places)]
        if at < len(copy):
            copy[at] = value
    damaged.write_bytes(copy)
    with damaged.open("rb") as file:
        tracemalloc.start()
        before = reading()
        with suppress(NotALibc):
            recognise(file.fileno())
        after = reading()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert after[1] - before[1] <= MOST_READS + 10
    assert after[0] - before[0] <= 4 * LARGEST_READ + 24 * MOST_READS
    assert most < 1 << 20


def reading() -> tuple[int, int]:
    """Bytes that this process has read, and in how many calls."""
    counters = dict(line.split(": ") for line in Path("/proc/thread-self/io").read_text().splitlines())
    return int(counters["rchar"]), int(counters["syscr"])


def test_a_file_that_shrinks_while_it_is_read_is_no_libc(tmp_path: Path) -> None:
    """A mapped one would have killed us."""
    library = tmp_path / "libc.so.6"
    shutil.copy(glibc(), library)
    with library.open("rb") as file:
        elf = Elf(file.fileno())
        os.truncate(library, 4096)
        with pytest.raises(NotALibc, match="ends too early"):
            elf.functions("getaddrinfo")


def test_a_sparse_gigabyte_is_no_libc(tmp_path: Path) -> None:
    library = tmp_path / "libc.so.6"
    with library.open("wb") as file:
        file.truncate(1 << 30)
    before = reading()
    with pytest.raises(NotALibc, match="no 64-bit"):
        recognised(library)
    assert reading()[0] - before[0] < 8192


def test_a_directory_is_an_error_of_reading(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        Elf(descriptor)
    os.close(descriptor)
