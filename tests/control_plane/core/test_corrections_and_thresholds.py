"""Corrections bring a call to exactly what was asked for; thresholds follow use and amount; periods move forwards."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.corrections import correct, correction_id, latest_prices
from control_plane.core.credits import Grant, Pool
from control_plane.core.notices import crossed, level, watch
from control_plane.core.plans import PlanLimit
from control_plane.core.reconciliation import counts_from, is_late
from control_plane.core.rerating import sums
from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.entitlements import Limit
from protocol.events import Priced, UsageEvent
from protocol.ids import is_key
from protocol.windows import WindowKind

meters = st.dictionaries(st.sampled_from(["requests", "input_tokens", "images", "credits"]), st.integers(0, 10**9))
classes = st.dictionaries(st.sampled_from(["input", "output", "cache_read"]), st.integers(0, 10**9))
_decode = MsgpackDecoder(UsageEvent)


@given(meters, classes, st.lists(st.tuples(meters, classes), max_size=5))
def test_after_each_correction_the_call_comes_to_what_was_asked_for(
    first: dict[str, int], tokens: dict[str, int], wanted: list[tuple[dict[str, int], dict[str, int]]]
) -> None:
    price = Priced("credits", "standard@3", "a")
    said = [UsageEvent("call", "acme", "chat", 1_000, first, tokens=tokens, derived=("credits",), priced=(price,))]
    for number, (amounts, parts) in enumerate(wanted):
        event = correct(f"fix-{number}", said, amounts, parts, 1_000)
        before = sums(said)
        if event is None:
            assert [{name: one for name, one in total.items() if one} for total in before] == [
                {name: one for name, one in total.items() if one} for total in (amounts, parts)
            ]
            continue
        assert (event.corrects, event.at_ms) == ("call", 1_000)
        assert _decode(encode_msgpack(event)) == event
        said.append(event)
        for total, asked in zip(sums(said), (amounts, parts), strict=True):
            assert {name: one for name, one in total.items() if one} == {
                name: one for name, one in asked.items() if one
            }
        assert latest_prices(said) == {"credits": price}
        assert event.priced == (price,), "whoever prices it anew finds by what it was priced"


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@+~-]{0,99}", fullmatch=True))
def test_a_correction_makes_an_id_that_may_be_one(name: str) -> None:
    assert is_key(correction_id(name))


@given(
    st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6),
    st.lists(st.integers(1, 1_000), min_size=1, max_size=5, unique=True),
)  # fmt: skip
def test_more_use_crosses_more_and_a_larger_amount_less(amount: int, used: int, more: int, percents: list[int]) -> None:
    limit = Limit("l", "requests", amount, WindowKind.DAY)

    def reached(limit: Limit, used: int) -> frozenset[int]:
        return crossed(percents, level(limit, used, Pool(), 0))

    now = reached(limit, used)
    assert now <= reached(limit, used + more)
    assert now >= reached(msgspec.structs.replace(limit, amount=amount + more), used)
    assert reached(msgspec.structs.replace(limit, amount=None), used) == frozenset()
    for percent in percents:
        assert (percent in now) == (used > 0 and used >= percent * amount / 100)


BALANCE = Limit("credits", "credits", 0, WindowKind.GRANTS)
grants = st.builds(
    lambda amount, burned, until_ms: Grant("g", amount, min(amount, burned), 0, until_ms),
    st.integers(1, 10**6), st.integers(0, 10**6), st.none() | st.sampled_from([50, 150]),
)  # fmt: skip


@given(st.lists(grants, max_size=5), st.integers(0, 10**6), st.integers(0, 10**6))
def test_of_a_balance_what_counts_is_burned_and_left_whatever_was_burned_before(
    given_: list[Grant], closed_burned: int, overdraft: int
) -> None:
    pool, at_ms = Pool(closed_burned, tuple(given_)), 100
    limit = msgspec.structs.replace(BALANCE, amount=pool.ceiling(at_ms))
    used = closed_burned + sum(grant.burned for grant in given_) + overdraft
    counting = [grant for grant in given_ if grant.counts(at_ms)]
    stands = level(limit, used, pool, at_ms)
    assert stands.amount == sum(grant.amount for grant in counting)
    assert stands.amount - stands.used == sum(grant.left for grant in counting) - overdraft
    reached = crossed((50, 100, 150), stands)
    if not pool.ceiling(at_ms) and not overdraft:
        assert not reached, "who never had any credits is not told that they are low"
    elif stands.used >= stands.amount:
        assert {50, 100} <= reached, "nothing is left"
    assert (150 in reached) == (stands.used > 0 and stands.used * 100 >= 150 * stands.amount)


def test_what_an_override_adds_to_a_balance_counts_as_granted() -> None:
    pool = Pool(0, (Grant("g", 100, 80, 0),))
    more = msgspec.structs.replace(BALANCE, amount=pool.ceiling(1) + 60)
    assert level(more, 80, pool, 1)[:2] == (160, 80)


def test_variations_of_a_limit_by_role_are_watched_like_it() -> None:
    own = PlanLimit("calls", "requests", 10, WindowKind.DAY, by_role={"guest": 4}, thresholds=(50,))
    plain = PlanLimit("images", "images", 10, WindowKind.DAY)
    found = watch([*own.enforced(), *plain.enforced()], (own, plain))
    assert {one.limit.key: (one.limit.amount, one.percents) for one in found.values()} == {
        "calls": (10, (50,)),
        "calls@guest": (4, (50,)),
    }


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(1, 40 * 86_400_000))
def test_an_event_is_late_from_the_first_millisecond_beyond_the_grace(at_ms: int, now_ms: int, grace_ms: int) -> None:
    assert is_late(at_ms, now_ms, grace_ms) == (now_ms - at_ms > grace_ms)


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_what_happened_in_a_closed_period_counts_where_the_next_begins(at_ms: int, closed_until_ms: int) -> None:
    counted = counts_from(at_ms, closed_until_ms)
    assert counted >= closed_until_ms
    assert counted == at_ms or (at_ms < closed_until_ms == counted)
