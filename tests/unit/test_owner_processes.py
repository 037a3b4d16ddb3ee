"""What owners are, from the records that tell of them, however many these are; and as ready pieces of JSON lines."""

from __future__ import annotations

import os
import struct
import subprocess
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytracecon import wire
from pytracecon.builder import Builder
from pytracecon.clock import SECOND
from pytracecon.decode import decode
from pytracecon.events import ConnectionEvent, Process
from pytracecon.filters import Filters
from pytracecon.filters import owners as patterns
from pytracecon.json_lines import Json, joined
from pytracecon.outputs.json_lines import JsonLines
from pytracecon.owners.proc import parents_of, program_of
from pytracecon.owners.processes import Owners

NOW = 1_795_166_000_000_000_000
CONTAINER = "0123456789abcdef" * 4
NOBODY = 4_194_305  # above what a pid can be


def packed(
    kinds: dict[str, int], kind: str, fields: tuple[wire.Field, ...], values: dict[str, Any], more: bytes
) -> bytes:
    shape = wire.layout(wire.HEADER, fields)
    more += bytes(-(shape.size + len(more)) % 8)
    head = {"time": 1, "lost": 0, "cpu": 0, "kind": kinds[kind], "words": (shape.size + len(more)) // 8}
    usual: dict[str, Any] = {name: b"" if form.endswith("s") else 0 for name, form in fields}
    values = usual | head | values
    return shape.pack(*(values[name] for name, form in (*wire.HEADER, *fields) if not form.endswith("x"))) + more


def image(number: int, exe: bytes = b"/usr/bin/curl", args: bytes = b"curl\0-s\0", *, cut: bool = False) -> bytes:
    path = b"".join(name + b"\0" for name in reversed(exe.split(b"/")[1:])) if exe else b""
    values = {"id": number, "path": len(path), "args": len(args), "args_cut": cut}
    return packed(wire.OWNER_KINDS, "image", wire.OWNER_RECORDS["image_event"], values, path + args)


def process(number: int, program: int, *parents: int, origin: tuple[int, int] = (NOBODY, 1)) -> bytes:
    values: dict[str, Any] = {
        "id": number,
        "image": program,
        "born": 1,
        "origin_pid": origin[0],
        "origin_born": origin[1],
    }
    told = struct.pack("=8I", *parents, *[0] * (8 - len(parents)))
    values |= {"pid": NOBODY, "parents": told}
    return packed(wire.OWNER_KINDS, "process", wire.OWNER_RECORDS["process_event"], values, b"")


def group(number: int, path: bytes) -> bytes:
    return packed(
        wire.OWNER_KINDS, "group", wire.OWNER_RECORDS["group_event"], {"id": number, "length": len(path)}, path
    )


def accept(number: int, cgroup: int = 0) -> bytes:
    fields = (*wire.CONN, *wire.RECORDS["accept_event"])
    values = {"process": number, "cgroup": cgroup, "pid": NOBODY, "tid": NOBODY, "born": 1, "protocol": 1, "comm": b"x"}
    return packed(wire.KINDS, "accept", fields, values, b"")


@pytest.fixture
def owners() -> Iterator[Owners]:
    known = Owners()
    yield known
    known.close()


def told(owners: Owners, *records: bytes) -> list[Process | None]:
    events = decode(b"".join(records), 0, None, owners)
    return [event.process for event in events if isinstance(event, ConnectionEvent)]


def test_a_program_is_what_its_record_says(owners: Owners) -> None:
    records = image(1, args=b"curl\0\0two words\0"), process(1, 1, 71, 70, 1), accept(1)
    assert told(owners, *records) == [
        Process(exe="/usr/bin/curl", exe_source="exec", args=["curl", "", "two words"], parents=[71, 70, 1])
    ]


def test_a_child_has_the_program_of_its_parent(owners: Owners) -> None:
    child, parent = told(owners, image(1), process(1, 1, 70), process(2, 1, 71, 70), accept(2), accept(1))
    assert child is not None and parent is not None
    assert (child.exe, child.args, child.parents) == (parent.exe, parent.args, [71, 70])


def test_arguments_that_were_cut_end_in_the_middle(owners: Owners) -> None:
    (found,) = told(owners, image(1, args=b"curl\0http://10.", cut=True), process(1, 1, 70), accept(1))
    assert found is not None
    assert (found.args, found.args_cut) == (["curl", "http://10."], True)


def test_a_path_that_the_kernel_side_could_not_tell_is_not_known(owners: Owners) -> None:
    (found,) = told(owners, image(1, exe=b""), process(1, 1), accept(1))
    assert found == Process(exe_source="exec", args=["curl", "-s"])


def test_a_cgroup_is_known_by_what_was_said_when_it_was_made(owners: Owners) -> None:
    path = f"/kubepods.slice/kubepods-pod{'1' * 32}.slice/cri-containerd-{CONTAINER}.scope"
    records = group(4711 << 40, path.encode()), process(1, 1, 70), accept(1, 4711 << 40)
    (found,) = told(owners, *records)
    assert found is not None
    assert (found.container, found.pod, found.unit) == (CONTAINER, "1" * 32, f"cri-containerd-{CONTAINER}.scope")


def test_of_a_process_that_is_gone_nothing_is_invented(owners: Owners) -> None:
    assert told(owners, accept(7), process(8, 8, 70), accept(8)) == [Process(), Process(parents=[70])]


def own_birth() -> int:
    """Of this process, in nanoseconds: what the kernel side would tell of it, to a clock tick."""
    with open("/proc/self/stat", encoding="utf-8") as stat:
        ticks = int(stat.read().rpartition(") ")[2].split()[19])
    return ticks * SECOND // os.sysconf("SC_CLK_TCK")


def test_proc_is_believed_only_of_who_was_born_then() -> None:
    born = own_birth()
    found = program_of(os.getpid(), born)
    assert found is not None
    assert found.exe == os.path.realpath("/proc/self/exe")
    assert parents_of(os.getpid(), born)[0] == os.getppid()
    assert program_of(os.getpid(), born - SECOND) is None
    assert parents_of(os.getpid(), born - SECOND) == []
    assert program_of(NOBODY, born) is None


def test_any_number_of_programs_takes_bounded_memory(owners: Owners) -> None:
    """And those that came last are known."""
    records = [b"".join((image(n, args=b"x" * 900), process(n, n, 70))) for n in range(1, 60_001)]
    tracemalloc.start()
    for record in records:
        decode(record, 0, None, owners)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 40 << 20
    first, last = told(owners, accept(1), accept(60_000))
    assert first == Process()
    assert last is not None and last.exe == "/usr/bin/curl"


def hostile_args(number: int, size: int) -> bytes:
    """As many that are no text as there is room for: each byte becomes four characters, and each argument an object."""
    first = number * (size // 4)
    each = range(first, first + size // 4)
    return b"".join(bytes((0x80 | n >> 12 & 63, 0x80 | n >> 6 & 63, 0x80 | n & 63, 0)) for n in each)


@pytest.mark.parametrize("in_c", [False, True], ids=["decode", "builder"])
def test_arguments_that_are_meant_to_take_memory_take_little(owners: Owners, in_c: bool) -> None:
    builder = Builder(None, owners, None)
    tracemalloc.start()
    for number in range(1, 2_049):
        owners.refresh()
        batch = image(number, args=hostile_args(number, 1280)) + process(number, number, 70) + accept(number)
        (event,) = builder.events(batch, 0) if in_c else decode(batch, 0, None, owners)
        assert isinstance(event, ConnectionEvent)
        assert event.process
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 35 << 20


def test_paths_of_cgroups_that_are_meant_to_take_memory_take_little(owners: Owners) -> None:
    tracemalloc.start()
    for number in range(1, 2_049):
        path = b"/\xf0\x9f\x98\x80%d" % number
        batch = (
            group(number << 40, path + b"\xff" * (1016 - len(path))) + process(number, 0) + accept(number, number << 40)
        )
        decode(batch, 0, None, owners)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 20 << 20


# As pieces of JSON lines

foreign = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"").replace(b"/", b""))


@settings(max_examples=200)
@given(st.lists(st.tuples(foreign, st.lists(foreign, max_size=4), st.booleans()), min_size=1, max_size=6), st.data())
def test_both_ways_to_json_say_the_same_of_owners(
    programs: list[tuple[bytes, list[bytes], bool]], data: st.DataObject
) -> None:
    records = []
    for number, (name, args, cut) in enumerate(programs, 1):
        records += [image(number, b"/usr/" + (name or b"x"), b"".join(arg + b"\0" for arg in args), cut=cut)]
        records += [process(number, number, *range(70, 70 + number))]
    order = data.draw(st.lists(st.integers(1, len(programs)), min_size=1, max_size=20))
    batch = b"".join((*records, *map(accept, order)))
    known = Owners()
    fast = Json(None, None, known)
    made, _ = fast.records(memoryview(batch), NOW)
    both = joined(made)
    expected = b"".join(data for data, _ in JsonLines().render(decode(batch, NOW, None, known)))
    known.close()
    assert both.data == expected
    assert both.events == len(order)


@pytest.mark.parametrize("size", [10, 5_000])
def test_more_owners_than_are_kept_ready_are_told_all_the_same(size: int) -> None:
    """Also those of which more is known than a piece may hold."""
    numbers = range(1, 20_001 if size == 10 else 301)
    known = Owners()
    fast = Json(None, None, known)
    for number in numbers:
        args = (b"%d\0" % number) + b"\x01" * min(size // 6, 1_200) + b"\0"
        batch = image(number, args=args) + process(number, number, 70) + accept(number) * 3
        made, _ = fast.records(memoryview(batch), NOW)
        lines = joined(made).data.splitlines()
        assert len(lines) == 3
        assert len(set(lines)) == 1
        assert b'"args":["%d",' % number in lines[0]
    known.close()


# Who is meant

WEB = Process(CONTAINER, "web", None, "nginx.service", "/usr/sbin/nginx", "exec", ["nginx"], None, [1])


@pytest.mark.parametrize(
    ("keywords", "fits"),
    [
        ({}, True),
        ({"container": CONTAINER}, True),
        ({"container": CONTAINER[:12]}, True),
        ({"container": CONTAINER[:11]}, False),
        ({"container": "w?b"}, True),
        ({"container": ["other", "web"]}, True),
        ({"unit": "nginx*"}, True),
        ({"unit": "nginx"}, False),
        ({"exe": "nginx"}, True),
        ({"exe": "/usr/*/nginx"}, True),
        ({"exe": "/usr/bin/*"}, False),
        ({"exe": "NGINX"}, False),
        ({"exe": "nginx", "unit": "sshd.service"}, False),
    ],
)
def test_an_owner_fits_what_is_asked_for(keywords: dict[str, Any], fits: bool) -> None:
    filters = Filters.parse(**keywords)
    matcher = patterns.matcher(filters.containers, filters.units, filters.exes)
    assert (matcher is None) == (not keywords)
    if matcher is not None:
        assert matcher(WEB) is fits
        assert not matcher(Process())
        assert not matcher(None)


def test_what_the_kernel_side_read_counts_and_proc_has_the_rest() -> None:
    """A path that is too long for it is no reason to believe what a process has made of its arguments."""
    with subprocess.Popen(["sleep", "60"]) as other, closing(Owners()) as owners:
        try:
            fields = Path(f"/proc/{other.pid}/stat").read_bytes().rpartition(b") ")[2].split()
            born = int(fields[19]) * SECOND // os.sysconf("SC_CLK_TCK")
            exe = os.path.realpath(f"/proc/{other.pid}/exe")
            for number, record in (
                (1, image(1, exe=b"")),
                (2, image(2, args=b"")),
                (3, image(3, exe=b"", args=b"x", cut=True)),
            ):
                owners.take(record, 0)
                owners.take(process(number, number, origin=(other.pid, born)), 0)
            found = [owners.of((number, 0, other.pid, born)) for number in (1, 2, 3)]
            assert [(each.exe, each.args, each.args_cut, each.exe_source) for each in found] == [
                (exe, ["curl", "-s"], None, "proc"),
                ("/usr/bin/curl", ["sleep", "60"], None, "proc"),
                (exe, ["x"], True, "proc"),
            ]
        finally:
            other.kill()


def test_of_a_child_and_its_parent_that_run_two_programs_nobody_knows_which_it_was() -> None:
    """A number may be another's who was born in the same tick; and whoever forked may have started another since."""
    with subprocess.Popen(["sleep", "60"]) as other, closing(Owners()) as owners:
        try:
            fields = Path(f"/proc/{other.pid}/stat").read_bytes().rpartition(b") ")[2].split()
            born = int(fields[19]) * SECOND // os.sysconf("SC_CLK_TCK")
            for number, origin in ((1, (os.getpid(), own_birth())), (2, (other.pid, born))):
                owners.take(process(number, 0, os.getpid(), origin=origin), 0)
            assert owners.of((1, 0, other.pid, born)).exe is None
            known = owners.of((2, 0, other.pid, born)).exe
            assert known is not None and known.endswith(("/sleep", "/coreutils", "/busybox"))
        finally:
            other.kill()
