"""The command before anything is traced: help, refusals, and what a run says at its end. Needs no root."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from pytracecon.cli import main
from pytracecon.commands import VERBS, lookups, trace
from pytracecon.commands.options import tracer_keywords
from pytracecon.commands.session import identity, names, totals
from pytracecon.commands.signals import Signals
from pytracecon.events import Close, Connect, Event, Lookup, Lost, Process
from pytracecon.filters import Filters
from pytracecon.outputs.sink import open_file
from pytracecon.probes import Probe
from pytracecon.tracer import Stats

COMMAND = [sys.executable, "-m", "pytracecon"]


@pytest.fixture(autouse=True)
def python_handles_sigint() -> Iterator[None]:
    """`main` gives SIGINT back to the kernel, for a process of its own."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def run(*arguments: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, **keywords)


def keywords_of(line: str) -> dict[str, Any]:
    return tracer_keywords(trace.parser().parse_args(line.split()))


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "-h"] for verb in VERBS)])
def test_help_names_options_and_verbs_and_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from pytracecon.cli import main; status = main(sys.argv[1:]); "
        "heavy = {'ctypes', 'msgspec', 'cffi', 'asyncio', 'pytracecon.tracer', 'pytracecon.loader', "
        "'pytracecon._ring', 'pytracecon.filters'} & set(sys.modules); assert not heavy, heavy; sys.exit(status)"
    )
    ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("usage: pytracecon")


@pytest.mark.parametrize("verb", ["trace", "connect", "accept", "latency", "life", "lookups"])
def test_help_fits_a_terminal_of_80_columns(verb: str) -> None:
    assert max(map(len, run(verb, "--help").stdout.splitlines())) <= 80


def test_help_tells_every_verb() -> None:
    told = run("--help").stdout
    assert all(f"  {verb} " in told for verb in VERBS)


def test_version_is_the_packages() -> None:
    import pytracecon  # noqa: PLC0415

    ended = run("--version")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"pytracecon {pytracecon.__version__}\n", "")


def test_every_keyword_of_the_tracer_has_an_option() -> None:
    options = vars(trace.parser().parse_args([]))
    assert set(signature(Filters.parse).parameters) <= set(options)


def test_without_options_no_keyword_is_given() -> None:
    assert keywords_of("") == {}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-p 1 -p 2", {"pid": ["1", "2"]}),
        ("--pid 1 --children", {"pid": ["1"], "children": True}),
        ("--uid root", {"uid": ["root"]}),
        ("--comm curl --comm wget", {"comm": ["curl", "wget"]}),
        ("-4", {"family": 4}),
        ("-6", {"family": 6}),
        ("--port 80,443 --port 1-3", {"port": ["80,443", "1-3"]}),
        ("--local-port 80", {"local_port": ["80"]}),
        ("--not-port 80", {"not_port": ["80"]}),
        ("--remote ::1", {"remote": ["::1"]}),
        ("--local ::1", {"local": ["::1"]}),
        ("--not-remote ::1", {"not_remote": ["::1"]}),
        ("--netns blue", {"netns": ["blue"]}),
        ("--cgroup /a", {"cgroup": ["/a"]}),
        ("--direction in", {"direction": "in"}),
        ("--failed", {"failed": True}),
        ("--min-latency 0.5", {"min_latency": "0.5"}),
        ("--events close,accept", {"events": ["close,accept"]}),
        ("--existing", {"existing": True}),
        ("--events lookup", {"events": ["lookup"]}),
        ("--no-names", {"names": False}),
        ("--reverse", {"reverse": True}),
        ("--host *.a --host b,c", {"host": ["*.a", "b,c"]}),
        ("--ring-size 64K", {"ring_size": "64K"}),
        ("--max-connections 9", {"max_connections": "9"}),
        ("--probes kprobe", {"probes": "kprobe"}),
        ("--btf a --libbpf b", {"btf": "a", "libbpf": "b"}),
        ("--format json -o file -a --utc --duration 1 --count 2 --fail-on-loss -vv", {}),
    ],
)
def test_options_become_the_keywords_of_the_same_name(line: str, expected: dict[str, Any]) -> None:
    assert keywords_of(line) == expected


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("--port 0", "--port"),
        ("--port 65536", "--port"),
        ("--port abc", "--port"),
        ("--port", "--port"),
        ("--remote 10.0.0.1/8", "--remote"),
        ("--netns nowhere", "--netns"),
        ("--cgroup /nowhere", "--cgroup"),
        ("-p 0", "--pid"),
        ("--children", "--children"),
        ("-4 -6", "-6"),
        ("--events nothing", "--events"),
        ("--format xml", "--format"),
        ("--count 0", "--count"),
        ("--count many", "--count"),
        ("--duration 0", "--duration"),
        ("--duration -1", "--duration"),
        ("--duration nan", "--duration"),
        ("--ring-size 100K", "--ring-size"),
        ("--probes uprobe", "--probes"),
        ("--btf /proc/self/status", "--btf"),
        ("--libbpf /nowhere", "--libbpf"),
        ("--host a --no-names", "--host"),
        ("--reverse --no-names", "--reverse"),
        ("--events lookup --no-names", "--no-names"),
        ("lookups --no-names", "--no-names"),
        ("lookups --port 53", "--port"),
        ("lookups --slower 0", "--slower"),
        ("lookups --slower fast", "--slower"),
        ("lookups --name", "--name"),
        ("lookups --children", "--children"),
        ("lookups --count 0", "--count"),
        ("lookups -a", "-a"),
        ("lookups --show exee", "--show: exee is no key; near it are exe, exe_source"),
        ("lookups --show exe --format json", "--show"),
        ("--show exee", "--show: exee is no key; near it are exe, exe_source"),
        ("--show host --no-names", "--no-names"),
        ("--show unit --no-processes", "--no-processes"),
        ("lookups --show unit --no-processes", "--no-processes"),
        ("--show exe --template {exe}", "--show"),
        ("--show exe --format csv", "--show"),
        ("count --show exe", "--show"),
        ("-a", "-a"),
        ("--por 80", "--por"),
        ("--nothing", "--nothing"),
        ("docter", "docter"),
        ("doctor --nothing", "--nothing"),
        ("trace trace", "trace"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_option(
    line: str, named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("pytracecon: ")
    assert err.count("\n") == 1
    assert named in err
    assert "Traceback" not in err


@pytest.mark.parametrize("pattern", ["", "a\nb", "x" * 256])
@pytest.mark.parametrize("arguments", [["--host"], ["lookups", "--name"]])
def test_a_pattern_that_fits_no_name_is_refused(
    arguments: list[str], pattern: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, pattern]) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"pytracecon: {arguments[-1]}: ")
    assert err.count("\n") == 1


def test_foreign_bytes_on_the_command_line_are_repeated_harmlessly() -> None:
    ended = subprocess.run([*COMMAND, "--port", b"\x1b[31m\xff\n"], capture_output=True, check=False)
    assert ended.returncode == 2
    assert rb"\x1b[31m" in ended.stderr
    assert b"\x1b" not in ended.stderr
    assert ended.stderr.count(b"\n") == 1


def link_in(folder: Path) -> Path:
    (folder / "link").symlink_to("elsewhere")
    return folder / "link"


def fifo_in(folder: Path) -> Path:
    os.mkfifo(folder / "fifo")
    return folder / "fifo"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda folder: folder, "Is a directory"),
        (lambda folder: folder / "missing" / "file", "No such file"),
        (link_in, "symbolic link"),
        (fifo_in, "pipe"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_anything_is_loaded(
    tmp_path: Path, make: Any, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["-o", str(make(tmp_path))]) == 74
    err = capfd.readouterr().err
    assert why in err
    assert err.count("\n") == 1


def test_a_refusal_leaves_the_output_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    assert main(["--port", "0", "-o", str(file)]) == 2
    assert file.read_text() == "precious"
    assert main(["--port", "0", "-o", str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/sh", "-c", line, *COMMAND], capture_output=True, text=True, check=False)


def test_a_closed_standard_output_is_said() -> None:
    ended = shell('"$0" "$@" >&-')
    assert (ended.returncode, ended.stderr) == (74, "pytracecon: standard output is closed; give a file with -o\n")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_that_cannot_be_written_is_said_and_a_closed_pipe_is_not(option: str) -> None:
    full = shell(f'"$0" "$@" {option} > /dev/full')
    assert full.returncode == 74
    assert full.stderr.count("\n") == 1
    assert "No space left" in full.stderr
    closed = shell(f'{{ "$0" "$@" {option}; echo $? >&2; }} | true')
    assert closed.stderr == "0\n"


def test_a_closed_standard_error_hides_a_message_and_nothing_else() -> None:
    ended = shell('"$0" "$@" --port 0 2>&-')
    assert (ended.returncode, ended.stdout) == (2, "")


class Stopped:
    """Counts how often it was told to stop."""

    count = 0

    def stop(self) -> None:
        self.count += 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_what_runs_and_what_is_only_about_to(number: signal.Signals) -> None:
    running, late = Stopped(), Stopped()
    with Signals() as signals:
        signals.stop_at_signal(running)
        assert not signals.asked
        signal.raise_signal(number)
        assert (signals.asked, running.count) == (True, 1)
        signals.stop_at_signal(late)
        assert late.count == 1


def test_after_a_signal_the_next_sigint_kills_and_at_the_end_all_is_as_before() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with Signals():
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_sighup_asks_who_writes_to_a_file_to_open_it_again() -> None:
    running, nudged = Stopped(), []
    with Signals() as signals:
        signals.reload_at_hangup()
        signal.raise_signal(signal.SIGHUP)
        assert signals.reload_asked, "also before there is anything to be nudged"
        signals.reload_asked = False
        signals.stop_at_signal(running)
        signals.nudge = lambda: nudged.append(True)
        signal.raise_signal(signal.SIGHUP)
        assert (signals.reload_asked, nudged) == (True, [True])
        assert (signals.asked, running.count) == (False, 0)


def test_sighup_ends_who_writes_to_a_file_when_the_terminal_is_gone() -> None:
    """A process of its own session, whose terminal is closed under it."""
    program = (
        "import os, signal, sys, time\n"
        "from pytracecon.commands.signals import Signals\n"
        "with Signals() as signals:\n"
        "    signals.reload_at_hangup()\n"
        "    os.write(int(sys.argv[1]), b'.')\n"
        "    while not (signals.asked or signals.reload_asked):\n"
        "        time.sleep(0.01)\n"
        "    os.write(int(sys.argv[1]), b'asked' if signals.asked else b'reload')\n"
    )
    reader, writer = os.pipe()
    pid, terminal = pty.fork()
    if pid == 0:
        os.set_inheritable(writer, True)
        os.execv(sys.executable, [sys.executable, "-c", program, str(writer)])  # noqa: S606 - there is none
    os.close(writer)
    with open(reader, "rb", buffering=0) as told:
        assert told.read(1) == b"."
        os.close(terminal)
        assert told.read(10) == b"asked"
    os.waitpid(pid, 0)


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert not signals.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def a_lookup(**known: Any) -> Lookup:
    usual: dict[str, Any] = {"name": "www.example.com", "result": "ok", "source": "dns", "latency_ns": 2_000_000}
    return Lookup(0, **usual | known)


@pytest.mark.parametrize(
    ("line", "event", "shown"),
    [
        ("", a_lookup(), True),
        ("", a_lookup(within="getaddrinfo"), False),
        ("--all", a_lookup(within="getaddrinfo"), True),
        ("--failed", a_lookup(), False),
        ("--failed", a_lookup(result="NXDOMAIN"), True),
        ("--failed", a_lookup(result="NXDOMAIN", within="getaddrinfo"), False),
        ("--failed --all", a_lookup(result="NXDOMAIN", within="getaddrinfo"), True),
        ("--failed --all", a_lookup(within="getaddrinfo"), False),
        ("--slower 2", a_lookup(), True),
        ("--slower 2.001", a_lookup(), False),
        ("--slower 0.001", a_lookup(latency_ns=None), False),
        ("--name *.example.com", a_lookup(name="WWW.Example.com."), True),
        ("--name *.example.com", a_lookup(name="example.com"), False),
        ("--name x --name www.*", a_lookup(), True),
        ("--name *", a_lookup(name=None), False),
        ("--all --name x", Lost(0, 1, "ring"), True),
        ("--failed", Lost(0, 1, "ring"), True),
    ],
)
def test_lookups_shows_what_its_options_let_through(line: str, event: Event, shown: bool) -> None:
    shows = lookups.shows(lookups.parser().parse_args(line.split()))
    assert (shows is None or shows(event)) == shown


def test_everything_that_was_looked_up_needs_no_choice() -> None:
    assert lookups.shows(lookups.parser().parse_args(["--all"])) is None


@pytest.mark.parametrize(
    ("line", "events"),
    [
        ("", {"established", "failed", "accept", "close", "lookup"}),
        ("--no-names", {"established", "failed", "accept", "close"}),
        ("--port 443", {"established", "failed", "accept", "close"}),
        ("--existing", {"established", "failed", "accept", "close", "lookup", "existing"}),
        ("--failed", {"failed"}),
        ("--events connect,lookup", {"connect", "lookup"}),
        ("--format json", {"connect", "established", "failed", "accept", "close", "lookup"}),
        ("--template {comm}", {"connect", "established", "failed", "accept", "close", "lookup"}),
        ("--format csv --host a", {"connect", "established", "failed", "accept", "close"}),
    ],
)
def test_the_table_leaves_out_connects_unless_asked_for(line: str, events: set[str]) -> None:
    assert Filters.parse(**trace.keywords(trace.parser().parse_args(line.split()))).events == events


@pytest.mark.parametrize("line", ["-v", "--format json", "--format csv", "--format journal", "--template {comm}"])
def test_all_events_are_written_unless_in_a_terse_table(line: str) -> None:
    assert trace.shows(trace.parser().parse_args(line.split())) is None


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (Connect(0, "1", "tcp", "out"), True),
        (Close(0, "1", "tcp", "out", subflow_of="2"), False),
        (a_lookup(), True),
        (a_lookup(within="getaddrinfo"), False),
        (Lost(0, 1, "ring"), True),
    ],
)
def test_the_table_of_connections_leaves_out_what_another_row_tells(event: Event, shown: bool) -> None:
    shows = trace.shows(trace.parser().parse_args([]))
    assert shows is not None
    assert shows(event) == shown


@pytest.mark.parametrize("verb", [trace, lookups])
@pytest.mark.parametrize("shown", [[], ["--show", "exe,host_source", "--show", "uid"]])
def test_columns_of_one_s_own_are_beside_the_verb_s(verb: Any, shown: list[str]) -> None:
    target = open_file(os.devnull, append=False)
    table = verb._table(verb.parser().parse_args(shown), target)
    target.close()
    ((row, _),) = table.render([a_lookup(uid=4711, process=Process(exe="/usr/bin/dig"))])
    added = {"EXE", "HOST_SOURCE", "UID"}
    assert added & set(table.header().decode().split()) == (added if shown else set())
    assert {"/usr/bin/dig", "4711"} & set(row.decode().split()) == ({"/usr/bin/dig", "4711"} if shown else set())


def test_the_options_of_lookups_are_no_filters_for_connections() -> None:
    line = "-p 1 --failed --name a --slower 1 --all --ring-size 64K"
    options = lookups.parser().parse_args(line.split())
    assert tracer_keywords(options) == {"pid": ["1"], "ring_size": "64K"}


@pytest.mark.parametrize(
    ("attached", "said"),
    [
        ({"libc lookups", "dns messages", "states"}, "on"),
        ({"dns messages", "states"}, "packets only"),
        ({"libc lookups", "states"}, "libc only"),
        ({"states"}, "off"),
    ],
)
def test_the_first_line_says_where_names_come_from(attached: set[str], said: str) -> None:
    needs = ("states", "libc lookups", "dns messages")
    assert names([Probe(need, "tracepoint", "a program", need in attached) for need in needs]) == said
    assert names([Probe(need, "tracepoint", "a program", attached=True) for need in attached]) == said


NOTHING_LOST = Stats(wanted=9, delivered=9, handed=9, left_out=0, lost_ring=0, lost_map=0, lost_names=0, lost_probe=0)
SOME_LOST = Stats(wanted=29, delivered=12, handed=11, left_out=3, lost_ring=17, lost_map=2, lost_names=0, lost_probe=1)


def test_the_last_line_tells_totals_and_losses() -> None:
    assert totals(1234, 12.34, NOTHING_LOST, output=0) == "1234 events in 12.3 s, none lost"
    assert totals(1, 0.04, NOTHING_LOST, output=0) == "1 event in 0.0 s, none lost"
    assert totals(12, 1, SOME_LOST, output=0) == "12 events in 1.0 s, 20 lost (ring 17, map 2, probe 1)"
    assert totals(0, 1, NOTHING_LOST, output=9) == "0 events in 1.0 s, 9 lost (output 9)"


def test_the_sums_come_out() -> None:
    assert identity(NOTHING_LOST, 9, output=0, unread=0, left_out=0) == (
        "9 events wanted = 9 delivered + 0 lost in the ring; 9 events handed over = 9 written"
    )
    assert identity(SOME_LOST, 4, output=4, unread=2, left_out=1) == (
        "29 events wanted = 12 delivered (3 not wanted after all) + 17 lost in the ring; "
        "11 events handed over = 4 written + 4 lost by the output + 2 after the reader left + 1 not shown"
    )
