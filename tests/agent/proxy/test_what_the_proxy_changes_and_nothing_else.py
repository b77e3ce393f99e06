"""What the proxy changes of a call, and that it is nothing else: bodies, streams, headers, and whose call it is."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.attribution import Owner, call_of, decode_owners
from agent.core.estimate import Estimates
from agent.core.metered_call import MeteredCall
from agent.core.paths import is_metered
from agent.proxy.bodies import prepare
from agent.proxy.headers import of_answer, of_request
from agent.proxy.hiding import EVENT_BYTES_MAX, UsageHider
from agent.proxy.upstreams import target_of
from protocol.events import Outcome, UsageSource
from protocol.local_messages import Call, Release, Settle
from protocol.violations import Violation

URLS = {"openai": "https://api.example/base/", "anthropic": "https://other.example"}
CHAT = target_of("/openai/v1/chat/completions", URLS)
JSON = b"application/json; charset=utf-8"
USAGE = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}\n\n'
WORD = b'data: {"id":"x","choices":[{"delta":{"content":"hi"}}],"usage":null}\n\n'
DONE = b"data: [DONE]\n\n"

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5) | st.just(0.1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
bodies = st.dictionaries(st.text(max_size=6), values, max_size=5)


@given(bodies, st.sampled_from([None, {}, {"include_usage": False}, {"other": 1.50}, {"include_usage": True}]))
def test_a_chat_stream_is_asked_for_its_usage_and_stays_as_it_is(fields, options):
    fields = fields | {"stream": True} | ({"stream_options": options} if options is not None else {})
    body = json.dumps(fields).encode()
    prepared = prepare(CHAT, JSON, body)
    after = json.loads(prepared.body)
    assert after.pop("stream_options")["include_usage"] is True
    assert after == {name: value for name, value in fields.items() if name != "stream_options"}
    assert prepared.hides_usage is not (options == {"include_usage": True})
    if not prepared.hides_usage:
        assert prepared.body == body


@given(st.binary(max_size=60) | bodies.map(lambda fields: json.dumps(fields | {"stream": False}).encode()))
def test_whatever_else_is_sent_is_passed_on_byte_for_byte(body):
    for target in (CHAT, target_of("/anthropic/v1/messages", URLS), target_of("/openai/v1/images/generations", URLS)):
        for content_type in (JSON, b"multipart/form-data; boundary=x", b""):
            assert prepare(target, content_type, body).body == body or b'"stream": true' in body


@given(st.lists(st.sampled_from([WORD, USAGE, DONE, b": ping\n\n"]), max_size=8), st.data())
def test_the_usage_chunk_alone_is_taken_out_however_the_stream_is_cut(events, data):
    stream = b"".join(events)
    hider, shown, at = UsageHider(), b"", 0
    while at < len(stream):
        step = data.draw(st.integers(1, 90))
        shown += hider.feed(stream[at : at + step])
        at += step
    shown += hider.close()
    assert shown == stream.replace(USAGE, b"")


def test_whole_events_leave_at_once_and_long_ones_are_not_kept():
    hider = UsageHider()
    assert hider.feed(WORD + WORD[:10]) == WORD
    assert hider.feed(WORD[10:]) == WORD
    long = b'data: {"choices":[],"usage":{},"x":"' + b"y" * (2 * EVENT_BYTES_MAX)
    assert len(hider.feed(long)) >= len(long) - 3
    assert hider.feed(b'"}\n\n' + USAGE).endswith(b'"}\n\n')
    assert hider.close() == b""
    shows = UsageHider(hides=False)
    assert shows.feed(USAGE + WORD[:9]) == USAGE
    assert shows.cut(DONE) == DONE, "and not after half an event"


def test_headers_of_one_connection_stay_there():
    said = [
        (b"Host", b"localhost:1"), (b"Authorization", b"Bearer k"), (b"Connection", b"keep-alive, X-Hop"),
        (b"X-Hop", b"1"), (b"Transfer-Encoding", b"chunked"), (b"Accept-Encoding", b"gzip"), (b"Content-Length", b"9"),
        (b"X-Allotment-Customer", b"acme"), (b"X-Stainless-Lang", b"python"),
    ]  # fmt: skip
    assert of_request(said, b"api.example", 5) == [
        (b"host", b"api.example"), (b"authorization", b"Bearer k"), (b"x-stainless-lang", b"python"),
        (b"accept-encoding", b"identity"), (b"content-length", b"5"),
    ]  # fmt: skip
    came = [(b"Content-Length", b"10"), (b"RateLimit", b"theirs"), (b"Keep-Alive", b"5"), (b"X-Request-Id", b"r")]
    assert of_answer(came, [(b"ratelimit", b"ours")], shortened=True) == [
        (b"x-request-id", b"r"),
        (b"ratelimit", b"ours"),
    ]


def test_paths_lead_to_their_provider():
    assert (CHAT.url, CHAT.path) == ("https://api.example/base/v1/chat/completions", "/v1/chat/completions")
    for path in ("/elsewhere/v1", "/openai", "/", "*", ""):
        with pytest.raises(Violation):
            target_of(path, URLS)
    assert is_metered("POST", "/v1/chat/completions")
    assert is_metered("POST", "/v1/what-nobody-knows-yet")
    for method, path in (
        ("GET", "/v1/models"), ("POST", "/v1/messages/count_tokens"), ("POST", "/v1beta/models/g:countTokens"),
        ("POST", "/v1/files?purpose=batch"), ("POST", "/v1/responses/r/cancel"), ("DELETE", "/v1/files/f"),
    ):  # fmt: skip
        assert not is_metered(method, path), path
    for path in (
        "/v1/files/../chat/completions", "/v1/chat/completions/../files", "/v1/x/%2e%2e/files", "/v1/x%2ffiles",
        "//v1/files", "/v1/chat/completions;/cancel", "/v1/chat/completions\\..\\files", "/v1/./files", "",
    ):  # fmt: skip
        assert is_metered("POST", path), "a path that others may read in another way is not believed"
    assert is_metered("post", "/v1/chat/completions")


HEADERS = {b"x-allotment-customer": b"acme", b"x-allotment-feature": b"chat", b"authorization": b"Bearer sk-1"}
SK_1 = hashlib.sha256(b"sk-1").hexdigest()


def test_headers_or_the_key_say_whose_call_it_is():
    call = call_of(HEADERS | {b"x-allotment-tags": b"team=red, p=x"}, "m-1", None, None)
    assert (call.customer, call.feature, call.model, call.tags) == ("acme", "chat", "m-1", {"team": "red", "p": "x"})
    assert call.subject.api_key == SK_1[:16]
    owners = decode_owners(json.dumps({SK_1: {"customer": "beta", "feature": "draw", "user": "ann"}}).encode())
    alone = call_of({b"x-api-key": b"sk-1", b"x-allotment-user": b"eve", b"x-allotment-role": b"r"}, None, owners, None)
    assert (alone.customer, alone.feature, alone.subject.user, alone.subject.role) == ("beta", "draw", "ann", "r")
    assert call_of({b"authorization": b"bearer sk-1", **HEADERS}, None, None, "other").feature == "chat"


@pytest.mark.parametrize(
    ("changed", "owners", "field"),
    [
        ({b"x-allotment-customer": b""}, None, "x-allotment-customer"),
        ({b"x-allotment-customer": b"a b"}, None, "x-allotment-*"),
        ({b"x-allotment-user": b"\xff"}, None, "x-allotment-*"),
        ({b"x-allotment-tags": b",".join(b"t%d=x" % at for at in range(9))}, None, "x-allotment-tags"),
        ({b"x-allotment-tags": b"a"}, None, "x-allotment-*"),
        ({b"authorization": b""}, {SK_1: Owner("acme")}, "api key"),
        ({b"authorization": b"Bearer other"}, {SK_1: Owner("acme")}, "api key"),
        ({}, {SK_1: Owner("beta")}, "x-allotment-customer"),
    ],
)
def test_what_cannot_be_anybodys_call_is_refused(changed, owners, field):
    with pytest.raises(Violation) as wrong:
        call_of(HEADERS | changed, None, owners, None)
    assert wrong.value.field == field


def ended(status, *, whole, sent=True, body=b""):
    prepared = prepare(CHAT, JSON, b'{"model":"m","messages":[{"role":"user","content":"hello you"}]}')
    call = MeteredCall(Estimates(), "r", Call("acme", "chat", model="m"), "openai", CHAT.path, prepared.told)
    if status is not None:
        call.answered({})
        call.feed(body, lambda _: None)
    return call.ended(status, whole=whole, sent=sent)


@pytest.mark.parametrize(
    ("status", "whole", "sent", "body", "expected"),
    [
        (None, False, False, b"", None),
        (None, False, True, b"", (UsageSource.ESTIMATED, Outcome.ERROR)),
        (500, True, True, b'{"error":{}}', None),
        (429, True, True, b"", None),
        (307, True, True, b"", None),
        (200, True, True, b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}',
         (UsageSource.PROVIDER, Outcome.COMPLETE)),
        (200, False, True, b'{"choices":[{"message":{"content":"long', (UsageSource.ESTIMATED, Outcome.ABORTED)),
        (200, False, True, b"", (UsageSource.ESTIMATED, Outcome.ABORTED)),
        (500, True, True, b'{"usage":{"prompt_tokens":3,"completion_tokens":4}}',
         (UsageSource.PROVIDER, Outcome.ERROR)),
    ],
)  # fmt: skip
def test_every_ending_is_settled_or_released(status, whole, sent, body, expected):
    said = ended(status, whole=whole, sent=sent, body=body)
    if expected is None:
        assert isinstance(said, Release)
    else:
        assert isinstance(said, Settle)
        assert (said.usage_source, said.outcome) == expected
        assert said.tokens.get("input", 0) > 0


@given(st.binary(max_size=40))
def test_a_file_of_owners_is_one_or_is_refused(text):
    try:
        decode_owners(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    assert json.loads(text) == {}
