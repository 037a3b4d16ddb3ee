"""`Holdings`: how many claims each process, each user and all together may hold, and who gives some back.

Whoever holds more than a limit allows loses what was least recently claimed: a process its own claims; a user those of
its processes that have most; all together those of the users that have most. So a process with a million names costs
nobody else one, nor does a user, nor do processes that come and go.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from sys import getsizeof
from typing import NamedTuple, TypeVar

from pytracecon.names.history import Run, kept, listed
from pytracecon.names.records import ProcessKey

__all__ = ["Holder", "Holdings", "Limits", "Table", "Tier"]

_SWEPT_AT_ONCE = 4_096

Holder = ProcessKey | int
"""A process, or a cgroup."""
K = TypeVar("K")
V = TypeVar("V")


class Limits(NamedTuple):
    """How many claims are kept, a name for an address being one: some 0.4 KiB each, so 50 MB when all is full."""

    process: int = 4_096
    uid: int = 32_768
    all: int = 131_072
    processes: int = 16_384
    processes_of_uid: int = 4_096


class Holdings:
    """The tables of all tiers. One 64th of a limit is given back at once: finding who must costs little a claim."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.size = 0
        self.evicted = 0
        self._users: dict[int, _User] = {}
        self._tables = 0
        self._to_sweep: list[Table] = []

    def __iter__(self) -> Iterator[Table]:
        return (table for user in self._users.values() for table in user.tables)

    def table(self, tier: Tier, holder: Holder, uid: int, at: int) -> Table:
        """Where `uid`'s claims for `holder` go. Valid until the next call here; one that stays empty costs a place."""
        for table in tier.get(holder, ()):
            if table.user.uid == uid:
                # Taken out and put in again: who claimed least recently comes first.
                tables = table.user.tables
                del tables[table]
                tables[table] = None
                return table
        self._make_room(uid, at)
        user = self._users.get(uid)
        if user is None:
            user = self._users[uid] = _User(uid)
        table = Table(user, tier, holder)
        user.tables[table] = None
        tier[holder] = (*tier.get(holder, ()), table)
        self._tables += 1
        return table

    def grown(self, table: Table, more: int, at: int) -> None:
        """`more` claims were added to `table`."""
        limits, user = self.limits, table.user
        table.size += more
        user.size += more
        self.size += more
        if table.size > limits.process:
            self._cut(table, limits.process - limits.process // 64, at)
        if user.size > limits.uid:
            self._cut_user(user, limits.uid - limits.uid // 64, at)
        if self.size > limits.all:
            goal = limits.all - limits.all // 64
            level = _level([user.size for user in self._users.values()], self.size - goal)
            for user in list(self._users.values()):
                above = min(user.size - level, self.size - goal)
                if above > 0:
                    self._cut_user(user, user.size - above, at)

    def sweep(self, over: int) -> None:
        """Forget some of what was over at `over`; when all have had their turn, the next round begins."""
        if not self._to_sweep:
            self._to_sweep = list(self)
        budget = _SWEPT_AT_ONCE
        while self._to_sweep and budget > 0:
            table = self._to_sweep.pop()
            budget -= table.size + 1
            gone = 0
            for address, newest in list(table.chains.items()):
                if newest.older is not None:
                    chain, fewer = kept(newest, over)
                    gone += fewer
                    if chain is not None:
                        table.chains[address] = chain
                        continue
                elif newest.until > over:
                    continue
                else:
                    gone += 1
                del table.chains[address]
            self._shrunk(table, gone)

    def _make_room(self, uid: int, at: int) -> None:
        """For one more table."""
        limits = self.limits
        user = self._users.get(uid)
        if user is not None and len(user.tables) >= limits.processes_of_uid:
            self._forget_oldest(user, limits.processes_of_uid // 64 + 1, at)
        if self._tables >= limits.processes:
            goal = limits.processes - limits.processes // 64 - 1
            level = _level([len(user.tables) for user in self._users.values()], self._tables - goal)
            for user in list(self._users.values()):
                above = min(len(user.tables) - level, self._tables - goal)
                if above > 0:
                    self._forget_oldest(user, above, at)

    def _forget_oldest(self, user: _User, count: int, at: int) -> None:
        for table in list(islice(user.tables, count)):
            self._cut(table, 0, at)

    def _cut_user(self, user: _User, goal: int, at: int) -> None:
        level = _level([table.size for table in user.tables], user.size - goal)
        for table in list(user.tables):
            above = min(table.size - level, user.size - goal)
            if above > 0:
                self._cut(table, table.size - above, at)

    def _cut(self, table: Table, goal: int, at: int) -> None:
        gone = 0
        for address in list(islice(table.chains, table.size - goal)):
            runs = listed(table.chains[address])
            going = runs[goal - table.size + gone :]
            if len(going) == len(runs):
                del table.chains[address]
            else:
                runs[-len(going) - 1].older = None
            gone += len(going)
            self.evicted += sum(run.until > at for run in going)
            if table.size - gone == goal:
                break
        self._shrunk(table, gone)

    def _shrunk(self, table: Table, gone: int) -> None:
        user, tier = table.user, table.tier
        table.size -= gone
        user.size -= gone
        self.size -= gone
        if table.chains:
            table.chains = _fitting(table.chains)
        elif table in user.tables:
            del user.tables[table]
            user.tables = _fitting(user.tables)
            self._tables -= 1
            if not user.tables:
                del self._users[user.uid]
            others = tuple(other for other in tier[table.holder] if other is not table)
            if others:
                tier[table.holder] = others
            else:
                del tier[table.holder]


class Table:
    """What one user claimed for one holder: chains by address, the least recently claimed first."""

    __slots__ = ("chains", "holder", "size", "tier", "user")

    def __init__(self, user: _User, tier: Tier, holder: Holder) -> None:
        self.user = user
        self.tier = tier
        self.holder = holder
        self.size = 0
        self.chains: dict[bytes, Run] = {}


Tier = dict[Holder, tuple[Table, ...]]


class _User:
    """The tables of one user, the one that claimed least recently first, and how many claims are in them."""

    __slots__ = ("size", "tables", "uid")

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self.size = 0
        self.tables: dict[Table, None] = {}


def _level(sizes: list[int], excess: int) -> int:
    """The highest level such that cutting all sizes down to it frees `excess`."""
    sizes.sort(reverse=True)
    freed = 0
    for count, (size, below) in enumerate(zip(sizes, (*sizes[1:], 0), strict=True), 1):
        step = (size - below) * count
        if freed + step >= excess:
            return size - -(-(excess - freed) // count)
        freed += step
    return 0


def _fitting(mapping: dict[K, V]) -> dict[K, V]:
    """The same without the room of many entries that went, which a dict keeps."""
    return dict(mapping) if getsizeof(mapping) > 512 + 128 * len(mapping) else mapping
