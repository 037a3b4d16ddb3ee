"""What of the events the user wants that the kernel side tells: it knows no names, and tells more for their sake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytracecon import settings
from pytracecon.filters import Filters, hosts, owners

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytracecon.connections import Connection
    from pytracecon.events import Event
    from pytracecon.reader import Shown

__all__ = ["asks_of_each", "fits", "shown", "untold"]


def untold(filters: Filters) -> frozenset[str]:
    """The kinds of events that nobody asked for."""
    return frozenset(settings.delivered(filters) - filters.events)


def asks_of_each(filters: Filters) -> bool:
    """Whether the kind of an event does not say yet if it is wanted."""
    return bool(filters.hosts or filters.containers or filters.units or filters.exes)


def shown(filters: Filters) -> Shown | None:
    """Says of an event if it is wanted; None if all are."""
    from pytracecon.events import ConnectionEvent, Lookup  # noqa: PLC0415 - imported meanwhile

    left_out = untold(filters)
    host_fits = hosts.matcher(filters.hosts) if filters.hosts else None
    owned = owners.matcher(filters.containers, filters.units, filters.exes)
    if not left_out and host_fits is None and owned is None:
        return None

    def is_wanted(event: Event) -> bool:
        if event.event in left_out:
            return False
        if owned is not None and isinstance(event, (ConnectionEvent, Lookup)) and not owned(event.process):
            return False
        return host_fits is None or not isinstance(event, ConnectionEvent) or host_fits(event.host)

    return is_wanted


def fits(filters: Filters) -> Callable[[Connection], bool] | None:
    """The same for what a snapshot lists."""
    host_fits = hosts.matcher(filters.hosts) if filters.hosts else None
    owned = owners.matcher(filters.containers, filters.units, filters.exes)
    if host_fits is None and owned is None:
        return None
    return lambda each: (owned is None or owned(each.process)) and (host_fits is None or host_fits(each.host))
