"""When to ask for more and when to give back: each rule by itself, over every state that hypothesis thinks of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.core.budget import Allowance
from agent.core.demand import (
    CENTRAL_RETURN_MS,
    IDLE_RETURN_MS,
    asked_demand,
    asks_ahead,
    brings_back,
    goes_back,
    renewal_due,
)
from agent.core.leases import Lease
from agent.core.pace import SILENCE_MS, Pace
from agent.operations.adopt_sync import forget_lease
from agent.operations.compose_sync import LATELY_MS
from agent.operations.give_back import give_back
from agent.operations.reserve import reserve
from agent.operations.settle import settle
from protocol.entitlements import Limit
from protocol.leases import Grant, Standing
from protocol.local_messages import Call, Reserve, Settle
from protocol.units import QUANTITY_MAX
from protocol.windows import WindowKind

KEY = ("acme", "*/output_tokens/day/customer", "")
TOKENS = Limit("tokens-a-day", "output_tokens", 1_000, WindowKind.DAY)


def lease(amount: int = 100, ttl_ms: int = 60_000, window_left_ms: int = 10**9, *, central: bool = False) -> Lease:
    return Lease(Grant("l1", *KEY, amount, ttl_ms, 0, 1, window_left_ms, Standing(1_000, 0), central=central), 0)


def allowance(now_ms: int = 0) -> Allowance:
    return Allowance(KEY, now_ms)


@given(idle=st.integers(0, 200_000), central=st.booleans(), held=st.integers(0, 5))
def test_idle_lease_goes_back_unless_a_call_holds_it(idle, central, held) -> None:
    one = lease(central=central)
    one.held = held
    after = CENTRAL_RETURN_MS if central else IDLE_RETURN_MS
    assert goes_back(one, allowance(), idle) == (not held and idle >= after)


@given(settled=st.integers(0, 100), orphan=st.integers(0, 100), known=st.booleans(), late=st.booleans())
def test_used_up_lease_goes_back_but_one_that_may_be_orphaned_waits_for_the_late_settle(
    settled, orphan, known, late
) -> None:
    one = lease(amount=100)
    one.settled, one.orphan = settled, min(orphan, 100 - settled)
    one.orphan_until_ms = 1_000
    one.disowned = not known
    now_ms = 1_000 if late else 999
    expected = not known or ((one.orphan == 0 or late) and one.settled + one.orphan >= one.cap)
    assert goes_back(one, allowance(now_ms), now_ms) == expected


@given(now=st.integers(0, 10_000))
def test_lease_whose_window_is_over_goes_back_at_once_and_closing_ones_not_twice(now) -> None:
    one = lease(window_left_ms=5_000)
    assert goes_back(one, allowance(now), now) == (now >= 5_000)
    one.closing = True
    assert not goes_back(one, allowance(now), now)


@given(now=st.integers(0, 70_000), ttl=st.integers(1_000, 60_000))
def test_lease_is_renewed_before_its_own_term_ends_which_ends_before_the_lenders(now, ttl) -> None:
    one = lease(ttl_ms=ttl)
    assert one.expires_at_ms < ttl
    if now >= one.expires_at_ms:
        assert renewal_due(one, now)
    if now == 0 and ttl > 2_000:
        assert not renewal_due(one, now)
    one.renew(ttl, now)
    assert one.expires_at_ms >= now + ttl - ttl // 200 - 250


@given(
    rate=st.integers(0, QUANTITY_MAX), backlog=st.integers(0, QUANTITY_MAX), lately=st.integers(0, QUANTITY_MAX),
    now=st.integers(0, 10_000),
)  # fmt: skip
def test_demand_that_is_stated_is_never_less_than_known_and_always_a_quantity(rate, backlog, lately, now) -> None:
    one = allowance()
    one.demand_per_min, one.backlog, one.reserved_since, one.granted_last = rate, backlog, lately, QUANTITY_MAX
    assert min(QUANTITY_MAX, max(rate, 2 * backlog)) <= asked_demand(one, now) <= QUANTITY_MAX


def test_burst_asks_for_at_most_twice_the_last_lease_and_silence_lets_the_demand_fall() -> None:
    one = allowance()
    one.typical, one.granted_last, one.demand_per_min = 10, 100, 600
    one.backlog = 5_000
    assert asked_demand(one, 0) == 600
    one.granted_last = 1_000
    assert asked_demand(one, 0) == 2_000
    one.backlog, one.reserved_since = 0, 0
    assert asked_demand(one, 7_500) == 300
    assert asked_demand(one, 60_000) == 1


def test_one_call_alone_shows_no_rate() -> None:
    one = allowance()
    one.note_demand(10, 0)
    assert asked_demand(one, 5_000) == 1
    one.note_demand(10, 5_000)
    assert asked_demand(one, 5_000) == 240


def test_next_lease_is_asked_for_in_time_for_a_slow_exchange() -> None:
    one = lease(amount=1_000)
    mine = allowance()
    mine.leases, mine.granted_last, mine.demand_per_min, mine.free_now = [one], 1_000, 60_000, 400
    assert not asks_ahead(mine, 0, 100)
    assert asks_ahead(mine, 0, 250)
    mine.free_now = 249
    assert asks_ahead(mine, 0, 0)
    mine.denied_until_ms = 1
    assert not asks_ahead(mine, 0, 250)


def test_what_returns_something_is_told_soon_and_the_rest_ever_more_seldom() -> None:
    one = lease(amount=100)
    assert not brings_back(one)
    one.reported = one.report()
    assert not brings_back(one)
    one.lower(30)
    assert not brings_back(one), "not before the disk says so"
    one.durable_cap = 30
    assert brings_back(one)
    pace, now_ms, pauses = Pace(), 0, []
    for _ in range(9):
        due_ms = pace.due_at_ms(now_ms)
        pauses.append(due_ms - now_ms)
        assert pace.due_at_ms(due_ms - 1) == due_ms
        pace.said(due_ms)
        now_ms = due_ms + 1_000
    assert pauses == [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000]
    assert pace.due_at_ms(now_ms + SILENCE_MS) == now_ms + SILENCE_MS + 250


@given(cap=st.integers(0, 100), settled=st.integers(0, 100), held=st.integers(0, 100), keep=st.integers(0, 200))
def test_what_is_given_back_is_never_what_is_used_or_held(cap, settled, held, keep) -> None:
    one = lease(amount=cap)
    one.settled = min(settled, cap)
    one.held = min(held, cap - one.settled)
    one.watermark = cap
    before = one.cap
    one.lower(keep)
    assert one.used <= one.cap <= before
    assert one.watermark <= one.cap
    assert one.cap == min(before, one.used + keep)


def grown(bench) -> Lease:
    bench.entitle(TOKENS)
    request = Reserve(reservation="r1", call=Call("acme", "chat"), amounts={"output_tokens": 10})
    while reserve(bench.books, request, bench.now_ms, bench.now_ms + 1_000) is None:
        bench.sync()
        bench.commit()
    return next(iter(bench.books.leases.values()))


def test_everything_goes_home_when_the_agent_stops_but_what_a_call_holds(bench) -> None:
    one = grown(bench)
    give_back(bench.books, bench.now_ms, everything=True)
    assert (one.closing, one.cap, one.done) == (True, 10, False)
    bench.commit()
    bench.sync()
    assert bench.lender.leases[one.id].cap == 10
    assert not bench.lender.leases[one.id].closed


def test_lease_is_reported_closed_only_with_numbers_that_are_on_disk(bench) -> None:
    one = grown(bench)
    bench.books.reservations.pop("r1")
    one.held = 0
    one.settled = 10  # an event is on its way
    give_back(bench.books, bench.now_ms, everything=True)
    assert not one.report().closed
    assert one.report().settled == 0
    bench.commit()
    assert (one.report().closed, one.report().settled) == (True, 10)


def test_lease_nobody_knows_is_forgotten_once_no_call_holds_it(bench) -> None:
    one = grown(bench)
    one.disowned = one.closing = True
    give_back(bench.books, bench.now_ms)
    assert one.id in bench.books.leases
    one.held = 0
    give_back(bench.books, bench.now_ms)
    assert one.id not in bench.books.leases
    assert bench.books.allowances[KEY].leases == []
    forget_lease(bench.books, one.id)  # twice is once
    bench.commit()
    assert bench.journal.contents().leases == []


def ask(bench, amount: int, patience_ms: int = 1_000):
    request = Reserve(reservation=f"r-{amount}", call=Call("acme", "chat"), amounts={"output_tokens": amount})
    return reserve(bench.books, request, bench.now_ms, bench.now_ms + patience_ms)


def test_plan_that_allows_more_is_asked_for_more_at_once_whatever_was_denied_before(bench) -> None:
    bench.lender.slice = 10
    grown(bench)
    bench.entitle(Limit("tokens-a-day", "output_tokens", 20, WindowKind.DAY), version=2)
    bench.books.look_again.add("acme")
    bench.sync()
    assert ask(bench, 15) is None
    bench.sync()
    assert ask(bench, 15) is None, "the call in flight may give something back"
    assert ask(bench, 15, patience_ms=0).code == "usage_limit_reached"
    bench.entitle(TOKENS, version=3)
    bench.books.look_again.add("acme")
    bench.sync()
    bench.commit()
    assert ask(bench, 15).has_access, "what was refused was asked for in the exchange that told of the new plan"


def test_what_was_refused_long_ago_is_not_asked_for_when_the_plan_changes(bench) -> None:
    bench.lender.slice = 10
    bench.entitle(Limit("tokens-a-day", "output_tokens", 10, WindowKind.DAY))
    bench.books.look_again.add("acme")
    bench.sync()
    assert ask(bench, 15).code == "requested_usage_exceeds_limit"
    bench.now_ms += LATELY_MS
    bench.entitle(TOKENS, version=3)
    bench.books.look_again.add("acme")
    bench.sync()
    assert not bench.books.leases


def test_what_was_used_on_a_lease_that_went_home_still_counts_in_what_remains(bench) -> None:
    one = grown(bench)
    outcome = settle(bench.books, Settle(reservation="r1", amounts={"output_tokens": 10}), bench.now_ms, bench.wall_ms)
    assert bench.told(outcome) == []
    bench.commit()
    bench.sync()
    allowance_now = bench.books.allowances[KEY]
    assert allowance_now.used(bench.now_ms) == 10
    give_back(bench.books, bench.now_ms, everything=True)
    bench.commit()
    bench.sync()
    assert one.id not in bench.books.leases
    assert allowance_now.used(bench.now_ms) == 10
