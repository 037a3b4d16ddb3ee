"""What is dropped is gone, and what stays is enough; what each need takes is as docs/privileges.md says."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from pytracecon import Tracer, capabilities, drop_privileges
from pytracecon._libbpf import open_library
from pytracecon.doctor.privileges import try_privileges
from pytracecon.errors import InvalidValue
from pytracecon.filters import Filters
from pytracecon.probes import NEEDS
from pytracecon.upkeep import READING
from traffic import ipvs
from traffic.actor import DEADLINE
from traffic.dropped import DroppedTracer
from traffic.end import close, connect, listen, pair
from traffic.leftovers import await_gone, bpf_ids, bpf_ids_of_others
from traffic.network import Network

TOP = Path(__file__).parents[2]
NOBODY = "65534"
READY = "pytracecon: tracing"
READS_ALL = "CAP_DAC_READ_SEARCH"

commands = pytest.mark.slow(reason="starts a Python, for what differs by no kernel")


def test_ipvs_that_is_loaded_later_is_looked_into(network: Network) -> None:
    if not ipvs.unload():
        pytest.skip("no IPVS in this kernel, or no kprobes to see it")
    tracer = DroppedTracer(user="nobody", events="connect,close", names=False, netns=network.path)
    try:
        assert "services" in tracer.dropped["kept"]["CAP_SYS_PTRACE"]
        ipvs.load()
        listener = listen(network.actor("server"))
        ipvs.add(network, ("127.0.0.1", 33), listener.address)
        client = network.actor("client")

        def told(events: list[dict[str, Any]]) -> bool:
            close(connect(client, ("127.0.0.1", 33)), listener.accept())
            return any(
                event.get("service") == dict(zip(("addr", "port"), listener.address, strict=True)) for event in events
            )

        assert tracer.until(told)
    finally:
        tracer.close()


def test_what_each_need_takes_is_as_the_docs_say() -> None:
    """Of a kernel that they do not name, each need is tried all the same."""
    data = json.loads((TOP / "docs" / "privileges.json").read_text())
    series = ".".join(platform.release().split("-")[0].split(".")[:2])
    found = {each.need: each for each in try_privileges(Filters.parse())}
    told = {
        need: {"starting": each.starting, "instead": each.instead, "running": each.running}
        for need, each in found.items()
    }
    assert told.keys() == {*(need.name for need in NEEDS), READING}
    assert told["states"]["starting"]
    if series in data:
        assert in_order(told) == in_order(data[series]["needs"])


def in_order(told: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        need: {when: sorted(names) if isinstance(names, list) else names for when, names in each.items()}
        for need, each in told.items()
    }


class Command:
    """A running `pytracecon`, as a process among others. `prefix` is a command that runs it."""

    def __init__(self, *options: object, prefix: tuple[str, ...] = (), ready: str = READY) -> None:
        command = [*prefix, sys.executable, "-m", "pytracecon", *map(str, options)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=TOP, start_new_session=True
        )
        self.said: list[str] = []
        assert self.process.stderr
        while not self.said or not self.said[-1].startswith(ready):
            self.said.append(self.process.stderr.readline())
            assert self.said[-1], f"it ended before it traced anything: {self.said}"

    def capabilities(self) -> dict[str, frozenset[str]]:
        """The sets of each of its threads, which are the same."""
        (sets,) = {capabilities.held_by(f"{self.process.pid}/task/{task}") for task in self._threads()}
        return {
            name: sets._replace(permitted=getattr(sets, name)).names()
            for name in ("effective", "permitted", "inheritable", "bounding", "ambient")
        }

    def _threads(self) -> list[str]:
        return os.listdir(f"/proc/{self.process.pid}/task")

    def status(self, key: str) -> list[str]:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        (found,) = re.findall(rf"^{key}:\s*(.*)$", text, re.MULTILINE)
        return str(found).split()

    def end(self) -> tuple[int, str, str]:
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, err

    def kill(self) -> None:
        """And what it runs, which has its pipes too."""
        if self.process.returncode is None:  # nobody has waited for it: its number is nobody else's
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def run() -> Iterator[Callable[..., Command]]:
    with ExitStack() as stack:

        def start(*options: object, **how: Any) -> Command:
            command = Command(*options, **how)
            stack.callback(command.kill)
            return command

        yield start


def ended(*options: object, prefix: tuple[str, ...] = (), **environment: str) -> tuple[int, str]:
    """Exit status and standard error of what ends by itself."""
    command = [*prefix, sys.executable, "-m", "pytracecon", *map(str, options)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=TOP, check=False, timeout=DEADLINE, env=os.environ | environment
    )
    return done.returncode, done.stderr


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may look into and write to."""
    with tempfile.TemporaryDirectory(prefix="pytracecon-") as made:
        Path(made).chmod(0o1777)
        yield Path(made)


@commands
@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--format", "json"], {"CAP_SYS_PTRACE", READS_ALL, "CAP_CHECKPOINT_RESTORE"}),
        (["--no-names", "--no-processes"], set()),
        (["--privileges", "none"], set()),
        (["flows", "--watch", "1"], {"CAP_SYS_PTRACE", READS_ALL, "CAP_CHECKPOINT_RESTORE"}),
    ],
    ids=" ".join,
)
def test_a_command_keeps_what_its_needs_use(run: Callable[..., Command], options: list[str], kept: set[str]) -> None:
    """On a kernel where attaching uprobes takes nothing, and that has no IPVS to wait for."""
    if platform.release().split(".")[:2] != ["6", "18"]:
        kept = kept | {"CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}
    command = run(*options, "-o", "/dev/null")
    sets = command.capabilities()
    assert sets["permitted"] <= kept
    assert sets["effective"] == sets["permitted"]
    assert sets["inheritable"] | sets["ambient"] | sets["bounding"] == frozenset()
    assert command.status("NoNewPrivs") == ["1"]
    assert command.end()[0] == 0


@commands
def test_all_stays_if_that_is_asked_for(run: Callable[..., Command]) -> None:
    command = run("--privileges", "all", "-o", "/dev/null")
    assert command.capabilities()["permitted"] == capabilities.now()
    assert command.status("NoNewPrivs") == ["0"]


@commands
def test_another_user_writes_the_file_and_has_its_own_groups_alone(
    run: Callable[..., Command], network: Network, folder: Path
) -> None:
    output = folder / "events.json"
    command = run("--user", "nobody", "--format", "json", "-o", output, "--netns", network.path)
    assert any("goes on as user nobody" in line for line in command.said)
    assert command.status("Uid") == [NOBODY] * 4
    assert command.status("Gid") == command.status("Groups") * 4 == [NOBODY] * 4
    assert not command.capabilities()["permitted"] & {"CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_BPF"}
    close(*pair(network.actor("client"), listen(network.actor("server"))))
    assert command.end()[0] == 0
    assert (output.stat().st_uid, stat.S_IMODE(output.stat().st_mode)) == (int(NOBODY), 0o600)
    told = [json.loads(line) for line in output.read_text().splitlines()]
    assert {event["comm"] for event in told} == {"client", "server"}


@commands
@pytest.mark.parametrize(("mode", "says"), [(0o660, 1), (0o666, 0)], ids=["closed", "open"])
def test_an_engine_that_this_user_may_not_ask_is_said(folder: Path, mode: int, says: int) -> None:
    place = folder / "engine.sock"
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(str(place))
        place.chmod(mode)
        status, said = ended("--user", "nobody", "--no-names", "--duration", "0.1", DOCKER_HOST=f"unix://{place}")
    assert status == 0, said
    assert said.count(f"{place} have no names: user nobody may not write there\n") == says


@commands
def test_a_file_that_this_user_may_not_write_is_refused_and_nothing_stays(folder: Path) -> None:
    folder.chmod(0o700)
    before = bpf_ids()
    status, said = ended("--user", "nobody", "--no-names", "-o", folder / "events.json", "--duration", "5")
    assert status == 74
    assert "cannot be opened: Permission denied" in said.splitlines()[-1]
    assert not list(folder.iterdir())
    assert await_gone(bpf_ids() - before - bpf_ids_of_others()) == set()


@commands
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--user", "no-such-user"], "--user: no-such-user is no user here"),
        (["--user", "nobody", "--privileges", "all"], "--privileges: who leaves root leaves it"),
        (["run", "--tracer-user", "no-such-user", "--", "true"], "--tracer-user: no-such-user is no user here"),
        (["top", "--once", "--user", "no-such-user"], "--user: no-such-user is no user here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_user_that_cannot_be_is_refused_before_anything_is_loaded(options: list[str], said: str) -> None:
    """Here nobody may load anything, and would end with 77."""
    status, err = ended(*options, prefix=("setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin"))
    assert (status, err.count("\n")) == (2, 1), err
    assert err.startswith(f"pytracecon: {said}")


@commands
def test_a_command_that_is_run_keeps_its_own_user_and_privileges(folder: Path) -> None:
    """Ours are gone by then: what is shown is the child's, and its parent's."""
    shown = folder / "shown"
    script = "id -u; grep CapEff /proc/self/status; grep -E '^(Uid|CapPrm):' /proc/$PPID/status"
    status, said = ended("run", "--tracer-user", "nobody", "--", "sh", "-c", f"{{ {script}; }} >{shown}")
    assert status == 0, said
    uid, effective, parents_uid, parents = shown.read_text().splitlines()
    assert uid == str(os.geteuid())
    assert int(effective.split()[1], 16) == capabilities.held().effective
    assert parents_uid.split()[1:] == [NOBODY] * 4
    kept = int(parents.split()[1], 16)
    assert kept >> capabilities.NUMBERS["CAP_KILL"] & 1
    assert not kept >> capabilities.NUMBERS["CAP_SETUID"] & 1


@commands
def test_a_signal_reaches_the_command_of_another_user(run: Callable[..., Command]) -> None:
    command = run(
        "run",
        "-v",
        "--user",
        "nobody",
        "--",
        "sh",
        "-c",
        "trap 'exit 9' TERM; echo trapped; while :; do sleep 0.1; done",
        ready="pytracecon: goes on",
    )
    assert command.process.stdout
    assert command.process.stdout.readline() == "trapped\n"
    assert command.end()[0] == 9


AMBIENT = ("bpf", "perfmon", "net_admin", "dac_read_search", "sys_ptrace", "checkpoint_restore", "sys_resource")


def as_nobody(*names: str) -> tuple[str, ...]:
    """With these capabilities alone. The second is what reads modules below /root."""
    have = {name for name in names if f"CAP_{name.upper()}" in capabilities.now()}
    listed = ",".join(f"+{name}" for name in sorted(have))
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return (*user, f"--inh-caps={listed}", f"--ambient-caps={listed}")


@commands
def test_a_user_with_ambient_capabilities_traces_and_drops_them(run: Callable[..., Command], network: Network) -> None:
    command = run("--format", "json", "--netns", network.path, prefix=as_nobody(*AMBIENT))
    sets = command.capabilities()
    assert not sets["permitted"] & {"CAP_NET_ADMIN", "CAP_SYS_RESOURCE"}
    assert sets["ambient"] | sets["inheritable"] == frozenset()
    close(*pair(network.actor("client"), listen(network.actor("server"))))
    status, out, _ = command.end()
    assert status == 0
    assert {json.loads(line)["event"] for line in out.splitlines()} >= {"connect", "established", "close"}


@commands
@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("net_admin", "dns messages needs CAP_NET_ADMIN: programs that do not ask a libc have no names"),
        ("sys_ptrace", "without CAP_SYS_PTRACE: libcs that come later, as those of containers do, are not seen"),
    ],
)
def test_what_a_user_lacks_is_said_in_one_line(run: Callable[..., Command], missing: str, said: str) -> None:
    command = run("-o", "/dev/null", prefix=as_nobody(*(name for name in AMBIENT if name != missing)))
    assert len([line for line in command.said if f"CAP_{missing.upper()}" in line]) == 1, command.said
    assert any(said in line for line in command.said)


@commands
def test_a_user_who_may_trace_nothing_learns_what_is_missing() -> None:
    status, said = ended("--no-names", prefix=as_nobody(*(name for name in AMBIENT if name != "perfmon")))
    assert status == 77
    assert said.count("\n") == 1
    assert "needs CAP_PERFMON" in said


TRACEPOINT, CLONE_NEWUSER = 5, 0x10000000
RETURN_ZERO = bytes((0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0))

# A kernel that lies: what is asked of it is answered, and not done.

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2
RETURN_ERRNO, ALLOW = 0x00050000, 0x7FFF0000
CAPSET, SETRESUID, PRCTL = 126, 117, 157


def answer(call: int, error: int) -> None:
    """From now on this system call does nothing but return this error, or success."""
    program = [
        (0x20, 0, 0, 0),  # the call's number
        (0x15, 0, 1, call),
        (0x06, 0, 0, RETURN_ERRNO | error),
        (0x06, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    header = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert not libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    assert not libc.prctl(PR_SET_SECCOMP, FILTER, header, 0, 0)


def in_a_child(what: Callable[[], str]) -> str:
    """What it returned there, or what it raised."""
    here, there = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = what()
        except BaseException as error:  # noqa: BLE001 - the parent shows it
            said = f"{type(error).__name__}: {error}"
        os.write(there, said.encode())
        os._exit(0)
    os.close(there)
    with open(here, "rb") as told:
        text = told.read().decode()
    os.waitpid(child, 0)
    return text


only_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls")


@only_x86_64
@pytest.mark.parametrize(
    ("call", "error", "user", "said"),
    [
        (CAPSET, 0, None, "PrivilegesKept: privileges were dropped, and are not gone"),
        (CAPSET, 1, None, "PrivilegesKept: privileges cannot be dropped: capset: Operation not permitted"),
        (SETRESUID, 1, "nobody", "PrivilegesKept: becoming user 65534 failed: Operation not permitted"),
    ],
    ids=["nothing done", "refused", "user refused"],
)
def test_a_failed_drop_is_an_error(call: int, error: int, user: str | None, said: str) -> None:
    def drop() -> str:
        answer(call, error)
        return f"{drop_privileges(user=user)}"

    assert in_a_child(drop).startswith(said)


@commands
@only_x86_64
def test_the_command_ends_when_a_drop_fails() -> None:
    """With one line, and before it writes anything."""
    script = (
        "import sys; sys.path.insert(0, 'tests/kernel'); sys.path.insert(0, 'tests');"
        "from test_privileges import answer, CAPSET; from pytracecon.cli import main;"
        "answer(CAPSET, 0); sys.exit(main(['--no-names', '--no-processes', '--duration', '9']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=TOP, check=False)
    assert (done.returncode, done.stdout) == (77, "")
    assert done.stderr.startswith("pytracecon: privileges were dropped, and are not gone")
    assert done.stderr.count("\n") == 1


def test_what_is_dropped_is_denied_and_threads_that_come_have_no_more() -> None:
    def drop() -> str:
        drop_privileges(user="nobody")
        found: list[capabilities.Held] = []
        thread = threading.Thread(target=lambda: found.append(capabilities.held()))
        thread.start()
        thread.join()
        attempts: dict[str, Callable[[], object]] = {
            "setuid": lambda: os.setuid(0),
            "setgroups": lambda: os.setgroups([0]),
            "chroot": lambda: os.chroot("/"),
            "nice": lambda: os.nice(-1),
            "memory": lambda: os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY),
            "signal": lambda: os.kill(os.getppid(), 0),
            "load": lambda: libbpf.prog_load(TRACEPOINT, RETURN_ZERO),
        }
        possible = []
        for name, attempt in attempts.items():
            with suppress(PermissionError):
                attempt()
                possible.append(name)
        return f"{found[0].permitted & ~(1 << capabilities.NUMBERS[READS_ALL])} {possible}"

    libbpf = open_library(None)
    assert in_a_child(drop) == "0 []"


@commands
@pytest.mark.parametrize(
    ("user", "said"),
    [(None, "Dropped"), ("nobody", "PrivilegesKept: becoming user 65534 failed")],
    ids=["root", "other"],
)
def test_in_a_user_namespace_there_is_nobody_else_to_become(user: str | None, said: str) -> None:
    def drop() -> str:
        if ctypes.CDLL(None).unshare(CLONE_NEWUSER):
            return "there are no user namespaces"
        Path("/proc/self/uid_map").write_text("0 0 1")
        return f"{drop_privileges(user=user)}"

    assert in_a_child(drop).startswith(said)


def test_with_other_threads_nothing_is_dropped() -> None:
    def drop() -> str:
        here = threading.Event()
        threading.Thread(target=here.wait, name="somebody else's").start()
        before = capabilities.held()
        try:
            drop_privileges()
        except RuntimeError as error:
            return f"{capabilities.held() == before} {error}"
        finally:
            here.set()
        return "dropped"

    assert in_a_child(drop).startswith("True 1 other threads would keep their privileges (somebody else's)")


@pytest.mark.slow(reason="a start of a tracer, for what differs by no kernel")
def test_the_library_drops_nothing_by_itself_and_judges_what_it_is_given() -> None:
    before = capabilities.held()
    with Tracer(events="connect", names=False, processes=False) as tracer:
        assert capabilities.held() == before
        with pytest.raises(InvalidValue, match="keep: 'all' is none of needs, none"):
            drop_privileges(tracer, keep="all")
        with pytest.raises(InvalidValue, match="user: no-such-user is no user here"):
            drop_privileges(tracer, user="no-such-user")
    assert capabilities.held() == before


@commands
def test_a_file_in_a_folder_of_another_user_can_be_opened_again(run: Callable[..., Command], folder: Path) -> None:
    """Root without capabilities is a user like others: the one that this takes stays, and where it takes none, none."""
    others = folder / "others"
    others.mkdir(0o700)
    quiet = ("--no-names", "--no-processes", "--privileges", "needs")
    ours = run(*quiet, "-o", folder / "ours")
    assert "CAP_DAC_OVERRIDE" not in ours.capabilities()["permitted"]
    os.chown(others, int(NOBODY), int(NOBODY))
    theirs = run(*quiet, "-o", others / "theirs")
    assert "CAP_DAC_OVERRIDE" in theirs.capabilities()["permitted"]
