"""A name is of those who asked for it, as long as it lives, and nobody's flood costs another one a name.

The truth is the list of all claims that were ever made.
"""

from __future__ import annotations

import tracemalloc
from collections import Counter
from dataclasses import dataclass, field
from itertools import permutations, product
from sys import getsizeof

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytracecon.clock import SECOND
from pytracecon.names.claims import GRACE, LONGEST_NAME, Claim, Claims, Limits
from pytracecon.names.history import LONGEST, listed
from pytracecon.names.records import ProcessKey

A, B, C = (ProcessKey(pid, 77) for pid in (101, 102, 103))
AGAIN = ProcessKey(A.pid, A.born + 1)
EDGE, OTHER = bytes(10) + b"\xff\xff\xc0\x00\x02\x01", bytes(10) + b"\xff\xff\xc0\x00\x02\x02"
CGROUP, USER = 4711, 1000
NOW = 1_000 * SECOND


def address(number: int) -> bytes:
    return bytes(10) + b"\xff\xff" + number.to_bytes(4)


def names(claims: Claims, process: ProcessKey, at: int = NOW, of: bytes = EDGE, cgroup: int = CGROUP) -> list[str]:
    return [claim.name for claim in claims.claims_of(process, cgroup, of, at)]


@dataclass
class Slow:
    """Every claim that was ever made, by who may use it and for what."""

    made: dict[tuple[object, bytes], list[Claim]] = field(default_factory=dict)

    def learn(self, holder: object, of: bytes, claim: Claim) -> None:
        self.made.setdefault((holder, of), []).append(claim)

    def claims_of(self, holder: object, of: bytes, at: int) -> list[Claim]:
        known = [claim for claim in self.made.get((holder, of), []) if claim.at <= at]
        found = [
            max((claim for claim in known if claim.name == name), key=lambda claim: claim.at)._replace(
                until=max(claim.until for claim in known if claim.name == name)
            )
            for name in {claim.name for claim in known}
        ]
        return sorted((claim for claim in found if at < claim.until), key=lambda claim: -claim.at)


# A process, an address, a name, how long after the one before, how long it lives.
asked = st.tuples(
    st.sampled_from([A, AGAIN]),
    st.sampled_from([EDGE, OTHER]),
    st.sampled_from("abc"),
    st.integers(1, 9),
    st.integers(1, 40),
)


def follow(claims: Claims, slow: Slow, process: ProcessKey, of: bytes, name: str, at: int, until: int) -> None:
    claims.learn(process, USER, [of], name, "dns", at, until)
    slow.learn(process, of, Claim(name, "dns", at, until))


@given(st.lists(asked, max_size=60))
def test_a_process_has_the_names_that_it_asked_for_last(lookups: list[tuple[ProcessKey, bytes, str, int, int]]) -> None:
    claims, slow, now = Claims(), Slow(), NOW
    for process, of, name, later, lifetime in lookups:
        now += later
        follow(claims, slow, process, of, name, now, now + lifetime)
        for at, who, which in product((now, now + 20), (A, AGAIN, B), (EDGE, OTHER)):
            assert claims.claims_of(who, CGROUP, which, at) == slow.claims_of(who, which, at)


@given(st.lists(asked, max_size=LONGEST), st.integers(-5, 400))
@example([(A, EDGE, "a", 1, 40), (A, EDGE, "b", 1, 40), (A, EDGE, "a", 1, 1)], 2)
def test_what_was_true_a_moment_ago_can_still_be_told(
    lookups: list[tuple[ProcessKey, bytes, str, int, int]], then: int
) -> None:
    claims, slow, now = Claims(), Slow(), NOW
    for process, of, name, later, lifetime in lookups:
        now += later
        follow(claims, slow, process, of, name, now, now + lifetime)
    for who, of in product((A, AGAIN), (EDGE, OTHER)):
        told = [claim.name for claim in claims.claims_of(who, CGROUP, of, NOW + then)]
        assert told == [claim.name for claim in slow.claims_of(who, of, NOW + then)]


moments = st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.integers(1, 40))


@given(st.lists(moments, max_size=LONGEST), st.integers(-1, 70))
@example([("a", 1, 9), ("a", 5, 7), ("a", 3, 27)], 20)
@example([("a", 1, 9), ("a", 5, 7), ("b", 6, 1), ("a", 3, 27)], 20)
@example([("a", 1, 40), ("b", 2, 40), ("a", 4, 1), ("a", 3, 40)], 42)
def test_answers_may_be_learnt_in_another_order_than_they_came(lookups: list[tuple[str, int, int]], then: int) -> None:
    claims, slow = Claims(), Slow()
    for name, at, lifetime in lookups:
        follow(claims, slow, A, EDGE, name, NOW + at, NOW + at + lifetime)
    assert set(names(claims, A, NOW + then)) == {claim.name for claim in slow.claims_of(A, EDGE, NOW + then)}


@given(st.lists(moments, min_size=LONGEST, max_size=60), st.integers(-1, 70))
@example([("a", 0, 1), *[("b", 2 * now, 1) for now in range(1, 9)], ("a", 20, 1)], 10)
def test_no_name_is_told_that_was_not_alive_however_much_was_forgotten(
    lookups: list[tuple[str, int, int]], then: int
) -> None:
    claims, slow = Claims(), Slow()
    for name, at, lifetime in lookups:
        follow(claims, slow, A, EDGE, name, NOW + at, NOW + at + lifetime)
    assert set(names(claims, A, NOW + then)) <= {claim.name for claim in slow.claims_of(A, EDGE, NOW + then)}


@given(st.lists(asked.map(lambda it: (*it[:3], it[3] * SECOND, it[4] * SECOND)), max_size=40))
def test_sweeping_forgets_nothing_that_may_be_asked_for(lookups: list[tuple[ProcessKey, bytes, str, int, int]]) -> None:
    swept, claims, now = Claims(), Claims(), NOW
    for process, of, name, later, lifetime in lookups:
        now += later
        for one in (swept, claims):
            one.learn(process, USER, [of], name, "dns", now, now + lifetime)
        swept.sweep(now)
        for back, who, which in product((0, 1, 20, 149), (A, AGAIN), (EDGE, OTHER)):
            at = now - back * SECOND
            assert swept.claims_of(who, CGROUP, which, at) == claims.claims_of(who, CGROUP, which, at)
    swept.sweep(now + 41 * SECOND + GRACE)
    assert len(swept) == 0


@pytest.mark.parametrize("order", list(permutations("abc")))
@pytest.mark.parametrize("of", [EDGE, OTHER])
def test_two_names_for_one_address_are_each_of_the_process_that_asked(order: tuple[str, ...], of: bytes) -> None:
    claims = Claims()
    asks = {"a": A, "b": B}
    for now, step in enumerate(order, NOW):
        if step in asks:
            claims.learn(asks[step], USER, [OTHER, EDGE], f"{step}.example", "getaddrinfo", now, now + SECOND)
        else:
            assert names(claims, C, now, of) == []
    assert names(claims, A, NOW + 3, of) == ["a.example"]
    assert names(claims, B, NOW + 3, of) == ["b.example"]
    assert names(claims, C, NOW + 3, of) == []


def test_another_process_of_the_same_number_has_none_of_its_names() -> None:
    claims = Claims()
    claims.learn(A, USER, [EDGE], "a.example", "dns", NOW, NOW + SECOND)
    claims.learn_for_relatives((A,), USER, [EDGE], "b.example", "dns", NOW, NOW + SECOND)
    assert names(claims, AGAIN) == []


def test_a_name_is_there_from_its_answer_until_it_is_over() -> None:
    claims = Claims()
    claims.learn(A, USER, [EDGE], "a.example", "dns", NOW, NOW + SECOND)
    assert names(claims, A, NOW - 1) == []
    assert claims.claims_of(A, CGROUP, EDGE, NOW) == [Claim("a.example", "dns", NOW, NOW + SECOND)]
    assert names(claims, A, NOW + SECOND - 1) == ["a.example"]
    assert names(claims, A, NOW + SECOND) == []
    assert names(claims, A, NOW, OTHER) == []


def test_ones_own_name_comes_before_a_helpers_and_that_before_the_cgroups() -> None:
    claims = Claims()
    claims.learn_for_cgroup(CGROUP, USER, [EDGE], "cgroup.example", "dns", NOW + 2, NOW + 60)
    assert names(claims, A, NOW + 2) == names(claims, C, NOW + 2) == ["cgroup.example"]
    claims.learn_for_relatives((A, B), USER, iter([EDGE]), "helper.example", "dns", NOW + 1, NOW + 40)
    assert names(claims, A, NOW + 2) == names(claims, B, NOW + 2) == ["helper.example"]
    claims.learn(A, USER, [EDGE], "own.example", "dns", NOW, NOW + 20)
    assert names(claims, A, NOW + 2) == ["own.example"]
    assert names(claims, B, NOW + 2) == ["helper.example"]
    assert names(claims, C, NOW + 2) == ["cgroup.example"]
    assert names(claims, C, NOW + 2, cgroup=CGROUP + 1) == []


def test_a_name_that_is_over_leaves_the_place_to_the_next_tier() -> None:
    claims = Claims()
    claims.learn(A, USER, [EDGE], "own.example", "dns", NOW, NOW + 20)
    claims.learn_for_relatives((A,), USER, [EDGE], "helper.example", "dns", NOW, NOW + 40)
    claims.learn_for_cgroup(CGROUP, USER, [EDGE], "cgroup.example", "dns", NOW, NOW + 60)
    assert names(claims, A, NOW + 20) == ["helper.example"]
    assert names(claims, A, NOW + 40) == ["cgroup.example"]
    assert names(claims, A, NOW + 60) == []


def test_what_a_process_asked_as_two_users_is_its_own_all_the_same() -> None:
    claims = Claims()
    claims.learn(A, 0, [EDGE], "root.example", "dns", NOW, NOW + SECOND)
    claims.learn(A, USER, [EDGE], "user.example", "dns", NOW + 1, NOW + SECOND)
    claims.learn(A, 0, [EDGE], "user.example", "getaddrinfo", NOW + 2, NOW + SECOND)
    assert names(claims, A, NOW + 2) == ["user.example", "root.example"]
    assert names(claims, A, NOW + 1) == ["user.example", "root.example"]
    assert claims.claims_of(A, CGROUP, EDGE, NOW + 2)[0].source == "getaddrinfo"


def test_a_name_asked_for_all_the_time_does_not_drive_out_another_one() -> None:
    claims = Claims()
    claims.learn(A, USER, [EDGE], "rare.example", "dns", NOW, NOW + 600 * SECOND)
    for now in range(NOW + 1, NOW + 1_000):
        claims.learn(A, USER, [EDGE], "busy.example", "dns", now, now + SECOND)
    assert names(claims, A, NOW + 1_000) == ["busy.example", "rare.example"]
    assert names(claims, A, NOW) == ["rare.example"]
    assert len(claims) == 2
    for now in range(NOW + 1_000, NOW + 2_000):
        claims.learn(A, USER, [EDGE], ("odd.example", "even.example")[now & 1], "dns", now, now + SECOND)
    assert names(claims, A, NOW + 2_000) == ["even.example", "odd.example", "busy.example", "rare.example"]
    assert claims.evicted == 0


def test_of_many_changes_what_was_alive_long_before_can_be_told_though_not_in_which_order() -> None:
    claims = Claims()
    for now in range(NOW, NOW + 100):
        claims.learn(A, USER, [EDGE], ("odd.example", "even.example")[now & 1], "dns", now, now + SECOND)
    for then in range(NOW + 1, NOW + 100):
        assert sorted(names(claims, A, then)) == ["even.example", "odd.example"]


def test_an_answer_that_is_learnt_late_is_not_shortened_by_many_changes() -> None:
    claims = Claims()
    for now in range(NOW + 1, NOW + LONGEST + 1):
        claims.learn(A, USER, [EDGE], ("odd.example", "even.example")[now & 1], "dns", now, now + SECOND)
    claims.learn(A, USER, [EDGE], "odd.example", "dns", NOW, NOW + 9 * SECOND)
    assert names(claims, A, NOW + 8 * SECOND) == ["odd.example"]


def test_the_ninth_living_name_of_an_address_costs_the_oldest_and_is_counted() -> None:
    claims = Claims()
    for number in range(LONGEST + 2):
        claims.learn(A, USER, [EDGE], f"{number}.example", "dns", NOW + number, NOW + SECOND)
    assert names(claims, A, NOW + 99) == [f"{number}.example" for number in range(LONGEST + 1, 1, -1)]
    assert claims.evicted == 2
    assert len(claims) == LONGEST


def test_an_address_is_told_once_between_two_sweeps() -> None:
    told: list[bytes] = []
    claims = Claims(on_address=told.append)
    claims.learn(A, USER, [EDGE, EDGE], "a.example", "dns", NOW, NOW + SECOND)
    claims.learn(B, USER, [EDGE, OTHER], "b.example", "dns", NOW, NOW + SECOND)
    assert told == [EDGE, OTHER]
    claims.sweep(NOW)
    assert told == [EDGE, OTHER]
    claims.learn_for_relatives((B, C), USER, [OTHER], "b.example", "dns", NOW, NOW + SECOND)
    assert told == [EDGE, OTHER, OTHER]
    assert claims.addresses() == {EDGE, OTHER}


def test_a_name_longer_than_any_host_name_is_not_kept() -> None:
    claims = Claims()
    claims.learn(A, USER, [EDGE], "a" * LONGEST_NAME, "dns", NOW, NOW + SECOND)
    claims.learn(A, USER, [OTHER], "a" * (LONGEST_NAME + 1), "dns", NOW, NOW + SECOND)
    assert names(claims, A) == ["a" * LONGEST_NAME]
    assert names(claims, A, of=OTHER) == []


def test_an_answer_without_addresses_costs_nothing() -> None:
    claims = Claims()
    claims.learn(A, USER, [], "a.example", "dns", NOW, NOW + SECOND)
    assert len(claims) == 0
    assert claims._own == {}


def test_a_million_names_of_a_process_are_its_own_loss() -> None:
    claims = Claims(Limits(process=64))
    claims.learn(B, USER, [EDGE], "b.example", "dns", NOW, NOW + SECOND)
    for number in range(10_000):
        claims.learn(A, USER, [address(number)], f"{number}.example", "dns", NOW + number, NOW + SECOND)
    claims.learn_for_relatives((A,), USER, [EDGE], "helper.example", "dns", NOW, NOW + SECOND)
    assert names(claims, B) == ["b.example"]
    assert names(claims, A) == ["helper.example"]
    assert names(claims, A, NOW + 10_000, address(9_999)) == ["9999.example"]
    assert names(claims, A, NOW + 10_000, address(9_999 - 64)) == []
    assert claims.evicted == 10_000 - 64
    assert len(claims) == 64 + 2


def test_what_was_asked_for_again_stays_longest() -> None:
    claims = Claims(Limits(process=64))
    for number in range(1_000):
        claims.learn(A, USER, [address(number)], f"{number}.example", "dns", NOW + number, NOW + SECOND)
        claims.learn(A, USER, [EDGE], "again.example", "dns", NOW + number, NOW + SECOND)
    assert names(claims, A, NOW + 999) == ["again.example"]


def test_an_eviction_of_what_was_over_is_none() -> None:
    claims = Claims(Limits(process=64))
    for number in range(1_000):
        claims.learn(A, USER, [address(number)], f"{number}.example", "dns", NOW + number, NOW + number + 1)
    assert claims.evicted == 0
    assert len(claims) == 64


def test_a_users_many_processes_cost_no_other_user_and_none_of_its_own_with_few_names() -> None:
    claims = Claims(Limits(process=64, uid=256, all=4_096))
    claims.learn(B, USER, [EDGE], "mine.example", "dns", NOW, NOW + SECOND)
    claims.learn(C, USER + 1, [EDGE], "theirs.example", "dns", NOW, NOW + SECOND)
    for pid, number in product(range(200, 300), range(100)):
        claims.learn(ProcessKey(pid, 1), USER, [address(number)], f"{number}.example", "dns", NOW, NOW + SECOND)
    assert names(claims, B) == ["mine.example"]
    assert names(claims, C) == ["theirs.example"]
    assert len(claims) <= 257
    assert names(claims, ProcessKey(299, 1), of=address(99)) == ["99.example"]


def test_the_users_with_most_names_pay_for_what_all_together_have_too_many() -> None:
    claims = Claims(Limits(process=64, uid=64, all=256))
    claims.learn(B, USER, [EDGE], "b.example", "dns", NOW, NOW + SECOND)
    for uid, number in product(range(2_000, 2_020), range(64)):
        claims.learn(A, uid, [address(number)], f"{number}.example", "dns", NOW, NOW + SECOND)
    assert names(claims, B) == ["b.example"]
    assert len(claims) <= 256


def test_processes_that_come_and_go_are_their_users_loss() -> None:
    claims = Claims(Limits(processes=128, processes_of_uid=64))
    claims.learn(B, USER + 1, [EDGE], "b.example", "dns", NOW, NOW + SECOND)
    for pid in range(200, 1_200):
        claims.learn(ProcessKey(pid, 1), USER, [EDGE], "a.example", "dns", NOW, NOW + SECOND)
    assert names(claims, B) == ["b.example"]
    assert names(claims, ProcessKey(1_199, 1)) == ["a.example"]
    assert names(claims, ProcessKey(1_199 - 64, 1)) == []
    assert len(claims) == 65
    for pid, uid in product(range(200, 220), range(2_000, 2_100)):
        claims.learn(ProcessKey(pid, uid), uid, [EDGE], "a.example", "dns", NOW, NOW + SECOND)
    assert 126 <= len(claims) <= 128


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(0, 8), st.sampled_from("ab"), st.integers(0, 2)),
        max_size=120,
    ),
    st.builds(Limits, *[st.integers(1, 6)] * 5),
)
def test_no_limit_is_ever_exceeded_and_every_claim_is_kept_or_counted(
    lookups: list[tuple[int, int, int, str, int]], limits: Limits
) -> None:
    claims = Claims(limits)
    for now, (pid, uid, number, name, tier) in enumerate(lookups, NOW):
        before = len(claims) + claims.evicted
        given_to = (uid, [address(number)], name, "dns", now, now + SECOND)
        if tier == 0:
            claims.learn(ProcessKey(pid, 1), *given_to)
        elif tier == 1:
            claims.learn_for_relatives((ProcessKey(pid, 1), ProcessKey(pid + 1, 1)), *given_to)
        else:
            claims.learn_for_cgroup(pid, *given_to)
        assert len(claims) + claims.evicted >= before
        assert name in names(claims, ProcessKey(pid, 1), now, address(number), pid) or tier
        held = list(claims._holdings)
        assert sum(table.size for table in held) == len(claims) <= limits.all
        assert all(table.size == sum(len(listed(newest)) for newest in table.chains.values()) for table in held)
        assert all(0 < table.size <= limits.process for table in held)
        assert len(held) == claims._holdings._tables <= limits.processes
        assert all(count <= limits.processes_of_uid for count in Counter(t.user.uid for t in held).values())
        assert all(table.user.size <= limits.uid for table in held)
        tiers = (claims._own, claims._relatives, claims._cgroups)
        assert sorted(map(id, held)) == sorted(id(t) for tier in tiers for tables in tier.values() for t in tables)
    for _ in range(3):
        claims.sweep(NOW + 2 * SECOND + GRACE)
    assert (len(claims), claims._holdings._tables, claims._own, claims._cgroups) == (0, 0, {}, {})


def test_a_process_with_too_many_names_gives_no_more_than_a_64th() -> None:
    claims = Claims(Limits(process=128))
    for number, name in product(range(43), "abc"):
        claims.learn(A, USER, [address(number)], name, "dns", NOW + number, NOW + SECOND)
    assert len(claims) == 126
    assert names(claims, A, NOW + 99, address(0)) == []
    assert names(claims, A, NOW + 99, address(1)) == ["c", "b", "a"]


def test_of_an_address_with_many_names_the_oldest_go_first() -> None:
    claims = Claims(Limits(process=4))
    for now, name in enumerate("abcdef", NOW):
        claims.learn(A, USER, [EDGE], name, "dns", now, NOW + SECOND)
    assert names(claims, A, NOW + 99) == ["f", "e", "d", "c"]
    assert len(claims) == 4


def test_a_flood_leaves_no_memory_behind() -> None:
    claims = Claims(Limits(process=1_024, uid=1_024))
    tracemalloc.start()
    try:
        for pid, number in product(range(50), range(1_024)):
            claims.learn(ProcessKey(pid, 1), USER, [address(number)], f"{number}.example", "dns", NOW, NOW + SECOND)
        # Fifty tables that each held a thousand once; 0.4 KiB for each claim that is left is what Limits promises.
        assert tracemalloc.get_traced_memory()[0] < 1_024 * 410
    finally:
        tracemalloc.stop()


def test_a_flood_of_processes_leaves_no_memory_behind() -> None:
    claims = Claims()
    for pid in range(4_096):
        claims.learn(ProcessKey(pid, 1), USER, [EDGE], "a.example", "dns", NOW, NOW + pid)
    for _ in range(3):
        claims.sweep(NOW + 4_094 + GRACE)
    assert len(claims) == 1
    assert getsizeof(claims._holdings._users[USER].tables) < 1_024
