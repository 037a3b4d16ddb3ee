"""What a command, or a test, may reach: by address and by name. Anything else that it tries is named.

A name counts as far as it is known whose it is: a connection is allowed by name if every name that fits it is allowed
(a shared address may have several), and never by a PTR record, which is the word of the address's owner.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network
from typing import TYPE_CHECKING

from pytracecon.errors import InvalidValue
from pytracecon.filters import hosts, networks, values

if TYPE_CHECKING:
    from pytracecon.connections import Connection
    from pytracecon.filters.hosts import PatternsLike
    from pytracecon.filters.networks import Network, NetworksLike

__all__ = ["Guard"]

_WORDS = {"loopback": ("127.0.0.0/8", "::1/128"), "none": ()}
_RIGHT = "give addresses or CIDR prefixes such as 10.0.0.0/8,2001:db8::/32, or loopback, or none"


@dataclass(frozen=True, slots=True)
class Guard:
    networks: tuple[Network, ...] = ()
    hosts: tuple[str, ...] = ()

    @classmethod
    def parse(cls, allow_net: NetworksLike | None, allow_host: PatternsLike | None) -> Guard | None:
        """None if neither is given: nothing is guarded then. `loopback` and `none` are networks here."""
        if allow_net is None and allow_host is None:
            return None
        return cls(_networks(allow_net), hosts.parse("--allow-host", allow_host))

    def allows(self, connection: Connection) -> bool:
        """Whether it may be made. One that somebody else made to us may."""
        if connection.direction == "in":
            return True
        return self.allows_address(connection.remote_addr) or self.allows_names(_names(connection))

    def allows_address(self, address: str | None) -> bool:
        """What is not known is not allowed."""
        return address is not None and _within(self.networks, address)

    def allows_names(self, names: Iterable[str]) -> bool:
        """All of them, and there is one."""
        fits = hosts.matcher(self.hosts)
        found = list(names)
        return bool(found) and all(map(fits, found))


def _networks(allow_net: NetworksLike | None) -> tuple[Network, ...]:
    if allow_net is None:
        return ()
    given = list(values.each("--allow-net", allow_net, _RIGHT))
    words = [item for item in given if isinstance(item, str) and item in _WORDS]
    rest = [item for item in given if item not in words]
    if "none" in words and len(given) > 1:
        raise InvalidValue("--allow-net: none, and others beside it; leave one of them out")
    # What is wrong is told by `networks`; whoever reads it sees which words it takes in the help.
    found = networks.parse("--allow-net", rest) if rest else ()  # type: ignore[arg-type]
    return networks.collapse([*found, *(ip_network(text) for word in words for text in _WORDS[word])])


@lru_cache(maxsize=4096)
def _within(allowed: tuple[Network, ...], address: str) -> bool:
    return networks.covers(allowed, ip_network(address))


def _names(connection: Connection) -> list[str]:
    if connection.host is None or connection.host_source == "ptr":
        return []
    return connection.host_candidates or [connection.host]
