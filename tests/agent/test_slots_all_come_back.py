"""What is held at the same time: never more than the limit, and every way out of a call gives its slots back once."""

from __future__ import annotations

import pytest

from agent.api.dispatch import Dispatch
from agent.operations.expire import expire
from agent.operations.extend import extend
from agent.operations.give_back import give_back
from agent.operations.record import record
from agent.operations.release import release
from agent.operations.reserve import reserve
from agent.operations.settle import settle
from protocol.decisions import Code, Decision, Verdict
from protocol.entitlements import Limit, WhenOffline
from protocol.local_messages import RESERVATION_TTL_MS, Call, ErrorReply, Extend, Record, Release, Reserve, Settle
from protocol.windows import WindowKind

CALL = Call("acme", "chat")
SLOTS = Limit("parallel", "requests", 3, WindowKind.IN_FLIGHT)
KEY = ("acme", SLOTS.counter, "")


def ask(bench, name: str, patience_ms: int = 1_000, **fields):
    request = Reserve(reservation=name, call=CALL, **fields)
    return reserve(bench.books, request, bench.now_ms, bench.now_ms + patience_ms)


def hold(bench, name: str, **fields) -> Decision:
    for _ in range(4):
        reply = ask(bench, name, **fields)
        if reply is not None:
            return reply
        bench.sync()
        bench.commit()
    reply = ask(bench, name, 0, **fields)
    assert reply is not None
    return reply


def held(bench) -> int:
    return sum(lease.held for lease in bench.books.leases.values())


@pytest.fixture
def full(bench):
    """All three slots are taken, and the calls have rows on disk."""
    bench.entitle(SLOTS)
    for name in ("a", "b", "c"):
        assert hold(bench, name, ttl_ms=1_000 if name == "a" else 600_000).has_access
    bench.now_ms += 300
    for lease in bench.books.leases.values():
        bench.books.pending.touch(lease)
    bench.commit()
    assert held(bench) == 3
    return bench


def test_call_too_many_waits_for_one_to_end_and_is_told_how_many_are_in_flight(full) -> None:
    assert ask(full, "d") is None, "a slot comes back by nature"
    reply = hold(full, "d")
    assert (reply.decision, reply.code) == (Verdict.THROTTLE, Code.RATE_LIMITED)
    assert reply.message == "3 of 3 calls in flight (limit 'parallel'); try again when one has ended."
    assert (reply.amount, reply.usage, reply.remaining, reply.retry_after_ms) == (3, 3, 0, 1_000)
    assert reply.resets_at is None
    assert reply.resets_in_ms is None


def end_by_settle(bench) -> None:
    settle(bench.books, Settle(reservation="a", amounts={"output_tokens": 5}, call=CALL), bench.now_ms, bench.wall_ms)


def end_by_release(bench) -> None:
    release(bench.books, Release(reservation="a"))


def end_by_expiry(bench) -> None:
    bench.now_ms += 1_000
    assert expire(bench.books, bench.now_ms, bench.wall_ms) == 1


@pytest.mark.parametrize("end", [end_by_settle, end_by_release, end_by_expiry])
@pytest.mark.parametrize("times", [1, 2])
def test_every_exit_gives_the_slot_back_exactly_once(full, end, times) -> None:
    end(full)
    if times == 2 and end is not end_by_expiry:
        end(full)
    assert held(full) == 2
    assert ask(full, "d") is None, "not before the disk knows that the first has ended"
    full.commit()
    assert hold(full, "d").has_access
    assert not hold(full, "e").has_access
    full.sync()
    assert full.lender.charged(KEY) == 3
    assert full.lender.direct == {}
    assert all(not event.charges for event in full.lender.events.values())


def test_waiting_call_gets_the_slot_as_soon_as_the_disk_knows_that_it_is_free(full, bystander) -> None:
    class Clock:
        def wall_ms(self) -> int:
            return full.wall_ms

        def monotonic_ms(self) -> int:
            return full.now_ms

    dispatch = Dispatch(full.books, Clock(), lambda: None)
    for number in range(1, 6):
        assert dispatch(Reserve(id=number, reservation=f"w{number}", call=CALL), bystander) is None
    end_by_settle(full)
    assert not bystander.replies
    full.commit()
    assert {number: reply.has_access for number, reply in bystander.replies.items()} == {1: True}, "first come"
    end_by = Release(reservation="w1")
    release(full.books, end_by)
    full.commit()
    assert sorted(bystander.replies) == [1, 2]


def test_extension_and_smaller_total_hold_what_they_say(bench) -> None:
    tokens = Limit("tokens-at-once", "output_tokens", 100, WindowKind.IN_FLIGHT)
    bench.entitle(tokens)
    request = Reserve(reservation="s", call=CALL, amounts={"output_tokens": 40})
    while reserve(bench.books, request, bench.now_ms, bench.now_ms + 100) is None:
        bench.sync()
        bench.commit()
    for _ in range(3):
        more = extend(bench.books, Extend(reservation="s", amounts={"output_tokens": 90}), bench.now_ms, 10**9)
        bench.commit()
    assert more.has_access
    assert held(bench) == 90
    refused = extend(bench.books, Extend(reservation="s", amounts={"output_tokens": 101}), bench.now_ms, 0)
    assert refused.code is Code.REQUESTED_USAGE_EXCEEDS_LIMIT
    assert "allows at most 100 at once" in refused.message
    end = Settle(reservation="s", amounts={"output_tokens": 95})
    settle(bench.books, end, bench.now_ms, bench.wall_ms)
    assert held(bench) == 0


def test_record_and_late_settles_hold_nothing(full) -> None:
    record(full.books, Record(event="e1", call=CALL), full.now_ms, full.wall_ms, full.now_ms)
    settle(full.books, Settle(reservation="lost", call=CALL), full.now_ms, full.wall_ms)
    full.commit()
    full.sync()
    assert held(full) == 3
    assert full.lender.charged(KEY) == 3
    assert full.lender.direct == {}


def test_calls_with_rows_hold_their_slots_again_after_a_crash_until_they_end(full) -> None:
    full.crash()
    assert held(full) == 3
    full.sync()
    assert not hold(full, "d").has_access
    end_by_settle(full)
    full.commit()
    assert hold(full, "d").has_access


def test_slots_that_a_crash_orphaned_are_free_once_no_call_of_then_can_live(bench) -> None:
    bench.entitle(SLOTS)
    assert hold(bench, "young").has_access, "too young for a row of its own"
    bench.crash()
    bench.sync()
    orphans = sum(lease.orphan for lease in bench.books.leases.values())
    assert 1 <= orphans <= 2, "the journal runs ahead of slots by a call or so"
    bench.now_ms += RESERVATION_TTL_MS - 1
    give_back(bench.books, bench.now_ms)
    assert sum(lease.orphan for lease in bench.books.leases.values()) == orphans
    bench.now_ms += 1
    give_back(bench.books, bench.now_ms)
    bench.commit()
    bench.sync()
    assert sum(lease.orphan for lease in bench.books.leases.values()) == 0
    bench.now_ms += 1_000
    for name in ("a", "b", "c"):
        assert hold(bench, name).has_access
    bench.sync()
    assert bench.lender.charged(KEY) <= 3


def test_drain_closes_slots_only_when_none_is_held_even_perhaps(bench) -> None:
    bench.entitle(SLOTS)
    assert hold(bench, "young").has_access
    bench.crash()
    give_back(bench.books, bench.now_ms, everything=True)
    bench.commit()
    bench.sync()
    (lent,) = bench.lender.leases.values()
    assert not lent.closed
    assert lent.unreported >= 1


def test_nothing_new_begins_on_slots_whose_term_has_passed(bench) -> None:
    bench.entitle(Limit("parallel", "requests", 3, WindowKind.IN_FLIGHT, when_offline=WhenOffline.DRAIN))
    assert hold(bench, "a").has_access
    bench.now_ms += bench.lender.ttl_ms
    bench.books.uplink_down = True
    reply = ask(bench, "b", 0)
    assert reply.code is Code.LEASE_UNAVAILABLE
    outcome = settle(bench.books, Settle(reservation="a"), bench.now_ms, bench.wall_ms)
    assert not isinstance(outcome, ErrorReply), "what is in flight ends as ever"
    assert held(bench) == 0
