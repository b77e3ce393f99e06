"""The frames door and whatever can be wrong with a frame: a clear error, the id echoed, and everybody else served."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.api.frames import UNANSWERED_MAX
from protocol.decisions import Decision, Verdict
from protocol.framing import FRAME_BYTES_MAX, frame
from protocol.local_messages import ErrorReply, Recorded, StatusReport

CALL = {"customer": "acme", "feature": "chat"}
CHECK = {"op": "check", "id": 7, "call": CALL}
SHARED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
OK_FRAME = frame(msgpack.packb({"op": "status", "id": 99}))


def refused(way, message: Any, body: bytes | None = None) -> ErrorReply:
    """The one error that this message gets; the connection goes on serving after it."""
    frames = way.frames()
    data = frame(msgpack.packb(message) if body is None else body) + OK_FRAME
    reply, after = frames.feed(data)
    assert isinstance(reply, ErrorReply), reply
    assert isinstance(after, StatusReport)
    assert after.id == 99
    assert not frames.door.finished
    return reply


@pytest.mark.parametrize(
    "amount", [-1, 1.0, 1.5, float("nan"), float("inf"), "1", True, None, 2**53, 2**63, 2**64 - 1, [1]]
)
def test_amount_that_is_none_is_refused_with_field_value_and_remedy(way, amount) -> None:
    reply = refused(way, {**CHECK, "amounts": {"output_tokens": amount}})
    assert reply.id == 7
    assert (reply.error.code, reply.error.field) == ("invalid_request", "amounts.output_tokens")
    assert "int" in reply.error.message
    if isinstance(amount, int | float) and not isinstance(amount, bool):
        assert str(amount) in reply.error.message
    assert not reply.retry


def test_zero_and_the_largest_amount_are_amounts(way) -> None:
    assert way.frames().send({**CHECK, "amounts": {"output_tokens": 0}})[0].decision is Verdict.ALLOW
    assert way.frames().send({**CHECK, "amounts": {"output_tokens": 2**53 - 1}})[0].decision is Verdict.BLOCK


@pytest.mark.parametrize(
    "name",
    ["", "a\n", "a\x00b", "\x1b[31m", "a" * 129, "a" * 300, "-a", "a b", "a/b", "../../etc", "'; DROP TABLE", "é",
     "\u202eabc", "a\u200bb", "<script>", "=cmd()", "{{7*7}}", "%00", "💥"],
)  # fmt: skip
def test_id_that_is_none_is_refused_wherever_it_stands(way, name) -> None:
    for message, field in (
        ({**CHECK, "call": {**CALL, "customer": name}}, "call.customer"),
        ({**CHECK, "call": {**CALL, "feature": name}}, "call.feature"),
        ({**CHECK, "call": {**CALL, "subject": {"user": name}}}, "call.subject.user"),
        ({"op": "reserve", "id": 7, "reservation": name, "call": CALL}, "reservation"),
        ({"op": "record", "id": 7, "event": name, "call": CALL}, "event"),
        ({"op": "usage", "id": 7, "customer": name}, "customer"),
    ):
        reply = refused(way, message)
        assert (reply.id, reply.error.field) == (7, field)
        assert "letter" in reply.error.message or "length" in reply.error.message
        assert len(reply.error.message) < 400
        assert reply.error.message.isascii()
        assert reply.error.message.isprintable()


def test_control_characters_never_come_back_raw_in_names_of_fields_and_meters(way) -> None:
    for message in ({**CHECK, "x\n\x1b[31m": 1}, {**CHECK, "amounts": {"x\n\x1b[31m": 1}}, {"op": "x\n", "id": 7}):
        assert refused(way, message).error.message.isprintable()


def test_unknown_operation_field_and_value_are_named_with_the_choices(way) -> None:
    unknown = refused(way, {"op": "spend", "id": 7})
    assert (unknown.error.code, unknown.error.field) == ("unknown_operation", "op")
    assert "check, reserve, extend, settle, release, begin, feed, end, record, usage, status" in unknown.error.message
    assert refused(way, {"id": 7}).error.code == "unknown_operation"
    field = refused(way, {**CHECK, "admin": True})
    assert (field.error.field, field.id) == ("admin", 7)
    outcome = refused(way, {"op": "settle", "id": 7, "reservation": "r", "outcome": "fine"})
    assert outcome.error.field == "outcome"
    assert "complete, aborted, error" in outcome.error.message
    assert refused(way, {"op": "check", "id": 7}).error.field == "call"


def test_unknown_feature_and_customer_are_decisions_not_errors(way) -> None:
    frames = way.frames()
    (reply,) = frames.send({**CHECK, "call": {**CALL, "feature": "chta"}})
    assert isinstance(reply, Decision)
    assert reply.code == "feature_not_found"
    assert frames.send({**CHECK, "call": {**CALL, "customer": "nobody"}}) == []
    way.catch_up()
    (late,) = frames.replies()
    assert (late.id, late.code) == (7, "customer_not_found")


def test_unknown_meter_is_named_with_those_there_are(way) -> None:
    reply = refused(way, {**CHECK, "amounts": {"output_tokns": 1}})
    assert (reply.error.code, reply.error.field, reply.id) == ("meter_not_found", "amounts.output_tokns", 7)
    assert "output_tokens" in reply.error.message


@pytest.mark.parametrize("wrong", [-1, 2**53, 2**64 - 1, "7", 7.5, None, [7]])
def test_id_of_a_request_that_is_none_is_not_echoed(way, wrong) -> None:
    reply = refused(way, {**CHECK, "id": wrong})
    assert (reply.id, reply.error.field) == (0, "id")


BOMBS = {
    "a million empty arrays": b"\xdd\x00\x03\xff\xf0" + b"\x90" * 0x3FFF0,
    "array that says four thousand million": b"\xdd\xff\xff\xff\xff",
    "map that says four thousand million": b"\xdf\xff\xff\xff\xff",
    "100,000 arrays in each other": b"\x91" * 100_000,
    "deep inside a known field": b"\x82\xa2op\xa5check\xa4call" + b"\x91" * 100_000,
    "deep inside an unknown field": b"\x82\xa2op\xa5check\xa4zzzz" + b"\x91" * 100_000,
    "extension type": b"\x82\xa2op\xa5check\xa2id\xd4\x01\x00",
    "timestamp": b"\x82\xa2op\xa5check\xa2id\xd6\xff\x00\x00\x00\x00",
    "invalid UTF-8 as a key": b"\x82\xa2op\xa5check\xa2\xff\xfe\x01",
    "invalid UTF-8 as a value": b"\x82\xa2op\xa5check\xa2id\xa2\xff\xfe",
    "reserved byte": b"\xc1",
    "cut short": b"\x82\xa2op",
    "bytes after the message": msgpack.packb({"op": "status"}) + b"\x00",
    "number instead of a map": b"\x01",
    "text of 200 kB as an operation": b"\x81\xa2op" + msgpack.packb("x" * 200_000),
    "20,000 amounts": msgpack.packb({**CHECK, "amounts": {f"m{i}": 1 for i in range(10_000)}}),
    "numbers as keys": b"\x81\x01\x02",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused_cheaply_and_the_next_request_is_served(way, name) -> None:
    refused(way, None, BOMBS[name])  # warm
    tracemalloc.start()
    started = time.process_time()
    reply = refused(way, None, BOMBS[name])
    spent_s = time.process_time() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reply.error.code in {"invalid_request", "unknown_operation"}
    assert len(reply.error.message) < 600
    assert peak < 4 * FRAME_BYTES_MAX, f"{peak} bytes"
    assert spent_s < 0.25, f"{spent_s} s"


def test_the_last_of_two_equal_keys_counts(way) -> None:
    body = b"\x83\xa2op\xa6status\xa2id\x01\xa2id\x02"
    (reply,) = way.frames().feed(frame(body))
    assert reply.id == 2


def test_thousands_of_wrong_frames_cost_little_each(way) -> None:
    """One read may hold thousands of wrong frames, and everybody else waits while they are refused."""
    for message in (
        {"op": "spend"},
        {"op": "settle", "reservation": "r", "outcome": "x"},
        {**CHECK, "amounts": {"x": -1}},
    ):
        data = frame(msgpack.packb(message)) * 1_000
        started = time.process_time()
        assert len(way.frames().feed(data)) == 1_000
        assert time.process_time() - started < 1.0


@pytest.mark.parametrize("length", [0, FRAME_BYTES_MAX + 1, 2**31, 2**32 - 1])
def test_impossible_length_is_said_and_ends_the_connection(way, length) -> None:
    frames = way.frames()
    (reply,) = frames.feed(length.to_bytes(4, "big"))
    assert isinstance(reply, ErrorReply)
    assert reply.error.code == "frame_invalid"
    assert str(length) in reply.error.message
    assert str(FRAME_BYTES_MAX) in reply.error.message
    assert frames.door.finished


def test_large_frame_is_read_when_within_the_bound(way) -> None:
    message = msgpack.packb({"op": "status", "id": 3})
    padded = msgpack.packb({"op": "status", "id": 3, "x": "y" * (FRAME_BYTES_MAX - len(message) - 10)})
    assert len(padded) <= FRAME_BYTES_MAX
    (reply,) = way.frames().feed(frame(padded))
    assert (reply.id, reply.error.field) == (3, "x")


def test_half_a_frame_is_remembered_as_unfinished_until_the_rest_comes(way) -> None:
    frames = way.frames()
    assert frames.feed(OK_FRAME[:-1]) == []
    assert frames.door.partial
    assert len(frames.feed(OK_FRAME[-1:])) == 1
    assert not frames.door.partial


MESSAGES = st.lists(
    st.one_of(
        st.sampled_from([
            CHECK,
            {"op": "status", "id": 1},
            {"op": "nope", "id": 2},
            {"op": "check", "id": 3, "call": {**CALL, "feature": "nope"}},
            {"op": "check", "id": 4, "call": CALL, "amounts": {"output_tokens": -1}},
            {"op": "release", "id": 5, "reservation": "r"},
        ]),
        st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=3),
        st.binary(min_size=1, max_size=40),
    ),
    min_size=1,
    max_size=6,
)  # fmt: skip


@settings(SHARED, max_examples=60)
@given(messages=MESSAGES, data=st.data())
def test_any_chunking_gives_what_one_write_gives(open_way, messages, data) -> None:
    """Dripping byte by byte included: replies, their ids and their order are the same."""
    whole = b"".join(frame(m if isinstance(m, bytes) else msgpack.packb(m)) for m in messages)
    way = open_way
    at_once = way.frames().feed(whole)
    cuts = data.draw(
        st.one_of(st.just(list(range(len(whole)))), st.lists(st.integers(0, len(whole)), max_size=6).map(sorted))
    )
    frames = way.frames()
    dripped = []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        dripped += frames.feed(whole[start:end])
    assert [_without_counters(r) for r in dripped] == [_without_counters(r) for r in at_once]
    assert len(dripped) == len(messages)


def _without_counters(reply: Any) -> Any:
    return msgspec.structs.replace(reply, counters={}) if isinstance(reply, StatusReport) else reply


@settings(SHARED, max_examples=300)
@given(st.binary(min_size=1, max_size=300))
def test_no_body_whatever_ends_in_a_fault_or_in_silence(open_way, body) -> None:
    replies = open_way.frames().feed(frame(body))
    assert len(replies) == 1


@st.composite
def nearly_requests(draw) -> dict[str, Any]:
    """Requests of the right fields with values that are often wrong."""
    anything = st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=4),
        st.binary(max_size=4),
        st.dictionaries(
            st.sampled_from(["output_tokens", "input_tokens", "requests", "images", "x", "cache_read"]),
            st.integers(-2, 2**53),
            max_size=3,
        ),
        st.dictionaries(st.sampled_from(["user", "customer", "feature", "subject"]), st.text(max_size=3), max_size=3),
        st.sampled_from([CALL, "r1", "r2", "acme", "chat", "complete", "provider", 1_000]),
    )  # fmt: skip
    fields = ["id", "call", "amounts", "tokens", "reservation", "event", "customer", "feature", "user", "ttl_ms",
              "deadline_ms", "at_ms", "breakdown", "outcome", "usage_source", "model", "provider"]  # fmt: skip
    ops = ["check", "reserve", "extend", "settle", "release", "record", "usage", "status"]
    good = {"call": CALL, "reservation": draw(st.sampled_from(["r1", "r2", "r3"])), "event": "e1", "amounts": {}}
    op = draw(st.sampled_from(ops))
    kept = {name: good[name] for name in draw(st.lists(st.sampled_from(sorted(good)), unique=True))}
    return {"op": op, **kept, **draw(st.dictionaries(st.sampled_from(fields), anything, max_size=3))}


@settings(SHARED, max_examples=400)
@given(st.lists(nearly_requests(), min_size=1, max_size=5))
def test_no_nearly_right_request_ends_in_a_fault_or_in_silence(open_way, messages) -> None:
    way = open_way
    frames = way.frames()
    replies = frames.send(*messages)
    way.catch_up()
    way.pass_time(61_000)
    way.catch_up()
    replies += frames.replies()
    assert len(replies) == len(messages)
    way.bench.commit()
    assert frames.door._unanswered == 0


def test_ten_thousand_frames_in_one_write_are_each_answered_once(way) -> None:
    """Those that may be answered at once are; of those that wait, a bounded number does, the others hear so."""
    frames = way.frames()
    statuses = b"".join(frame(msgpack.packb({"op": "status", "id": i})) for i in range(10_000))
    assert [reply.id for reply in frames.feed(statuses)] == list(range(10_000))
    records = b"".join(
        frame(msgpack.packb({"op": "record", "id": i, "event": f"e{i}", "call": CALL})) for i in range(10_000)
    )
    at_once = frames.feed(records)
    assert len(at_once) == 10_000 - UNANSWERED_MAX
    assert {reply.error.code for reply in at_once} == {"overloaded"}
    assert all(reply.retry for reply in at_once)
    way.bench.commit()
    late = frames.replies()
    assert [reply.id for reply in late] == list(range(UNANSWERED_MAX))
    assert all(isinstance(reply, Recorded) for reply in late)
    assert len(frames.send({"op": "status", "id": 1})) == 1


def test_caller_that_has_gone_holds_nothing(way) -> None:
    frames = way.frames()
    assert frames.send({"op": "reserve", "id": 1, "reservation": "r1", "call": {**CALL, "customer": "late"}}) == []
    frames.door.gone = True
    way.bench.entitle(customer="late")
    way.catch_up()
    assert len(way.bench.books.reservations) == 0
    assert way.bench.books.parked == 0
    assert frames.replies() == []
