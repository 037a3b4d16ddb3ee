"""What listens where Docker should: its answer is a name, none, or one of the failures that are known."""

from __future__ import annotations

from pytracecon.owners.engines import _NAME, FAILURES
from unit.test_owner_engines import BODY, Talk


def seeds() -> list[bytes]:
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    return [
        b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
        b"HTTP/1.1 404 Not Found\r\n\r\n{}",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n" + BODY,
    ]


def run(data: bytes) -> None:
    with Talk() as talk:
        try:
            name = talk.answered(data[: 64 << 10])
        except FAILURES as error:
            assert not isinstance(error, TimeoutError), "the answer was there at once"
            return
    assert name is None or _NAME.fullmatch(name)
