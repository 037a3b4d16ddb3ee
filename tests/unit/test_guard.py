"""What may be reached: by address, by name, and not by what is not known."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon.connections import Connection
from pytracecon.errors import InvalidValue
from pytracecon.guard import Guard


def guard(*, net: Any = None, host: Any = None) -> Guard:
    made = Guard.parse(net, host)
    assert made is not None
    return made


def connection(address: str | None = "10.0.0.7", **known: Any) -> Connection:
    usual: dict[str, Any] = {"conn": "1", "proto": "tcp", "direction": "out", "time_ns": 0}
    return Connection(**usual | {"remote_addr": address, "remote_port": 443} | known)


def test_without_options_there_is_no_guard() -> None:
    assert Guard.parse(None, None) is None


@pytest.mark.parametrize(
    ("net", "address", "allowed"),
    [
        ("10.0.0.0/8", "10.255.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        (["10.0.0.0/8", "192.0.2.1"], "192.0.2.1", True),
        ("10.0.0.0/8,2001:db8::/32", "2001:db8::1", True),
        ("10.0.0.0/8", "2001:db8::1", False),
        ("2001:db8::/32", "10.0.0.1", False),
        ("0.0.0.0/0", "::1", False),
        ("loopback", "127.9.9.9", True),
        ("loopback", "::1", True),
        ("loopback", "128.0.0.1", False),
        ("loopback,10.0.0.1", "10.0.0.1", True),
        (["loopback", "10.0.0.1"], "127.0.0.1", True),
        ("10.0.0.0/8", "127.0.0.1", False),
        ("none", "127.0.0.1", False),
        ("none", "10.0.0.1", False),
        ("0.0.0.0/0,::/0", None, False),
    ],
)
def test_addresses(net: Any, address: str | None, allowed: bool) -> None:
    assert guard(net=net).allows(connection(address)) == allowed


@pytest.mark.parametrize(
    ("host", "known", "allowed"),
    [
        ("*.example.com", {"host": "www.example.com", "host_source": "getaddrinfo"}, True),
        ("*.example.com", {"host": "WWW.Example.com.", "host_source": "dns"}, True),
        ("*.example.com", {"host": "example.com", "host_source": "dns"}, False),
        (["a", "b"], {"host": "b", "host_source": "sni"}, True),
        ("a", {"host": "a", "host_source": "ptr"}, False),
        ("*", {"host": "a", "host_source": "ptr"}, False),
        ("*", {}, False),
        ("a", {"host": "a", "host_source": "dns", "host_candidates": ["a", "b"]}, False),
        (["a", "b"], {"host": "a", "host_source": "dns", "host_candidates": ["a", "b"]}, True),
    ],
)
def test_names(host: Any, known: dict[str, Any], allowed: bool) -> None:
    assert guard(host=host).allows(connection(**known)) == allowed


def test_either_is_enough() -> None:
    both = guard(net="10.0.0.0/8", host="*.example.com")
    assert both.allows(connection("10.0.0.1", host="elsewhere", host_source="dns"))
    assert both.allows(connection("192.0.2.1", host="www.example.com", host_source="dns"))
    assert not both.allows(connection("192.0.2.1", host="elsewhere", host_source="dns"))


def test_what_others_connect_to_us_is_not_judged() -> None:
    assert guard(net="none").allows(connection(direction="in"))
    assert not guard(net="none").allows(connection(direction="unknown"))


@pytest.mark.parametrize(
    ("net", "host", "named"),
    [
        ("10.0.0.1/8", None, "--allow-net"),
        ("example.com", None, "--allow-net"),
        ("", None, "--allow-net"),
        ([], None, "--allow-net"),
        ("none,10.0.0.1", None, "none"),
        (["none", "loopback"], None, "none"),
        (None, "", "--allow-host"),
        (None, "a\nb", "--allow-host"),
        ("loopback", [], "--allow-host"),
    ],
)
def test_a_value_that_cannot_be_is_refused(net: Any, host: Any, named: str) -> None:
    with pytest.raises(InvalidValue, match=named):
        Guard.parse(net, host)


@given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4))
def test_a_network_allows_what_is_in_it(base: Any, length: int, address: Any) -> None:
    network = ip_network((base, length), strict=False)
    assert guard(net=str(network)).allows_address(str(address)) == (ip_address(str(address)) in network)
