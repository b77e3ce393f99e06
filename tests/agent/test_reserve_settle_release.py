"""A call in flight: what is held, what is charged, and what a repeat changes (nothing)."""

from __future__ import annotations

import pytest

from agent.api.dispatch import Dispatch
from agent.operations.extend import extend
from agent.operations.give_back import give_back
from agent.operations.record import record
from agent.operations.release import release
from agent.operations.reserve import reserve
from agent.operations.settle import settle
from protocol.decisions import Code, Decision, Verdict
from protocol.entitlements import Limit, LimitEnd, Scope
from protocol.events import Subject
from protocol.local_messages import Call, ErrorReply, Extend, Record, Recorded, Release, Reserve, Settle
from protocol.violations import Violation
from protocol.windows import WindowKind

CALL = Call("acme", "chat")
DAY_TOKENS = Limit("tokens-a-day", "output_tokens", 1_000, WindowKind.DAY)
MONTH_REQUESTS = Limit("requests-a-month", "requests", 10, WindowKind.MONTH)


def hold(bench, name="r1", amount=50, call=CALL):
    """Reserve, with as many exchanges and commits as it takes."""
    request = Reserve(reservation=name, call=call, amounts={"output_tokens": amount})
    for _ in range(4):
        reply = reserve(bench.books, request, bench.now_ms, bench.now_ms + 1_000)
        if reply is not None:
            return reply
        bench.sync()
        bench.commit()
    return reserve(bench.books, request, bench.now_ms, bench.now_ms)


def finish(bench, name="r1", amount=30, **fields):
    outcome = settle(
        bench.books, Settle(reservation=name, amounts={"output_tokens": amount}, **fields), bench.now_ms, bench.wall_ms
    )
    heard = bench.told(outcome)
    bench.commit()
    assert heard == [True]
    return outcome.reply


def free(bench, meter="output_tokens"):
    return {a.counter: a.free(bench.now_ms, drain=True) for a in bench.books.allowances.values() if meter in a.counter}


def test_first_call_of_a_customer_waits_for_one_exchange_and_one_commit(bench) -> None:
    bench.entitle(DAY_TOKENS, MONTH_REQUESTS)
    request = Reserve(reservation="r1", call=CALL, amounts={"output_tokens": 50})
    assert reserve(bench.books, request, bench.now_ms, bench.now_ms + 1_000) is None
    bench.sync()
    assert reserve(bench.books, request, bench.now_ms, bench.now_ms + 1_000) is None, "journal before use"
    bench.commit()
    reply = reserve(bench.books, request, bench.now_ms, bench.now_ms + 1_000)
    assert isinstance(reply, Decision)
    assert reply.decision is Verdict.ALLOW
    assert reply.reservation.amounts == {"output_tokens": 50, "requests": 1}


def test_repeated_reserve_holds_once_and_answers_the_same(bench) -> None:
    bench.entitle(DAY_TOKENS)
    first = hold(bench)
    before = free(bench)
    again = hold(bench)
    assert again.reservation == first.reservation
    assert free(bench) == before


def test_same_reservation_id_for_another_call_is_a_conflict(bench) -> None:
    bench.entitle(DAY_TOKENS)
    hold(bench)
    reply = hold(bench, amount=51)
    assert isinstance(reply, ErrorReply)
    assert reply.error.code == "reservation_conflict"


def test_settle_under_the_reservation_frees_the_rest_at_once(bench) -> None:
    bench.entitle(DAY_TOKENS)
    hold(bench, amount=50)
    assert sum(free(bench).values()) == 50
    finish(bench, amount=30)
    assert sum(free(bench).values()) == 70


def test_settle_over_the_reservation_is_charged_in_full(bench) -> None:
    bench.entitle(DAY_TOKENS)
    hold(bench, amount=50)
    finish(bench, amount=90)
    assert sum(free(bench).values()) == 10
    bench.sync()
    (event,) = bench.lender.events.values()
    assert event.amounts == {"requests": 1, "output_tokens": 90}
    assert sum(charge.amount for charge in event.charges) == 90


def test_what_no_lease_can_pay_reaches_the_ledger_uncharged(bench) -> None:
    bench.entitle(DAY_TOKENS)
    hold(bench, amount=50)
    finish(bench, amount=170)
    bench.sync()
    (event,) = bench.lender.events.values()
    assert event.amounts["output_tokens"] == 170
    assert sum(charge.amount for charge in event.charges) == 100
    assert bench.lender.direct == {("acme", DAY_TOKENS.counter, ""): 70}


def test_second_settle_in_the_same_words_is_a_duplicate(bench) -> None:
    bench.entitle(DAY_TOKENS)
    hold(bench)
    finish(bench, amount=30)
    again = settle(bench.books, Settle(reservation="r1", amounts={"output_tokens": 30}), bench.now_ms, bench.wall_ms)
    assert again == Recorded(event="r1", amounts={"requests": 1, "output_tokens": 30}, duplicate=True)
    bench.sync()
    assert len(bench.lender.events) == 1


def test_second_settle_in_other_words_is_a_linked_correction_by_the_difference(bench) -> None:
    bench.entitle(DAY_TOKENS)
    hold(bench)
    finish(bench, amount=30)
    corrected = finish(bench, amount=45)
    assert (corrected.event, corrected.corrects) == ("r1~1", "r1")
    bench.sync()
    assert bench.lender.events["acme", "r1~1"].amounts == {"requests": 0, "output_tokens": 15}
    assert sum(event.amounts["output_tokens"] for event in bench.lender.events.values()) == 45


def test_repeat_while_the_first_is_not_on_disk_yet_waits_for_the_disk_too(bench) -> None:
    bench.entitle(DAY_TOKENS)
    hold(bench)
    request = Settle(reservation="r1", amounts={"output_tokens": 30})
    first = bench.told(settle(bench.books, request, bench.now_ms, bench.wall_ms))
    second = bench.told(settle(bench.books, request, bench.now_ms, bench.wall_ms))
    assert first == second == []
    bench.commit()
    assert first == second == [True]


def test_release_gives_everything_back_and_leaves_no_event(bench) -> None:
    bench.entitle(DAY_TOKENS)
    hold(bench)
    heard = bench.told(release(bench.books, Release(reservation="r1")))
    bench.commit()
    bench.sync()
    assert heard == [True]
    assert sum(free(bench).values()) == 100
    assert not bench.lender.events
    assert release(bench.books, Release(reservation="r1")) == Recorded(duplicate=True)


def test_settle_after_release_counts_because_it_happened(bench) -> None:
    bench.entitle(DAY_TOKENS)
    hold(bench)
    release(bench.books, Release(reservation="r1"))
    finish(bench, amount=30)
    bench.sync()
    assert bench.lender.events["acme", "r1"].amounts["output_tokens"] == 30


def test_reserve_under_the_id_of_an_ended_call_is_refused(bench) -> None:
    bench.entitle(DAY_TOKENS)
    hold(bench)
    finish(bench)
    reply = hold(bench)
    assert isinstance(reply, ErrorReply)
    assert reply.error.code == "reservation_ended"


def test_settle_of_an_unknown_reservation_needs_the_call_and_then_counts(bench) -> None:
    bench.entitle(DAY_TOKENS)
    unknown = settle(bench.books, Settle(reservation="lost", amounts={}), bench.now_ms, bench.wall_ms)
    assert isinstance(unknown, ErrorReply)
    assert unknown.error.code == "reservation_not_found"
    finish(bench, name="lost", amount=20, call=CALL)
    bench.sync()
    assert bench.lender.events["acme", "lost"].amounts["output_tokens"] == 20


def test_extend_says_the_total_and_repeats_change_nothing(bench) -> None:
    bench.entitle(DAY_TOKENS)
    hold(bench, amount=50)
    for _ in range(2):
        reply = extend(bench.books, Extend(reservation="r1", amounts={"output_tokens": 80}), bench.now_ms, bench.now_ms)
        if reply is None:
            bench.commit()
            reply = extend(
                bench.books, Extend(reservation="r1", amounts={"output_tokens": 80}), bench.now_ms, bench.now_ms
            )
        assert reply.reservation.amounts["output_tokens"] == 80
    assert sum(free(bench).values()) == 20


def test_extension_that_does_not_fit_leaves_what_was_held(bench) -> None:
    bench.entitle(Limit("tokens-a-day", "output_tokens", 100, WindowKind.DAY))
    hold(bench, amount=50)
    reply = extend(bench.books, Extend(reservation="r1", amounts={"output_tokens": 101}), bench.now_ms, bench.now_ms)
    assert reply.code is Code.REQUESTED_USAGE_EXCEEDS_LIMIT
    assert bench.books.reservations.get("r1").amounts["output_tokens"] == 50


def test_every_limit_must_have_room_and_a_refusal_takes_from_none(bench) -> None:
    bench.entitle(DAY_TOKENS, Limit("two-requests", "requests", 2, WindowKind.MONTH))
    hold(bench, "r1")
    hold(bench, "r2")
    before = sum(lease.held for lease in bench.books.leases.values())
    reply = hold(bench, "r3")
    assert reply.decision is Verdict.BLOCK
    assert (reply.code, reply.limiting) == (Code.USAGE_LIMIT_REACHED, "two-requests")
    assert sum(lease.held for lease in bench.books.leases.values()) == before
    assert {state.limit: state.granted for state in reply.breakdown} == {"tokens-a-day": True, "two-requests": False}


def test_lease_of_a_long_call_is_renewed_although_nothing_else_happens(bench) -> None:
    bench.entitle(DAY_TOKENS)
    hold(bench)
    bench.sync()
    (lease,) = bench.books.leases.values()
    for _ in range(5):
        bench.now_ms += 20_000
        bench.books.news = False
        give_back(bench.books, bench.now_ms)
        if bench.books.news:
            bench.sync()
        assert lease.expires_at_ms > bench.now_ms
    assert not lease.closing


def test_old_denial_never_becomes_a_refusal(bench) -> None:
    bench.entitle(Limit("requests-an-hour", "requests", 1, WindowKind.HOUR))
    hold(bench, "r1")
    assert hold(bench, "r2").code is Code.USAGE_LIMIT_REACHED
    bench.now_ms += 10 * 3_600_000
    late = reserve(bench.books, Reserve(reservation="r3", call=CALL, amounts={}), bench.now_ms, bench.now_ms)
    assert (late.code, late.limiting) == (Code.LEASE_UNAVAILABLE, "requests-an-hour")
    assert late.retry_after_ms


def test_events_and_reservations_share_their_ids(bench) -> None:
    bench.entitle(DAY_TOKENS)
    hold(bench, "r1")
    finish(bench, "r1", amount=30)
    same = record(
        bench.books, Record(event="r1", call=CALL, amounts={"output_tokens": 30}), bench.now_ms, bench.wall_ms, 0
    )
    assert same.duplicate
    finish_of_event = record(
        bench.books, Record(event="e1", call=CALL, amounts={"output_tokens": 5}), bench.now_ms, bench.wall_ms, 0
    )
    bench.told(finish_of_event)
    bench.commit()
    again = settle(
        bench.books, Settle(reservation="e1", call=CALL, amounts={"output_tokens": 5}), bench.now_ms, bench.wall_ms
    )
    assert again.duplicate
    bench.sync()
    assert len(bench.lender.events) == 2


def test_many_users_of_one_customer_leave_the_others_their_turn(bench, monkeypatch) -> None:
    monkeypatch.setattr("agent.operations.compose_sync.ASKS_MAX", 4)
    per_user = Limit("per-user", "requests", 5, WindowKind.DAY, scope=Scope.USER)
    for customer in ("many", "few"):
        bench.entitle(per_user, customer=customer)
        hold(bench, f"first-{customer}", call=Call(customer, "chat", Subject(user="u0")))
    for number in range(20):
        call = Call("many", "chat", Subject(user=f"u{number + 1}"))
        reserve(bench.books, Reserve(reservation=f"m{number}", call=call), bench.now_ms, bench.now_ms + 1_000)
    call = Call("few", "chat", Subject(user="u1"))
    reserve(bench.books, Reserve(reservation="f", call=call), bench.now_ms, bench.now_ms + 1_000)
    asked = {named.customer: len(named.asks) for named in bench.request().customers}
    assert asked["few"] == 1
    assert sum(asked.values()) == 4


def test_lease_of_one_call_is_called_closed_only_once_the_disk_says_so(bench) -> None:
    bench.entitle(DAY_TOKENS)
    hold(bench)
    (lease,) = bench.books.leases.values()
    lease.central = True
    release(bench.books, Release(reservation="r1"))
    assert lease.closing
    assert not lease.report().closed
    bench.commit()
    assert lease.report().closed


def test_small_call_does_not_wait_behind_a_large_one_that_was_refused(bench) -> None:
    bench.entitle(Limit("tokens-a-day", "output_tokens", 100, WindowKind.DAY))
    bench.lender.slice = 1
    hold(bench, "r1", amount=60)
    assert hold(bench, "r2", amount=70).code is Code.USAGE_LIMIT_REACHED
    assert hold(bench, "r3", amount=40).has_access
    assert hold(bench, "r4", amount=1).code is Code.USAGE_LIMIT_REACHED


def test_throttle_says_when_to_come_back(bench) -> None:
    bench.lender.window_left_ms = 42_000
    bench.entitle(Limit("a-minute", "requests", 1, WindowKind.MINUTE, at_end=LimitEnd.THROTTLE))
    hold(bench, "r1")
    reply = hold(bench, "r2")
    assert reply.decision is Verdict.THROTTLE
    assert (reply.code, reply.retry_after_ms) == (Code.RATE_LIMITED, 42_000)
    assert reply.resets_at == "1970-01-01T01:00:00Z"


def test_overage_is_allowed_up_to_its_escrowed_maximum(bench) -> None:
    limit = Limit("soft", "requests", 1, WindowKind.MONTH, at_end=LimitEnd.OVERAGE, overage_max=1)
    bench.entitle(limit)
    assert hold(bench, "r1").code is Code.OK
    assert hold(bench, "r2").code is Code.SOFT_LIMIT_EXCEEDED
    assert hold(bench, "r3").code is Code.USAGE_LIMIT_REACHED


def test_each_user_has_a_counter_of_their_own_and_nameless_use_shares_one(bench) -> None:
    bench.entitle(Limit("per-user", "requests", 1, WindowKind.DAY, scope=Scope.USER))
    users = [Call("acme", "chat", Subject(user=user)) for user in ("u1", "u2")] + [CALL]
    assert [hold(bench, f"a{i}", call=call).has_access for i, call in enumerate(users)] == [True] * 3
    assert [hold(bench, f"b{i}", call=call).has_access for i, call in enumerate(users)] == [False] * 3


def test_single_call_bounds_need_no_lease(bench) -> None:
    bench.entitle(Limit("one-call", "output_tokens", 60, WindowKind.REQUEST))
    assert hold(bench, "r1", amount=60).has_access
    refused = hold(bench, "r2", amount=61)
    assert (refused.code, refused.limiting) == (Code.REQUESTED_USAGE_EXCEEDS_LIMIT, "one-call")
    assert "61" in refused.message


def test_who_has_no_limit_is_never_refused_not_even_while_nobody_can_be_asked(bench) -> None:
    bench.entitle()
    for number, down in enumerate([False, True, True]):
        bench.books.uplink_down = down
        reply = hold(bench, f"r{number}", amount=2**52)
        assert (reply.decision, reply.limiting, reply.breakdown) == (Verdict.ALLOW, None, ())
        assert finish(bench, f"r{number}", amount=2**52).amounts["output_tokens"] == 2**52


def test_misspelt_meter_is_refused_by_name(bench) -> None:
    bench.entitle(DAY_TOKENS)
    hold(bench)
    with pytest.raises(Violation, match=r"amounts\.output_tokns: is not a meter; expected one of input_tokens"):
        reserve(
            bench.books, Reserve(reservation="x", call=CALL, amounts={"output_tokns": 1}), bench.now_ms, bench.now_ms
        )


def test_unknown_feature_and_unknown_customer_are_blocked_with_their_reason(bench) -> None:
    bench.entitle(DAY_TOKENS)
    hold(bench)
    assert hold(bench, "r2", call=Call("acme", "nope")).code is Code.FEATURE_NOT_FOUND
    assert hold(bench, "r3", call=Call("nobody", "chat")).code is Code.CUSTOMER_NOT_FOUND


def test_recorded_usage_counts_even_when_nothing_is_left(bench) -> None:
    bench.entitle(Limit("tokens-a-day", "output_tokens", 10, WindowKind.DAY))
    hold(bench, amount=10)
    request = Record(event="e1", call=CALL, amounts={"output_tokens": 25})
    heard = bench.told(record(bench.books, request, bench.now_ms, bench.wall_ms, bench.now_ms))
    bench.commit()
    bench.sync()
    assert heard == [True]
    assert bench.lender.events["acme", "e1"].amounts["output_tokens"] == 25


def test_record_of_a_customer_seen_for_the_first_time_is_kept_when_nobody_can_be_asked(bench) -> None:
    bench.books.uplink_down = True
    request = Record(event="e1", call=CALL, amounts={"output_tokens": 25})
    heard = bench.told(record(bench.books, request, bench.now_ms, bench.wall_ms, bench.now_ms + 1_000))
    bench.commit()
    assert heard == [True]
    assert bench.outbox.events == 1


def test_release_withdraws_a_reserve_that_still_waits(bench, bystander) -> None:
    bench.entitle(DAY_TOKENS)
    dispatch = Dispatch(bench.books, Standstill(bench), lambda: None)
    assert dispatch(Reserve(id=1, reservation="r1", call=CALL, amounts={}), bystander) is None
    assert dispatch(Release(id=2, reservation="r1"), bystander) == Recorded()
    assert bystander.replies[1].error.code == "reservation_ended"
    bench.sync()
    bench.commit()
    assert len(bench.books.reservations) == 0
    assert bench.books.parked == 0


class Standstill:
    """The bench's own clocks."""

    def __init__(self, bench) -> None:
        self._bench = bench

    def wall_ms(self) -> int:
        return self._bench.wall_ms

    def monotonic_ms(self) -> int:
        return self._bench.now_ms


def test_a_correction_with_a_meter_that_nobody_knows_is_refused_as_a_settle_would_be(bench) -> None:
    bench.entitle(DAY_TOKENS)
    hold(bench)
    finish(bench)
    wrong = Settle(reservation="r1", amounts={"output_tokens": 30, "tool_calls": 1})
    with pytest.raises(Violation, match=r"amounts\.tool_calls"):
        settle(bench.books, wrong, bench.now_ms, bench.wall_ms)
    for event in ("r1", "r2"):
        said = Record(event=event, call=CALL, amounts={"tool_calls": 1})
        with pytest.raises(Violation, match=r"amounts\.tool_calls"):
            record(bench.books, said, bench.now_ms, bench.wall_ms, bench.now_ms)
    again = Settle(reservation="r1", amounts={"output_tokens": 30})
    assert settle(bench.books, again, bench.now_ms, bench.wall_ms).duplicate
