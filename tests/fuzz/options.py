"""Values of options, which a script may have from somebody else: what they mean, or `InvalidValue` in one line."""

from __future__ import annotations

from typing import Any

from fuzz.source import Source
from pytracecon.errors import InvalidValue, MissingPrivilege
from pytracecon.filters import Filters, hosts, owners
from pytracecon.outputs.template import Template
from pytracecon.settings import members, port_set
from pytracecon.text import decode

_GOOD = {
    "events": "connect,close",
    "uid": "0,root",
    "comm": "curl",
    "family": "4",
    "port": "443,8000-8100",
    "remote": "10.0.0.0/8,2001:db8::/32",
    "not_remote": "127.0.0.0/8",
    "netns": "/proc/self/ns/net",
    "cgroup": "/",
    "direction": "out",
    "min_latency": "12.5",
    "udp_idle": "30",
    "host": "*.example.com",
    "container": "web-[0-9]*",
    "unit": "ssh.service",
    "exe": "/usr/bin/*",
    "ring_size": "8M",
    "max_connections": "65536",
}
_KEYWORDS = list(_GOOD)


def seeds() -> list[bytes]:
    values = [bytes((at,)) + value.encode() for at, value in enumerate(_GOOD.values())]
    return [*values, bytes((len(_GOOD),)) + b"{comm} {remote_addr}:{remote_port} {{}}"]


def run(data: bytes) -> None:
    source = Source(data)
    at, text = source.number(1) % (len(_GOOD) + 1), decode(source.rest().replace(b"\0", b"\\0"))
    try:
        if at == len(_GOOD):
            assert len(Template.parse("--template", text).keys) > 0
            return
        given: dict[str, Any] = {_KEYWORDS[at]: text}
        filters = Filters.parse(**given)
    except (InvalidValue, MissingPrivilege) as error:  # the latter of processes that may not be looked at
        assert str(error).isprintable()
        return
    assert all(len(member) == 24 for member in members(filters))
    port_set(filters.remote_ports)
    hosts.matcher(filters.hosts)("a.example")
    owned = owners.matcher(filters.containers, filters.units, filters.exes)
    assert owned is None or not owned(None)
