"""What the doctor says is so: held against the machine's own tools, and against what a tracer then does."""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import _cffi_backend
import pytest

import pytracecon
from pytracecon import PytraceconError, Tracer, cli
from pytracecon.filters import Filters
from pytracecon.filters.values import EVENTS
from pytracecon.probes import NEEDS, RUNGS, WATCHED, candidates
from traffic.leftovers import await_gone, bpf_ids, bpf_ids_of_others

PACKAGE = Path(pytracecon.__file__).parent
NOBODY = 65534
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_SYS_RESOURCE": 24, "CAP_PERFMON": 38, "CAP_BPF": 39}
NO_LIBBPF = ("--libbpf", "/dev/null")  # so that nothing is attached, which takes its time in an emulated machine
CLONE_NEWNS = 0x20000

libc = ctypes.CDLL(None, use_errno=True)


class Done(NamedTuple):
    """What `pytracecon doctor` ended with."""

    status: int
    stdout: str
    stderr: str

    def document(self) -> Any:
        """Its JSON, which agrees with how it ended."""
        assert self.stdout, self.stderr
        told = json.loads(self.stdout)
        assert self.status == told["exit_status"]
        assert told["ok"] == (self.status == 0)
        assert self.stderr == ("" if told["ok"] else f"pytracecon: {told['problem']}\n")
        return told


def run(*arguments: str, prefix: tuple[str, ...] = (), python: str = sys.executable, package: Path = PACKAGE) -> Done:
    """The command itself. `prefix` is a command that runs it."""
    done = subprocess.run(
        [*prefix, python, "-m", "pytracecon", "doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return Done(done.returncode, done.stdout, done.stderr)


def run_in(prepare: Callable[[], None], *arguments: str) -> Any:
    """The command's JSON, in a child of this process that `prepare` has changed: no start of Python to wait for."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        child = os.fork()
        if not child:
            status = 70
            try:
                os.dup2(stdout.fileno(), 1)
                os.dup2(stderr.fileno(), 2)
                sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - until the child ends
                prepare()
                status = cli.main(["doctor", "--json", *arguments])
            except BaseException:  # noqa: BLE001 - nobody else would show it
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        stdout.seek(0)
        stderr.seek(0)
        return Done(status, stdout.read().decode(), stderr.read().decode()).document()


def check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def drop(*names: str) -> None:
    """Give up capabilities."""
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    check(libc.capget(header, sets))
    for name in names:
        word, bit = divmod(CAPABILITIES[name], 32)
        for kind in range(3):  # effective, permitted, inheritable
            sets[3 * word + kind] &= ~(1 << bit)
    check(libc.capset(header, sets))


def shell(script: str) -> None:
    subprocess.run(["sh", "-ec", script], check=True)


def mount(script: str) -> None:
    """Let a script mount and unmount what nobody else sees."""
    check(libc.unshare(CLONE_NEWNS))
    shell(f"mount --make-rprivate /; {script}")


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


@pytest.fixture(scope="module")
def told() -> Any:
    """One diagnosis of this machine, as root. Everything is tried, and nothing stays."""
    before = bpf_ids()
    told = run("--json").document()
    assert await_gone(bpf_ids() - before - bpf_ids_of_others()) == set()
    return told


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may look into."""
    made = Path(tempfile.mkdtemp(prefix="pytracecon-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_kernel_and_libbpf_are_those_that_run_here(told: Any) -> None:
    assert told["kernel"] == {"release": output("uname", "-r"), "machine": output("uname", "-m")}
    library = ctypes.CDLL("libbpf.so.1")
    library.libbpf_version_string.restype = ctypes.c_char_p
    assert f"v{told['libbpf']['version']}" == library.libbpf_version_string().decode()
    assert Path(told["libbpf"]["path"]).samefile(mapped("libbpf.so.1"))


def mapped(name: str) -> str:
    """The shared library of that name in this process."""
    return next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if f"/{name}" in line)


def test_what_it_says_of_btf_sysctls_and_mounts_is_so(told: Any) -> None:
    assert told["btf"] == {
        "path": "/sys/kernel/btf/vmlinux",
        "size": int(output("stat", "-c", "%s", "/sys/kernel/btf/vmlinux")),
        "problem": None,
    }
    assert len(told["sysctls"]) == 5
    for name, value in told["sysctls"].items():
        assert str(value) == output("cat", f"/proc/sys/{name.replace('.', '/')}")
    assert sorted(told["cgroup2"]["mounts"]) == sorted(mounts("cgroup2"))
    assert told["cgroup2"]["hybrid"] == bool(mounts("cgroup"))
    assert sorted(told["tracefs"]["mounts"]) == sorted(mounts("tracefs"))
    assert told["tracefs"]["usable"]


def of(told: Any, name: str) -> Any:
    """What is told of that need."""
    return next(need for need in told["needs"] if need["need"] == name)


def mounts(kind: str) -> list[str]:
    return output("findmnt", "-n", "-l", "-t", kind, "-o", "TARGET").split()


EVERYTHING: Any = {"pid": os.getpid(), "events": (*EVENTS, *WATCHED, "flow")}
"""For this every need is wanted, but for what there is not (IPVS)."""


@pytest.mark.parametrize("rung", RUNGS)
def test_a_rung_works_where_the_doctor_says_so(told: Any, rung: str) -> None:
    """Forced upon a tracer, it is taken or refused, exactly as the table says."""
    wanted = [need for need in NEEDS if need.wanted(Filters.parse(**EVERYTHING)) and not need.waits]
    needs = [need for need in told["needs"] if need["need"] in {each.name for each in wanted}]
    columns = [[each["works"] for each in need["candidates"] if each["rung"] == rung] for need in needs]
    if all(any(column) for column in columns if column):
        with Tracer(probes=rung, **EVERYTHING) as tracer:
            taken = {probe.need: probe.rung for probe in tracer.probes if probe.attached}
        filters = Filters.parse(probes=rung, **EVERYTHING)
        assert taken == {need.name: candidates(need, filters)[0].rung for need in wanted}
    else:
        with (
            pytest.raises(PytraceconError, match=f"--probes {rung} does not work here"),
            Tracer(probes=rung, **EVERYTHING),
        ):
            pass


def test_it_names_the_probes_that_a_tracer_takes(told: Any) -> None:
    with Tracer(**EVERYTHING) as tracer:
        tracer.snapshot()
        taken = [probe for probe in tracer.probes if probe.attached]
    assert told["ok"]
    for need in told["needs"]:
        if need["rung"] is None:
            assert need["need"] not in {probe.need for probe in taken}
            assert not any(each["works"] for each in need["candidates"])
            continue
        assert need["programs"] == [probe.name for probe in taken if probe.need == need["need"]]
        assert {need["rung"]} == {probe.rung for probe in taken if probe.need == need["need"]}
        best = next(each for each in need["candidates"] if each["works"])
        assert need["programs"] == best["programs"]


@pytest.mark.slow(reason="a whole survey, for what is the same on every kernel")
def test_everything_is_tried_and_nothing_stays() -> None:
    before = bpf_ids()
    done = run()
    left = await_gone(bpf_ids() - before - bpf_ids_of_others())
    assert not left
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.endswith("\nTCP connections can be traced.\n")
    table = done.stdout.partition("\nNEED ")[2]
    named = re.findall(r"^(\S+(?: \S+)?)  .*(?:fentry|kprobe|tracepoint|iterator|uprobe)$", table, re.MULTILINE)
    assert [name for name in named if name != "services"] == [need.name for need in NEEDS if need.module is None]


@pytest.mark.slow(reason="starts a Python that no kernel has a say in")
def test_an_ordinary_user_learns_what_is_missing(folder: Path) -> None:
    shutil.copytree(PACKAGE, folder / "pytracecon", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(_cffi_backend.__file__, folder)
    shell(f"chmod -R a+rX {folder}")
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    # A virtual environment may lie where this user cannot look. Besides the standard library only that is needed.
    python = str(Path(sys.executable).resolve())
    told = run("--json", prefix=user, python=python, package=folder / "pytracecon").document()
    assert told["exit_status"] == 77
    assert told["problem"].startswith("loading the BPF object needs CAP_BPF and CAP_PERFMON: run as root")
    assert told["capabilities"]["effective"] == []
    assert {"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"} <= told["capabilities"]["missing"].keys()
    assert told["btf"]["size"] == Path("/sys/kernel/btf/vmlinux").stat().st_size
    assert not told["tracefs"]["usable"]
    assert [need["rung"] for need in told["needs"]] == [None] * len(NEEDS)


@pytest.mark.parametrize(
    ("missing", "status"),
    [
        ("CAP_PERFMON", 77),
        pytest.param("CAP_BPF", 77, marks=pytest.mark.slow),
        pytest.param("CAP_NET_ADMIN", 0, marks=pytest.mark.slow),
    ],
)
def test_root_without_a_capability_learns_which(told: Any, missing: str, status: int) -> None:
    there = run_in(lambda: drop("CAP_SYS_ADMIN", missing))
    held = set(told["capabilities"]["effective"])
    assert set(there["capabilities"]["effective"]) == held - {"CAP_SYS_ADMIN", missing}
    assert missing in there["capabilities"]["missing"]
    assert there["exit_status"] == status
    if status:
        assert f"needs {missing}" in there["problem"]
    (sockops,) = [each for each in of(there, "first syn")["candidates"] if "first_syn_sockops" in each["programs"]]
    assert not sockops["works"]
    if missing == "CAP_NET_ADMIN":
        assert "CAP_NET_ADMIN" in sockops["reason"]


def test_the_capabilities_are_those_in_effect(told: Any) -> None:
    effective = int(re.findall(r"CapEff:\s*(\w+)", output("cat", "/proc/self/status"))[0], 16)
    held = sorted(name for name, bit in CAPABILITIES.items() if effective >> bit & 1)
    assert told["capabilities"]["effective"] == held
    assert told["capabilities"]["missing"] == {}


@pytest.mark.slow(reason="a whole survey, for what is the same on every kernel")
def test_without_btf_it_says_what_to_do(folder: Path) -> None:
    told = run_in(lambda: mount(f"mount --bind {folder} /sys/kernel/btf"))
    assert told["exit_status"] == 69
    assert told["btf"] == {"path": "/sys/kernel/btf/vmlinux", "size": None, "problem": told["problem"]}
    assert "CONFIG_DEBUG_INFO_BTF" in told["problem"]


@pytest.mark.slow(reason="a whole survey, for what is the same on every kernel")
@pytest.mark.parametrize(
    ("content", "said"), [(b"no BTF at all, not even a bit of it", "is no BTF file"), (None, "No such file")]
)
def test_a_btf_file_that_is_none_is_a_finding(folder: Path, content: bytes | None, said: str) -> None:
    path = folder / "btf"
    if content is not None:
        path.write_bytes(content)
    told = run_in(lambda: None, "--btf", str(path))
    assert told["exit_status"] == 69
    assert said in told["problem"]
    assert told["btf"]["path"] == str(path)
    assert told["btf"]["size"] is None
    assert str(path) in told["btf"]["problem"]


@pytest.mark.slow(reason="a whole survey, for what is the same on every kernel")
def test_a_btf_file_of_this_kernel_serves_where_it_shows_none(folder: Path) -> None:
    path, empty = folder / "btf", folder / "empty"
    path.write_bytes(Path("/sys/kernel/btf/vmlinux").read_bytes())
    empty.mkdir()
    told = run_in(lambda: mount(f"mount --bind {empty} /sys/kernel/btf"), "--btf", str(path))
    assert told["ok"]
    assert told["btf"] == {"path": str(path), "size": path.stat().st_size, "problem": None}
    typed, raw = of(told, "states")["candidates"]
    assert not typed["works"]
    assert "no BTF of its own" in typed["reason"]
    assert raw["works"]
    assert of(told, "states")["programs"] == raw["programs"]


def test_lockdown_is_read_where_it_can_be(told: Any, folder: Path) -> None:
    shown = folder / "lockdown"

    def prepare() -> None:
        mount(
            "findmnt /sys/kernel/security >/dev/null || mount -t securityfs none /sys/kernel/security; "
            f"cat /sys/kernel/security/lockdown >{shown} || echo [none] >{shown}"
        )

    there = run_in(prepare, *NO_LIBBPF)["lockdown"]
    assert f"[{there['mode']}]" in shown.read_text()
    if told["lockdown"]["mode"] is None:
        assert "mount -t securityfs" in told["lockdown"]["problem"]
        assert not mounts("securityfs")
    else:
        assert told["lockdown"] == there


@pytest.mark.slow(reason="a whole survey, for what is the same on every kernel")
def test_without_cgroup2_only_what_needs_it_is_missing() -> None:
    told = run_in(lambda: mount("; ".join(f"umount -l {point}" for point in mounts("cgroup2"))))
    assert told["ok"]
    assert told["cgroup2"]["mounts"] == []
    assert "mount -t cgroup2" in told["cgroup2"]["problem"]
    first_syn, attempts = of(told, "first syn")["candidates"][2], of(told, "attempts")["candidates"][2]
    assert not first_syn["works"]
    assert "cgroup2 is not mounted" in first_syn["reason"]
    assert attempts["works"]
    assert attempts["without"].keys() == {"connect_cgroup4", "connect_cgroup6"}


@pytest.mark.slow(reason="a whole survey, for what is the same on every kernel")
def test_tracefs_is_found_where_it_is_mounted_and_reached_where_it_is_not() -> None:
    # debugfs mounts it at its own place, for who looks there.
    points = [*mounts("tracefs"), *mounts("debugfs")]
    nowhere = run_in(lambda: mount("; ".join(f"umount -l {point}" for point in points)))
    assert nowhere["tracefs"] == {"mounts": [], "usable": True, "problem": None}
    assert of(nowhere, "attempts")["candidates"][2]["works"]
    place = "/sys/kernel/tracing"
    there = run_in(lambda: mount(f"findmnt {place} >/dev/null || mount -t tracefs none {place}"), *NO_LIBBPF)
    assert place in there["tracefs"]["mounts"]


def test_a_limit_of_locked_memory_matters_where_it_is_charged(told: Any) -> None:
    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
        drop("CAP_SYS_RESOURCE")

    short = run_in(prepare)
    charged = told["memlock"]["charged"]
    assert short["memlock"] == {"charged": charged, "soft": 65536, "hard": 65536}
    assert short["exit_status"] == (77 if charged else 0)
    assert ("CAP_SYS_RESOURCE" in short["capabilities"]["missing"]) == charged
    assert ("CAP_SYS_RESOURCE" in (short["problem"] or "")) == charged
