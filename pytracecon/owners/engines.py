"""What an engine's API tells of a container: one question over a socket, within limits that it cannot stretch."""

from __future__ import annotations

import io
import os
import re
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from typing import cast

import msgspec

__all__ = ["FAILURES", "Refused", "connected", "name_of"]

_TIMEOUT = 2.0  # for all of an answer
_LARGEST = 1 << 20  # an answer with its head; they have some 10 KiB
_PIECE = 1 << 16
_PEER = struct.Struct("3i")  # struct ucred

# What Docker (daemon/names) and podman (libpod/define) let a container be called, and no more than a file could be.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")


class Refused(Exception):
    """No name from this engine, and why."""


FAILURES = (
    *(OSError, HTTPException, msgspec.DecodeError, UnicodeDecodeError, Refused),
    OverflowError,  # of the parser of HTTP: a chunk that is larger than any memory
    RecursionError,  # of the parser of JSON
)
"""What asking may end with."""


class _Container(msgspec.Struct, rename="pascal"):
    id: str
    name: str


class _Heard:
    """What was heard already, for a parser that wants to read it from a socket: there it would set no limits."""

    def __init__(self, heard: bytes) -> None:
        self._heard = heard

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._heard)


@contextmanager
def connected(path: str, owner: int) -> Iterator[socket.socket]:
    """To a socket that is this user's, with a server that is: no link of one user leads to what is another's."""
    place = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(place)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != owner:
            raise Refused(f"is no socket of user {owner}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as talking:
            talking.settimeout(_TIMEOUT)
            talking.connect(f"/proc/self/fd/{place}")
            # Who began to listen, and so may have been somebody before, such as systemd for both.
            _, server, _ = _PEER.unpack(talking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            if server != owner:
                raise Refused(f"is served by user {server}, not by user {owner}")
            yield talking
    finally:
        os.close(place)


def name_of(talking: socket.socket, container: str) -> str | None:
    """None: the engine has no container with this id."""
    head = f"GET /containers/{container}/json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    ends = time.monotonic() + _TIMEOUT
    talking.sendall(head.encode())
    response = HTTPResponse(cast("socket.socket", _Heard(_all_until(ends, talking))), method="GET")
    response.begin()
    if response.status == HTTPStatus.NOT_FOUND:
        return None
    if response.status != HTTPStatus.OK:
        raise Refused(f"answers with status {response.status}")
    told = msgspec.json.decode(response.read(), type=_Container)
    name = told.name.removeprefix("/")
    if told.id != container:
        raise Refused("tells of another container than was asked for")
    if not _NAME.fullmatch(name):
        raise Refused("tells a name that no container can have")
    return name


def _all_until(ends: float, talking: socket.socket) -> bytes:
    heard = bytearray()
    while (left := ends - time.monotonic()) > 0:
        talking.settimeout(left)
        piece = talking.recv(_PIECE)
        if not piece:
            return bytes(heard)
        heard += piece
        if len(heard) > _LARGEST:
            raise Refused("answers at too great a length")
    raise TimeoutError("takes too long to answer")
