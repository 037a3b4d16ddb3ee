"""What an engine may answer: a name, that it has no such container, or anything else, which is a failure."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytracecon.owners import engines

ID = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970"


class Talk:
    """Both ends of one."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ours.close()
        self.theirs.close()

    def answered(self, answer: bytes) -> str | None:
        self.theirs.sendall(answer)
        self.theirs.shutdown(socket.SHUT_WR)
        return engines.name_of(self.ours, ID)


@pytest.fixture
def talk() -> Iterator[Talk]:
    with Talk() as talk:
        yield talk


BODY = json.dumps({"Id": ID, "Created": "", "State": {"Pid": 7}, "Name": "/shop-db", "Args": ["/"]}).encode()


def test_a_container_is_asked_for_as_the_api_has_it(talk: Talk) -> None:
    assert talk.answered(b"HTTP/1.0 200 OK\r\n\r\n" + BODY) == "shop-db"
    asked = talk.theirs.recv(4096)
    assert asked.startswith(b"GET /containers/%s/json HTTP/1.1\r\nHost: " % ID.encode())
    assert asked.endswith(b"\r\n\r\n")


def test_an_answer_may_come_in_chunks(talk: Talk) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:])) + b"0\r\n\r\n"
    assert talk.answered(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks) == "shop-db"


def test_there_may_be_no_such_container(talk: Talk) -> None:
    assert talk.answered(b"HTTP/1.1 404 Not Found\r\n\r\n" + BODY) is None


def test_the_slash_before_a_name_is_no_part_of_it_and_may_be_missing(talk: Talk) -> None:
    assert talk.answered(b"HTTP/1.1 200 OK\r\n\r\n" + BODY.replace(b"/shop", b"shop")) == "shop-db"


def test_an_answer_that_comes_byte_by_byte_ends_when_its_time_is_over(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_TIMEOUT", 0.2)
    over = threading.Event()

    def drip() -> None:
        while not over.wait(0.01):
            talk.theirs.send(b" ")

    thread = threading.Thread(target=drip)
    thread.start()
    with pytest.raises(TimeoutError):
        engines.name_of(talk.ours, ID)
    over.set()
    thread.join()


def test_an_answer_that_is_no_text_is_a_failure_like_others(talk: Talk) -> None:
    with pytest.raises(engines.FAILURES):
        talk.answered(b"HTTP/1.0 200 OK\r\n\r\n" + BODY.replace(b"shop", b"sh\xdfp"))


@pytest.mark.parametrize(
    "body", [b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}", b'\r\n{"x":' + b"[" * 100_000]
)
def test_an_answer_that_is_too_much_for_a_parser_is_a_failure_like_others(talk: Talk, body: bytes) -> None:
    with pytest.raises(engines.FAILURES):
        talk.answered(b"HTTP/1.1 200 OK\r\n" + body)


HEADS = st.sampled_from(
    [
        b"",
        b"HTTP/1.1 ",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
        b"HTTP/1.1 200 OK\r\nContent-Length: ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ]
)


@given(HEADS, st.binary(max_size=300) | st.text(max_size=20).map(str.encode))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_whatever_else_it_answers_is_a_failure_of_a_kind_that_is_known(head: bytes, rest: bytes) -> None:
    with Talk() as talk:
        try:
            name = talk.answered(head + rest)
        except engines.FAILURES:
            return
        assert name in (None, "shop-db")
