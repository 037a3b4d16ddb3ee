"""The C libraries of containers: roots that are made here, with processes in them.

Truth comes from the files that were put there, and from uprobes that the kernel counts by itself.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import platform
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from pytracecon.libcs import FUNCTIONS, Finder, Libc
from pytracecon.libcs.places import default_places

pytestmark = pytest.mark.slow(reason="which files are libcs is user space's business; test_names_libcs looks into them")

MUSL = Path(f"/lib/ld-musl-{platform.machine()}.so.1")
DEFAULT = os.fsdecode(default_places()[0]).lstrip("/")
HERE = Path(__file__).parents[2]
PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}[platform.machine()]

SOURCE = r"""
#define _GNU_SOURCE
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <unistd.h>

/* Calls what it is told to, with a number for a name: no question is asked. With an argument, it stops in its exec. */
int main(int count, char **words)
{
	char line[64], room[8192];
	struct hostent entry, *host;
	struct addrinfo *list;
	int error;

	if (count > 1) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		execl(words[0], words[0], (char *)0);
		return 1;
	}
	setvbuf(stdout, NULL, _IONBF, 0);
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (!strcmp(line, "getaddrinfo")) {
			if (!getaddrinfo("127.0.0.1", NULL, NULL, &list))
				freeaddrinfo(list);
		} else if (!strcmp(line, "gethostbyname")) {
			gethostbyname("127.0.0.1");
		} else if (!strcmp(line, "gethostbyname2")) {
			gethostbyname2("127.0.0.1", AF_INET);
		} else if (!strcmp(line, "gethostbyname_r")) {
			gethostbyname_r("127.0.0.1", &entry, room, sizeof(room), &host, &error);
		} else if (!strcmp(line, "gethostbyname2_r")) {
			gethostbyname2_r("127.0.0.1", AF_INET, &entry, room, sizeof(room), &host, &error);
		}
		puts("done");
	}
	return 0;
}
"""


class Contained:
    """A process with a root and a mount namespace of its own."""

    def __init__(self, root: Path, *command: str, before: str = "true", own_mounts: bool = True) -> None:
        inside = ["sh", "-c", f'{before} && exec chroot "$@"', "sh", str(root), *command]
        self.process = subprocess.Popen(
            ["unshare", "--mount", *inside] if own_mounts else inside,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    def hears(self, line: str) -> None:
        assert self.process.stdout
        assert self.process.stdout.readline() == f"{line}\n"

    def calls(self, function: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{function}\n")
        self.process.stdin.flush()
        self.hears("done")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


Run = Callable[..., Contained]


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts /program in a root, and waits until it runs."""
    with ExitStack() as stack:

        def run(root: Path, before: str = "true", *, own_mounts: bool = True) -> Contained:
            contained = Contained(root, "/program", before=before, own_mounts=own_mounts)
            stack.callback(contained.close)
            contained.hears("ready")
            return contained

        yield run


@pytest.fixture
def start() -> Iterator[Callable[[Path], Contained]]:
    """Starts /program in a root, and leaves it where its exec is done and its loader has not run."""
    with ExitStack() as stack:

        def start(root: Path) -> Contained:
            contained = Contained(root, "/program", "stopped")
            stack.callback(contained.close)
            _, status = os.waitpid(contained.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            assert os.WSTOPSIG(status) == signal.SIGTRAP
            return contained

        yield start


@cache
def machine_code(compiler: str, *options: str) -> bytes:
    """Compiled once: a guest takes long."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "program")
        subprocess.run([compiler, "-x", "c", "-o", program, "-", *options], input=SOURCE, text=True, check=True)
        return program.read_bytes()


def compiled(program: Path, *options: str, compiler: str = "cc") -> None:
    program.unlink(missing_ok=True)
    program.write_bytes(machine_code(compiler, *options))
    program.chmod(0o755)


def files_of(program: Path) -> dict[str, Path]:
    """Library and loader that a program of this machine uses, by name."""
    said = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    found = [Path(word) for line in said.splitlines() for word in line.split() if word.startswith("/")]
    return {path.name: path for path in found}


@pytest.fixture
def glibc_root(tmp_path: Path) -> Path:
    """As Debian, Fedora or Arch, whichever this machine is like."""
    root = tmp_path / "glibc"
    root.mkdir()
    compiled(root / "program")
    for path in files_of(root / "program").values():
        copy(path, root / str(path).lstrip("/"))
    return root


@pytest.fixture
def musl_root(tmp_path: Path) -> Path:
    """As Alpine."""
    root = tmp_path / "musl"
    (root / "lib").mkdir(parents=True)
    compiled(root / "program", compiler="musl-gcc")
    copy(MUSL, root / "lib" / MUSL.name)
    return root


@pytest.fixture
def store_root(tmp_path: Path) -> Path:
    """As NixOS: nothing in any default place."""
    root, store = tmp_path / "store", Path("/store/0a1-glibc/lib")
    (root / "store").mkdir(parents=True)
    compiled(tmp_path / "program")
    files = files_of(tmp_path / "program")
    loader = next(name for name in files if name.startswith("ld-"))
    compiled(root / "program", f"-Wl,--dynamic-linker={store / loader}", f"-Wl,-rpath={store}")
    for name, path in files.items():
        copy(path, root / str(store / name).lstrip("/"))
    return root


def copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, to)


def library(root: Path) -> Path:
    """The one that was put there."""
    (found,) = [path for path in root.rglob("*") if path.name in ("libc.so.6", MUSL.name)]
    return found


@pytest.fixture
def told() -> Iterator[Callable[[list[Libc]], dict[int, Libc]]]:
    """Those of the libraries told that lie below the folder of this test, by inode; all are closed at the end."""
    with ExitStack() as stack:

        def told(libcs: list[Libc]) -> dict[int, Libc]:
            for libc in libcs:
                stack.enter_context(libc)
            return {libc.inode: libc for libc in libcs}

        yield told


Told = Callable[[list[Libc]], dict[int, Libc]]


@pytest.fixture
def finder() -> Finder:
    return Finder(patience=60)


@pytest.fixture
def hits() -> Iterator[Callable[[Libc, str, int], Callable[[], int]]]:
    """Counts how often a process comes by a function: a uprobe of the kernel's own, without any program."""
    with ExitStack() as stack:

        def hits(libc: Libc, function: str, pid: int) -> Callable[[], int]:
            (offset,) = libc.offsets[function]
            kind = int(Path("/sys/bus/event_source/devices/uprobe/type").read_text())
            path = ctypes.create_string_buffer(libc.attach_path.encode())
            attr = struct.pack("=II6QQQ", kind, 72, 0, 0, 0, 0, 0, 0, ctypes.addressof(path), offset)
            call = ctypes.CDLL(None, use_errno=True).syscall
            descriptor = call(PERF_EVENT_OPEN, attr, pid, -1, -1, ctypes.c_ulong(8))
            assert descriptor >= 0, os.strerror(ctypes.get_errno())
            stack.callback(os.close, descriptor)
            return lambda: int.from_bytes(os.read(descriptor, 8), sys.byteorder)

        yield hits


Hits = Callable[[Libc, str, int], Callable[[], int]]

ROOTS = pytest.mark.parametrize("made", ["glibc_root", "musl_root", "store_root"])


@pytest.fixture
def root(made: str, request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(made)
    return found


@ROOTS
@pytest.mark.parametrize("own_mounts", [True, False], ids=["container", "chroot"])
def test_the_library_of_a_container_is_found_by_its_process(
    root: Path, made: str, finder: Finder, run: Run, told: Told, own_mounts: bool
) -> None:
    inode = library(root).stat().st_ino
    contained = run(root, own_mounts=own_mounts)
    libc = told(finder.of_this_host())[inode]
    inside = str(library(root).relative_to(root))
    assert libc.path_shown in (f"/proc/{contained.pid}/root/{inside}", str(library(root)))
    assert libc.flavour == made.replace("store", "glibc").removesuffix("_root")
    assert Path(libc.attach_path).read_bytes() == library(root).read_bytes()
    assert not told(finder.of_this_host())
    assert not told(finder.mapped_by(contained.pid))


@ROOTS
def test_the_library_of_a_program_is_known_before_its_loader_has_mapped_it(
    root: Path, made: str, finder: Finder, start: Callable[[Path], Contained], told: Told
) -> None:
    inode = library(root).stat().st_ino
    contained = start(root)
    assert "libc.so.6" not in Path(f"/proc/{contained.pid}/maps").read_text()
    libc = told(finder.of_program(contained.pid))[inode]
    assert libc.path_shown == f"/proc/{contained.pid}/root/{library(root).relative_to(root)}"
    assert not told(finder.of_program(contained.pid)), made


@ROOTS
def test_a_uprobe_at_each_offset_is_hit_once_by_each_call(
    root: Path, made: str, finder: Finder, run: Run, told: Told, hits: Hits
) -> None:
    """One function may go through another, which is hit too."""
    contained = run(root)
    (libc,) = told(finder.mapped_by(contained.pid)).values()
    assert list(libc.offsets) == list(FUNCTIONS), made
    for function in FUNCTIONS:
        count = hits(libc, function, contained.pid)
        contained.calls(function)
        contained.calls(function)
        assert count() == 2, function


def test_a_library_that_was_replaced_is_told_beside_the_one_that_still_runs(
    glibc_root: Path, finder: Finder, run: Run, told: Told, hits: Hits
) -> None:
    path = library(glibc_root)
    old, old_inode = run(glibc_root), path.stat().st_ino
    replace(path)
    new, new_inode = run(glibc_root), path.stat().st_ino
    found = told(finder.of_this_host())
    assert {old_inode, new_inode} <= found.keys()
    counts = {
        (inode, contained): hits(found[inode], "getaddrinfo", contained.pid)
        for inode in (old_inode, new_inode)
        for contained in (old, new)
    }
    old.calls("getaddrinfo")
    new.calls("getaddrinfo")
    assert {key: count() for key, count in counts.items()} == {
        (old_inode, old): 1,
        (old_inode, new): 0,
        (new_inode, old): 0,
        (new_inode, new): 1,
    }


def test_a_library_that_is_replaced_later_is_noticed_when_the_next_program_starts(
    glibc_root: Path, finder: Finder, run: Run, start: Callable[[Path], Contained], told: Told
) -> None:
    run(glibc_root)
    told(finder.of_this_host())
    replace(library(glibc_root))
    assert list(told(finder.of_program(start(glibc_root).pid))) == [library(glibc_root).stat().st_ino]


def replace(path: Path) -> None:
    """As a package manager does."""
    new = path.with_name("new")
    shutil.copy(path, new)
    new.rename(path)


def test_containers_of_one_image_have_one_library(
    glibc_root: Path, tmp_path: Path, finder: Finder, run: Run, told: Told, hits: Hits
) -> None:
    """overlayfs has an inode of its own for each; the kernel's is that of the layer, and a uprobe there serves all."""
    (tmp_path / "empty").mkdir()
    contained = []
    for name in ("one", "two"):
        top = tmp_path / name
        top.mkdir()
        mount = f"mount -t overlay -o lowerdir={tmp_path / 'empty'}:{glibc_root} none {top}"
        contained.append(run(top, mount))
    found = told(finder.of_this_host())
    stacked = [libc for libc in found.values() if str(contained[0].pid) in libc.path_shown]
    assert len(stacked) == 1
    assert str(contained[1].pid) not in str([libc.path_shown for libc in found.values()])
    counts = [hits(stacked[0], "getaddrinfo", each.pid) for each in contained]
    for each in contained:
        each.calls("getaddrinfo")
    assert [count() for count in counts] == [1, 1]
    direct = run(glibc_root)
    assert not told(finder.mapped_by(direct.pid)), "and it is the layer's own"
    assert not told(finder.of_program(direct.pid))


def test_the_library_of_a_container_that_is_gone_is_unused(
    glibc_root: Path, finder: Finder, run: Run, told: Told
) -> None:
    contained, other = run(glibc_root), run(glibc_root)
    found = told(finder.of_this_host())
    libc = found[library(glibc_root).stat().st_ino]
    contained.close()
    assert finder.unused() == []
    other.close()
    assert finder.unused() == [(libc.device, libc.inode)]
    assert told(finder.of_program(run(glibc_root).pid)), "and is told again when it is used again"


@pytest.mark.parametrize("own_mounts", [True, False], ids=["container", "chroot"])
def test_a_library_that_no_process_uses_yet_is_found_in_its_root(
    glibc_root: Path, tmp_path: Path, finder: Finder, told: Told, own_mounts: bool
) -> None:
    root = tmp_path / "static"
    copy(library(glibc_root), root / DEFAULT)
    contained = contained_by(root, own_mounts=own_mounts)
    try:
        libc = told(finder.of_this_host())[(root / DEFAULT).stat().st_ino]
    finally:
        contained.close()
    assert libc.path_shown == f"/proc/{contained.pid}/root/{DEFAULT}"


def test_a_search_in_many_steps_finds_the_same(glibc_root: Path, musl_root: Path, run: Run, told: Told) -> None:
    run(glibc_root)
    run(musl_root)
    finder = Finder(patience=0)
    found = told(finder.of_this_host())
    while finder.unfinished:
        found |= told(finder.of_this_host())
    assert {library(root).stat().st_ino for root in (glibc_root, musl_root)} <= found.keys()


def test_a_new_program_in_a_known_container_is_looked_at(
    glibc_root: Path, musl_root: Path, finder: Finder, run: Run, told: Told
) -> None:
    run(glibc_root)
    told(finder.of_this_host())
    copy(library(musl_root), glibc_root / "opt" / "libc.so")
    compiled(glibc_root / "program", "-Wl,--dynamic-linker=/opt/libc.so", compiler="musl-gcc")
    contained = run(glibc_root)
    assert [libc.flavour for libc in told(finder.of_program(contained.pid)).values()] == ["musl"]


def contained_by(root: Path, before: str = "true", *, own_mounts: bool = True) -> Contained:
    """A process that needs nothing in its root."""
    busybox = shutil.which("busybox")
    assert busybox
    copy(Path(busybox), root / "busybox")
    contained = Contained(root, "/busybox", "sh", "-c", "echo ready; read line", before=before, own_mounts=own_mounts)
    contained.hears("ready")
    return contained


# What may lie where a library should, and what is said of it.


def fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def device(path: Path, _: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero has no end


def directory(path: Path, _: Path) -> None:
    path.mkdir()


def loop(path: Path, _: Path) -> None:
    path.symlink_to(path.name)


def sparse(path: Path, _: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 30)


def through_proc(path: Path, libc: Path) -> None:
    path.symlink_to(f"/proc/self/root{libc}")


def half(path: Path, libc: Path) -> None:
    path.write_bytes(libc.read_bytes()[:100_000])


def absolute(path: Path, libc: Path) -> None:
    path.symlink_to(libc)


def relative(path: Path, libc: Path) -> None:
    path.symlink_to("../" * 64 + str(libc).lstrip("/"))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (fifo, "no regular file"),
        (device, "no regular file"),
        (directory, "no regular file"),
        (loop, "Too many levels of symbolic links"),
        (sparse, "no 64-bit little-endian ELF file"),
        (through_proc, "Too many levels of symbolic links"),
        (half, "ends too early"),
        (absolute, None),  # in that root, there is no such file
        (relative, None),
    ],
)
def test_what_lies_in_a_container_does_no_harm(
    make: Callable[[Path, Path], None],
    why: str | None,
    glibc_root: Path,
    tmp_path: Path,
    finder: Finder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = tmp_path / "hostile"
    (root / "proc").mkdir(parents=True)
    (root / DEFAULT).parent.mkdir(parents=True)
    make(root / DEFAULT, library(glibc_root))
    contained = contained_by(root, f"mount --bind /proc {root}/proc")
    try:
        before = os.listdir("/proc/self/fd")
        with caplog.at_level(logging.WARNING, "pytracecon.libcs"):
            for _ in range(2):
                assert finder.of_program(contained.pid) == []
        assert os.listdir("/proc/self/fd") == before
    finally:
        contained.close()
    assert finder.refused == (why is not None)
    assert len(caplog.messages) == finder.refused
    assert all((why or "") in message for message in caplog.messages)
    assert all(message.startswith(f"/proc/{contained.pid}/root/{DEFAULT}: ") for message in caplog.messages)


def test_a_file_system_that_does_not_answer_keeps_nobody_waiting(
    tmp_path: Path, finder: Finder, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """Only root can make such a one. Its /dev/fuse stays open in the contained process, which does not read it."""
    root = tmp_path / "silent"
    (root / "lib").mkdir(parents=True)
    mount = f"exec 9<>/dev/fuse && mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 none {root}/lib"
    contained = contained_by(root, mount)
    try:
        assert told(finder.of_this_host())
        assert finder.of_program(contained.pid) == []
    finally:
        contained.close()
    (said,) = [message for message in caplog.messages if str(contained.pid) in message]
    assert "FUSE" in said


HOLD = """
import fcntl, signal, sys, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = open(sys.argv[1], "r+")
while True:
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        break
    except BlockingIOError:  # another tracer of this machine looks at it just now
        time.sleep(0.01)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_file_that_somebody_holds_a_lease_of_is_found_later(
    glibc_root: Path, tmp_path: Path, finder: Finder, told: Told
) -> None:
    """To open it as others do would wait for that one, up to 45 s."""
    root = tmp_path / "leased"
    copy(library(glibc_root), root / DEFAULT)
    contained = contained_by(root)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, root / DEFAULT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert finder.of_program(contained.pid) == []
        assert finder.refused == 1
        holder.communicate()
        assert list(told(finder.of_program(contained.pid))) == [(root / DEFAULT).stat().st_ino]
    finally:
        holder.kill()
        holder.communicate()
        contained.close()


FIND = """
import json, logging, sys
from pytracecon.libcs import Finder
logging.basicConfig(format="%(message)s")
finder = Finder(patience=60)
found = finder.of_this_host() if sys.argv[1] == "all" else finder.mapped_by(int(sys.argv[1]))
print(json.dumps({"inodes": [libc.inode for libc in found], "hidden": finder.hidden, "refused": finder.refused}))
"""


def found_without(capabilities: str, what: str) -> tuple[dict[str, object], str]:
    """What a process that lacks these finds, and what it logs."""
    command = ["setpriv", f"--bounding-set={capabilities}", sys.executable, "-c", FIND, what]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE)
    return json.loads(done.stdout), done.stderr


NO_MAP_FILES = "-sys_admin,-checkpoint_restore"


def test_without_the_capability_for_it_a_mapped_library_is_found_by_its_path(glibc_root: Path, run: Run) -> None:
    found, _ = found_without(NO_MAP_FILES, str(run(glibc_root).pid))
    assert found == {"inodes": [library(glibc_root).stat().st_ino], "hidden": 0, "refused": 0}


def test_without_the_capability_for_it_one_that_was_replaced_is_said_to_be_missed(glibc_root: Path, run: Run) -> None:
    contained = run(glibc_root)
    replace(library(glibc_root))
    found, said = found_without(NO_MAP_FILES, str(contained.pid))
    assert found == {"inodes": [], "hidden": 0, "refused": 1}
    assert "CAP_CHECKPOINT_RESTORE" in said


def test_processes_that_may_not_be_looked_at_are_counted_and_told_once(glibc_root: Path, run: Run) -> None:
    run(glibc_root)
    found, said = found_without("-sys_ptrace", "all")
    assert isinstance(found["hidden"], int)
    assert found["hidden"] > 1
    assert isinstance(found["inodes"], list)
    assert Path(os.fsdecode(default_places()[0])).stat().st_ino in found["inodes"], "our own root is open to all"
    assert len(said.splitlines()) == 1
    assert "CAP_SYS_PTRACE" in said
