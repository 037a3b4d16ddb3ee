"""Addresses and CIDR prefixes, IPv4 and IPv6."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_network

from pytracecon.filters.values import each, refusal

Network = IPv4Network | IPv6Network
NetworkLike = str | IPv4Address | IPv6Address | IPv4Network | IPv6Network
NetworksLike = NetworkLike | Iterable[NetworkLike]

EVERYTHING: tuple[Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
_MAPPED = IPv6Network("::ffff:0:0/96")
_RIGHT = "give IPv4 or IPv6 addresses or CIDR prefixes: 10.0.0.0/8,2001:db8::/32"


def parse(option: str, value: NetworksLike | None) -> tuple[Network, ...]:
    """Networks without overlap, IPv4 first. An IPv4-mapped prefix is the IPv4 prefix in it."""
    if value is None:
        return ()
    # A network is iterable, but it is one value.
    members = [value] if isinstance(value, (IPv4Network, IPv6Network)) else each(option, value, _RIGHT)
    return collapse([_network(option, item) for item in members])


def collapse(networks: Iterable[Network]) -> tuple[Network, ...]:
    found = list(networks)
    return (
        *collapse_addresses(one for one in found if isinstance(one, IPv4Network)),
        *collapse_addresses(one for one in found if isinstance(one, IPv6Network)),
    )


def covers(networks: tuple[Network, ...], wanted: Network) -> bool:
    """Whether all of `wanted` lies in `networks` (which `collapse` made)."""
    return any(
        (isinstance(one, IPv4Network) and isinstance(wanted, IPv4Network) and wanted.subnet_of(one))
        or (isinstance(one, IPv6Network) and isinstance(wanted, IPv6Network) and wanted.subnet_of(one))
        for one in networks
    )


def _network(option: str, item: object) -> Network:
    if not isinstance(item, (str, IPv4Address, IPv6Address, IPv4Network, IPv6Network)):
        raise refusal(option, item, f"is no address; {_RIGHT}")
    if isinstance(item, str) and "%" in item:
        raise refusal(option, item, "names an interface, which an address in a packet has not; leave the % part out")
    try:
        found = ip_network(item, strict=False)
    except ValueError:
        raise refusal(option, item, f"is no address; {_RIGHT}") from None
    try:
        return _unmapped(ip_network(item))
    except ValueError:
        meant = _unmapped(found)
        raise refusal(option, item, f"has bits set behind its prefix; give {meant}, or the address alone") from None


def _unmapped(network: Network) -> Network:
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((network.network_address.packed[12:], network.prefixlen - 96))
    return network
