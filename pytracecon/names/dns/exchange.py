"""Queries and answers become lookups: one for each question that a process asks a server, however often it is sent.

An answer counts if it comes to the port that asked, from the server that was asked, by the same protocol, with the
query's number and question. Letters may differ in case, and an error may come without the question, as some servers
send it. A truncated answer over UDP is half an answer: the process is given time to ask again over TCP.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pytracecon.names.dns.message import Malformed, Message, parse
from pytracecon.names.dns.payloads import Payloads
from pytracecon.names.records import Asker, MessagePart, ProcessKey

__all__ = ["Answered", "Exchanges"]

PATIENCE_NS = 5_000_000_000
"""What glibc, Go and dig give a server each time before they turn to another one or give up; others give less."""
MOST_QUERIES = 16_384
MOST_QUERIES_EACH = 1_024

_ASKED_AGAIN = ("NOERROR", "NXDOMAIN")
"""Truncated answers that are asked for again over TCP; with any other result the next server is asked."""

_Key = tuple[int, str, int, bytes, int, int]
_Question = tuple[str, str]
_Outer = TypeVar("_Outer")
_Entries = TypeVar("_Entries", bound=MutableMapping[Any, Any])


@dataclass(slots=True)
class Answered:
    """A question and what became of it."""

    asker: Asker
    ancestors: tuple[ProcessKey, ...]
    wanted: bool
    within: bool
    by_server: bool
    behalf: bool
    """The asker is a resolver, and another process was waiting for the same name when it asked: most likely its client,
    whose own packets tell of it."""
    name: str
    """Lower-cased, escaped, without the dot at the end."""
    type: str
    result: str
    """`ok`, `NODATA` (no address of the type that was asked for), the result code's name, `timeout`, `truncated` or
    `malformed`."""
    addresses: tuple[bytes, ...]
    partial: bool
    """The answer is longer than what is looked at."""
    ttl: int | None
    """In seconds, the smallest on the way to the addresses."""
    time: int
    """Of the answer; of a timeout when it was due."""
    latency_ns: int
    """Since the query was sent first; of a timeout what was waited."""
    server: bytes
    server_port: int
    protocol: str


@dataclass(slots=True, eq=False)
class _Query:
    """An unanswered one."""

    asker: Asker
    ancestors: tuple[ProcessKey, ...]
    wanted: bool
    within: bool
    by_server: bool
    behalf: bool
    key: _Key
    question: _Question
    first: int
    due: int
    truncated: Answered | None
    """How it ends if nothing better comes over TCP."""

    def ends(self, result: str, time: int, message: Message | None = None) -> Answered:
        answered = Answered(
            self.asker,
            self.ancestors,
            self.wanted,
            self.within,
            self.by_server,
            self.behalf,
            *self.question,
            result,
            (),
            False,
            None,
            time,
            time - self.first,
            self.key[3],
            self.key[4],
            self.key[1],
        )
        if message is not None:
            answered.partial = message.partial
            if message.rcode == "NOERROR" and not message.malformed:
                answered.addresses = message.addresses
                answered.ttl = message.ttl
        return answered


class Exchanges:
    """Takes packets in the kernel's order and tells the lookups that end. Has no clock: `expired` is told the time."""

    def __init__(
        self, *, patience_ns: int = PATIENCE_NS, most: int = MOST_QUERIES, most_each: int = MOST_QUERIES_EACH
    ) -> None:
        self.queries = 0
        """Lookups begun."""
        self.resent = 0
        """Queries sent again before an answer came."""
        self.answers = 0
        """Answers to queries that were waiting for one."""
        self.unknown = 0
        """Answers to no query that is waiting: late, sent twice, forged, or the query was not seen."""
        self.timeouts = 0
        self.malformed = 0
        """Messages of which not even the question can be read."""
        self.misdirected = 0
        """Answers sent by who should ask, queries that came from a server."""
        self.no_lookups = 0
        """Queries for something else than a name of class IN: updates, notifications, `version.bind`…"""
        self.unowned = 0
        """Queries of whom nobody knows who sent them."""
        self.evicted = 0
        """Queries forgotten to make room for others."""
        self.payloads = Payloads()
        self._patience_ns = patience_ns
        self._most = most
        self._most_each = most_each
        self._waiting: dict[_Key, dict[_Question, _Query]] = {}
        self._due: OrderedDict[_Query, None] = OrderedDict()
        self._of: dict[ProcessKey, OrderedDict[_Query, None]] = {}
        self._askers: dict[str, dict[ProcessKey, int]] = {}
        self._truncated: dict[tuple[ProcessKey, _Question], dict[_Query, None]] = {}

    @property
    def deadline(self) -> int | None:
        """When the next lookup ends if nothing comes; None if none is waiting."""
        return next(iter(self._due)).due if self._due else None

    @property
    def waiting(self) -> int:
        return len(self._due)

    def expired(self, now: int) -> list[Answered]:
        """The lookups that were due by `now`, up to which everything has been taken."""
        ended = []
        while self._due:
            query = next(iter(self._due))
            if query.due > now:
                break
            self._remove(query)
            if query.truncated is not None:
                ended.append(query.truncated)
            else:
                self.timeouts += 1
                ended.append(query.ends("timeout", query.due))
        return ended

    def take(self, part: MessagePart) -> list[Answered]:
        """The lookups that end with this packet, those before it that were due by then included."""
        ended = self.expired(part.time)
        sender, messages = self.payloads.take(part)
        for wire in messages:
            try:
                message = parse(wire)
            except Malformed:
                self.malformed += 1
                continue
            if message.answer is part.sent:
                self.misdirected += 1
            elif part.sent:
                self._ask(message, sender, part.time)
            else:
                answered = self._answer(message, part)
                if answered is not None:
                    ended.append(answered)
        return ended

    def _ask(self, message: Message, sender: MessagePart, now: int) -> None:
        asker = sender.asker
        if message.name is None or message.type is None:
            self.no_lookups += 1
            return
        if asker is None:
            self.unowned += 1
            return
        key = _key(sender, message.id)
        question = message.name, message.type
        query = self._waiting.get(key, {}).get(question)
        if query is not None:
            self.resent += 1
            query.due = now + self._patience_ns
            self._due.move_to_end(query)
            return
        process = asker.process
        query = _Query(
            asker,
            sender.ancestors,
            sender.wanted,
            sender.within,
            sender.by_server,
            sender.by_server and self._others_ask(message.name, process),
            key,
            question,
            now,
            now + self._patience_ns,
            None,
        )
        begun = self._truncated.get((process, question)) if sender.protocol == "tcp" else None
        if begun:
            before = next(iter(begun))
            query.first, query.behalf, query.truncated = before.first, before.behalf, before.truncated
            self._remove(before)
        else:
            self.queries += 1
        self._make_room(process)
        self._add(query)

    def _others_ask(self, name: str, process: ProcessKey) -> bool:
        askers = self._askers.get(name)
        return askers is not None and (len(askers) > 1 or process not in askers)

    def _answer(self, message: Message, part: MessagePart) -> Answered | None:
        questions = self._waiting.get(_key(part, message.id), {})
        if message.name is not None and message.type is not None:
            query = questions.get((message.name, message.type))
        elif message.rcode != "NOERROR" and len(questions) == 1:
            (query,) = questions.values()
        else:
            query = None
        if query is None or (query.truncated is not None and part.protocol == "udp" and message.truncated):
            self.unknown += 1
            return None
        self.answers += 1
        answered = query.ends(_result(message, query.question[1]), part.time, message)
        if message.truncated and part.protocol == "udp" and message.rcode in _ASKED_AGAIN:
            self._wait_for_tcp(query, answered)
            return None
        self._remove(query)
        return answered

    def _wait_for_tcp(self, query: _Query, answered: Answered) -> None:
        query.truncated = answered
        query.due = answered.time + self._patience_ns
        self._due.move_to_end(query)
        self._truncated.setdefault((query.asker.process, query.question), {})[query] = None

    def _make_room(self, process: ProcessKey) -> None:
        """Who has many makes room for its own; only who has none takes the place of the oldest of all."""
        own = self._of.get(process)
        if own is not None and (len(own) >= self._most_each or len(self._due) >= self._most):
            self.evicted += 1
            self._remove(next(iter(own)))
        elif len(self._due) >= self._most:
            self.evicted += 1
            self._remove(next(iter(self._due)))

    def _add(self, query: _Query) -> None:
        process, (name, _) = query.asker.process, query.question
        self._waiting.setdefault(query.key, {})[query.question] = query
        self._due[query] = None
        self._of.setdefault(process, OrderedDict())[query] = None
        if query.truncated is not None:
            self._truncated.setdefault((process, query.question), {})[query] = None
        askers = self._askers.setdefault(name, {})
        askers[process] = askers.get(process, 0) + 1

    def _remove(self, query: _Query) -> None:
        process, (name, _) = query.asker.process, query.question
        del self._due[query]
        _discard(self._waiting, query.key, query.question)
        _discard(self._of, process, query)
        if query.truncated is not None:
            _discard(self._truncated, (process, query.question), query)
        askers = self._askers[name]
        askers[process] -= 1
        if not askers[process]:
            _discard(self._askers, name, process)


def _key(part: MessagePart, number: int) -> _Key:
    return part.netns, part.protocol, part.local_port, part.server, part.server_port, number


def _result(message: Message, kind: str) -> str:
    if message.malformed:
        return "malformed"
    if message.rcode != "NOERROR":
        return message.rcode
    if message.truncated:
        return "truncated"
    return "NODATA" if kind in ("A", "AAAA") and not message.addresses else "ok"


def _discard(table: dict[_Outer, _Entries], outer: _Outer, inner: object) -> None:
    """Take an entry out of a table of tables, and leave no empty one."""
    entries = table[outer]
    del entries[inner]
    if not entries:
        del table[outer]
