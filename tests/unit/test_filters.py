"""Every value is taken or refused before anything is loaded, by name and with what would be right."""

from __future__ import annotations

import inspect
import ipaddress
import os
import struct
import subprocess
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon.errors import InvalidValue, PytraceconError
from pytracecon.events import Accept, Close, ConnectionEvent, Lookup
from pytracecon.filters import Filters, Keywords, hosts, places, ports

V4 = ipaddress.IPv4Network
V6 = ipaddress.IPv6Network
BTF = Path("/sys/kernel/btf/vmlinux")
OF_CONNECTIONS = {"connect", "established", "failed", "accept", "close"}


def test_without_keywords_everything_is_wanted() -> None:
    filters = Filters.parse()
    assert filters == Filters()
    assert filters.events == OF_CONNECTIONS | {"lookup"}
    assert filters.names
    assert not filters.reverse
    assert filters.ring_size == 8 << 20


@pytest.mark.parametrize(
    ("keywords", "field", "expected"),
    [
        ({"port": "80,443,8000-8999"}, "remote_ports", ((80, 80), (443, 443), (8000, 8999))),
        ({"port": 443}, "remote_ports", ((443, 443),)),
        ({"port": [443, "80", "1-3"]}, "remote_ports", ((1, 3), (80, 80), (443, 443))),
        ({"port": range(8000, 9000)}, "remote_ports", ((8000, 8999),)),
        ({"port": ["80,81", "82-90,85-100"]}, "remote_ports", ((80, 100),)),
        ({"port": " 80 , 443 "}, "remote_ports", ((80, 80), (443, 443))),
        ({"local_port": "1-65535"}, "local_ports", ((1, 65535),)),
        ({"not_port": 22}, "not_remote_ports", ((22, 22),)),
        ({"remote": "10.0.0.0/8,2001:db8::/32"}, "remote", (V4("10.0.0.0/8"), V6("2001:db8::/32"))),
        ({"remote": ["10.0.0.0/9", "10.128.0.0/9"]}, "remote", (V4("10.0.0.0/8"),)),
        ({"remote": V4("10.0.0.0/8")}, "remote", (V4("10.0.0.0/8"),)),
        ({"remote": ipaddress.ip_address("::1")}, "remote", (V6("::1/128"),)),
        ({"local": "::ffff:192.0.2.1"}, "local", (V4("192.0.2.1/32"),)),
        ({"local": "::ffff:10.0.0.0/104"}, "local", (V4("10.0.0.0/8"),)),
        ({"not_remote": "127.0.0.0/8"}, "not_remote", (V4("127.0.0.0/8"),)),
        ({"family": 4}, "family", 4),
        ({"family": "6"}, "family", 6),
        ({"uid": "root"}, "uids", (0,)),
        ({"uid": [1000, "root", "1000"]}, "uids", (0, 1000)),
        ({"uid": "0,65534"}, "uids", (0, 65534)),
        ({"comm": "curl"}, "comms", (b"curl",)),
        ({"comm": ["nginx", b"\xff"]}, "comms", (b"nginx", b"\xff")),
        ({"comm": "a,b"}, "comms", (b"a,b",)),
        ({"comm": "x" * 15}, "comms", (b"x" * 15,)),
        ({"direction": "in"}, "direction", "in"),
        ({"events": "close, accept"}, "events", {"close", "accept"}),
        ({"events": ["close", Accept]}, "events", {"close", "accept"}),
        ({"events": Close}, "events", {"close"}),
        ({"events": "all"}, "events", OF_CONNECTIONS | {"lookup"}),
        ({"events": "all", "names": False}, "events", OF_CONNECTIONS),
        ({"names": False}, "events", OF_CONNECTIONS),
        ({"names": False}, "names", False),
        ({"events": Lookup}, "events", {"lookup"}),
        ({"events": []}, "events", frozenset()),
        ({"events": (), "direction": "in"}, "direction", "in"),
        ({"events": (name for name in ("close", "accept"))}, "events", {"close", "accept"}),
        ({"existing": True}, "events", OF_CONNECTIONS | {"lookup", "existing"}),
        ({"existing": True, "names": False}, "events", OF_CONNECTIONS | {"existing"}),
        ({"events": "close", "existing": True}, "events", {"close", "existing"}),
        ({"events": "close,existing"}, "events", {"close", "existing"}),
        ({"failed": True}, "events", {"failed"}),
        ({"failed": True, "events": "failed,close"}, "events", {"failed"}),
        ({"failed": True, "events": "failed,lookup"}, "events", {"failed"}),
        ({"reverse": True}, "reverse", True),
        ({"host": "*.Example.COM"}, "hosts", ("*.example.com",)),
        ({"host": ["b", "A.", "a"]}, "hosts", ("a", "b")),
        ({"host": "a,b"}, "hosts", ("a,b",)),
        ({"host": "x" * 255}, "hosts", ("x" * 255,)),
        ({"min_latency": "0.001"}, "min_latency_ns", 1000),
        ({"min_latency": 12.5}, "min_latency_ns", 12_500_000),
        ({"min_latency": 3}, "min_latency_ns", 3_000_000),
        ({"ring_size": "64K"}, "ring_size", 65536),
        ({"ring_size": "1G"}, "ring_size", 1 << 30),
        ({"ring_size": "16MiB"}, "ring_size", 16 << 20),
        ({"ring_size": 1 << 20}, "ring_size", 1 << 20),
        ({"max_connections": "1000"}, "max_connections", 1000),
        ({"probes": "kprobe"}, "probes", "kprobe"),
    ],
)
def test_values_are_normalised(keywords: dict[str, Any], field: str, expected: object) -> None:
    assert getattr(Filters.parse(**keywords), field) == expected


@pytest.mark.parametrize(
    ("keywords", "option", "right"),
    [
        ({"port": 0}, "--port", "1 to 65535"),
        ({"port": 65536}, "--port", "1 to 65535"),
        ({"port": "abc"}, "--port", "80,443,8000-8999"),
        ({"port": "9-5"}, "--port", "5-9"),
        ({"port": "80,,443"}, "--port", "1 to 65535"),
        ({"port": "80-"}, "--port", "1 to 65535"),
        ({"port": "-80"}, "--port", "1 to 65535"),
        ({"port": "1_000"}, "--port", "1 to 65535"),
        ({"port": "٨٠"}, "--port", "1 to 65535"),
        ({"port": "9" * 5000}, "--port", "1 to 65535"),
        ({"port": True}, "--port", "1 to 65535"),
        ({"port": 80.0}, "--port", "1 to 65535"),
        ({"port": []}, "--port", "leave it out"),
        ({"local_port": "0-80"}, "--local-port", "1 to 65535"),
        ({"not_port": "70000"}, "--not-port", "1 to 65535"),
        ({"remote": "10.0.0.1/8"}, "--remote", "give 10.0.0.0/8"),
        ({"remote": "2001:db8::1/32"}, "--remote", "give 2001:db8::/32"),
        ({"remote": "::ffff:10.0.0.1/104"}, "--remote", "give 10.0.0.0/8"),
        ({"remote": "10.0.0.0/33"}, "--remote", "10.0.0.0/8"),
        ({"remote": "www.example.com"}, "--remote", "addresses"),
        ({"remote": 1}, "--remote", "addresses"),
        ({"remote": b"\x7f\0\0\1"}, "--remote", "addresses"),
        ({"remote": ""}, "--remote", "addresses"),
        ({"local": "fe80::1%eth0"}, "--local", "leave the % part out"),
        ({"not_remote": "10/8"}, "--not-remote", "addresses"),
        ({"pid": 0}, "--pid", "1 to 4194303"),
        ({"pid": "-5"}, "--pid", "1 to 4194303"),
        ({"pid": 4194304}, "--pid", "1 to 4194303"),
        ({"pid": "self"}, "--pid", "1 to 4194303"),
        ({"children": True}, "--children", "--pid"),
        ({"children": "yes"}, "--children", "True"),
        ({"uid": "no such user"}, "--uid", "a number or a name"),
        ({"uid": -1}, "--uid", "0 to 4294967294"),
        ({"uid": (1 << 32) - 1}, "--uid", "0 to 4294967294"),
        ({"uid": ""}, "--uid", "a name, or a number"),
        ({"comm": ""}, "--comm", "1 to 15 bytes"),
        ({"comm": "x" * 16}, "--comm", "give " + "x" * 15),
        ({"comm": "ä" * 8}, "--comm", "give " + "ä" * 7),
        ({"comm": "a\0b"}, "--comm", "1 to 15 bytes"),
        ({"comm": 7}, "--comm", "1 to 15 bytes"),
        ({"family": 5}, "-4/-6", "4, 6"),
        ({"netns": "no such namespace"}, "--netns", "ip netns"),
        ({"netns": "/proc/self/ns/uts"}, "--netns", "/proc/PID/ns/net"),
        ({"netns": "/dev/null"}, "--netns", "/proc/PID/ns/net"),
        ({"netns": "/proc/self/status"}, "--netns", "/proc/PID/ns/net"),
        ({"netns": ""}, "--netns", "ip netns"),
        ({"netns": 4194304}, "--netns", "1 to 4194303"),
        ({"cgroup": "/no/such/group"}, "--cgroup", "/proc/PID/cgroup"),
        ({"cgroup": "/usr"}, "--cgroup", "/proc/PID/cgroup"),
        ({"cgroup": "../../.."}, "--cgroup", "/proc/PID/cgroup"),
        ({"cgroup": ""}, "--cgroup", "/proc/PID/cgroup"),
        ({"direction": "both"}, "--direction", "out, in"),
        ({"direction": 1}, "--direction", "out, in"),
        ({"events": "closed"}, "--events", "connect, established, failed, accept, close, lookup, state"),
        ({"events": "lost"}, "--events", "always delivered"),
        ({"events": ""}, "--events", "flow, or all"),
        ({"events": [""]}, "--events", "flow, or all"),
        ({"events": ConnectionEvent}, "--events", "flow, or all"),
        ({"names": "no"}, "--no-names", "True"),
        ({"reverse": 1}, "--reverse", "True"),
        ({"host": ""}, "--host", "*.example.com"),
        ({"host": "."}, "--host", "*.example.com"),
        ({"host": []}, "--host", "leave it out"),
        ({"host": "a\nb"}, "--host", "*.example.com"),
        ({"host": "\x1b[31m"}, "--host", "*.example.com"),
        ({"host": "x" * 256}, "--host", "255 characters"),
        ({"host": ["a", 1]}, "--host", "*.example.com"),
        ({"host": b"a"}, "--host", "*.example.com"),
        ({"min_latency": 0}, "--min-latency", "0.001"),
        ({"min_latency": "0.0009"}, "--min-latency", "0.001"),
        ({"min_latency": -1}, "--min-latency", "0.001"),
        ({"min_latency": "nan"}, "--min-latency", "0.001"),
        ({"min_latency": "inf"}, "--min-latency", "0.001"),
        ({"min_latency": "fast"}, "--min-latency", "0.001"),
        ({"min_latency": True}, "--min-latency", "0.001"),
        ({"ring_size": "100K"}, "--ring-size", "64K or 128K"),
        ({"ring_size": "1K"}, "--ring-size", "1G"),
        ({"ring_size": "2G"}, "--ring-size", "1G"),
        ({"ring_size": 0}, "--ring-size", "1G"),
        ({"ring_size": "big"}, "--ring-size", "such as 8M"),
        ({"max_connections": 0}, "--max-connections", "from 1"),
        ({"max_connections": "many"}, "--max-connections", "from 1"),
        ({"probes": "uprobe"}, "--probes", "auto, fentry, kprobe, tracepoint"),
        ({"btf": "/proc/self/status"}, "--btf", "/sys/kernel/btf/vmlinux"),
        ({"btf": "/no/such/file"}, "--btf", "a file that can be read"),
        ({"btf": "/usr"}, "--btf", "/sys/kernel/btf/vmlinux"),
        ({"btf": "/dev/zero"}, "--btf", "/sys/kernel/btf/vmlinux"),
        ({"btf": "a\0b"}, "--btf", "path"),
        ({"libbpf": "/proc/self/status"}, "--libbpf", "libbpf.so.1"),
        ({"libbpf": "libbpf.so.1"}, "--libbpf", "a file that can be read"),
    ],
)
def test_a_bad_value_is_refused_in_one_line_with_what_would_be_right(
    keywords: dict[str, Any], option: str, right: str
) -> None:
    with pytest.raises(InvalidValue) as refused:
        Filters.parse(**keywords)
    message = str(refused.value)
    assert message.startswith(option + ":")
    assert right in message
    assert message.isprintable()
    assert len(message) < 250


@pytest.mark.parametrize(
    ("keywords", "named"),
    [
        ({"direction": "in", "failed": True}, "--direction in"),
        ({"direction": "in", "events": "connect,established"}, "--direction in"),
        ({"direction": "out", "events": "accept"}, "--direction out"),
        ({"failed": True, "events": "close"}, "--failed"),
        ({"failed": True, "existing": True}, "--failed"),
        ({"min_latency": 1, "direction": "in"}, "--min-latency"),
        ({"min_latency": 1, "events": "accept,connect"}, "--min-latency"),
        ({"names": False, "events": "lookup"}, "--no-names"),
        ({"names": False, "events": ["close", Lookup]}, "--no-names"),
        ({"names": False, "host": "a"}, "--host"),
        ({"names": False, "reverse": True}, "--reverse"),
        ({"host": "a", "events": "lookup"}, "--host"),
        ({"host": "a", "direction": "in"}, "--host"),
        ({"host": "a", "events": "accept"}, "--host"),
        ({"host": "a", "events": "existing"}, "--host"),
        ({"direction": "in", "events": "connect,failed"}, "--direction in"),
        ({"family": 4, "remote": "2001:db8::/32"}, "--remote"),
        ({"family": 6, "local": "10.0.0.0/8"}, "--local"),
        ({"remote": "10.0.0.0/8", "local": "::1"}, "--local"),
        ({"port": "80", "not_port": "1-100"}, "--not-port"),
        ({"not_port": "1-65535"}, "--not-port"),
        ({"remote": "10.1.0.0/16", "not_remote": "10.0.0.0/8"}, "--not-remote"),
        ({"not_remote": "0.0.0.0/0,::/0"}, "--not-remote"),
        ({"family": 6, "not_remote": "::/0"}, "--not-remote"),
        ({"local": "10.0.0.1", "not_remote": "0.0.0.0/0"}, "--not-remote"),
    ],
)
def test_conditions_that_nothing_can_meet_are_refused_by_name(keywords: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidValue, match=f"^{named}:"):
        Filters.parse(**keywords)


@pytest.mark.parametrize(
    "keywords",
    [
        {"direction": "in", "events": "accept,failed"},
        {"direction": "out", "failed": True},
        {"direction": "in", "host": "a", "reverse": True},
        {"events": "accept", "host": "a", "reverse": True},
        {"events": "lookup", "port": 53},
        {"family": 4, "remote": "10.0.0.0/8,2001:db8::/32"},
        {"remote": "10.0.0.0/8,::1", "local": "::1"},
        {"port": "80,443", "not_port": "80"},
        {"remote": "10.0.0.0/8", "not_remote": "10.1.0.0/16"},
        {"not_remote": "0.0.0.0/0"},
    ],
)
def test_conditions_that_something_can_meet_are_taken(keywords: dict[str, Any]) -> None:
    Filters.parse(**keywords)


def test_foreign_text_in_a_refusal_is_harmless_and_short() -> None:
    with pytest.raises(InvalidValue) as refused:
        Filters.parse(remote="\x1b[31m\r\n" + "x" * 5000)
    assert r"\x1b[31m\x0d\x0a" in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 200


@given(st.sets(st.integers(1, 65535), min_size=1, max_size=50))
def test_port_ranges_hold_exactly_the_ports_given(wanted: set[int]) -> None:
    ranges = ports.parse("--port", ",".join(map(str, wanted)))
    assert {port for low, high in ranges for port in range(low, high + 1)} == wanted
    assert all(high + 1 < low for (_, high), (low, _) in pairwise(ranges))


@given(st.text())
def test_no_text_at_all_ends_in_anything_but_a_value_or_a_refusal(value: str) -> None:
    for name in (
        "port",
        "remote",
        "uid",
        "comm",
        "ring_size",
        "min_latency",
        "events",
        "direction",
        "pid",
        "netns",
        "host",
    ):
        keywords: dict[str, Any] = {name: value}
        try:
            Filters.parse(**keywords)
        except PytraceconError as refused:
            message = str(refused)
        else:
            message = ""
        assert message.isprintable()


# Names


@pytest.mark.parametrize(
    "keywords",
    [
        {"family": 6},
        {"port": 443},
        {"local_port": 443},
        {"not_port": 443},
        {"remote": "::1"},
        {"local": "::1"},
        {"not_remote": "::1"},
        {"direction": "out"},
        {"min_latency": 1},
        {"host": "*.example.com"},
    ],
)
def test_lookups_are_told_with_a_filter_for_connections_only_if_asked_for(keywords: dict[str, Any]) -> None:
    assert Filters.parse(**keywords).of_connections
    assert Filters.parse(**keywords).events == OF_CONNECTIONS
    assert Filters.parse(**keywords, existing=True).events == OF_CONNECTIONS | {"existing"}
    assert Filters.parse(**keywords, events="close,lookup").events == {"close", "lookup"}
    assert "lookup" in Filters.parse(**keywords, events="all").events


@pytest.mark.parametrize("keywords", [{}, {"uid": 0}, {"comm": "curl"}, {"pid": os.getpid()}, {"reverse": True}])
def test_a_filter_for_processes_is_one_for_their_lookups_too(keywords: dict[str, Any]) -> None:
    assert not Filters.parse(**keywords).of_connections
    assert "lookup" in Filters.parse(**keywords).events


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("*.example.com", "www.example.com", True),
        ("*.example.com", "WWW.Example.Com.", True),
        ("*.EXAMPLE.com.", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "www.example.com.evil.test", False),
        ("*.example.com", "www-example.com", False),
        ("www", "www.example.com", False),
        ("db[0-9]", "db7", True),
        ("db[0-9]", "db77", False),
        ("db?", "db", False),
        ("[", "[", True),
        ("*", "a\nb", True),
        ("*", "", True),
        ("*", None, False),
        ("b\u00fccher.*", "B\u00dcCHER.example", True),
    ],
)
def test_a_pattern_fits_whole_names_in_any_case(pattern: str, name: str | None, fits: bool) -> None:
    assert hosts.matcher(hosts.parse("--host", pattern))(name) == fits


def test_several_patterns_are_alternatives_and_none_fits_nothing() -> None:
    fits = hosts.matcher(hosts.parse("--host", ["a.*", "*.b"]))
    assert [fits(name) for name in ("a.x", "x.b", "x.a", None)] == [True, True, False, False]
    assert not hosts.matcher(())("a")


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_pattern_is_refused_or_judges_any_name(pattern: str, name: str) -> None:
    try:
        patterns = hosts.parse("--host", pattern)
    except InvalidValue:
        return
    assert hosts.matcher(patterns)(name) in (True, False)


def test_a_pattern_made_to_be_slow_is_not() -> None:
    assert not hosts.matcher(hosts.parse("--host", "*a" * 127))("a" * 126 + "b" * 4000)


# Processes


def test_a_running_process_is_taken_as_number_and_as_text() -> None:
    pid = os.getpid()
    assert Filters.parse(pid=pid).pids == (pid,)
    assert Filters.parse(pid=[str(pid), f"{pid},{os.getppid()}"]).pids == tuple(sorted({pid, os.getppid()}))
    assert Filters.parse(pid=pid, children=True).children


def test_a_process_that_is_gone_is_refused() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    with pytest.raises(InvalidValue, match=r"^--pid: [0-9]+ is no running process"):
        Filters.parse(pid=process.pid)


def test_a_process_that_only_waits_to_be_reaped_is_refused() -> None:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(InvalidValue, match=r"^--pid: [0-9]+ has ended"):
            Filters.parse(pid=process.pid)


def test_a_thread_is_refused_with_its_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with pytest.raises(InvalidValue, match=f"is a thread of process {os.getpid()}; give {os.getpid()}"):
            Filters.parse(pid=thread.native_id)
    finally:
        done.set()
        thread.join()


# Network namespaces


@pytest.mark.parametrize("given_as", [os.getpid(), str(os.getpid()), "/proc/self/ns/net", Path("/proc/self/ns/net")])
def test_a_network_namespace_is_its_inode_number(given_as: str | int | Path) -> None:
    assert Filters.parse(netns=given_as).netns == (Path("/proc/self/ns/net").stat().st_ino,)


def test_a_namespace_can_be_given_by_the_name_that_ip_netns_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_NAMED_NAMESPACES", tmp_path)
    (tmp_path / "blue").symlink_to("/proc/self/ns/net")
    assert Filters.parse(netns="blue").netns == (Path("/proc/self/ns/net").stat().st_ino,)


def test_a_fifo_that_looks_like_a_namespace_or_a_btf_file_blocks_nobody(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for name in ("netns", "btf", "libbpf"):
        keywords: dict[str, Any] = {name: str(fifo)}
        with pytest.raises(InvalidValue, match=f"^--{name}: "):
            Filters.parse(**keywords)


# Control groups


def test_cgroup2_is_found_in_every_layout_of_mounts() -> None:
    mountinfo = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
37 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
39 31 0:38 /part /mnt/a\\040part rw,relatime shared:7 - cgroup2 cgroup2 rw
38 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 master:1 - cgroup2 cgroup2 rw
"""
    device = os.makedev(0, 38)
    assert places.cgroup2_mounts(mountinfo) == [
        places.Mount("/sys/fs/cgroup/unified", "/", device),
        places.Mount("/mnt/a part", "/part", device),
    ]


@pytest.mark.parametrize("odd", ["a\rb", "a\u2028b", "a\x0bb\x1c\x85", "\udcff"])
def test_only_a_newline_ends_a_line_of_the_table_of_mounts(odd: str) -> None:
    row = f"36 35 0:39 / /home/{odd} rw,nosuid - fuse.sshfs {odd} rw\n38 31 0:38 / /mnt/{odd} rw - cgroup2 cgroup2 rw\n"
    assert places.cgroup2_mounts(row) == [places.Mount(f"/mnt/{odd}", "/", os.makedev(0, 38))]


@pytest.fixture
def mount() -> str:
    mounts = places.cgroup2_mounts(places.mountinfo())
    assert mounts, "these tests need a cgroup2 mount"
    return mounts[0].point


def test_a_cgroup_is_the_inode_of_its_directory_however_it_is_named(mount: str) -> None:
    inside = next(
        line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0:")
    )
    expected = (Path(mount + inside).stat().st_ino,)
    assert Filters.parse(cgroup=inside).cgroups == expected
    assert Filters.parse(cgroup=mount + inside).cgroups == expected
    assert Filters.parse(cgroup=[inside, Path(mount + inside)]).cgroups == expected


def test_a_file_in_a_cgroup_is_no_cgroup(mount: str) -> None:
    with pytest.raises(InvalidValue, match="is no cgroup2 directory"):
        Filters.parse(cgroup=f"{mount}/cgroup.procs")


# Files


@pytest.fixture
def raw_btf() -> bytes:
    strings = b"\0int\0"
    types = struct.pack("=IIII", 1, 1 << 24, 4, 0)
    return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings


def elf_with(section: bytes, name: bytes) -> bytes:
    names = b"\0" + name + b"\0.shstrtab\0"
    header = b"\x7fELF\x02" + bytes(0x28 - 5) + struct.pack("=Q", 64 + len(section) + len(names))
    header = header.ljust(0x3A, b"\0") + struct.pack("=HHH", 64, 3, 2)

    def entry(name_at: int, at: int, size: int) -> bytes:
        return struct.pack("=IIQQQQ", name_at, 0, 0, 0, at, size).ljust(64, b"\0")

    table = entry(0, 0, 0) + entry(1, 64, len(section)) + entry(len(name) + 2, 64 + len(section), len(names))
    return header + section + names + table


def test_the_kernels_own_btf_is_taken() -> None:
    assert Filters.parse(btf=BTF).btf == str(BTF)


def test_btf_is_taken_raw_and_from_an_elf_file(tmp_path: Path, raw_btf: bytes) -> None:
    for content in (raw_btf, elf_with(raw_btf, b".BTF")):
        file = tmp_path / "btf"
        file.write_bytes(content)
        assert Filters.parse(btf=file).btf == str(file)


def test_a_btf_file_that_is_cut_off_anywhere_is_refused(tmp_path: Path, raw_btf: bytes) -> None:
    file = tmp_path / "btf"
    for whole in (raw_btf, elf_with(raw_btf, b".BTF")):
        for length in range(len(whole)):
            file.write_bytes(whole[:length])
            with pytest.raises(InvalidValue, match="holds no BTF"):
                Filters.parse(btf=file)


def test_an_elf_file_without_btf_is_refused(tmp_path: Path, raw_btf: bytes) -> None:
    file = tmp_path / "elf"
    file.write_bytes(elf_with(raw_btf, b".BTF.ext"))
    with pytest.raises(InvalidValue, match="holds no BTF"):
        Filters.parse(btf=file)


@given(st.binary(max_size=200))
def test_a_file_that_lies_about_itself_is_only_refused(tmp_path_factory: pytest.TempPathFactory, tail: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "lying"
    for head in (b"\x9f\xeb\x01\0", b"\x7fELF\x02"):
        file.write_bytes(head + tail)
        with pytest.raises(InvalidValue, match="holds no BTF"):
            Filters.parse(btf=file)


def test_the_keywords_that_type_checkers_know_are_those_that_are_taken() -> None:
    assert list(Keywords.__annotations__) == list(inspect.signature(Filters.parse).parameters)
