"""Golden frames: bytes beside their meaning, only ever added to; programs and client read and write them alike."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from pathlib import Path

import msgpack
import pytest

import allotment
from allotment import attempts, requests
from allotment.wire import FrameReader as ClientReader
from allotment.wire import RequestEncoder
from protocol import local_messages
from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.framing import FrameReader, frame

FRAMES = [json.loads(path.read_text()) for path in sorted((Path(__file__).parent / "golden").glob("*.json"))]
REQUESTS = [golden for golden in FRAMES if golden["direction"] == "request"]
REPLIES = [golden for golden in FRAMES if golden["direction"] == "reply"]
CODES = {
    "invalid_request", "frame_invalid", "unknown_operation", "meter_not_found", "customer_not_found",
    "reservation_not_found", "reservation_conflict", "reservation_ended", "lease_unavailable", "overloaded",
    "not_recorded", "draining",
}  # fmt: skip
ANSWERS = {
    "decision": allotment.Decision,
    "recorded": allotment.Recorded,
    "taken": allotment.Taken,
    "usage": allotment.UsageReport,
    "status": allotment.StatusReport,
}

FULL = {
    "user": "u7", "workspace": "w1", "role": "editor", "api_key": "k-1", "tags": {"team": "search"},
    "model": "openai/gpt-5@2026",
}  # fmt: skip
FULL_CALL = allotment.Call("acme", "chat", **FULL)


def _reserve(**options):
    return requests.reserve(*requests.split_reserve("acme", "chat", options))


AS_THE_CLIENT_SAYS_IT = {
    "check": requests.check("acme", "chat"),
    "check_with_everything": requests.check(
        "acme", "chat", **FULL, amounts={"input_tokens": 900, "output_tokens": 2**53 - 1}, deadline_ms=0, breakdown=True
    ),
    "reserve": _reserve(user="u7", amounts={"input_tokens": 900, "output_tokens": 512}, reservation="r-1"),
    "reserve_with_everything": _reserve(
        **FULL, reservation="r-1", amounts={"input_tokens": 0}, estimates={"worst": {"input_tokens": 9}}, ttl_ms=30_000,
        deadline_ms=60_000, breakdown=True,
    ),
    "check_batch": requests.check("acme", "chat", user="u7", amounts={"output_tokens": 512}, priority="batch"),
    "reserve_batch": _reserve(user="u7", amounts={"output_tokens": 512}, reservation="r-2", priority="batch"),
    "extend": requests.extend("r-1", {"output_tokens": 1024}, None, 0),
    "extend_with_everything": requests.extend("r-1", {"output_tokens": 1024}, 1_000, 250),
    "settle": requests.settle("r-1", tokens={"input": 300, "cache_read": 600, "output": 100, "reasoning": 41}),
    "settle_with_everything": requests.settle(
        "r-1", amounts={"images": 1}, tokens={"input": 1}, usage_source="estimated", outcome="aborted", model="m",
        provider="openai", call=FULL_CALL,
    ),
    "release": requests.release("r-1"),
    "begin": requests.begin(
        allotment.Call("acme", "chat", user="u7"), "r-1",
        {"provider": "openai", "path": "/v1/chat/completions", "size": 15}, b'{"model":"m-1"}',
    ),
    "begin_with_everything": requests.begin(
        FULL_CALL, "r-1",
        {"provider": "p", "path": "/x", "content_type": "audio/wav", "size": 9, "estimate": "worst", "sent": True},
        b"\x00\xff", 7,
    ),
    "begin_fetch": requests.begin(
        allotment.Call("acme", "chat"), "r-2", {"provider": "p", "path": "/v1/responses/r", "method": "GET"}, b""
    ),
    "feed": requests.feed("r-1", {"body": b"data: [DONE]\n\n", "offset": 4096}),
    "feed_with_everything": requests.feed(
        "r-1", {"body": b"\x00", "offset": 1, "headers": {"x-amzn-bedrock-input-token-count": "7"}}
    ),
    "end": requests.end("r-1", 200, {"body": b"{}"}, whole=True, sent=True),
    "end_with_everything": requests.end(
        "r-1", None, {"body": b"{", "offset": 3, "headers": {"content-encoding": "gzip"}}, whole=False, sent=False
    ),
    "record": requests.record("acme", "chat", event="e-1", amounts={"images": 2}),
    "record_with_everything": requests.record(
        "acme", "chat", event="e-1", **FULL, amounts={"images": 2}, tokens={"output": 5}, at_ms=1_796_000_000_000,
        usage_source="none", outcome="error", provider="p",
    ),
    "usage": requests.usage("acme"),
    "usage_with_everything": requests.usage("acme", feature="chat", user="u7", deadline_ms=100),
    "usage_of_others": requests.usage("acme", workspace="w1", role="editor", api_key="k-1", tags={"team": "search"}),
    "status": requests.status(),
}  # fmt: skip


def named(goldens):
    return pytest.mark.parametrize("golden", goldens, ids=[golden["name"] for golden in goldens])


def test_every_operation_every_kind_and_every_error_code_has_a_golden_frame():
    operations = {kind.__struct_config__.tag for kind in local_messages.Request.__args__}
    kinds = {kind.__struct_config__.tag for kind in local_messages.Reply.__args__}
    assert {golden["json"]["op"] for golden in REQUESTS} == operations
    assert {golden["json"]["kind"] for golden in REPLIES} == kinds
    assert {golden["json"]["error"]["code"] for golden in REPLIES if "error" in golden["json"]} == CODES
    assert set(AS_THE_CLIENT_SAYS_IT) == {golden["name"] for golden in REQUESTS}


@named(FRAMES)
def test_the_bytes_mean_what_stands_beside_them(golden):
    data = bytes.fromhex(golden["hex"])
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert json.loads(json.dumps(msgpack.unpackb(data[4:]), default=_base64)) == golden["json"]


def _base64(data: bytes) -> str:
    """As the HTTP door says bytes."""
    return base64.b64encode(data).decode()


@named(FRAMES)
def test_the_programs_read_and_write_them(golden):
    (body,) = FrameReader().feed(bytes.fromhex(golden["hex"]))
    union = local_messages.Request if golden["direction"] == "request" else local_messages.Reply
    assert frame(encode_msgpack(MsgpackDecoder(union)(body))).hex() == golden["hex"]


@named(REQUESTS)
def test_the_client_writes_the_requests(golden):
    request = AS_THE_CLIENT_SAYS_IT[golden["name"]]
    request.fields["id"] = golden["json"]["id"]
    assert RequestEncoder()(request.fields).hex() == golden["hex"]


@named([golden for golden in REPLIES if "error" not in golden["json"]])
def test_the_client_reads_the_answers(golden):
    (reply,) = ClientReader().feed(bytes.fromhex(golden["hex"]))
    meaning = {name: value for name, value in golden["json"].items() if name not in {"id", "kind"}}
    answer = attempts.outcome(reply, ANSWERS[golden["json"]["kind"]])
    said = json.loads(json.dumps(asdict(answer)))
    for limits in ("breakdown", "limits"):  # a limit's defaults are left out on the wire
        for state, wired in zip(said.get(limits, []), meaning.get(limits, []), strict=False):
            wired.update({name: value for name, value in state.items() if name not in wired})
    if meaning.get("cut"):
        meaning["cut"] = said["cut"] | {name: value for name, value in meaning["cut"].items() if name != "kind"}
    assert {name: said[name] for name in meaning} == meaning


@named([golden for golden in REPLIES if "error" in golden["json"]])
def test_the_client_reads_the_errors(golden):
    (reply,) = ClientReader().feed(bytes.fromhex(golden["hex"]))
    with pytest.raises((allotment.AgentError, attempts.TryAgain)) as raised:
        attempts.outcome(reply, allotment.Recorded)
    problem = golden["json"]["error"]
    assert (raised.value.code, str(raised.value)) == (problem["code"], problem["message"])
    assert isinstance(raised.value, attempts.TryAgain) == golden["json"].get("retry", False)
    if not golden["json"].get("retry"):
        assert raised.value.field == problem.get("field")
