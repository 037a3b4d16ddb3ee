"""Containers get the names that their own engines tell, and nobody waits for an engine, not even at the end."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytracecon.owners import engines
from pytracecon.owners import runtimes as module
from pytracecon.owners.runtimes import Runtimes, sockets_of_root
from traffic.engine import Engine
from traffic.podman import Podman

pytestmark = pytest.mark.slow  # no kernel has a say in it

DEADLINE = 60
SOMEBODY = 61_234
"""A user that owns nothing else here."""


def container(number: int) -> str:
    return f"{number:064x}"


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path / "docker.sock")
    yield engine
    engine.close()


@pytest.fixture
def named() -> list[None]:
    """Grows with each name that came."""
    return []


@pytest.fixture
def runtimes(tmp_path: Path, clock: Clock, named: list[None]) -> Iterator[Runtimes]:
    sockets = (str(tmp_path / "podman.sock"), str(tmp_path / "docker.sock"))
    runtimes = Runtimes(lambda: named.append(None), sockets=sockets, users=str(tmp_path / "user"), clock=clock)
    yield runtimes
    runtimes.close()


def ask_and_wait(runtimes: Runtimes, *containers: str, user: int | None = None) -> None:
    for one in containers:
        runtimes.name_of(one, user)
    wait_until(lambda: not runtimes._pending)


def workers() -> set[threading.Thread]:
    """Those of tracers that other tests share among them too."""
    return {thread for thread in threading.enumerate() if thread.name == "pytracecon-containers"}


def test_podman_tells_the_names_of_its_containers(clock: Clock) -> None:
    podman = Podman()
    news = threading.Event()
    runtimes = Runtimes(news.set, sockets=(str(podman.socket),), clock=clock)
    try:
        shop, web = podman.create("shop-db"), podman.create("web.1_a")
        assert runtimes.name_of(shop) is None
        assert news.wait(DEADLINE)
        assert runtimes.name_of(shop) == "shop-db"
        ask_and_wait(runtimes, web, container(1))
        assert runtimes.name_of(web) == "web.1_a"
        assert runtimes.name_of(container(1)) is None
        podman.rename("shop-db", "shop")
        clock.now += 601
        ask_and_wait(runtimes, shop)
        assert runtimes.name_of(shop) == "shop"
    finally:
        runtimes.close()
        podman.close()


def test_a_name_is_there_once_it_was_asked_for_and_its_coming_is_told(
    runtimes: Runtimes, engine: Engine, named: list[None]
) -> None:
    engine.names[container(1)] = "/web"
    assert runtimes.name_of(container(1)) is None
    wait_until(lambda: named)
    assert runtimes.name_of(container(1)) == "web"
    ask_and_wait(runtimes, container(2))
    assert runtimes.name_of(container(2)) is None
    assert engine.asked == [container(1), container(2)]
    assert len(named) == 1


def test_what_has_no_id_is_not_asked_for(runtimes: Runtimes, engine: Engine) -> None:
    others = workers()
    for name in ("rawhide", "", "../images", container(1)[:-1], container(1) + "\n", "é" * 64):
        ask_and_wait(runtimes, name)
    assert engine.asked == []
    assert workers() <= others


def test_a_name_is_asked_for_again_after_ten_minutes_and_kept_if_none_comes(
    runtimes: Runtimes, engine: Engine, clock: Clock, named: list[None]
) -> None:
    engine.names[container(1)] = "/web"
    ask_and_wait(runtimes, container(1))
    clock.now += 599
    ask_and_wait(runtimes, container(1))
    assert engine.asked == [container(1)]
    clock.now += 2
    engine.names[container(1)] = "/shop"
    assert runtimes.name_of(container(1)) == "web"
    ask_and_wait(runtimes, container(1))
    assert runtimes.name_of(container(1)) == "shop"
    clock.now += 601
    del engine.names[container(1)]
    ask_and_wait(runtimes, container(1))
    assert runtimes.name_of(container(1)) == "shop"
    assert len(engine.asked) == 3
    wait_until(lambda: len(named) == 2)


def test_one_without_a_name_is_asked_for_again_after_half_a_minute(
    runtimes: Runtimes, engine: Engine, clock: Clock
) -> None:
    ask_and_wait(runtimes, container(1))
    clock.now += 29
    ask_and_wait(runtimes, container(1))
    assert engine.asked == [container(1)]
    clock.now += 2
    engine.names[container(1)] = "/web"
    ask_and_wait(runtimes, container(1))
    assert runtimes.name_of(container(1)) == "web"


def test_without_an_engine_there_are_no_names_and_nothing_is_said(
    runtimes: Runtimes, named: list[None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ask_and_wait(runtimes, container(1))
    assert (runtimes.name_of(container(1)), named, caplog.messages) == (None, [], [])


NO_NAMES = {
    "nothing": (b"", "without response"),
    "garbage": (b"\x80\x01\x00garbage\xff", "BadStatusLine|garbage"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
    "half an answer": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "IncompleteRead"),
    "no JSON": (b"HTTP/1.1 200 OK\r\n\r\nnot JSON", "JSON"),
    "another shape": (b'HTTP/1.1 200 OK\r\n\r\n{"Id": 1, "Name": []}', "Expected `str`"),
    "an error": (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", "status 500"),
    "a huge answer": (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 5_000_000, "too great a length"),
    "another container": (
        b'HTTP/1.1 200 OK\r\n\r\n{"Id": "%s", "Name": "/web"}' % container(9).encode(),
        "another container",
    ),
}


@pytest.mark.parametrize("what", NO_NAMES)
def test_an_engine_that_tells_no_name_costs_nothing_but_the_name_and_is_logged_once(
    runtimes: Runtimes, engine: Engine, clock: Clock, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    caplog.set_level(logging.DEBUG)
    engine.bytes, said = NO_NAMES[what]
    ask_and_wait(runtimes, container(1))
    clock.now += 31
    ask_and_wait(runtimes, container(1), container(2))
    assert len(engine.asked) == 3
    assert runtimes.name_of(container(1)) is None
    (message,) = caplog.messages
    assert message.startswith(str(engine.server_address))
    assert any(words in message for words in said.split("|")), message
    assert message.isprintable()
    engine.bytes = None
    engine.names[container(3)] = "/web"
    ask_and_wait(runtimes, container(3))
    assert runtimes.name_of(container(3)) == "web"


@pytest.mark.parametrize("name", ["", "/", "//web", "a/b", "\x1b]52;c;eA==\x07", "web\n", "-web", "é", "x" * 256])
def test_a_name_that_no_container_can_have_is_none(runtimes: Runtimes, engine: Engine, name: str) -> None:
    engine.names[container(1)] = name
    ask_and_wait(runtimes, container(1))
    assert engine.asked == [container(1)]
    assert runtimes.name_of(container(1)) is None


def test_an_engine_that_does_not_answer_is_left_when_its_time_is_over(
    runtimes: Runtimes, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(engines, "_TIMEOUT", 0.05)
    engine.may_answer.clear()
    ask_and_wait(runtimes, container(1))
    assert runtimes.name_of(container(1)) is None
    assert "timed out" in caplog.text


def test_an_engine_whose_queue_is_full_is_left_at_once(
    runtimes: Runtimes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(tmp_path / "docker.sock"))
        listener.listen(0)
        first.connect(str(tmp_path / "docker.sock"))
        ask_and_wait(runtimes, container(1))
    assert "Resource temporarily unavailable" in caplog.text


def test_what_is_under_way_is_not_asked_again_and_the_queue_is_bounded(runtimes: Runtimes, engine: Engine) -> None:
    engine.may_answer.clear()
    for _ in range(3):
        assert runtimes.name_of(container(0)) is None
    wait_until(lambda: engine.asked)
    for number in range(1, module._QUEUE + 100):
        assert runtimes.name_of(container(number)) is None
    assert len(runtimes._queue) == module._QUEUE
    engine.may_answer.set()
    wait_until(lambda: not runtimes._pending)
    assert engine.asked == [container(number) for number in range(module._QUEUE + 1)]


def test_names_are_bounded_and_those_that_came_longest_ago_go_first(
    runtimes: Runtimes, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KNOWN", 3)
    for number in range(5):
        engine.names[container(number)] = f"/c{number}"
        ask_and_wait(runtimes, container(number))
    assert [known.name for known in runtimes._known.values()] == ["c2", "c3", "c4"]


@pytest.fixture
def users_engine(tmp_path: Path) -> Iterator[Engine]:
    """A user's own, in this user's folder."""
    path = tmp_path / "user" / str(SOMEBODY) / "podman" / "podman.sock"
    path.parent.mkdir(parents=True)
    engine = Engine(path, SOMEBODY)
    engine.names = {container(1): "/theirs", container(2): "/theirs"}
    yield engine
    engine.close()


def test_a_users_engine_is_believed_for_what_runs_below_this_users_systemd_and_nothing_else(
    runtimes: Runtimes, engine: Engine, users_engine: Engine
) -> None:
    engine.names[container(1)] = "/roots"
    ask_and_wait(runtimes, container(1))
    ask_and_wait(runtimes, container(1), container(2), user=SOMEBODY)
    ask_and_wait(runtimes, container(1), user=SOMEBODY + 1)
    assert runtimes.name_of(container(1)) == "roots"
    assert runtimes.name_of(container(1), SOMEBODY) == "theirs"
    assert runtimes.name_of(container(2), SOMEBODY) == "theirs"
    assert runtimes.name_of(container(1), SOMEBODY + 1) is None
    assert (engine.asked, users_engine.asked) == ([container(1)], [container(1), container(2)])


def test_a_user_whose_engine_does_not_answer_keeps_no_others_waiting(
    runtimes: Runtimes, engine: Engine, users_engine: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may make cgroups makes as many as it likes, and calls each a container."""
    monkeypatch.setattr(engines, "_TIMEOUT", 0.05)
    engine.names[container(1)] = "/roots"
    users_engine.may_answer.clear()
    for number in range(module._QUEUE * 2):
        runtimes.name_of(container(number), SOMEBODY)
    assert len(runtimes._pending) <= module._OF_USER
    ask_and_wait(runtimes, container(1))
    assert runtimes.name_of(container(1)) == "roots"
    assert len(users_engine.asked) == 1
    users_engine.may_answer.set()
    clock.now += 31
    ask_and_wait(runtimes, container(2), user=SOMEBODY)
    assert runtimes.name_of(container(2), SOMEBODY) == "theirs"


def test_a_users_engine_is_not_believed_where_roots_should_be(
    users_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = str(users_engine.server_address)
    runtimes = Runtimes(sockets=(path,))
    ask_and_wait(runtimes, container(1))
    assert runtimes.name_of(container(1)) is None
    os.chown(path, 0, 0)
    again = Runtimes(sockets=(path,))
    ask_and_wait(again, container(1))
    assert again.name_of(container(1)) is None
    assert users_engine.asked == []
    first, second = caplog.messages
    assert first.endswith("is no socket of user 0")
    assert second.endswith(f"is served by user {SOMEBODY}, not by user 0")
    for each in (runtimes, again):
        each.close()


def test_a_users_link_leads_nowhere(runtimes: Runtimes, engine: Engine, tmp_path: Path) -> None:
    engine.names[container(1)] = "/roots"
    folder = tmp_path / "user" / str(SOMEBODY)
    folder.mkdir(parents=True)
    (folder / "docker.sock").symlink_to(tmp_path / "docker.sock")
    (folder / "podman").mkdir()
    os.mkfifo(folder / "podman" / "podman.sock")
    os.chown(folder / "podman" / "podman.sock", SOMEBODY, SOMEBODY)
    ask_and_wait(runtimes, container(1), user=SOMEBODY)
    assert runtimes.name_of(container(1), SOMEBODY) is None
    assert engine.asked == []


def test_docker_host_names_one_more_socket_of_roots() -> None:
    usual = ("/run/docker.sock", "/run/podman/podman.sock")
    assert sockets_of_root({}) == usual
    assert sockets_of_root({"DOCKER_HOST": "unix:///srv/docker.sock"}) == (*usual, "/srv/docker.sock")
    for other in (
        "tcp://10.0.0.7:2375",
        "unix://docker.sock",
        "ssh://host",
        "/srv/docker.sock",
        "unix:///run/docker.sock",
    ):
        assert sockets_of_root({"DOCKER_HOST": other}) == usual


def test_closing_hangs_up_and_ends_the_thread_at_once(runtimes: Runtimes, engine: Engine, named: list[None]) -> None:
    others = workers()
    engine.may_answer.clear()
    runtimes.name_of(container(1))
    runtimes.name_of(container(2))
    wait_until(lambda: engine.asked)
    begun = time.monotonic()
    runtimes.close()
    runtimes.close()
    wait_until(lambda: workers() <= others)
    assert time.monotonic() - begun < engines._TIMEOUT / 2
    assert runtimes.name_of(container(3)) is None
    assert (engine.asked, named) == ([container(1)], [])


def test_a_child_after_fork_asks_nothing_and_leaves_its_parents_talk_alone(runtimes: Runtimes, engine: Engine) -> None:
    engine.names = {container(1): "/one", container(2): "/two"}
    ask_and_wait(runtimes, container(1))
    engine.may_answer.clear()
    runtimes.name_of(container(2))
    wait_until(lambda: len(engine.asked) == 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork() with threads is what is tested
        child = os.fork()
    if child == 0:
        try:
            runtimes.close()
            os._exit(0 if runtimes.name_of(container(1)) == "one" and not runtimes._pending else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    engine.may_answer.set()
    wait_until(lambda: not runtimes._pending)
    assert runtimes.name_of(container(2)) == "two"


HANGING = """
import socket, sys
from pytracecon.owners import engines
from pytracecon.owners.runtimes import Runtimes
engines._TIMEOUT = 1000
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    runtimes = Runtimes(sockets=(sys.argv[1],))
    runtimes.name_of("0" * 64)
    talking, _ = listener.accept()
    print("done", flush=True)
"""


def test_a_program_ends_though_an_engine_hangs(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HANGING, str(tmp_path / "socket")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "done\n", "")
