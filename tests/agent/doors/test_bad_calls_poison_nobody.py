"""What one caller may say that would spoil things for all: too many meters, huge events, corrections, crowds."""

from __future__ import annotations

from itertools import pairwise

import pytest

from agent.core import books as books_module
from agent.operations.commit_group import to_batches
from agent.operations.give_back import FORGET_CUSTOMER_MS, forget_counters, forget_customers
from agent.operations.restore import restore
from agent.store.journal import BatchRow, Contents, JournalDamagedError
from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.entitlements import Limit, Scope
from protocol.events import BATCH_BYTES_MAX, EventBatch, UsageEvent
from protocol.local_messages import ErrorReply, Recorded, StatusReport
from protocol.units import METERS_MAX
from protocol.uplink_messages import SYNC_BYTES_MAX, SyncRequest
from protocol.windows import WindowKind

CALL = {"customer": "acme", "feature": "chat"}
MANY = {f"meter-{number}": 1 for number in range(METERS_MAX)}
_events = MsgpackDecoder(list[UsageEvent])
_request = MsgpackDecoder(SyncRequest)


@pytest.mark.parametrize(
    "message",
    [
        {"op": "check", "call": {**CALL, "customer": "new"}, "amounts": MANY},
        {"op": "reserve", "reservation": "r", "call": {**CALL, "customer": "new"}, "amounts": MANY},
        {"op": "record", "event": "e", "call": {**CALL, "customer": "new"}, "amounts": MANY},
        {"op": "settle", "reservation": "r", "call": {**CALL, "customer": "new"}, "amounts": MANY},
    ],
    ids=lambda message: message["op"],
)
def test_one_meter_too_many_is_refused_before_it_spoils_a_sync_or_an_event(way, message) -> None:
    way.bench.books.uplink_down = True  # so that nothing waits, and the catalog of the customer is not known
    (reply,) = way.frames().send(message)
    assert isinstance(reply, ErrorReply)
    assert (reply.error.code, reply.error.field) == ("invalid_request", "amounts")
    assert "17 meters, `requests` included; expected at most 16" in reply.error.message
    assert not way.bench.books.pending.events
    way.bench.sync()


def test_sixteen_meters_with_their_request_pass_the_disk_the_wire_and_a_restart(way) -> None:
    way.bench.books.uplink_down = True
    amounts = dict(list(MANY.items())[1:])
    frames = way.frames()
    frames.send({"op": "record", "event": "e", "call": {**CALL, "customer": "new"}, "amounts": amounts})
    way.bench.commit()
    (reply,) = frames.replies()
    assert isinstance(reply, Recorded)
    way.bench.crash()
    assert way.bench.request().batches  # decodes as the control plane decodes it


def test_correction_and_extension_keep_to_the_bound_too(way) -> None:
    way.bench.books.uplink_down = True
    frames = way.frames()
    call = {**CALL, "customer": "new"}
    first = dict(list(MANY.items())[:10])
    other = {f"other-{number}": 1 for number in range(10)}
    frames.send({"op": "settle", "reservation": "r", "call": call, "amounts": first})
    way.bench.commit()
    assert isinstance(frames.replies()[0], Recorded)
    (reply,) = frames.send({"op": "settle", "reservation": "r", "call": call, "amounts": other})
    assert isinstance(reply, ErrorReply)
    assert "21 meters" in reply.error.message
    assert not way.bench.books.pending.events


def test_one_call_is_corrected_only_so_often_and_repeats_of_each_word_still_change_nothing(way) -> None:
    frames = way.frames()
    refused = []
    for amount in range(102):
        refused += frames.send(
            {"op": "settle", "id": amount, "reservation": "r", "call": CALL, "amounts": {"output_tokens": amount}}
        )
    way.bench.commit()
    replies = {reply.id: reply for reply in frames.replies()}
    assert isinstance(replies[100], Recorded)
    assert [(reply.id, reply.error.code) for reply in refused] == [(101, "reservation_ended")]
    (again,) = frames.send({"op": "settle", "reservation": "r", "amounts": {"output_tokens": 50}})
    assert again.duplicate
    way.bench.sync()
    total = sum(event.amounts["output_tokens"] for event in way.bench.lender.events.values())
    assert total == 100


def big_event(number: int) -> UsageEvent:
    tags = {f"tag-{number}-{'x' * 100}-{tag}": "y" * 128 for tag in range(8)}
    return UsageEvent(f"e{number}", "acme", "chat", 1_700_000_000_000, {"output_tokens": 1}, tags=tags)


def test_group_of_large_events_becomes_batches_that_an_upload_takes(way) -> None:
    events = [big_event(number) for number in range(5_000)]
    assert len(encode_msgpack(events)) > 2 * BATCH_BYTES_MAX
    batches = to_batches(events, 3, 11, 0)
    assert all(len(batch.body) <= BATCH_BYTES_MAX for batch in batches)
    assert batches[0].first == 11
    for before, after in pairwise(batches):
        assert after.first == before.first + before.count
    assert [event.event for batch in batches for event in _events(batch.body)] == [event.event for event in events]
    for batch in batches:
        encoded = encode_msgpack(EventBatch(batch.boot, batch.first, batch.count, batch.crc32, batch.body))
        MsgpackDecoder(EventBatch)(encoded)


def test_group_of_large_events_reaches_the_ledger_once_each(way) -> None:
    tags = {f"{'x' * 100}-{tag}": "y" * 128 for tag in range(8)}
    frames = way.frames()
    for number in range(2_500):
        frames.send({"op": "record", "event": f"e{number}", "call": {**CALL, "tags": tags}})
    way.bench.commit()
    assert len(frames.replies()) == 2_500
    for _ in range(4):
        request = way.bench.sync()
        assert len(encode_msgpack(request)) <= SYNC_BYTES_MAX
    assert len(way.bench.lender.events) == 2_500
    assert way.bench.outbox.events == 0


def test_largest_sync_of_strangers_stays_within_what_the_control_plane_reads(way) -> None:
    wide = {f"{'m' * 120}{number}": 2**53 - 1 for number in range(METERS_MAX - 1)}
    subject = dict.fromkeys(("user", "workspace", "role", "api_key"), "s" * 128)
    for number in range(3_000):
        call = {"customer": f"{'c' * 120}{number}", "feature": "f" * 128, "subject": subject}
        way.frames().send({"op": "check", "call": call, "amounts": wide})
    assert len(encode_msgpack(way.bench.request())) <= SYNC_BYTES_MAX - BATCH_BYTES_MAX


def test_event_that_this_version_cannot_read_does_not_condemn_the_journal(way) -> None:
    from zlib import crc32

    body = encode_msgpack([{"event": "from-the-future", "x": 1}, big_event(1)])
    batch = BatchRow(1, 1, 2, crc32(body), body, 0)
    books = way.bench._books()
    restore(books, Contents([], [], [], [batch]), 0, 0)
    assert books.ended.get("acme/e1") is not None
    with pytest.raises(JournalDamagedError, match="checksum"):
        restore(books, Contents([], [], [], [BatchRow(1, 1, 2, crc32(body) ^ 1, body, 0)]), 0, 0)


def test_huge_backlog_still_asks_in_numbers_that_the_wire_carries(way) -> None:
    most = 2**53 - 1
    way.bench.entitle(Limit("huge", "output_tokens", most, WindowKind.DAY), version=2)
    way.bench.books.look_again.add("acme")
    way.catch_up()
    for number in range(50):
        way.frames().send(
            {"op": "reserve", "reservation": f"r{number}", "call": CALL, "amounts": {"output_tokens": most}}
        )
    (named,) = way.bench.request().customers
    (ask,) = named.asks
    assert 0 < ask.demand_per_min <= most


def test_crowd_of_unknown_customers_is_bounded_and_forgotten(way, monkeypatch) -> None:
    monkeypatch.setattr(books_module, "CUSTOMERS_MAX", 50)
    books = way.bench.books
    books.uplink_down = True
    frames = way.frames()
    for number in range(100):
        call = {**CALL, "customer": f"stranger-{number}"}
        for message in ({"op": "check"}, {"op": "record", "event": f"e{number}"}):
            (reply,) = frames.send({**message, "call": call}) or [None]
            if number >= 50:
                assert (reply.error.code if isinstance(reply, ErrorReply) else reply.code) in {
                    "overloaded",
                    "lease_unavailable",
                }
        if number >= 50:
            assert frames.send({"op": "usage", "customer": f"stranger-{number}"})[0].error.code == "overloaded"
    assert len(books.customers) == 50
    assert frames.send({"op": "check", "call": CALL})[0].has_access, "who is known is served"
    way.bench.commit()
    forget_customers(books, way.bench.now_ms + 61_000)
    assert set(books.customers) == {"acme"}


def test_crowd_of_calls_in_flight_is_bounded(way, monkeypatch) -> None:
    from agent.operations import reserve as reserve_module

    monkeypatch.setattr(reserve_module, "RESERVATIONS_MAX", 3)
    frames = way.frames()
    replies = []
    for number in range(4):
        replies += frames.send({"op": "reserve", "reservation": f"r{number}", "call": CALL})
        way.catch_up()
        replies += frames.replies()
    assert [isinstance(reply, ErrorReply) for reply in replies] == [False, False, False, True]
    assert (replies[-1].error.code, replies[-1].retry) == ("overloaded", True)


def test_counters_of_users_who_have_gone_are_forgotten_and_made_anew(way) -> None:
    limits = way.bench.lender.entitlements["acme"].limits
    way.bench.entitle(*limits, Limit("per-user", "requests", 5, WindowKind.DAY, scope=Scope.USER), version=2)
    way.bench.books.look_again.add("acme")
    way.catch_up()
    for number in range(30):
        way.frames().send({"op": "usage", "customer": "acme", "user": f"u{number}"})
    books = way.bench.books
    call = {**CALL, "subject": {"user": "u1"}}
    way.frames().send({"op": "check", "call": call})
    way.catch_up()
    way.bench.now_ms += FORGET_CUSTOMER_MS
    forget_counters(books, way.bench.now_ms)
    assert {key[2] for key in books.allowances if key[2]} == {"u1"}, "a counter with a lease stays"
    frames = way.frames()
    frames.send({"op": "check", "id": 4, "breakdown": True, "call": {**call, "subject": {"user": "u2"}}})
    way.catch_up()
    (reply,) = frames.replies()
    assert (reply.id, reply.has_access) == (4, True)
    assert ("per-user", "u2") in {(state.limit, state.scope_value) for state in reply.breakdown}


def test_stopping_agent_sends_callers_to_the_next_one_and_still_says_how_it_is(way) -> None:
    way.bench.books.draining = True
    for op in (
        {"op": "check", "call": CALL},
        {"op": "record", "event": "e", "call": CALL},
        {"op": "release", "reservation": "r"},
    ):
        (reply,) = way.frames().send({**op, "id": 5})
        assert (reply.id, reply.error.code, reply.retry) == (5, "draining", True)
    assert isinstance(way.frames().send({"op": "status"})[0], StatusReport)
    (response,) = way.http().post("/v1/check", {"call": CALL})
    assert (response.status, response.headers["retry-after"]) == (503, "1")
    assert not way.bench.books.pending.events
