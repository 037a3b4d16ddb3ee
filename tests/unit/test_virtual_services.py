"""How IPVS is set up is added where it is known, and nothing is made up where it is not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pytracecon.errors import UnsupportedKernel
from pytracecon.events import Close, Endpoint, State
from pytracecon.probes import is_loaded
from pytracecon.virtual_services import Detail, VirtualServices, services_here

HERE = Path("/proc/self/ns/net").stat().st_ino
REAL = Endpoint("192.168.2.1", 22)
KNOWN = Detail("rr", 3, "masquerading")


def changed(port: int = 80, service: Endpoint | None = REAL) -> State:
    ends = ("10.0.0.5", 41234, "10.99.0.9", port)
    return State(1, "0", "tcp", "out", *ends, netns=HERE, pid=os.getpid(), service=service)


def details(event: State) -> tuple[str | None, int | None, str | None]:
    return event.service_scheduler, event.service_weight, event.service_forwarding


@pytest.fixture
def services() -> VirtualServices:
    services = VirtualServices()
    known = {(6, ("10.99.0.9", 80), ("192.168.2.1", 22)): KNOWN}
    services._known[HERE] = time.monotonic() + 3600, known  # that long it is not asked again
    return services


def test_a_service_that_is_known_is_added(services: VirtualServices) -> None:
    event = changed()
    services.fill(event)
    assert details(event) == KNOWN


def test_what_goes_elsewhere_has_nothing(services: VirtualServices) -> None:
    for event in (changed(81), changed(service=None), changed(service=Endpoint("192.168.2.1", 23))):
        services.fill(event)
        assert details(event) == (None, None, None)
    services.fill(Close(1, "0", "tcp", "out", service=REAL))


def test_an_old_answer_is_none(services: VirtualServices) -> None:
    _, known = services._known[HERE]
    services._known[HERE] = time.monotonic() - 11, known
    services._asking.add(HERE)  # and the next does not come
    assert services.of(changed()) is None
    services._known[HERE] = time.monotonic() - 9, known
    assert services.of(changed()) == KNOWN


@pytest.mark.skipif(is_loaded("ip_vs"), reason="IPVS is loaded here")
def test_where_nobody_answers_it_is_not_known() -> None:
    with pytest.raises(UnsupportedKernel, match="modprobe ip_vs"):
        services_here()
    assert VirtualServices().of(changed(), patience=60) is None
