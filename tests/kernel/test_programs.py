"""What an owner is: its program and arguments as they were when it started, its parents, its container and its unit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytracecon import ConnectionEvent, Event, Failed, Lookup
from pytracecon.owners import runtimes
from traffic.actor import DEADLINE, Actor, cgroup2_mount
from traffic.end import close, connect, listen, pair
from traffic.engine import Engine
from traffic.network import Network
from traffic.resolver import Place
from traffic.trace import Trace

KNOCK = "exec 3<>/dev/tcp/127.0.0.1/9"
"""A shell's way to connect to where nobody listens; it ends at once."""

SHELL = "/bin/bash"
CONTAINER = "c0ffee" + "0123456789" * 5 + "abcdef12"


def knock(network: Network, program: str | Path = SHELL, *words: str | bytes, script: str = KNOCK) -> int:
    """Have a program that is a shell connect and end, in the namespace; its process id."""
    command = ["nsenter", f"--net={network.path}", str(program), "-c", script, *words]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        pass
    return process.pid


def told(events: list[Event], pid: int) -> list[ConnectionEvent]:
    return [event for event in events if isinstance(event, ConnectionEvent) and event.pid == pid]


def the_attempt(trace: Trace, pid: int) -> Failed:
    (failed,) = [event for event in told(trace.settle(), pid) if isinstance(event, Failed)]
    return failed


def ancestors(pid: int) -> list[int]:
    """From /proc; as many as are told."""
    found: list[int] = []
    while pid := int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1]):
        found.append(pid)
    return found[:8]


def running(actor: Actor) -> str:
    return str(Path(f"/proc/{actor.pid}/exe").readlink())


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where programs may lie, with a short path: a temporary file system of its own."""
    place = tmp_path / "own"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def scope() -> Iterator[Path]:
    """Where a container's cgroup would be; it may be made, and be gone again at the end."""
    mount = cgroup2_mount()
    if mount is None:
        pytest.skip("no cgroup v2 hierarchy is mounted")
    place = mount / f"docker-{CONTAINER}.scope"
    yield place
    if place.exists():
        place.rmdir()


def test_a_program_that_lives_for_a_moment_keeps_its_path_and_arguments(trace: Trace, network: Network) -> None:
    pid = knock(network, SHELL, "zero", "two words", "", "last")
    event = the_attempt(trace, pid)
    assert event.exe == os.path.realpath(SHELL)
    assert event.args == [SHELL, "-c", KNOCK, "zero", "two words", "", "last"]
    assert (event.exe_source, event.args_cut) == ("exec", None)
    assert event.parents == [os.getpid(), *ancestors(os.getpid())][:8]


def test_every_event_of_a_connection_tells_the_same(trace: Trace, client: Actor, server: Actor) -> None:
    near, far = pair(client, listen(server))
    close(near, far)
    trace.settle()
    for actor, kinds in ((client, {"connect", "established", "close"}), (server, {"accept", "close"})):
        events = told(trace.events, actor.pid)
        assert {event.event for event in events} == kinds
        (process,) = {json.dumps([e.exe, e.args, e.parents, e.exe_source]) for e in events}
        exe, args, parents, _ = json.loads(process)
        assert exe == running(actor)
        assert args == Path(f"/proc/{actor.pid}/cmdline").read_text().split("\0")[:-1]
        assert parents == ancestors(actor.pid)


def test_what_is_not_text_is_shown_as_what_it_is(trace: Trace, network: Network, folder: Path) -> None:
    program = folder / "new\nline \udcff"
    shutil.copy2(SHELL, program)
    pid = knock(network, program, b"\xff\x1b[31m")
    event = the_attempt(trace, pid)
    assert event.exe == f"{folder}/new\nline \\xff"
    assert event.args is not None
    assert event.args[-1] == "\\xff\x1b[31m"


def test_arguments_that_are_too_long_are_cut_and_say_so(trace: Trace, network: Network) -> None:
    words = [f"{number:099}" for number in range(40)]
    event = the_attempt(trace, knock(network, SHELL, *words))
    whole = [SHELL, "-c", KNOCK, *words]
    assert event.args_cut is True
    assert event.args is not None
    assert event.args[:-1] == whole[: len(event.args) - 1]
    assert whole[len(event.args) - 1].startswith(event.args[-1])
    assert sum(len(each) + 1 for each in event.args) == 1281


def test_a_path_that_is_too_long_is_not_told_at_all(trace: Trace, network: Network, folder: Path) -> None:
    """A wrong one would be worse."""
    deep = folder / "/".join(["d" * 200] * 3)
    deep.mkdir(parents=True)
    shutil.copy2(SHELL, deep / "bash")
    event = the_attempt(trace, knock(network, deep / "bash"))
    assert event.exe is None
    assert event.args == [str(deep / "bash"), "-c", KNOCK]


def test_a_program_that_is_deleted_while_it_runs_keeps_its_path(trace: Trace, network: Network, folder: Path) -> None:
    program = folder / "gone"
    shutil.copy2(SHELL, program)
    event = the_attempt(trace, knock(network, program, script=f"rm {program}; {KNOCK}"))
    assert event.exe == str(program)


def test_a_program_in_a_root_of_its_own_is_told_as_it_is_called_there(
    trace: Trace, network: Network, folder: Path
) -> None:
    """As in a container: its own mount namespace, whose root is another one."""
    for place in ("bin", "lib", "lib64", "usr", "old"):
        (folder / place).mkdir()
    mounts = [f"mount --rbind /{place} {folder}/{place}" for place in ("bin", "lib", "lib64", "usr")]
    enter = f"pivot_root {folder} {folder}/old && cd / && exec bash -c '{KNOCK}' inside"
    script = " && ".join(["mount --make-rprivate /", f"mount --bind {folder} {folder}", f"cd {folder}", *mounts, enter])
    command = ["nsenter", f"--net={network.path}", "unshare", "--mount", SHELL, "-c", script]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.read()
    event = the_attempt(trace, process.pid)
    assert event.exe == "/usr/bin/bash", said
    assert event.args == ["bash", "-c", KNOCK, "inside"]


def test_a_program_in_memory_has_the_name_that_it_was_given(trace: Trace, network: Network) -> None:
    start = (
        "import os, shutil; here = os.memfd_create('hidden'); "
        f"shutil.copyfileobj(open('{SHELL}', 'rb'), os.fdopen(os.dup(here), 'wb')); "
        f"os.execve(here, ['innocent', '-c', '{KNOCK}'], dict(os.environ))"
    )
    command = ["nsenter", f"--net={network.path}", "/usr/bin/env", "python3", "-c", start]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        pass
    event = the_attempt(trace, process.pid)
    assert (event.exe, event.args) == ("/memfd:hidden", ["innocent", "-c", KNOCK])


def test_a_child_runs_what_its_parent_runs(trace: Trace, network: Network) -> None:
    """It started no program: only the fork is known of it."""
    pid = knock(network, script=f"( {KNOCK} ) 2>&1; true")
    (event,) = [e for e in trace.settle() if isinstance(e, Failed) and e.parents and e.parents[0] == pid]
    assert (event.exe, event.exe_source) == (os.path.realpath(SHELL), "exec")
    assert event.parents == [pid, os.getpid(), *ancestors(os.getpid())][:8]


def test_a_connection_belongs_to_the_program_that_opened_it(trace: Trace, client: Actor, server: Actor) -> None:
    """Another program takes over the socket, and opens one of its own."""
    listener = listen(server)
    near, far = pair(client, listener)
    client.do("keep", near.socket)
    before = Path(f"/proc/{client.pid}/cmdline").read_text().split("\0")[:-1]
    client.execute("renewed")
    after = Path(f"/proc/{client.pid}/cmdline").read_text().split("\0")[:-1]
    assert before != after
    again = connect(client, listener.address)
    close(near, far)
    close(again, listener.accept())
    events = told(trace.settle(), client.pid)
    assert near.local is not None and again.local is not None
    for end, args in ((near, before), (again, after)):
        assert end.local is not None
        ours = [event for event in events if event.local_port == end.local[1]]
        assert [event.event for event in ours] == ["connect", "established", "close"]
        assert [event.args for event in ours] == [args] * 3


def test_what_is_older_than_the_tracer_is_read_from_proc(
    traced: Callable[..., Trace], client: Actor, server: Actor
) -> None:
    trace = traced(netns=f"/proc/{client.pid}/ns/net")
    near, far = pair(client, listen(server))
    close(near, far)
    events = told(trace.settle(), client.pid)
    assert [event.event for event in events] == ["connect", "established", "close"]
    for event in events:
        assert event.exe == running(client)
        assert event.args == Path(f"/proc/{client.pid}/cmdline").read_text().split("\0")[:-1]
        assert (event.exe_source, event.parents) == ("proc", ancestors(client.pid))


def test_a_child_that_is_gone_ran_what_its_older_parent_runs(traced: Callable[..., Trace], network: Network) -> None:
    """As with servers that fork for each connection: nothing is in /proc of it when its event is read."""
    parent = network.actor("prefork")
    trace = traced(netns=network.path)
    child = parent.fork("worker")
    child.do("refused", 1, "127.0.0.1", 9)
    child.kill()
    event = the_attempt(trace, child.pid)
    assert event.exe == running(parent)
    assert event.exe_source == "proc"
    assert event.parents == [parent.pid, *ancestors(parent.pid)][:8]


@pytest.mark.slow(reason="one more tracer, for what user space makes of the same records")
def test_the_fast_way_to_json_tells_the_same(traced: Callable[..., Trace], network: Network) -> None:
    trace = traced(netns=network.path)
    pids = [knock(network, SHELL, f"word {number}", '"\\\x1b', "ü") for number in range(3)]
    old = network.actor("old")
    for _ in range(3):
        old.do("refused", 2, "127.0.0.1", 9)
    trace.tracer.stop()
    lines = []
    while batch := trace.tracer.read_json(timeout=10).data:
        lines += [json.loads(line) for line in batch.splitlines()]
    for number, pid in enumerate(pids):
        ours = [line for line in lines if line["pid"] == pid]
        assert ours
        for line in ours:
            assert line["args"] == [SHELL, "-c", KNOCK, f"word {number}", '"\\\x1b', "ü"]
            assert line["exe"] == os.path.realpath(SHELL)
            at = list(line)
            assert at[at.index("cgroup") + 1 :][:4] == ["exe", "exe_source", "args", "parents"]
    attempts = [line for line in lines if line["pid"] == old.pid]
    assert len(attempts) == 12
    assert {json.dumps([line["exe"], line["args"], line["parents"]]) for line in attempts} == {
        json.dumps([running(old), attempts[0]["args"], ancestors(old.pid)])
    }


def test_a_cgroup_that_is_made_and_gone_is_told_by_its_path(trace: Trace, network: Network, scope: Path) -> None:
    script = f"mkdir {scope}; echo $BASHPID > {scope}/cgroup.procs; {KNOCK}"
    pid = knock(network, script=f"({script}) 2>&1; rmdir {scope}; true")
    assert not scope.exists()
    (event,) = [e for e in trace.settle() if isinstance(e, Failed) and e.netns == network.inode]
    assert event.parents is not None and event.parents[0] == pid
    assert (event.container, event.unit) == (CONTAINER, scope.name)


def test_a_cgroup_older_than_the_tracer_is_found_by_its_id(
    traced: Callable[..., Trace], network: Network, cgroup: Path
) -> None:
    place = cgroup / "child" / "kubepods.slice"
    pod = place / "kubepods-pod01234567_89ab_cdef_0123_456789abcdef.slice" / f"cri-containerd-{CONTAINER}.scope"
    pod.mkdir(parents=True)
    try:
        trace = traced(netns=network.path)
        event = the_attempt(trace, knock(network, script=f"echo $$ > {pod}/cgroup.procs; {KNOCK}"))
    finally:
        for folder in (pod, pod.parent, place):
            folder.rmdir()
    assert (event.container, event.unit) == (CONTAINER, pod.name)
    assert event.pod == "01234567-89ab-cdef-0123-456789abcdef"


@pytest.mark.slow(reason="one more tracer, for what user space makes of the same records")
@pytest.mark.parametrize("form", ["events", "json"])
def test_the_name_of_a_container_is_told_when_its_engine_has_told_it(
    traced: Callable[..., Trace],
    network: Network,
    scope: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    """Nobody waits for that, and an owner that was told without it is told with it then."""
    engine = Engine(tmp_path / "docker.sock")
    engine.names[CONTAINER] = "/web"
    engine.may_answer.clear()
    monkeypatch.setattr(runtimes, "_SOCKETS", (str(tmp_path / "docker.sock"),))
    client = network.actor("client")
    scope.mkdir()
    (scope / "cgroup.procs").write_text(str(client.pid))
    tracer = traced(netns=network.path, events="failed").tracer

    def names() -> list[str | None]:
        client.do("refused", 1, "127.0.0.1", 9)
        if form == "events":
            return [event.container_name for event in tracer.read(timeout=10) if isinstance(event, Failed)]
        return [json.loads(line).get("container_name") for line in tracer.read_json(timeout=10).data.splitlines()]

    try:
        assert [name for _ in range(3) for name in names()] == [None] * 3
        engine.may_answer.set()
        deadline = time.monotonic() + DEADLINE
        while names() != ["web"]:
            assert time.monotonic() < deadline
        assert names() == ["web"]
    finally:
        engine.close()
        (scope.parent / "cgroup.procs").write_text(str(client.pid))


@pytest.mark.slow(reason="one more tracer, for what user space makes of the same records")
@pytest.mark.parametrize(
    ("option", "pattern"),
    [
        ("exe", "/*/wanted"),
        ("exe", "want?d"),
        ("unit", "docker-*.scope"),
        ("container", CONTAINER[:12]),
        ("container", "c0ffee*"),
    ],
)
def test_an_owner_that_does_not_fit_is_left_out(
    traced: Callable[..., Trace], network: Network, folder: Path, scope: Path, option: str, pattern: str
) -> None:
    program = folder / "wanted"
    shutil.copy2(SHELL, program)
    scope.mkdir()
    trace = traced(netns=network.path, **{option: pattern})
    fits = knock(network, program, script=f"echo $$ > {scope}/cgroup.procs; {KNOCK}")
    other = knock(network)
    events = trace.settle()
    assert {event.event for event in told(events, fits)} == {"connect", "failed"}
    assert told(events, other) == []
    assert trace.tracer.stats.left_out == 2


@pytest.mark.slow(reason="one more tracer, for what user space makes of the same records")
def test_who_wants_to_know_nothing_of_owners_attaches_nothing_for_them(
    traced: Callable[..., Trace], network: Network
) -> None:
    trace = traced(netns=network.path, processes=False)
    assert not [probe for probe in trace.tracer.probes if probe.need == "programs"]
    assert the_attempt(trace, knock(network)).process is None


def test_who_asks_for_a_name_is_told_as_who_connects(trace: Trace, place: Place) -> None:
    asker = place.actor("asker")
    asker.do("lookup", "one.test", 4, 1)
    (lookup,) = [e for e in trace.settle() if isinstance(e, Lookup) and e.pid == asker.pid and e.source != "dns"]
    assert lookup.exe == running(asker)
    assert lookup.parents == ancestors(asker.pid)
