"""Memory from the journal: clocks of another boot, calls in flight, what was said, what may have been orphaned."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.operations.expire import expire
from agent.operations.give_back import give_back
from agent.operations.record import record
from agent.operations.release import release
from agent.operations.reserve import reserve
from agent.operations.restore import restore
from agent.operations.settle import settle
from protocol.decisions import Decision
from protocol.entitlements import Limit
from protocol.local_messages import RESERVATION_TTL_MS, Call, ErrorReply, Record, Recorded, Release, Reserve, Settle
from protocol.windows import WindowKind

CALL = Call("acme", "chat")
TOKENS = Limit("tokens-a-day", "output_tokens", 1_000, WindowKind.DAY)
YOUNG_MS = 10_000


def hold(bench, name: str, amount: int, call: Call = CALL, ttl_ms: int = RESERVATION_TTL_MS):
    request = Reserve(reservation=name, call=call, amounts={"output_tokens": amount}, ttl_ms=ttl_ms)
    for _ in range(4):
        reply = reserve(bench.books, request, bench.now_ms, bench.now_ms + 1_000)
        if reply is not None:
            break
        bench.sync()
        bench.commit()
    bench.now_ms += YOUNG_MS  # old enough for a row of its own, with the next thing that is written
    for lease in bench.books.leases.values():
        bench.books.pending.touch(lease)
    bench.commit()
    return reply


def end(bench, name: str, amount: int, **more):
    outcome = settle(
        bench.books, Settle(reservation=name, amounts={"output_tokens": amount}, **more), bench.now_ms, bench.wall_ms
    )
    heard = bench.told(outcome)
    bench.commit()
    assert heard == [True]
    return outcome.reply


def restart(bench, shift_ms: int, now_ms: int) -> None:
    """Start again on a clock that shows another time."""
    contents = bench.journal.contents()
    bench.boot += 1
    bench.now_ms = now_ms
    bench.books = bench._books()
    restore(bench.books, contents, now_ms, shift_ms)
    bench.snapshot, bench.next_seq = True, 1


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(old=st.integers(10**6, 10**9), new=st.integers(10**3, 10**9), away=st.integers(0, 10**6))
def test_instants_of_the_last_boot_mean_the_same_on_the_new_clock(make_bench, old, new, away) -> None:
    """The monotonic clock starts anew with the machine; what was to last a minute still does, less the time away."""
    bench = make_bench()
    bench.now_ms = old
    bench.entitle(TOKENS)
    bench.lender.ttl_ms = 600_000
    hold(bench, "r1", 10)
    before = next(iter(bench.books.leases.values()))
    reservation = bench.books.reservations.get("r1")
    left = {
        "window": before.window_ends_at_ms - bench.now_ms,
        "lease": before.expires_at_ms - bench.now_ms,
        "call": reservation.expires_at_ms - bench.now_ms,
    }
    wall_then, wall_now = bench.wall_ms + bench.now_ms, bench.wall_ms + bench.now_ms + away
    shift = (wall_then - bench.now_ms) - (wall_now - new)
    restart(bench, shift, new)
    lease = next(iter(bench.books.leases.values()))
    assert lease.window_ends_at_ms - new == left["window"] - away
    assert lease.expires_at_ms - new == left["lease"] - away
    assert bench.books.reservations.get("r1").expires_at_ms - new == left["call"] - away


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(shift=st.integers(-(10**10), 10**10))
def test_wrong_clock_never_gives_a_lease_more_than_one_term(make_bench, shift) -> None:
    bench = make_bench()
    bench.entitle(TOKENS)
    hold(bench, "r1", 10)
    restart(bench, shift, bench.now_ms)
    for lease in bench.books.leases.values():
        assert lease.expires_at_ms <= bench.now_ms + lease.ttl_ms


def test_what_a_watermark_covers_and_nobody_accounts_for_is_orphaned_and_only_for_a_while(bench) -> None:
    bench.entitle(TOKENS)
    hold(bench, "r1", 10)
    hold(bench, "r2", 20)
    end(bench, "r1", 10)
    bench.crash()
    (lease,) = bench.books.leases.values()
    assert (lease.settled, lease.held) == (10, 20)
    assert lease.orphan == lease.watermark - 30 > 0
    bench.now_ms = lease.orphan_until_ms - 1
    for held in list(bench.books.reservations.expired(bench.now_ms)):
        assert held.id == "r2"
    bench.now_ms += 1
    expire(bench.books, bench.now_ms, bench.wall_ms)
    give_back(bench.books, bench.now_ms)
    assert lease.closing, "no late settle can come any more"
    bench.commit()
    bench.sync()
    lent = bench.lender.leases[lease.id]
    assert lent.closed
    assert lent.charge >= 30


def test_late_settle_is_paid_from_what_the_crash_orphaned(bench) -> None:
    bench.entitle(TOKENS)
    hold(bench, "r0", 10)
    end(bench, "r0", 10)
    request = Reserve(reservation="young", call=CALL, amounts={"output_tokens": 5})
    assert reserve(bench.books, request, bench.now_ms, bench.now_ms).has_access
    bench.crash()
    (lease,) = bench.books.leases.values()
    orphan = lease.orphan
    assert orphan >= 5
    end(bench, "young", 5, call=CALL)
    assert lease.orphan == orphan - 5
    assert lease.settled == 15
    bench.sync()
    assert not bench.lender.direct, "charged to the lease, not on top of it"


def test_words_said_before_a_restart_are_known_after_it(bench) -> None:
    bench.entitle(TOKENS)
    hold(bench, "r1", 10)
    end(bench, "r1", 10)
    end(bench, "r1", 12)
    heard = bench.told(record(bench.books, Record(event="e1", call=CALL), bench.now_ms, bench.wall_ms, bench.now_ms))
    bench.commit()
    assert heard == [True]
    bench.crash()
    again = settle(bench.books, Settle(reservation="r1", amounts={"output_tokens": 12}), bench.now_ms, bench.wall_ms)
    assert (again.event, again.duplicate, again.corrects) == ("r1~1", True, "r1")
    first = settle(bench.books, Settle(reservation="r1", amounts={"output_tokens": 10}), bench.now_ms, bench.wall_ms)
    assert (first.event, first.duplicate) == ("r1", True)
    end(bench, "r1", 20)
    same = record(bench.books, Record(event="e1", call=CALL), bench.now_ms, bench.wall_ms, bench.now_ms)
    assert isinstance(same, Recorded)
    assert same.duplicate
    bench.sync()
    total = sum(event.amounts.get("output_tokens", 0) for event in bench.lender.events.values())
    assert total == 20


def test_call_in_flight_survives_a_restart_and_ends_once(bench) -> None:
    bench.entitle(TOKENS)
    hold(bench, "r1", 10)
    hold(bench, "r2", 10)
    bench.crash()
    assert isinstance(hold(bench, "r1", 10), Decision)
    assert isinstance(hold(bench, "r1", 11), ErrorReply)
    heard = bench.told(release(bench.books, Release(reservation="r2")))
    bench.commit()
    assert heard == [True]
    end(bench, "r1", 7)
    bench.crash()
    assert len(bench.books.reservations) == 0
    bench.sync()
    assert {event.event: event.amounts["output_tokens"] for event in bench.lender.events.values()} == {"r1": 7}


def test_call_whose_life_ended_while_the_agent_was_down_is_charged_at_what_it_held(bench) -> None:
    bench.entitle(TOKENS)
    hold(bench, "r1", 10, ttl_ms=60_000)
    bench.now_ms += 61_000
    bench.crash()
    assert expire(bench.books, bench.now_ms, bench.wall_ms) == 1
    bench.commit()
    bench.sync()
    (event,) = bench.lender.events.values()
    assert (event.event, event.amounts["output_tokens"], event.outcome) == ("r1", 10, "expired")
    end(bench, "r1", 4)
    bench.sync()
    assert sum(event.amounts["output_tokens"] for event in bench.lender.events.values()) == 4


def test_same_settle_from_another_customer_after_a_restart_is_nobodys_correction(bench) -> None:
    bench.entitle(TOKENS)
    bench.entitle(TOKENS, customer="other")
    hold(bench, "r1", 10)
    end(bench, "r1", 10)
    bench.crash()
    outcome = settle(
        bench.books,
        Settle(reservation="r1", amounts={"output_tokens": 3}, call=Call("other", "chat")),
        bench.now_ms,
        bench.wall_ms,
    )
    assert isinstance(outcome, ErrorReply)
    assert outcome.error.code == "reservation_conflict"


@pytest.mark.parametrize("amount", [0, 1, 999])
def test_unused_lease_of_a_dead_boot_costs_nothing_but_its_watermark(bench, amount) -> None:
    bench.entitle(TOKENS)
    if amount:
        hold(bench, "r1", amount)
        end(bench, "r1", amount)
    bench.crash()
    bench.sync()
    assert bench.lender.charged(("acme", TOKENS.counter, "")) <= 1_000
