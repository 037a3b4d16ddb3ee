"""What pytracecon knows of libbpf is true of every libbpf there is, and a library that will not do is refused by name.

PYTRACECON_LIBBPFS holds more libraries to test than the system's own, with colons in between: scripts/fetch_libbpf.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pytracecon import _libbpf, _libbpf_api
from pytracecon._libbpf import Btf, Libbpf, Message
from pytracecon._libbpf_api import Prototype
from pytracecon.errors import MissingBTF, MissingLibbpf, TracerClosed

SYSTEM = "libbpf.so.1"
LIBRARIES = [SYSTEM, *filter(None, os.environ.get("PYTRACECON_LIBBPFS", "").split(":"))]
STRUCTURES: dict[type[ctypes.Structure], str] = {
    _libbpf_api.OpenOpts: "bpf_object_open_opts",
    _libbpf_api.UprobeOpts: "bpf_uprobe_opts",
    _libbpf_api.UprobeMultiOpts: "bpf_uprobe_multi_opts",
    _libbpf_api.IterAttachOpts: "bpf_iter_attach_opts",
    _libbpf_api.ProgLoadOpts: "bpf_prog_load_opts",
    _libbpf_api.ProgInfo: "bpf_prog_info",
}
SINCE: dict[type[ctypes.Structure], int] = {
    _libbpf_api.UprobeMultiOpts: 3
}  # the minor version of libbpf whose headers have it


@pytest.fixture(scope="module")
def lib() -> Libbpf:
    return _libbpf.open_library()


def compiled(folder: Path, name: str, source: str) -> Path:
    """A shared library made from C."""
    library = folder / name
    command: list[str | Path] = [shutil.which("cc") or "clang", "-shared", "-fPIC", "-xc", "-", "-o", library]
    subprocess.run(command, input=source, text=True, check=True)
    return library


def symbols(path: str) -> tuple[tuple[int, int], set[str]]:
    """The version and functions of a library, from its symbol table: where it cannot be loaded for want of a libc."""
    listed = subprocess.run(["nm", "-D", "--defined-only", path], check=True, capture_output=True, text=True).stdout
    found = re.findall(r" (?:T|A) (\w+)(?:@@?LIBBPF_([\d.]+))?", listed)
    version = max(tuple(map(int, release.split(".")[:2])) for _, release in found if release)
    return (version[0], version[1]), {name for name, _ in found}


@pytest.mark.parametrize("path", LIBRARIES)
@pytest.mark.parametrize("prototype", _libbpf_api.PROTOTYPES, ids=lambda prototype: prototype.name)
def test_every_prototype_is_there_from_the_version_that_it_names(path: str, prototype: Prototype) -> None:
    try:
        library = _libbpf.open_library(None if path == SYSTEM else path)
        version, there = library.version, library.has(prototype.name)
    except MissingLibbpf as error:
        if "GLIBC" not in str(error):
            raise
        version, functions = symbols(path)
        there = prototype.name in functions
    assert there == (version >= prototype.since)


@pytest.mark.parametrize("structure", STRUCTURES, ids=STRUCTURES.get)
def test_every_structure_lies_as_in_the_c_headers(structure: type[ctypes.Structure], tmp_path: Path) -> None:
    if not Path("/usr/include/bpf/libbpf.h").exists():
        pytest.skip("no libbpf headers")
    headers = "#include <stddef.h>\n#include <stdio.h>\n#include <bpf/bpf.h>\n#include <bpf/libbpf.h>\n"
    version = Path("/usr/include/bpf/libbpf_version.h").read_text()
    minor = re.search(r"LIBBPF_MINOR_VERSION (\d+)", version)
    assert minor is not None
    if int(minor[1]) < SINCE.get(structure, 1):
        pytest.skip(f"libbpf headers older than 1.{SINCE[structure]}")
    names = [str(field[0]) for field in structure._fields_ if not field[0].startswith("_")]  # _: a bit field of C's
    prints = "".join(f'printf("%zu %zu\\n", offsetof(T, {name}), sizeof(((T *)0)->{name}));' for name in names)
    program = tmp_path / "offsets"
    source = f"{headers} typedef struct {STRUCTURES[structure]} T; int main(void) {{ {prints} return 0; }}"
    command: list[str | Path] = [shutil.which("cc") or "clang", "-xc", "-", "-o", program]
    subprocess.run(command, input=source, text=True, check=True)
    in_c = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split("\n")
    for name, line in zip(names, in_c, strict=False):
        field = getattr(structure, name)
        assert (name, line) == (name, f"{field.offset} {field.size}")


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own, which has loaded nothing yet."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_importing_loads_no_library_and_libbpf_prints_nothing_on_standard_error() -> None:
    done = run("""
        import pytracecon._libbpf as b
        assert "libbpf.so" not in open("/proc/self/maps").read()
        try:
            b.open_library().open_object(b"no ELF")
        except OSError:
            print("refused")
    """)
    assert (done.stdout, done.stderr) == ("refused\n", "")


# Finding libbpf.


def test_a_library_is_opened_once_by_whatever_name() -> None:
    script = """
        import pytracecon._libbpf as b
        lib = b.open_library()
        path = next(word for word in open("/proc/self/maps").read().split() if "/libbpf.so.1" in word)
        assert b.open_library(path) is lib is b.open_library()
        print("once")
    """
    assert run(script).stdout == "once\n"


def test_a_path_that_is_no_libbpf_is_refused_with_cause_and_remedy(tmp_path: Path) -> None:
    text, fifo, other = tmp_path / "text", tmp_path / "fifo", compiled(tmp_path, "other.so", "int x;")
    text.write_text("no library\n")
    os.mkfifo(fifo)
    causes = {
        tmp_path / "absent": "No such file or directory",
        tmp_path: "not a regular file",
        fifo: "not a regular file",
        text: "file too short",
        other: "no libbpf",
    }
    for path, cause in causes.items():
        with pytest.raises(MissingLibbpf) as refused:
            _libbpf.open_library(str(path))
        message = str(refused.value)
        assert message.count(str(path)) == 1
        assert cause in message
        assert "install libbpf 1.1" in message
        assert "\n" not in message


def test_a_bare_file_name_is_a_file_of_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingLibbpf, match="No such file"):
        _libbpf.open_library(SYSTEM)
    compiled(tmp_path, SYSTEM, "int x;")
    with pytest.raises(MissingLibbpf, match="is a shared library but no libbpf"):
        _libbpf.open_library(SYSTEM)


OLD = "int bpf_object__load(void *object) { return 0; }"  # as much of 0.3 as tells it from another library
VERSION_1_0 = OLD + "int libbpf_major_version(void) { return 1; } int libbpf_minor_version(void) { return 0; }"


@pytest.mark.parametrize(("source", "version"), [(OLD, "0.x"), (VERSION_1_0, "1.0")])
def test_an_older_libbpf_is_refused_with_its_version(source: str, version: str, tmp_path: Path) -> None:
    library = compiled(tmp_path, "libbpf.so.0.3.0", source)
    with pytest.raises(MissingLibbpf, match=f"is libbpf {re.escape(version)}, 1.1 is needed: install"):
        _libbpf.open_library(str(library))


@pytest.mark.parametrize(
    ("libraries", "said"),
    [
        ([], "libbpf is missing (libbpf.so.1: file too short): install libbpf 1.1"),
        (["libbpf.so.0"], "libbpf.so.0 is libbpf 0.x, 1.1 is needed: install libbpf 1.1"),
    ],
)
def test_without_libbpf_1_an_installed_0_is_named(libraries: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / SYSTEM).touch()  # the loader finds it first, and can do nothing with it
    for name in libraries:
        compiled(tmp_path, name, OLD)
    script = """
        import pytracecon._libbpf as b
        from pytracecon.errors import MissingLibbpf
        try:
            b.open_library()
        except MissingLibbpf as error:
            print(error)
    """
    assert run(script, LD_LIBRARY_PATH=str(tmp_path)).stdout.replace(f"{tmp_path}/", "").startswith(said)


# Errors and messages.


def test_a_failed_call_is_an_oserror_with_the_functions_name(lib: Libbpf) -> None:
    with pytest.raises(OSError, match="bpf_object__open_mem: ") as failed:
        lib.open_object(b"no ELF")
    assert failed.value.errno is not None
    with pytest.raises(OSError, match="bpf_map_delete_elem: Bad file descriptor") as failed:
        lib.call("bpf_map_delete_elem", -1, b"key")
    assert failed.value.errno == errno.EBADF


def test_an_error_number_has_a_text_whoever_made_it_up(lib: Libbpf) -> None:
    assert lib.strerror(errno.ENOENT) == "No such file or directory"
    assert lib.strerror(524) == "Operation not supported (ENOTSUPP)"
    assert "libelf" in lib.strerror(4000).lower()


def test_what_libbpf_says_is_logged_with_its_arguments_and_kept(lib: Libbpf, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pytracecon.libbpf")
    with pytest.raises(OSError, match="open_mem"):
        lib.open_object(b"no ELF", name="of_mine")
    records = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert (logging.DEBUG, "loading object 'of_mine' from buffer") in records
    assert any(level == logging.WARNING and "of_mine" in text for level, text in records)
    assert [tuple(message) for message in lib.said] == records
    assert list(lib.messages)[-len(records) :] == list(lib.said)


def test_debug_messages_cost_nothing_unless_wanted(lib: Libbpf, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pytracecon.libbpf")
    with pytest.raises(OSError, match="open_mem"):
        lib.open_object(b"no ELF")
    assert lib.said
    assert all(message.level > logging.DEBUG for message in lib.said)


def test_an_interrupt_while_libbpf_talks_comes_out_of_the_call(lib: Libbpf, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(list[Message]):
        def append(self, _message: Message) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(lib, "messages", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        lib.open_object(b"no ELF")
    monkeypatch.undo()
    assert lib.num_possible_cpus() > 0


# BTF.


@pytest.fixture
def kernel_btf(lib: Libbpf) -> Btf:
    if not Path(_libbpf.KERNEL_BTF).exists():
        pytest.skip("the kernel has no BTF")
    return lib.vmlinux_btf()


def test_the_kernels_btf_knows_types_by_name_until_it_is_closed(kernel_btf: Btf) -> None:
    with kernel_btf:
        assert kernel_btf.find("task_struct", 4)
        assert kernel_btf.find("tcp_v4_connect", 12)
        assert kernel_btf.find("task_struct", 12) is None
        assert kernel_btf.raw() == Path(_libbpf.KERNEL_BTF).read_bytes()
    kernel_btf.close()
    with pytest.raises(TracerClosed, match="closed"):
        kernel_btf.find("task_struct", 4)


def test_a_file_without_btf_is_refused_by_name(lib: Libbpf, tmp_path: Path) -> None:
    text, fifo, elf = tmp_path / "text", tmp_path / "fifo", compiled(tmp_path, "elf.so", "int x;")
    text.write_text("no BTF, though it is long enough for a header\n")
    os.mkfifo(fifo)
    for path in (tmp_path / "absent", tmp_path, text, fifo, elf):
        for refusing in (lib.parse_btf, lambda path: lib.open_object(b"never looked at", btf=path)):
            with pytest.raises(MissingBTF) as refused:
                refusing(str(path))
            assert re.fullmatch(
                rf"{re.escape(str(path))} is no BTF file \(.+\): give one of this .+", str(refused.value)
            )
