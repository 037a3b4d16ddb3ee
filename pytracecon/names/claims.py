"""`Claims`: which process may use which name for which address, and when.

A process that asked for a name may use it. What others asked for its sake serves where it has no name of its own: the
processes that it started first, then a resolver of its cgroup. There is no table that all share, so the last one who
asked decides for nobody but itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pytracecon.clock import SECOND
from pytracecon.names.history import Claim, Run, alive, inserted
from pytracecon.names.holdings import Holder, Holdings, Limits, Table, Tier
from pytracecon.names.records import ProcessKey

__all__ = ["GRACE", "LONGEST_NAME", "Claim", "Claims", "Limits"]

GRACE = 150 * SECOND
"""How far back `claims_of` may be asked: a connect gives up after some 130 s, and is named by its beginning."""
LONGEST_NAME = 255
"""Characters. DNS has no longer names; one that somebody claims all the same is not kept."""
_MOST_TOLD = 65_536


class Claims:
    """Claims in three tiers: a process's own, those of its relatives, those of its cgroup; bounded by `limits`.

    `on_address` is called with every address that is claimed, unless it was since the last sweep.
    """

    def __init__(self, limits: Limits | None = None, on_address: Callable[[bytes], None] | None = None) -> None:
        self._holdings = Holdings(limits or Limits())
        self._lost = 0
        self._own: Tier = {}
        self._relatives: Tier = {}
        self._cgroups: Tier = {}
        self._on_address = on_address
        self._told: set[bytes] = set()

    def __len__(self) -> int:
        return self._holdings.size

    @property
    def evicted(self) -> int:
        """Claims that were alive and had to go for others."""
        return self._holdings.evicted + self._lost

    def learn(
        self, process: ProcessKey, uid: int, addresses: Iterable[bytes], name: str, source: str, at: int, until: int
    ) -> None:
        """`process` of user `uid` was answered `at`: it may use `name` for `addresses`, `until` that is over."""
        self._learn(self._own, process, uid, tuple(addresses), name, source, at, until)

    def learn_for_relatives(
        self,
        ancestors: tuple[ProcessKey, ...],
        uid: int,
        addresses: Iterable[bytes],
        name: str,
        source: str,
        at: int,
        until: int,
    ) -> None:
        """A helper of user `uid` was answered, for the sake of each of `ancestors` that has no claim of its own."""
        addresses = tuple(addresses)
        for process in ancestors:
            self._learn(self._relatives, process, uid, addresses, name, source, at, until)

    def learn_for_cgroup(
        self, cgroup: int, uid: int, addresses: Iterable[bytes], name: str, source: str, at: int, until: int
    ) -> None:
        """A resolver of user `uid` was answered, for the sake of whoever is in `cgroup` and has no better claim."""
        self._learn(self._cgroups, cgroup, uid, tuple(addresses), name, source, at, until)

    def claims_of(self, process: ProcessKey, cgroup: int, address: bytes, at: int) -> list[Claim]:
        """The names that `process` may use for `address` as of `at`, latest first: of the best tier that has any."""
        return (
            ((tables := self._own.get(process)) and _alive(tables, address, at))
            or ((tables := self._relatives.get(process)) and _alive(tables, address, at))
            or ((tables := self._cgroups.get(cgroup)) and _alive(tables, address, at))
            or []
        )

    def addresses(self) -> set[bytes]:
        """All that have a claim, for whoever starts a set of them afresh."""
        return {address for table in self._holdings for address in table.chains}

    def sweep(self, now: int) -> None:
        """Forget what was over GRACE before `now`: a part of it each time, in some ms. Call it about once a second."""
        self._told.clear()
        self._holdings.sweep(now - GRACE)

    def _learn(
        self,
        tier: Tier,
        holder: Holder,
        uid: int,
        addresses: tuple[bytes, ...],
        name: str,
        source: str,
        at: int,
        until: int,
    ) -> None:
        if not addresses or len(name) > LONGEST_NAME:
            return
        table = self._holdings.table(tier, holder, uid, at)
        chains = table.chains
        more = 0
        for address in addresses:
            # Taken out and put in again: what was claimed least recently comes first.
            newest = chains.pop(address, None)
            if newest is None:
                chains[address] = Run(name, source, at, at, until)
                more += 1
            elif newest.name == name and newest.source == source and newest.at <= at <= newest.until:
                newest.at = at
                newest.until = max(newest.until, until)
                chains[address] = newest
            else:
                chains[address], grown, lost = inserted(newest, name, source, at, until)
                more += grown
                self._lost += lost
        if more:
            self._holdings.grown(table, more, at)
        if self._on_address is not None and not self._told.issuperset(addresses):
            self._tell(addresses, self._on_address)

    def _tell(self, addresses: tuple[bytes, ...], on_address: Callable[[bytes], None]) -> None:
        if len(self._told) > _MOST_TOLD:
            self._told.clear()
        for address in addresses:
            if address not in self._told:
                self._told.add(address)
                on_address(address)


def _alive(tables: tuple[Table, ...], address: bytes, at: int) -> list[Claim]:
    chains = [chain for table in tables if (chain := table.chains.get(address)) is not None]
    return alive(chains, at) if chains else []
