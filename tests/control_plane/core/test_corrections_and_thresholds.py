"""Corrections bring a call to exactly what was asked for; thresholds follow use and amount; periods move forwards."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.corrections import correct, correction_id, latest_prices
from control_plane.core.notices import Watched, crossed, watch
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
    watched = Watched(limit, tuple(sorted(percents)))
    now = crossed(watched, used)
    assert now <= crossed(watched, used + more)
    larger = Watched(msgspec.structs.replace(limit, amount=amount + more), watched.percents)
    assert now >= crossed(larger, used)
    assert crossed(Watched(msgspec.structs.replace(limit, amount=None), watched.percents), used) == frozenset()
    for percent in percents:
        assert (percent in now) == (used > 0 and used >= percent * amount / 100)


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
