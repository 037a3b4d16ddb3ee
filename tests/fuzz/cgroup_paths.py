"""Paths of cgroups, in which others call each folder what they like."""

from __future__ import annotations

from pytracecon.owners.shapes import place_of, user_of
from pytracecon.text import decode
from unit.test_owner_shapes import CONTAINERD, DOCKER


def seeds() -> list[bytes]:
    further = ("/machine.slice/machine-my\\x2dbox.scope/payload", "/lxc/web/init.scope", "/lxc.payload.web")
    pods = ("/kubepods/burstable/pod2fc932ce-fdcc-454b-97bd-aadfdeb4c340/" + "a" * 64, "/user.slice/user-1000.slice")
    return [path.encode() for path in (*DOCKER, *CONTAINERD, *further, *pods)]


def run(data: bytes) -> None:
    path = decode(data)
    found = place_of(path)
    for each in found:
        assert each is None or each
        if each is not None:
            each.encode()
    user = user_of(path)
    assert user is None or user < 10**10
