"""What all kernel tests stand on: actors, namespaces, tracers, and two checks of the whole session.

Nothing may be left in the kernel when the tests are over; and a test may be skipped only where skips.toml says so.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
pytest.register_assert_rewrite("traffic")

from pytracecon import Tracer  # noqa: E402
from traffic.actor import Actor, await_ended, build, has_io_uring  # noqa: E402
from traffic.cgroup import new_cgroup  # noqa: E402
from traffic.leftovers import await_gone, bpf_ids, bpf_ids_of_others, namespaces  # noqa: E402
from traffic.network import NAME, Network  # noqa: E402
from traffic.resolver import Place  # noqa: E402
from traffic.trace import Beacon, Trace  # noqa: E402


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The traffic generator, compiled. None of its processes, and so no namespace of theirs, outlives the tests."""
    program = build(tmp_path_factory.mktemp("traffic"))
    yield program
    assert await_ended(program) == []


@pytest.fixture(autouse=True)
def io_uring(request: pytest.FixtureRequest) -> None:
    """Tests with this marker need it."""
    if request.node.get_closest_marker("io_uring") and not has_io_uring():
        pytest.skip("io_uring is off in this kernel")


@pytest.fixture
def network(program: Path) -> Iterator[Network]:
    """A network namespace of the test's own."""
    network = Network(program)
    yield network
    network.close()


@pytest.fixture
def networks(program: Path) -> Iterator[Callable[[], Network]]:
    """As many network namespaces as asked for."""
    with ExitStack() as stack:

        def make() -> Network:
            network = Network(program)
            stack.callback(network.close)
            return network

        yield make


@pytest.fixture
def client(network: Network) -> Actor:
    return network.actor("client")


@pytest.fixture
def server(network: Network) -> Actor:
    return network.actor("server")


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A control group (v2) of the test's own, with a group `child` in it."""
    with new_cgroup() as top:
        yield top


@pytest.fixture(scope="session")
def place(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A network namespace with resolvers of its own, for all tests of names: none asks for what another one set."""
    place = Place(program, tmp_path_factory.mktemp("place"))
    yield place
    place.close()


@pytest.fixture(scope="session")
def beacon(program: Path) -> Iterator[Beacon]:
    network = Network(program)
    yield Beacon(network)
    network.close()


@pytest.fixture(scope="session")
def everything(beacon: Beacon) -> Iterator[Trace]:
    """One tracer of all that happens, for all tests that ask for no other. Its ring bears what others do meanwhile."""
    with Tracer(ring_size="64M") as tracer:
        yield Trace(tracer, beacon)


@pytest.fixture
def trace(everything: Trace) -> Trace:
    """The events that are told from now on, of a tracer without filters."""
    everything.restart()
    return everything


@pytest.fixture
def traced(request: pytest.FixtureRequest) -> Iterator[Callable[..., Trace]]:
    """Starts a tracer of the test's own, with these keywords; it is closed when the test ends.

    Names are for the tests of names: they treble what a start takes in a guest.
    """
    names = "test_names_" in request.node.nodeid

    with ExitStack() as stack:

        def start(**keywords: Any) -> Trace:
            return Trace(stack.enter_context(Tracer(**{"names": names, **keywords})))

        yield start


class Skips:
    """Holds what was skipped against skips.toml: by kernel series the tests (`*` stands for anything), and why."""

    def __init__(self) -> None:
        series = ".".join(platform.release().split(".")[:2])
        self.listed: dict[str, str] | None = tomllib.loads((HERE / "skips.toml").read_text()).get(series)
        self.collected: set[str] = set()
        self.ran: set[str] = set()
        self.skipped: dict[str, str] = {}
        self.wrong: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.collected = {own_name(item.nodeid) for item in items}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = own_name(report.nodeid)
        if not name:
            return
        if report.skipped and isinstance(report.longrepr, tuple):
            self.skipped[name] = report.longrepr[2].removeprefix("Skipped: ")
        if report.when == "call" or report.skipped:
            self.ran.add(name)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.listed is None:
            return
        due: dict[str, str] = {}
        for pattern, reason in self.listed.items():
            meant = re.compile(re.escape(pattern).replace(r"\*", ".*"))
            matching = set(filter(meant.fullmatch, self.collected))
            due |= dict.fromkeys(matching & self.ran, reason)
            whole = {name.partition("::")[0] for name in self.collected if "::" not in "".join(session.config.args)}
            if not matching and pattern.partition("::")[0] in whole:
                self.wrong.append(f"{pattern}: there is no such test")
        for name in sorted(due.keys() | self.skipped.keys()):
            if due.get(name) != self.skipped.get(name):
                self.wrong.append(f"{name}: listed {due.get(name)!r}, was {self.skipped.get(name)!r}")
        if self.wrong and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.listed is None and self.ran:
            terminalreporter.write_line(f"skips.toml has no list for Linux {platform.release()}: skips are not checked")
        if self.wrong:
            terminalreporter.section("skipped tests that differ from skips.toml", red=True)
            for line in self.wrong:
                terminalreporter.write_line(line)


def own_name(node: str) -> str:
    """`file::test` of a test in this folder; nothing of others."""
    path, colons, test = node.partition("::")
    return f"{Path(path).name}{colons}{test}" if Path(path).parent.name == HERE.name else ""


ENDS = re.compile(
    r"test_(batches|doctor|flows|libbpf|namespaces|older_than_the_tracer|owners_hostile|pinned_maps|services|start|tracer"
    r"|unusual_lives|verb_life|without_btf)"
)
"""What the oldest and the newest kernel agree on is not run in those between: they have all that it stands on."""
OLDEST = re.compile(r"test_(names_|filters_in_the_kernel|owner_cgroups|programs|snapshot)")
"""Of this the kernel outside, where it runs too, is the newest: it stands on nothing that only guests have."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if ENDS.match(own_name(item.nodeid)):
            item.add_marker("ends")
        if OLDEST.match(own_name(item.nodeid)):
            item.add_marker("oldest")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Skips(), "skips")
    config.addinivalue_line("markers", "ends: of all guests in the oldest and the newest alone")
    config.addinivalue_line("markers", "io_uring: skipped where the kernel has none")
    config.addinivalue_line("markers", "oldest: of all guests in the oldest alone")
    config.addinivalue_line("markers", "once: of all guests in the newest alone")
    config.addinivalue_line("markers", "slow: left out (-m 'not slow') where all is emulated")


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No program, map, link or named namespace outlives the tests."""
    if os.geteuid() != 0:
        pytest.exit("tests/kernel needs root", returncode=77)
    before = bpf_ids()
    yield
    left = await_gone(bpf_ids() - before - bpf_ids_of_others())
    assert not left, f"left in the kernel: {sorted(left)}"
    assert not [name for name in namespaces() if name.startswith(NAME)], "network namespaces were left"
