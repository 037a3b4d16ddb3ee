"""As a service of a real systemd: the unit that comes with the package, started, reloaded, stuck and stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytracecon.commands.unit import UNIT
from traffic.leftovers import await_gone, bpf_ids_of
from traffic.network import Network
from traffic.started import TOP, await_true
from traffic.systemd import SYSTEMD, Systemd, new_systemd

pytestmark = [
    pytest.mark.slow(reason="systemd is user space's, whatever the kernel"),
    pytest.mark.skipif(not SYSTEMD.exists(), reason="systemd is not installed"),
]

NAME = "pytracecon.service"
LOG = "/var/log/pytracecon/connections.jsonl"
OPTIONS = "/etc/default/pytracecon"
OURS = "service-flood"
"""The name of processes whose connections it traces. Others of this machine have their own."""
EVENTS_EACH = 5
# What differs from the unit: where the program is in this checkout, and how long one waits for a watchdog.
DROP_IN = """
[Service]
ProtectHome=tmpfs
{kept}
Environment=PYTHONPATH={top} PYTHONDONTWRITEBYTECODE=1
ExecStart=
ExecStart={python} -m pytracecon {arguments}
WatchdogSec=3s
RestartSec=100ms
"""


@pytest.fixture(scope="module")
def systemd() -> Iterator[Systemd]:
    """One that has the unit installed, as the documentation says."""
    (start,) = re.findall(r"^ExecStart=\S+ (.*)$", UNIT.read_text(), re.MULTILINE)
    folders = sorted({Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), TOP})
    with new_systemd(*folders) as systemd:
        systemd.run("useradd", "--system", "--shell", "/usr/sbin/nologin", "pytracecon")
        systemd.install(
            NAME,
            UNIT.read_text(),
            here=DROP_IN.format(kept=systemd.kept(), top=TOP, python=sys.executable, arguments=start),
        )
        systemd.write(OPTIONS, f"PYTRACECON_OPTIONS=--comm {OURS}\n")
        yield systemd


@pytest.fixture
def service(systemd: Systemd) -> Systemd:
    systemd.run("systemctl", "start", NAME)
    return systemd


def main_pid(systemd: Systemd) -> int:
    """Outside."""
    inside = systemd.shows(NAME, "MainPID")["MainPID"]
    spaces = Path("/proc").glob("[0-9]*/status")
    for status in spaces:
        try:
            numbers = re.findall(r"^NSpid:\t(.*)$", status.read_text(), re.MULTILINE)[0].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if numbers[1:] == [inside] and f"/{NAME}" in status.with_name("cgroup").read_text():
            return int(numbers[0])
    raise AssertionError(f"no process is {inside} inside")


def of(network: Network, text: str) -> list[str]:
    """Which events of this network a log tells; each of its lines is whole."""
    assert not text or text.endswith("\n")
    events = [json.loads(line) for line in text.splitlines()]
    return [f"{event['event']} {event['conn']}" for event in events if event.get("netns") == network.inode]


def flood(systemd: Systemd, network: Network, times: int) -> None:
    actor = network.actor(OURS)
    systemd.adopt(actor.pid)
    actor.do("flood", times, 5)


def told(systemd: Systemd, network: Network, *files: str) -> int:
    return len([event for file in files for event in of(network, systemd.read(file))])


def await_told(systemd: Systemd, network: Network, count: int, *files: str) -> None:
    """The number of a network may have been another one's: what was told before is in `count` too."""
    await_true(lambda: told(systemd, network, *files) == count, f"{count} events in {files}")


def test_it_is_active_only_when_tracing_is_on(service: Systemd, network: Network) -> None:
    """What happens right after `systemctl start` is told, from the first SYN on."""
    service.run("systemctl", "stop", NAME)
    service.run("systemctl", "start", NAME)
    before = told(service, network, LOG)
    flood(service, network, 3)
    shown = service.shows(NAME, "ActiveState", "SubState", "Type", "NotifyAccess")
    assert shown == {"ActiveState": "active", "SubState": "running", "Type": "notify", "NotifyAccess": "main"}
    await_told(service, network, before + 3 * EVENTS_EACH, LOG)


def test_it_runs_as_its_own_user_with_no_capability_that_the_unit_does_not_give(service: Systemd) -> None:
    status = Path(f"/proc/{main_pid(service)}/status").read_text()
    user = service.run("id", "--user", "pytracecon").stdout.strip()
    assert user != "0"
    assert re.search(rf"^Uid:\t{user}\t{user}\t{user}\t{user}$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)
    (held,) = re.findall(r"^CapPrm:\t(.*)$", status, re.MULTILINE)
    names = subprocess.run(["capsh", f"--decode={held}"], capture_output=True, text=True, check=True).stdout
    given = set(re.findall(r"^AmbientCapabilities=(.*)$", UNIT.read_text(), re.MULTILINE)[0].lower().split())
    assert set(names.strip().partition("=")[2].split(",")) <= given - {"cap_net_admin"}, "to attach is over"


def test_all_that_it_traces_as_root_it_traces_as_a_service(service: Systemd) -> None:
    begun = [line for line in service.journal(NAME) if line.startswith("pytracecon: tracing")]
    assert begun
    assert all("names: on" in line for line in begun)


def test_its_status_tells_how_much_was_written(service: Systemd, network: Network) -> None:
    flood(service, network, 3)

    def counted() -> bool:
        status = service.shows(NAME, "StatusText")["StatusText"]
        found = re.fullmatch(r"(\d+) events written, none lost", status)
        return found is not None and int(found[1]) >= 3 * EVENTS_EACH

    await_true(counted, "the status has counts")


def test_its_memory_is_bounded_and_suffices(service: Systemd, network: Network) -> None:
    """BPF maps included: what a control group counts as its own."""
    flood(service, network, 2000)
    shown = service.shows(NAME, "MemoryMax", "MemoryHigh", "MemoryCurrent", "NRestarts")
    assert int(shown["MemoryMax"]) == 256 << 20
    assert int(shown["MemoryHigh"]) == 192 << 20
    assert 16 << 20 < int(shown["MemoryCurrent"]) < int(shown["MemoryHigh"]) * 3 / 4


def test_a_reload_after_the_log_was_moved_goes_on_in_a_new_one(service: Systemd, network: Network) -> None:
    before = told(service, network, LOG)
    service.run("mv", LOG, f"{LOG}.1")
    flood(service, network, 50)
    service.run("systemctl", "reload", NAME)
    await_true(lambda: service.run("test", "-e", LOG, check=False).returncode == 0, "there is a new log")
    flood(service, network, 50)
    await_told(service, network, before + 100 * EVENTS_EACH, f"{LOG}.1", LOG)
    await_true(lambda: service.shows(NAME, "ActiveState") == {"ActiveState": "active"}, "the reload is over")
    assert service.run("stat", "-c", "%a %U", LOG).stdout == "600 pytracecon\n"


def test_who_is_stuck_is_killed_by_the_watchdog_and_started_again(service: Systemd, network: Network) -> None:
    stuck = main_pid(service)
    os.kill(stuck, signal.SIGSTOP)
    await_true(lambda: service.shows(NAME, "NRestarts")["NRestarts"] == "1", "it is started again")
    await_true(lambda: service.shows(NAME, "ActiveState")["ActiveState"] == "active", "it runs again")
    assert main_pid(service) != stuck
    before = told(service, network, LOG)
    flood(service, network, 3)
    await_told(service, network, before + 3 * EVENTS_EACH, LOG)


def test_stopped_it_ends_with_its_totals_in_the_journal_and_leaves_nothing(service: Systemd) -> None:
    held = bpf_ids_of(main_pid(service))
    assert held
    service.run("systemctl", "stop", NAME)
    assert service.shows(NAME, "ActiveState", "Result") == {"ActiveState": "inactive", "Result": "success"}
    totals = [line for line in service.journal(NAME) if line.startswith("pytracecon: ")][-1]
    assert re.fullmatch(r"pytracecon: \d+ events? in [\d.]+ s, none lost", totals)
    assert await_gone(held) == set()


def test_what_is_no_better_the_next_time_is_not_started_again(systemd: Systemd) -> None:
    systemd.run("systemctl", "stop", NAME)
    systemd.write(OPTIONS, "PYTRACECON_OPTIONS=--port 0\n")
    done = systemd.run("systemctl", "start", NAME, check=False)
    assert done.returncode != 0
    shown = systemd.shows(NAME, "ActiveState", "ExecMainStatus")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": "2"}
    assert any("--port" in line for line in systemd.journal(NAME))
