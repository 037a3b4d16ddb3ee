"""A BPF object does through libbpf what it says, and what the kernel refuses is told by cause and remedy.

PYTRACECON_LIBBPFS holds more libraries to test than the system's own, with colons in between: scripts/fetch_libbpf.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytracecon import _libbpf
from pytracecon._libbpf import Libbpf, Link, Object
from pytracecon.errors import (
    MissingBTF,
    MissingLibbpf,
    PytraceconError,
    TracerClosed,
    UnsupportedKernel,
    VerifierRejected,
)
from pytracecon.privileges import CAPABILITIES
from traffic.leftovers import await_gone, bpf_ids_of

PROGRAMS = r"""
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} table SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} each_cpu SEC(".maps");

const volatile __u32 traced = 1;
__u64 hits;

static int count(void)
{
	if (bpf_get_current_pid_tgid() >> 32 == traced)
		__sync_fetch_and_add(&hits, 1);
	return 0;
}

SEC("raw_tp/sys_enter") int counts(void *ctx) { return count(); }
SEC("raw_tp/sys_enter") int strays(void *ctx) { return *(int *)(traced * 0x100000000UL); }
SEC("kprobe/tcp_v4_connect") int connects(void *ctx) { return count(); }
SEC("uprobe") int probes(void *ctx) { return count(); }
SEC("uprobe.multi") int probes_many(void *ctx) { return count(); }
SEC("perf_event") int samples(void *ctx) { return count(); }
SEC("cgroup_skb/egress") int passes(void *ctx) { return 1; }
SEC("sockops") int listens(void *ctx) { return count(); }
SEC("tp_btf/sys_enter") int typed(void *ctx) { return count(); }
SEC("tp_btf/no_such_tracepoint") int nowhere(void *ctx) { return count(); }

#define FROM_BTF __attribute__((preserve_access_index))
struct seq_file;
struct task_struct { int tgid; } FROM_BTF;
struct bpf_iter_meta { struct seq_file *seq; } FROM_BTF;
struct bpf_iter__task { struct bpf_iter_meta *meta; struct task_struct *task; } FROM_BTF;

SEC("iter/task") int lists(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	int tgid;

	if (!task)
		return 0;
	tgid = task->tgid;
	bpf_seq_write(ctx->meta->seq, &tgid, sizeof(tgid));
	return 0;
}

char gpl[] SEC("license") = "GPL";
"""
LIBC = next(word for word in Path("/proc/self/maps").read_text().split() if "/libc.so.6" in word or "/libc-2." in word)
BPF_HASH_NOEXIST = 1
NOBODY = 65534


def loadable(path: str) -> bool:
    """Whether this machine's libc can load it: a newer Debian's library may want a newer one."""
    try:
        _libbpf.open_library(path)
    except MissingLibbpf as error:
        if "GLIBC" in str(error):
            return False
        raise
    return True


_libbpf.open_library()  # first: afterwards the loader would take another one for the system's
OTHERS = [path for path in os.environ.get("PYTRACECON_LIBBPFS", "").split(":") if path and loadable(path)]


@pytest.fixture(scope="module", params=[None, *OTHERS], ids=lambda path: path or "system")
def lib(request: pytest.FixtureRequest) -> Libbpf:
    return _libbpf.open_library(request.param)


def compiled(source: str, path: Path) -> Path:
    include = f"-I/usr/include/{platform.machine()}-linux-gnu"
    command = ["clang", "-O2", "-g", "-target", "bpf", include, "-xc", "-", "-c", "-o", str(path)]
    subprocess.run(command, input=source, text=True, check=True)
    return path


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compiled(PROGRAMS, tmp_path_factory.mktemp("libbpf") / "programs.o").read_bytes()


Opener = Callable[..., Object]


@pytest.fixture
def opened(lib: Libbpf, image: bytes) -> Iterator[Opener]:
    """Opens the object, with the named programs to be loaded, which count what this process does."""
    with ExitStack() as stack:

        def open_(*names: str, btf: str | None = None) -> Object:
            opened = stack.enter_context(lib.open_object(image, btf=btf))
            for name, program in opened.programs.items():
                program.autoload = name in names
            opened.maps[".rodata"].initial_value = os.getpid().to_bytes(4, sys.byteorder)
            return opened

        yield open_


def loaded(opened: Object) -> Object:
    opened.load()
    return opened


def hits(of: Object) -> int:
    value = of.maps[".bss"].lookup(bytes(4))
    assert value is not None
    return int.from_bytes(value[:8], sys.byteorder)


def more_hits(of: Object, act: Callable[[], object]) -> int:
    """How many more times the program ran for it, its own lookups included."""
    before = hits(of)
    act()
    return hits(of) - before


def kernel() -> tuple[int, ...]:
    return tuple(map(int, platform.release().split(".")[:2]))


def in_child(action: Callable[[], object]) -> str:
    """What it returned or raised, run in a forked child: privileges can be given up there."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told = str(action())
        except BaseException as error:  # noqa: BLE001 - the parent's test judges it
            told = f"{type(error).__name__} {getattr(error, 'program', '')}: {error}"
        os.write(writing, told.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as told_by_child:
        told = told_by_child.read()
    assert os.waitpid(child, 0)[1] == 0
    return told


def refusal(attempt: Callable[[], object], kind: type[PytraceconError]) -> PytraceconError:
    """The error, which must be one line."""
    with pytest.raises(kind) as refused:
        attempt()
    assert "\n" not in str(refused.value)
    return refused.value


# What an object does.


def test_the_maps_and_programs_of_an_object_are_known_by_name(opened: Opener) -> None:
    an_object = opened("counts")
    assert set(an_object.maps) == {"table", "each_cpu", ".rodata", ".bss"}
    assert an_object.programs["counts"].section == "raw_tp/sys_enter"
    assert {name for name, program in an_object.programs.items() if program.autoload} == {"counts"}
    an_object.load()
    assert an_object.programs["counts"].info().name == b"counts"
    with pytest.raises(FileNotFoundError):
        _ = an_object.programs["strays"].fd


def test_a_link_attaches_until_it_is_closed(opened: Opener) -> None:
    with loaded(opened("counts")) as an_object:
        assert more_hits(an_object, os.getppid) == 0
        with an_object.programs["counts"].attach() as link:
            assert link.fd >= 0
            assert more_hits(an_object, os.getppid) > 0
        assert more_hits(an_object, os.getppid) == 0
        link.close()
        with pytest.raises(TracerClosed, match="link is closed"):
            _ = link.fd


def uprobe(of: Object) -> Link:
    return of.programs["probes"].attach_uprobe(LIBC, function="getppid", pid=0)


ATTACHED: dict[str, Callable[[Object], Link]] = {
    "counts": lambda of: of.programs["counts"].attach_raw_tracepoint("sys_enter"),
    "typed": lambda of: of.programs["typed"].attach_trace(),
    "probes": uprobe,
}


@pytest.mark.parametrize("name", ATTACHED)
def test_each_way_to_attach_counts_until_the_object_is_closed(name: str, opened: Opener) -> None:
    an_object = loaded(opened(name))
    link = ATTACHED[name](an_object)
    assert more_hits(an_object, os.getppid) > 0
    an_object.close()
    assert link.closed


def offset_in_libc(function: str) -> int:
    listed = subprocess.run(["readelf", "-W", "--dyn-syms", LIBC], check=True, capture_output=True, text=True).stdout
    return next(int(line.split()[1], 16) for line in listed.splitlines() if f" {function}@@" in line)


def test_a_uretprobe_at_an_offset_counts_once_for_each_call(opened: Opener) -> None:
    an_object = loaded(opened("probes"))
    an_object.programs["probes"].attach_uprobe(LIBC, offset=offset_in_libc("getppid"), retprobe=True)
    assert more_hits(an_object, lambda: [os.getppid() for _ in range(7)]) == 7


def test_one_link_probes_many_functions_where_libbpf_and_kernel_can(opened: Opener, lib: Libbpf) -> None:
    offsets = [offset_in_libc("getppid"), offset_in_libc("getuid")]
    if not lib.has("bpf_program__attach_uprobe_multi"):
        program = loaded(opened("probes")).programs["probes"]
        error = refusal(lambda: program.attach_uprobe_multi(LIBC, offsets), UnsupportedKernel)
        assert "needs libbpf 1.3, this is 1." in str(error)
        return
    an_object = opened("probes_many")

    def load_and_attach() -> Link:
        an_object.load()
        return an_object.programs["probes_many"].attach_uprobe_multi(LIBC, offsets)

    if kernel() < (6, 6):  # Linux 89ae89f53d20 (v6.6) brought the link
        refusal(load_and_attach, UnsupportedKernel)
        return
    link = load_and_attach()
    assert more_hits(an_object, lambda: (os.getppid(), os.getuid(), os.getgid())) == 2
    link.close()
    assert more_hits(an_object, lambda: (os.getppid(), os.getuid(), os.getgid())) == 0


def page_faults(of: Object) -> Link:
    attributes = (ctypes.c_uint64 * 16)(1 | 128 << 32, 2, 1)  # PERF_TYPE_SOFTWARE, size; PAGE_FAULTS; each of them
    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 298, "aarch64": 241}[platform.machine()]
    event = libc.syscall(number, ctypes.byref(attributes), os.getpid(), -1, -1, 8)
    assert event >= 0, os.strerror(ctypes.get_errno())
    return of.programs["samples"].attach_perf_event(event)


def touch_new_pages() -> None:
    with mmap.mmap(-1, 64 * mmap.PAGESIZE) as fresh:
        for page in range(64):
            fresh[page * mmap.PAGESIZE] = 1


def test_a_perf_event_runs_its_program(opened: Opener) -> None:
    an_object = loaded(opened("samples"))
    with page_faults(an_object):
        assert more_hits(an_object, touch_new_pages) >= 1
    assert more_hits(an_object, touch_new_pages) == 0


def test_a_cgroup_program_attaches_to_the_root_cgroup(opened: Opener) -> None:
    an_object = loaded(opened("passes"))
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    root = os.open(next(place for _, place, kind, *_ in mounts if kind == "cgroup2"), os.O_RDONLY | os.O_DIRECTORY)
    try:
        with an_object.programs["passes"].attach_cgroup(root) as link:
            assert link.fd >= 0
    finally:
        os.close(root)


def test_an_iterator_goes_over_every_task(opened: Opener) -> None:
    an_object = loaded(opened("lists"))
    link = an_object.programs["lists"].attach_iter()
    for _ in range(2):
        with os.fdopen(link.iter_create(), "rb") as iterated:
            raw = iterated.read()
        tasks = {int.from_bytes(raw[at : at + 4], sys.byteorder) for at in range(0, len(raw), 4)}
        assert {os.getpid(), os.getppid()} <= tasks


def test_a_kprobe_attaches_or_its_absence_is_told(opened: Opener) -> None:
    an_object = loaded(opened("connects"))
    program = an_object.programs["connects"]
    if Path("/sys/bus/event_source/devices/kprobe").exists():
        program.attach_kprobe("tcp_v4_connect", retprobe=True).close()
        with pytest.raises(UnsupportedKernel, match="no_such_function") as refused:
            program.attach_kprobe("no_such_function")
    else:
        with pytest.raises(UnsupportedKernel, match="attaching BPF program connects") as refused:
            program.attach_kprobe("tcp_v4_connect")
    assert refused.value.program == "connects"
    assert refused.value.errno


def test_runs_are_counted_while_the_kernel_is_asked_to(opened: Opener, lib: Libbpf) -> None:
    an_object = loaded(opened("counts"))
    an_object.programs["counts"].attach()
    stats = lib.enable_stats()
    try:
        ran = more_hits(an_object, os.getppid)
    finally:
        os.close(stats)
    info = an_object.programs["counts"].info()
    assert info.run_cnt >= ran > 0
    assert info.run_time_ns > 0


def test_a_map_gives_back_what_was_put_in(opened: Opener) -> None:
    table = loaded(opened()).maps["table"]
    one, two = (1).to_bytes(4, sys.byteorder), (2).to_bytes(4, sys.byteorder)
    assert table.lookup(one) is None
    assert list(table.keys()) == []
    table.update(one, b"8 bytes!")
    table.update(two, b"and more")
    assert (table.lookup(one), table.lookup(two)) == (b"8 bytes!", b"and more")
    with pytest.raises(FileExistsError):
        table.update(one, b"no, not.", BPF_HASH_NOEXIST)
    assert sorted(table.keys()) == sorted([one, two])
    assert (table.delete(one), table.delete(one)) == (True, False)
    assert list(table.keys()) == [two]


def test_a_key_or_value_of_another_length_never_reaches_libbpf(opened: Opener) -> None:
    table = loaded(opened()).maps["table"]
    for misuse in (
        lambda: table.lookup(b"key"),
        lambda: table.delete(b"a key"),
        lambda: table.update(bytes(4), b"7 bytes"),
        lambda: table.update(bytes(5), b"8 bytes!"),
    ):
        with pytest.raises(ValueError, match=r"map table has (keys|values) of . bytes, this one has"):
            misuse()


def test_a_per_cpu_map_has_a_value_for_each_cpu(opened: Opener, lib: Libbpf) -> None:
    each_cpu = loaded(opened()).maps["each_cpu"]
    cpus = lib.num_possible_cpus()
    values = [number.to_bytes(4, sys.byteorder) for number in range(1, cpus + 1)]
    each_cpu.update(bytes(4), b"".join(value + bytes(4) for value in values))
    assert each_cpu.lookup_per_cpu(bytes(4)) == values
    assert each_cpu.lookup_per_cpu(b"\xff" * 4) == []


def test_sizes_and_settings_are_made_before_loading_and_refused_afterwards(opened: Opener) -> None:
    an_object = opened()
    table, settings = an_object.maps["table"], an_object.maps[".rodata"]
    with pytest.raises(OSError, match="load the object first"):
        _ = table.fd
    table.max_entries = 3
    table.flags = 1  # BPF_F_NO_PREALLOC
    with pytest.raises(OSError, match="set_initial_value"):
        settings.initial_value = b"too long for it"
    an_object.load()
    assert not table.delete(bytes(4))  # leaves ENOENT in errno, which is not why the next one fails
    with pytest.raises(OSError, match="initial_value: Invalid argument"):
        _ = table.initial_value
    assert (table.max_entries, table.flags) == (3, 1)
    assert settings.lookup(bytes(4)) == settings.initial_value == os.getpid().to_bytes(4, sys.byteorder)
    with pytest.raises(OSError, match="set_max_entries"):
        table.max_entries = 5
    with pytest.raises(OSError, match="set_initial_value"):
        settings.initial_value = bytes(4)


# What is left.


def test_closing_leaves_nothing_in_the_kernel_and_touches_nothing_freed(opened: Opener) -> None:
    before = bpf_ids_of(os.getpid())
    an_object = loaded(opened("counts", "probes"))
    links = [an_object.programs["counts"].attach(), uprobe(an_object)]
    program, table = an_object.programs["counts"], an_object.maps["table"]
    made = bpf_ids_of(os.getpid()) - before
    assert {kind for kind, _ in made} == {"prog", "map", "link"}
    an_object.close()
    an_object.close()
    assert await_gone(made) == set()
    assert bpf_ids_of(os.getpid()) == before
    assert all(link.closed for link in links)
    for use in (
        an_object.load,
        program.attach,
        program.info,
        lambda: program.autoload,
        lambda: table.fd,
        lambda: table.lookup(bytes(4)),
        lambda: table.initial_value,
        lambda: list(table.keys()),
    ):
        with pytest.raises(TracerClosed, match="the BPF object is closed"):
            use()


@pytest.mark.parametrize(
    ("attach", "act"),
    [(ATTACHED["counts"], os.getppid), (uprobe, os.getppid), (page_faults, touch_new_pages)],
    ids=["counts", "probes", "samples"],
)
def test_a_forked_child_that_closes_its_copy_leaves_the_parents_attached(
    attach: Callable[[Object], Link], act: Callable[[], object], opened: Opener
) -> None:
    an_object = loaded(opened("counts", "probes", "samples"))
    link = attach(an_object)

    def close_and_list() -> str:
        an_object.close()
        return str(bpf_ids_of(os.getpid()))

    assert not any(kind in in_child(close_and_list) for kind in ("prog", "link"))
    assert more_hits(an_object, act) > 0
    link.close()
    assert more_hits(an_object, act) == 0


# What is refused.


def test_a_program_that_the_verifier_rejects_is_named_with_its_last_lines_and_whole_log(opened: Opener) -> None:
    error = refusal(opened("counts", "strays").load, VerifierRejected)
    assert error.program == "strays"
    assert str(error).startswith("loading BPF program strays failed, the kernel's verifier refused: (")
    assert "lines omitted) | " in str(error)
    assert "invalid mem access" in str(error)
    assert isinstance(error, VerifierRejected)
    assert error.errno
    assert error.log.splitlines()[-1].startswith("processed ")
    assert len(error.log.splitlines()) > str(error).count(" | ") + 1


def test_a_tracepoint_that_the_kernel_lacks_is_named(opened: Opener) -> None:
    error = refusal(opened("nowhere").load, UnsupportedKernel)
    assert error.program == "nowhere"
    assert "no_such_tracepoint" in str(error)


def test_the_btf_of_something_else_relocates_nothing(opened: Opener, tmp_path: Path) -> None:
    other = compiled("struct other { int member; } an_other;", tmp_path / "other.o")
    error = refusal(opened("lists", btf=str(other)).load, VerifierRejected)
    assert error.program == "lists"
    opened("lists", btf=_libbpf.KERNEL_BTF).load()


def libc_call(name: str, *args: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*args) != 0:
        raise OSError(ctypes.get_errno(), name)


def test_a_kernel_without_btf_is_told(opened: Opener) -> None:
    an_object = opened("typed")

    def load_with_the_btf_covered() -> None:
        libc_call("unshare", 0x20000)  # CLONE_NEWNS
        libc_call("mount", b"none", b"/", None, ctypes.c_ulong(0x4000 | 0x40000), None)  # MS_REC | MS_PRIVATE
        libc_call("mount", b"none", b"/sys/kernel/btf", b"tmpfs", ctypes.c_ulong(0), None)
        an_object.load()

    told = in_child(load_with_the_btf_covered)
    assert told.startswith(f"MissingBTF : the kernel has no BTF ({_libbpf.KERNEL_BTF} is missing): run a kernel")


def keep_only(*capabilities: str) -> None:
    """Become nobody, with these capabilities left."""
    bits = sum(1 << CAPABILITIES[name] for name in capabilities)
    libc_call("prctl", 8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    libc_call("capset", header, (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0))


REMEDY = "run as root (sudo), or grant it (setcap, AmbientCapabilities=)"


@pytest.mark.parametrize(
    ("held", "program", "told"),
    [
        ((), "counts", "loading the BPF object needs CAP_BPF and CAP_PERFMON"),
        (("CAP_PERFMON",), "counts", "loading the BPF object needs CAP_BPF"),
        (("CAP_BPF",), "probes", "loading BPF program probes needs CAP_PERFMON"),
        (("CAP_BPF", "CAP_PERFMON"), "listens", "loading BPF program listens needs CAP_NET_ADMIN"),
    ],
)
def test_the_missing_capability_is_named(held: tuple[str, ...], program: str, told: str, opened: Opener) -> None:
    an_object = opened(program)

    def load() -> None:
        keep_only(*held)
        an_object.load()

    name = program if "program" in told else ""
    assert in_child(load) == f"MissingPrivilege {name}: {told}: {REMEDY}"


def test_two_capabilities_are_enough_to_load_and_attach(opened: Opener) -> None:
    an_object = opened("counts")

    def load_and_attach() -> int:
        keep_only("CAP_BPF", "CAP_PERFMON")
        with loaded(an_object):
            an_object.programs["counts"].attach()
            return int(an_object.programs["counts"].info().type)

    assert in_child(load_and_attach) == "17"  # BPF_PROG_TYPE_RAW_TRACEPOINT


def test_root_of_a_user_namespace_is_told_that_it_is_none(opened: Opener) -> None:
    an_object = opened("counts")

    def load() -> None:
        libc_call("unshare", 0x10000000)  # CLONE_NEWUSER
        an_object.load()

    assert "is not allowed in a user namespace: run as root outside of the container" in in_child(load)


def test_a_limit_of_locked_memory_is_named_where_the_kernel_has_one(opened: Opener) -> None:
    an_object = opened("counts")
    an_object.maps["table"].max_entries = 1 << 20

    def load() -> str:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 16, 1 << 16))
        keep_only("CAP_BPF", "CAP_PERFMON")
        an_object.load()
        return "loaded"

    # Linux d5299b67dd59 and its series (v5.11) charge the memory cgroup instead.
    limited = kernel() < (5, 11)
    told = in_child(load)
    assert ("needs CAP_SYS_RESOURCE" in told and "ulimit -l" in told) if limited else told == "loaded"


def test_a_btf_file_that_is_none_is_refused_before_anything_is_opened(opened: Opener) -> None:
    error = refusal(lambda: opened("counts", btf="/etc/passwd"), MissingBTF)
    assert str(error).startswith("/etc/passwd is no BTF file (")
