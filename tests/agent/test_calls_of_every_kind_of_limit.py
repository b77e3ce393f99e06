"""Smooth limits, calls that finish beyond a limit, low priority and windows granted ahead, as a caller meets them."""

from __future__ import annotations

import pytest

from agent.api.dispatch import Dispatch
from agent.background.watch import take_note
from agent.operations.check import check
from agent.operations.extend import extend
from agent.operations.give_back import give_back
from agent.operations.park import try_due
from agent.operations.record import record
from agent.operations.reserve import reserve
from agent.operations.settle import settle
from protocol.admission import Priority
from protocol.decisions import Code, Decision, Verdict
from protocol.entitlements import InFlight, Limit, LimitEnd, Scope
from protocol.events import Subject
from protocol.local_messages import Call, Check, Extend, Record, Reserve, Settle
from protocol.uplink_messages import WatchReply
from protocol.windows import WindowKind

CALL = Call("acme", "chat")
RATE = Limit("tokens-a-minute", "output_tokens", 600, WindowKind.MINUTE, smooth=True, burst=100)
FINISH = Limit(
    "tokens", "output_tokens", 100, WindowKind.DAY, in_flight=InFlight.FINISH, overage_max=60
)  # fmt: skip


class Caller:
    """Asks, with as many exchanges and commits as it takes."""

    def __init__(self, bench) -> None:
        self.bench = bench
        self.serial = 0

    def once(self, amount: int, patience_ms: int = 0, call: Call = CALL, name: str | None = None, **fields):
        self.serial += name is None
        name = name or f"c{self.serial}"
        request = Reserve(reservation=name, call=call, amounts={"output_tokens": amount}, **fields)
        return reserve(self.bench.books, request, self.bench.now_ms, self.bench.now_ms + patience_ms)

    def reserve(self, amount: int, **fields) -> Decision:
        self.serial += 1
        fields["name"] = f"c{self.serial}"
        for _ in range(5):
            reply = self.once(amount, 1, **fields)
            if reply is not None:
                return reply
            self.bench.sync()
            self.bench.commit()
        return self.once(amount, **fields)

    def extend(self, total: int, name: str = "c1", patience_ms: int = 0):
        request = Extend(reservation=name, amounts={"output_tokens": total})
        return extend(self.bench.books, request, self.bench.now_ms, self.bench.now_ms + patience_ms)

    def settle(self, name: str, used: int) -> None:
        said = Settle(reservation=name, amounts={"output_tokens": used})
        settle(self.bench.books, said, self.bench.now_ms, self.bench.wall_ms)


@pytest.fixture
def caller(bench) -> Caller:
    return Caller(bench)


# Smooth limits


def test_lone_host_sees_the_classical_token_bucket(bench, caller) -> None:
    bench.entitle(RATE)
    assert caller.reserve(60).has_access
    assert caller.once(40).has_access
    reply = caller.once(8)
    assert (reply.decision, reply.code) == (Verdict.THROTTLE, Code.RATE_LIMITED)
    assert reply.retry_after_ms == 800
    assert reply.message == (
        "Limit 'tokens-a-minute' allows 600 output_tokens a minute, evenly, and 100 at once; this call needs 8:"
        " try again in 0.8 s."
    )
    assert (reply.amount, reply.usage, reply.remaining, reply.resets_in_ms) == (600, 100, 0, None)
    bench.now_ms += 800
    assert caller.once(8).has_access


def test_call_that_the_bucket_will_serve_in_time_waits_for_it(bench, caller) -> None:
    bench.entitle(RATE)
    assert caller.reserve(100).has_access
    assert caller.once(10, patience_ms=999) is None, "there may be a larger share"
    bench.sync()
    assert caller.once(10, patience_ms=999).code is Code.RATE_LIMITED
    assert caller.once(10, patience_ms=1_000) is None


def test_those_who_wait_for_a_rate_are_served_in_their_order_and_the_rest_is_told_when(bench, bystander) -> None:
    class Clock:
        def wall_ms(self) -> int:
            return bench.wall_ms

        def monotonic_ms(self) -> int:
            return bench.now_ms

    bench.entitle(RATE)
    bench.lender.retry_in_ms = 5_000
    assert Caller(bench).reserve(100).has_access
    assert Caller(bench).once(1, name="more").code is Code.RATE_LIMITED
    bench.sync()
    dispatch = Dispatch(bench.books, Clock(), lambda: None)

    def ask(number: int, amount: int):
        amounts = {"output_tokens": amount}
        return dispatch(Reserve(id=number, reservation=f"w{number}", call=CALL, amounts=amounts), bystander)

    assert ask(1, 12) is None
    assert ask(2, 3) is None, "it does not pass the first"
    assert ask(3, 5) is None
    late = ask(4, 1)
    assert (late.code, late.retry_after_ms) == (Code.RATE_LIMITED, 2_100), "behind all of them"
    for _ in range(40):
        bench.now_ms += 50
        try_due(bench.books, bench.now_ms)
    assert list(bystander.replies) == [1, 2, 3]
    assert all(reply.has_access for reply in bystander.replies.values())


def test_more_than_the_burst_can_never_be_admitted_at_once(bench, caller) -> None:
    bench.entitle(RATE)
    reply = caller.reserve(101)
    assert (reply.code, reply.retry_after_ms) == (Code.REQUESTED_USAGE_EXCEEDS_LIMIT, None)
    assert "at most 100 at once" in reply.message


def test_stream_may_become_longer_than_the_burst_slice_by_slice(bench, caller) -> None:
    bench.entitle(RATE)
    assert caller.reserve(100).has_access
    for slices in range(2, 5):
        bench.now_ms += 10_000
        assert caller.extend(100 * slices).has_access
    assert caller.extend(401).code is Code.RATE_LIMITED


def test_settle_gives_the_rest_back_and_takes_what_was_over(bench, caller) -> None:
    bench.entitle(RATE)
    assert caller.reserve(100).has_access
    caller.settle("c1", 30)
    assert caller.reserve(70).has_access
    caller.settle(f"c{caller.serial}", 90)
    (rate,) = bench.books.allowances.values()
    assert rate.look(bench.now_ms, drain=True) == -20
    bench.now_ms += 2_100
    assert caller.once(1).has_access
    bench.commit()
    bench.sync()
    assert bench.lender.direct == {}
    assert all(not event.charges for event in bench.lender.events.values())


def test_call_that_took_from_two_shares_gives_back_what_it_did_not_use_and_no_more(bench, caller) -> None:
    bench.entitle(RATE)
    bench.lender.share = 300
    assert caller.reserve(30).has_access
    assert caller.reserve(40).has_access
    (rate,) = bench.books.allowances.values()
    assert [share.level for share in rate.leases] == [0, 30]
    caller.settle("c2", 10)
    assert [share.level for share in rate.leases] == [10, 50]


def test_record_of_now_draws_on_the_bucket_and_one_of_the_past_does_not(bench, caller) -> None:
    bench.entitle(RATE)
    assert caller.reserve(1).has_access
    (rate,) = bench.books.allowances.values()
    amounts = {"output_tokens": 50}
    now = Record(event="now", call=CALL, amounts=amounts)
    record(bench.books, now, bench.now_ms, bench.wall_ms, bench.now_ms)
    assert rate.look(bench.now_ms, drain=True) == 49
    past = Record(event="past", call=CALL, amounts=amounts, at_ms=1)
    record(bench.books, past, bench.now_ms, bench.wall_ms, bench.now_ms)
    assert rate.look(bench.now_ms, drain=True) == 49


def test_shares_go_home_empty_after_a_crash_and_a_new_one_begins_with_what_the_lender_saved_up(bench, caller) -> None:
    bench.entitle(RATE)
    assert caller.reserve(100).has_access
    bench.crash()
    bench.now_ms += 1_000
    bench.sync()
    assert [lent.closed for lent in bench.lender.leases.values()] == [True]
    assert not bench.books.leases
    assert caller.reserve(1).code is Code.RATE_LIMITED, "nothing was saved up meanwhile by anybody"
    bench.now_ms += 1_000
    assert caller.once(10).has_access


def test_recalled_share_is_lowered_at_once_and_what_it_drops_goes_to_the_others(bench, caller) -> None:
    bench.entitle(RATE)
    assert caller.reserve(10).has_access
    (share,) = bench.books.leases.values()
    bench.lender.recalling[share.id] = 300
    bench.books.report_all = True
    bench.sync()
    assert (share.cap, share.burst, share.level, share.dropped) == (300, 50, 50, 40)
    bench.sync()
    assert bench.lender.leases[share.id].cap == 300
    assert bench.lender.buckets[share.key].parts == 40 * 60_000
    bench.lender.recalling[share.id] = 0
    bench.books.report_all = True
    bench.sync()
    bench.commit()
    bench.sync()
    assert not bench.books.leases
    assert bench.lender.buckets[share.key].parts == 90 * 60_000


def test_share_that_the_lender_has_ended_is_never_used_again(bench, caller) -> None:
    bench.entitle(RATE)
    assert caller.reserve(10).has_access
    bench.now_ms += bench.lender.ttl_ms
    assert caller.once(1, patience_ms=100) is None, "a new share is asked for"
    give_back(bench.books, bench.now_ms)
    bench.now_ms += 600
    bench.sync()
    assert caller.once(1).code is Code.RATE_LIMITED, "silence gives nothing back but the share"
    bench.now_ms += 100
    assert caller.once(1).has_access
    assert len(bench.lender.shares(("acme", RATE.counter, ""))) == 1


def test_host_without_a_share_waits_for_the_recall_of_others(bench, caller) -> None:
    bench.entitle(RATE)
    key = ("acme", RATE.counter, "")
    bench.lender.share = 0
    bench.lender.retry_in_ms = 250
    bench.books.customer("acme").entitle(bench.lender.entitlements["acme"], 0)
    assert caller.once(1, patience_ms=2_000) is None
    bench.sync()
    assert bench.books.allowances[key].denial is not None
    assert caller.once(1, patience_ms=2_000) is None
    assert not bench.books.asking, "it rests meanwhile"
    bench.lender.share = 60
    take_note(bench.books, WatchReply(1, returned=("acme",)), 0, 0)
    assert caller.once(1, patience_ms=2_000) is None
    bench.sync()
    assert caller.once(1).has_access


# Calls in flight that finish


def test_calls_in_flight_finish_beyond_the_limit_and_new_ones_do_not_begin(bench, caller) -> None:
    bench.entitle(FINISH)
    assert caller.reserve(90).has_access
    assert caller.reserve(10).has_access
    refused = caller.reserve(1)
    assert refused.code is Code.USAGE_LIMIT_REACHED
    bench.sync()
    bench.commit()
    assert caller.extend(110, patience_ms=100) is None or caller.extend(110).has_access
    for _ in range(3):
        bench.sync()
        bench.commit()
        reply = caller.extend(110)
    assert reply.has_access
    assert caller.once(1).code is Code.USAGE_LIMIT_REACHED, "what is for calls in flight is not for others"
    caller.settle("c1", 110)
    bench.commit()
    bench.sync()
    assert bench.lender.direct == {}
    assert sum(charge.amount for event in bench.lender.events.values() for charge in event.charges) == 110


def test_slice_beyond_the_limit_is_at_hand_before_a_stream_needs_it(bench, caller) -> None:
    bench.entitle(FINISH)
    assert caller.reserve(90).has_access
    caller.reserve(30)
    assert [ask.finishing for ask in bench.lender.asked][-1], "asked for when the limit was reached, by itself"
    assert caller.extend(120).has_access


def test_finishing_ends_at_its_own_bound(bench, caller) -> None:
    bench.entitle(FINISH)
    assert caller.reserve(100).has_access
    refused = caller.extend(161)
    assert refused.code is Code.REQUESTED_USAGE_EXCEEDS_LIMIT
    for _ in range(4):
        reply = caller.extend(160, patience_ms=1)
        bench.sync()
        bench.commit()
    assert reply is None or reply.has_access
    assert caller.extend(160).has_access
    assert bench.lender.charged(("acme", FINISH.counter, "")) == 160


def test_use_beyond_the_hold_is_paid_by_slices_for_finishing_too(bench, caller) -> None:
    bench.entitle(FINISH)
    assert caller.reserve(100).has_access
    caller.extend(120, patience_ms=1)
    for _ in range(3):
        bench.sync()
        bench.commit()
        caller.extend(120, patience_ms=1)
    assert caller.extend(120).has_access
    caller.settle("c1", 120)
    bench.commit()
    bench.sync()
    assert bench.lender.direct == {}


def test_stream_that_may_not_go_on_is_told_to_stop(bench, caller) -> None:
    bench.entitle(Limit("tokens", "output_tokens", 100, WindowKind.DAY))
    assert caller.reserve(50).has_access
    assert caller.reserve(50).has_access
    for _ in range(3):
        reply = caller.extend(60, patience_ms=1)
        bench.sync()
        bench.commit()
    reply = caller.extend(60)
    assert reply.code is Code.USAGE_LIMIT_REACHED
    assert reply.message.endswith("This call gets no more: end its stream and settle what it used.")


def test_slices_for_finishing_go_home_soon_after_the_calls(bench, caller) -> None:
    bench.entitle(FINISH)
    assert caller.reserve(100).has_access
    for _ in range(4):
        caller.extend(120, patience_ms=1)
        bench.sync()
        bench.commit()
    assert caller.extend(120).has_access
    caller.settle("c1", 100)
    bench.commit()
    bench.now_ms += 2_000
    give_back(bench.books, bench.now_ms)
    bench.commit()
    bench.sync()
    assert not [lease for lease in bench.books.leases.values() if lease.finishing]
    assert bench.lender.charged(("acme", FINISH.counter, "")) == 100


# Low priority

FLOOR = Limit("tokens", "output_tokens", 100, WindowKind.DAY, batch_floor=40)


def test_batch_calls_leave_what_is_kept_for_interactive_ones(bench, caller) -> None:
    bench.entitle(FLOOR)
    assert caller.reserve(50, priority=Priority.BATCH).has_access
    refused = caller.reserve(20, priority=Priority.BATCH)
    assert refused.code is Code.USAGE_LIMIT_REACHED
    assert refused.message == (
        "Limit 'tokens' has 50 of 100 output_tokens left and keeps 40 for interactive calls;"
        " this call of priority batch needs 20."
    )
    assert caller.reserve(10, priority=Priority.BATCH).has_access
    assert caller.reserve(40).has_access


def test_check_of_low_priority_is_judged_the_same(bench, caller) -> None:
    bench.entitle(FLOOR)
    assert caller.reserve(50).has_access
    request = Check(call=CALL, amounts={"output_tokens": 20}, priority=Priority.BATCH)
    assert check(bench.books, request, bench.now_ms, bench.now_ms).code is Code.USAGE_LIMIT_REACHED


def test_ask_of_low_priority_says_so_and_its_refusal_holds_nobody_else_up(bench, caller) -> None:
    bench.entitle(FLOOR)
    bench.lender.slice = 1
    bench.lender.standing_elsewhere = 0
    key = ("acme", FLOOR.counter, "")
    bench.books.customer("acme").entitle(bench.lender.entitlements["acme"], 0)
    bench.lender.direct[key] = 55
    assert caller.once(10, 100, priority=Priority.BATCH) is None
    bench.sync()
    assert bench.lender.asked[-1].priority is Priority.BATCH
    assert caller.once(10, 0, priority=Priority.BATCH).code is Code.USAGE_LIMIT_REACHED
    assert caller.once(10, 100) is None, "an interactive call asks again at once"
    bench.sync()
    assert bench.lender.asked[-1].priority is Priority.INTERACTIVE
    assert caller.reserve(10).has_access


def test_first_call_of_low_priority_that_is_refused_holds_nobody_else_up(bench, caller) -> None:
    bench.entitle(FLOOR)
    bench.lender.direct["acme", FLOOR.counter, ""] = 60
    assert caller.once(10, 100, priority=Priority.BATCH) is None
    bench.sync()
    assert caller.once(10, 0, priority=Priority.BATCH).code is Code.USAGE_LIMIT_REACHED
    assert caller.once(30, 100) is None, "what others may have is not used up"
    bench.sync()
    assert caller.reserve(30).has_access


def test_interactive_call_makes_an_ask_that_has_not_left_its_own(bench, caller) -> None:
    bench.entitle(FLOOR)
    bench.books.customer("acme").entitle(bench.lender.entitlements["acme"], 0)
    caller.once(10, 100, priority=Priority.BATCH)
    caller.once(5, 100)
    (named,) = bench.request().customers
    (ask,) = named.asks
    assert (ask.priority, ask.need) == (Priority.INTERACTIVE, 5)


# Windows granted ahead

DAY = Limit("tokens", "output_tokens", 1_000, WindowKind.DAY)


def near_the_end(bench, caller) -> None:
    bench.entitle(DAY)
    bench.lender.window_left_ms = 20_000
    assert caller.reserve(10).has_access
    give_back(bench.books, bench.now_ms)
    bench.sync()
    bench.commit()


def test_next_window_is_asked_for_before_this_one_ends_and_not_used_before_it_begins(bench, caller) -> None:
    near_the_end(bench, caller)
    assert [ask.ahead for ask in bench.lender.asked] == [True]
    give_back(bench.books, bench.now_ms)
    assert not bench.books.asking, "once is enough"
    ahead = bench.books.allowances["acme", DAY.counter, ""].ahead
    assert [lease.watermark for lease in ahead.leases] == [0]
    assert caller.once(100, 100) is None, "it is not for now"
    bench.now_ms += 20_000
    assert caller.once(50, 100) is None, "the journal first"
    bench.commit()
    reply = caller.once(50)
    assert reply.has_access
    assert (reply.usage, reply.remaining) == (50, 950)
    assert bench.lender.charged(("acme", DAY.counter, ""), window=1) == 100


def test_tick_begins_the_window_by_itself(bench, caller) -> None:
    near_the_end(bench, caller)
    bench.now_ms += 20_000
    give_back(bench.books, bench.now_ms)
    bench.commit()
    assert caller.once(30).has_access


def test_lease_granted_ahead_survives_a_crash_unused(bench, caller) -> None:
    near_the_end(bench, caller)
    bench.crash()
    assert bench.books.allowances["acme", DAY.counter, ""].ahead.leases[0].orphan == 0
    bench.sync()
    assert caller.once(200, 100) is None
    bench.now_ms += 20_000
    assert caller.once(30, 100) is None
    bench.commit()
    assert caller.once(30).has_access


def test_nobody_asks_ahead_without_demand_or_for_windows_that_never_end(bench, caller) -> None:
    bench.entitle(DAY, Limit("ever", "output_tokens", 1_000, WindowKind.LIFETIME), RATE)
    bench.lender.window_left_ms = 120_000
    assert caller.reserve(10).has_access
    bench.now_ms += 46_000
    bench.lender.window_left_ms = 20_000
    bench.books.report_all = True
    bench.sync()
    give_back(bench.books, bench.now_ms)
    assert not [a for a in bench.books.asking.values() if a.purpose.name == "AHEAD"]


# Scopes


def test_refusal_names_whose_counter_it_was(bench, caller) -> None:
    limit = Limit("per-team", "output_tokens", 100, WindowKind.DAY, scope=Scope.TAG, scope_tag="team")
    bench.entitle(limit)
    call = Call("acme", "chat", Subject("ann"), {"team": "blue"})
    assert caller.reserve(100, call=call).has_access
    for _ in range(3):
        bench.sync()
        bench.commit()
        refused = caller.once(1, call=call)
    assert "of tag team 'blue'" in refused.message
    assert caller.reserve(1, call=Call("acme", "chat", Subject("ann"), {"team": "red"})).has_access


def test_throttled_quota_still_says_when_its_window_ends(bench, caller) -> None:
    bench.entitle(Limit("a-day", "output_tokens", 10, WindowKind.DAY, at_end=LimitEnd.THROTTLE))
    bench.lender.window_left_ms = 42_001
    assert caller.reserve(10).has_access
    caller.settle("c1", 10)
    bench.commit()
    refused = caller.reserve(1)
    assert (refused.code, refused.retry_after_ms) == (Code.RATE_LIMITED, 42_001)
