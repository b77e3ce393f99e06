"""Model calls that a client begins, feeds and ends: read once, though much comes twice, in pieces, or after a crash."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from agent.api.dispatch import Dispatch
from agent.core.calls import Arriving, CallBook
from agent.core.metered_call import MeteredCall
from agent.core.tokens.read import usage_of
from agent.operations.expire import expire
from agent.operations.park import try_due
from protocol.decisions import Decision
from protocol.entitlements import Limit
from protocol.local_messages import Begin, Call, End, ErrorReply, Feed, Recorded, Taken
from protocol.windows import WindowKind

RECORDED = Path(__file__).parents[1] / "data" / "recorded"
STREAM = (RECORDED / "openai-chat-stream-1.sse").read_bytes()
ANSWER = (RECORDED / "openai-chat-1.json").read_bytes()
BODY = json.dumps({"model": "m-1", "stream": True, "messages": [{"role": "user", "content": "Hello you"}]}).encode()
CHAT = "/v1/chat/completions"


@dataclass
class Clock:
    bench: Any

    def wall_ms(self) -> int:
        return int(self.bench.wall_ms)

    def monotonic_ms(self) -> int:
        return int(self.bench.now_ms)


@dataclass
class Caller:
    """Says requests to one agent, and hears at once what waited for the disk."""

    bench: Any
    limit: int = 1_000_000
    replies: dict[int, Any] = field(default_factory=dict)
    gone: bool = False
    number: int = 0

    def __post_init__(self) -> None:
        self.bench.entitle(Limit("out", "output_tokens", self.limit, WindowKind.DAY))

    def late(self, request_id: int, reply: Any) -> None:
        self.replies[request_id] = reply

    def say(self, request: Any) -> Any:
        dispatch = Dispatch(self.bench.books, Clock(self.bench), lambda: None)
        self.number += 1
        reply = dispatch(_numbered(request, self.number), self)
        if reply is None:  # it waits for the disk, or for a lease
            self.bench.commit()
            for _ in range(2):  # who is new here has a lease for its smallest estimate, and then asks for more
                if self.number not in self.replies:
                    self.bench.sync()
                    self.bench.commit()
            if self.number not in self.replies:
                self.bench.now_ms += 3_000
                try_due(self.bench.books, self.bench.now_ms)
            reply = self.replies[self.number]
        return reply

    def begin(self, name: str = "r", body: bytes = BODY, **more: Any) -> Any:
        options = {"call": Call("acme", "chat"), "provider": "openai", "path": CHAT, "body": body, "size": len(body)}
        return self.say(Begin(reservation=name, **options | more))

    def counted(self) -> list[Any]:
        """What was counted so far, as events."""
        return [ended.said for ended in self.bench.books.ended._book.values() if ended.said is not None]


def _numbered(request: Any, number: int) -> Any:
    return type(request)(**{name: getattr(request, name) for name in request.__struct_fields__} | {"id": number})


@pytest.fixture
def caller(bench: Any) -> Caller:
    return Caller(bench)


def test_a_call_is_begun_fed_and_ended(caller: Caller) -> None:
    decision = caller.begin()
    assert isinstance(decision, Decision)
    assert decision.reservation.amounts["output_tokens"] == 512
    assert caller.bench.books.reservations.get("r").call.model == "m-1"
    taken = caller.say(Feed(reservation="r", body=STREAM))
    assert isinstance(taken, Taken)
    assert 0 < taken.bytes <= 64 * 1024
    recorded = caller.say(End(reservation="r", status=200, offset=len(STREAM)))
    assert isinstance(recorded, Recorded)
    assert recorded.amounts == {"requests": 1, "input_tokens": 53, "output_tokens": 15}
    assert len(caller.bench.books.calls) == 0
    assert caller.bench.books.reservations.get("r") is None


@pytest.mark.parametrize("seed", range(5))
def test_pieces_may_come_twice_and_are_the_request_as_a_whole(caller: Caller, seed: int) -> None:
    draw = random.Random(seed)
    whole = caller.begin("whole").reservation.amounts
    at = 0
    while at < len(BODY):
        step = draw.randint(1, len(BODY))
        offset = draw.choice([at, draw.randint(0, at)])
        reply = caller.begin("pieces", BODY[offset : at + step], offset=offset, size=len(BODY))
        at = min(len(BODY), at + step)
        assert isinstance(reply, Taken if at < len(BODY) else Decision)
    assert reply.reservation.amounts == whole


@pytest.mark.parametrize("seed", range(5))
def test_bytes_of_an_answer_that_come_twice_are_taken_once(caller: Caller, seed: int) -> None:
    draw = random.Random(seed)
    caller.begin()
    at = 0
    while at < len(STREAM):
        step = draw.randint(1, 900)
        offset = draw.choice([at, draw.randint(0, at)])
        assert isinstance(caller.say(Feed(reservation="r", body=STREAM[offset : at + step], offset=offset)), Taken)
        at = min(len(STREAM), at + step)
    caller.say(End(reservation="r", status=200, offset=draw.randint(0, at)))
    (said,) = caller.counted()
    assert (said.tokens, said.usage_source) == (dict(usage_of(STREAM).tokens), "provider")


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("journaled", [False, True])
def test_a_call_that_the_agent_has_forgotten_is_told_again_and_counted_once(
    caller: Caller, crash: bool, journaled: bool
) -> None:
    caller.begin()
    caller.say(Feed(reservation="r", body=STREAM[:900]))
    if journaled:
        caller.bench.now_ms += 1_000
        caller.bench.books.pending.urgent = True
        caller.bench.commit()
    if crash:
        caller.bench.crash()
        caller.bench.sync()
    else:
        caller.bench.books.calls.pop("r")
    for lost in (Feed(reservation="r", body=STREAM[900:], offset=900), End(reservation="r", status=200)):
        reply = caller.say(lost)
        assert isinstance(reply, ErrorReply)
        assert reply.error.code == "reservation_not_found"
    caller.begin(sent=True)
    caller.say(Feed(reservation="r", body=STREAM[:900]))
    end = End(reservation="r", status=200, body=STREAM[900:], offset=900)
    assert caller.say(end).amounts == {"requests": 1, "input_tokens": 53, "output_tokens": 15}
    assert caller.say(end).duplicate
    assert len(caller.bench.books.reservations) == 0
    assert len(caller.counted()) == 1


def test_a_bedrock_stream_that_is_left_before_its_last_event_costs_what_came_of_it(caller: Caller) -> None:
    def event(kind: str, payload: Any) -> bytes:
        """In Amazon's framing."""
        headers = b"".join(
            bytes([len(name)]) + name + b"\x07" + len(value).to_bytes(2, "big") + value
            for name, value in ((b":message-type", b"event"), (b":event-type", kind.encode()))
        )
        body = json.dumps(payload).encode()
        prelude = (16 + len(headers) + len(body)).to_bytes(4, "big") + len(headers).to_bytes(4, "big")
        data = prelude + crc32(prelude).to_bytes(4, "big") + headers + body
        return data + crc32(data).to_bytes(4, "big")

    path = "/model/anthropic.claude-x/converse-stream"
    caller.begin(path=path, provider="bedrock", body=b'{"messages": [{"content": [{"text": "Hello you"}]}]}')
    delta = {"contentBlockIndex": 0, "delta": {"text": "lorem ipsum " * 20}}
    came = event("messageStart", {"role": "assistant"}) + event("contentBlockDelta", delta)
    headers = {"content-type": "application/vnd.amazon.eventstream"}
    caller.say(Feed(reservation="r", body=came, headers=headers))
    caller.say(End(reservation="r", status=200, whole=False, offset=len(came)))
    (said,) = caller.counted()
    assert (said.usage_source, said.outcome) == ("estimated", "aborted")
    assert said.tokens["input"] > 0
    assert said.tokens["output"] > 40


def test_a_call_on_its_way_is_counted_although_it_is_refused_by_now(bench: Any) -> None:
    caller = Caller(bench, limit=600)
    assert caller.begin("other").has_access
    decision = caller.begin(sent=True)
    assert not decision.has_access
    cut = caller.say(Feed(reservation="r", body=STREAM[:900])).cut
    assert cut.code is decision.code
    caller.say(End(reservation="r", status=200, whole=False, body=STREAM[900:], offset=900))
    (said,) = caller.counted()
    assert said.tokens == {"input": 53, "output": 15}


def test_a_refused_call_leaves_nothing(bench: Any) -> None:
    caller = Caller(bench, limit=600)
    assert caller.begin("other").has_access
    assert not caller.begin().has_access
    assert caller.say(End(reservation="r", whole=False, sent=False)).error.code == "reservation_not_found"
    assert len(bench.books.calls) == 1


def test_a_call_that_was_not_sent_or_failed_costs_nothing(caller: Caller) -> None:
    caller.begin("unsent")
    assert caller.say(End(reservation="unsent", whole=False, sent=False)).event is None
    caller.begin("failed")
    assert caller.say(End(reservation="failed", status=500, body=b'{"error": {}}')).event is None
    caller.begin("moved")
    assert caller.say(End(reservation="moved", status=307)).event is None
    assert not caller.counted()
    assert len(caller.bench.books.reservations) == 0
    assert caller.say(End(reservation="failed", status=500)).duplicate


def test_a_call_that_costs_nothing_is_not_held(caller: Caller) -> None:
    decision = caller.begin(path="/v1/messages/count_tokens")
    assert (decision.has_access, decision.reservation) == (True, None)
    assert len(caller.bench.books.calls) == 0


def test_an_answer_made_in_the_background_is_counted_when_it_is_fetched_however_often(caller: Caller) -> None:
    queued = b'{"id": "resp_1", "object": "response", "status": "queued", "model": "m-1", "output": []}'
    body = b'{"model": "m-1", "background": true, "input": "Hello"}'
    caller.begin(path="/v1/responses", body=body)
    assert caller.say(End(reservation="r", status=200, body=queued)).event is None
    assert caller.bench.books.reservations.get("r") is not None, "it stays held"
    usage = b'"usage": {"input_tokens": 8, "output_tokens": 5, "total_tokens": 13}}'
    done = queued.replace(b"queued", b"completed")[:-1] + b", " + usage
    for name in ("fetch-1", "fetch-2"):
        decision = caller.begin(name, b"", path="/v1/responses/resp_1", method="GET")
        assert decision.reservation.amounts == {}
        caller.say(End(reservation=name, status=200, body=done))
    (said,) = caller.counted()
    assert said.tokens == {"input": 8, "output": 5}
    assert len(caller.bench.books.reservations) == len(caller.bench.books.calls) == 0


def test_a_batch_is_counted_once_although_it_is_fetched_in_pieces_and_again(caller: Caller) -> None:
    caller.begin()
    caller.say(End(reservation="r", whole=False, sent=False))
    line = {"custom_id": "1", "result": {"type": "succeeded", "message": {
        "type": "message", "model": "m-1",
        "usage": {"input_tokens": 10, "output_tokens": 4, "server_tool_use": {"web_search_requests": 1}},
    }}}  # fmt: skip
    results = (json.dumps(line).encode() + b"\n") * 3
    for name in ("fetch-1", "fetch-2"):
        caller.begin(name, b"", path="/v1/messages/batches/msgbatch_1/results", method="GET")
        caller.say(Feed(reservation=name, body=results[:50]))
        caller.say(End(reservation=name, status=200, body=results[40:], offset=40))
    (said,) = caller.counted()
    assert (said.tokens, said.amounts["requests"]) == ({"input": 30, "output": 12}, 3), "the catalog has no searches"
    lost = "fetch-3"
    caller.begin(lost, b"", path="/v1/messages/batches/msgbatch_1/results", method="GET")
    caller.say(Feed(reservation=lost, body=results[90:], offset=90))
    assert caller.say(End(reservation=lost, status=200, offset=len(results))).event is None
    assert caller.begin("list", b"", path="/v1/models", method="GET").reservation is None


def test_the_id_of_another_call_is_refused(caller: Caller) -> None:
    caller.begin()
    assert caller.begin(call=Call("acme", "search")).error.code == "reservation_conflict"
    assert caller.begin().reservation.id == "r"


def test_a_call_that_ran_out_meanwhile_is_corrected_by_its_end(caller: Caller) -> None:
    caller.begin()
    caller.bench.now_ms += 601_000
    expire(caller.bench.books, caller.bench.now_ms, caller.bench.wall_ms)
    recorded = caller.say(End(reservation="r", status=200, body=STREAM))
    assert recorded.corrects == "r"
    assert recorded.amounts["output_tokens"] == 15


def test_a_stream_that_is_fed_does_not_run_out(caller: Caller) -> None:
    caller.begin()
    for minute in range(20):
        caller.bench.now_ms += 60_000
        expire(caller.bench.books, caller.bench.now_ms, caller.bench.wall_ms)
        assert caller.say(Feed(reservation="r", body=b": ping\n\n", offset=8 * minute)).cut is None
    assert caller.bench.books.reservations.get("r") is not None


def test_what_the_catalog_does_not_count_does_not_keep_a_call_from_its_end(caller: Caller) -> None:
    caller.begin(path="/v1/images/generations")
    answer = b'{"created": 1, "data": [{"b64_json": ""}, {"b64_json": ""}]}'
    assert caller.say(End(reservation="r", status=200, body=answer)).amounts["requests"] == 1


@pytest.mark.parametrize(
    ("options", "inputs"),
    [
        ({"body": b"", "size": 70_000_000}, 70_000_256),
        ({"body": b"", "size": 70_000_000, "content_type": "multipart/form-data; boundary=x"}, 5_256),
        ({"body": b"", "size": 0}, 256),
    ],
)
def test_a_request_that_is_not_shown_is_held_by_its_size_if_it_may_be_text(
    caller: Caller, options: dict[str, Any], inputs: int
) -> None:
    assert caller.begin(**options).reservation.amounts["input_tokens"] == inputs


def test_what_is_kept_is_bounded_and_what_is_forgotten_costs_no_count(caller: Caller) -> None:
    book = CallBook(calls_max=3, bytes_max=100_000)
    for number in range(5):
        caller.begin(str(number))
        call = caller.bench.books.calls.get(str(number))
        assert isinstance(call, MeteredCall)
        book.put(call)
    assert [book.get(str(number)) is not None for number in range(5)] == [False, False, True, True, True]
    for number in (2, 3):
        call = book.get(str(number))
        before = call.kept_bytes
        call.take(0, b"data: " + b"x" * 70_000, {}, lambda _: None)
        book.fed(call, before)
    assert [book.get(str(number)) is not None for number in (2, 3, 4)] == [False, True, False]

    bodies = Arriving(bytes_max=100)
    assert bodies.add("a", 0, b"x" * 60) == 60
    assert bodies.add("b", 0, b"x" * 60) == 60
    assert bodies.add("a", 60, b"x") is None
    assert bodies.add("b", 50, b"y") == 51
    assert bodies.take("b") == b"x" * 50 + b"y"
    assert bodies.take("b") == b""


def test_the_agent_is_asked_again_before_a_slice_is_used_up(caller: Caller) -> None:
    caller.begin()
    word = {"choices": [{"index": 0, "delta": {"content": "lorem ipsum "}}]}
    event = b"data: " + json.dumps(word).encode() + b"\n\n"
    sent = outputs = 0
    wanted = 512
    for _ in range(300):
        body = event * max(1, wanted // len(event))
        wanted = caller.say(Feed(reservation="r", body=body, offset=sent)).bytes
        caller.bench.sync()
        caller.bench.commit()
        sent += len(body)
        outputs += 12 * (len(body) // len(event))
        held = caller.bench.books.reservations.get("r").amounts["output_tokens"]
        assert outputs <= held
        if outputs > 12_000:
            break
    assert held - outputs <= 1_024
