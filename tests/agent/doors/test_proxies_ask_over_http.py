"""What proxies ask by headers and settle with answers, at the HTTP door: whose call, what is held, what is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.entitlements import Limit
from protocol.windows import WindowKind

RECORDED = Path(__file__).parents[2] / "data" / "recorded"
WHOSE = {"x-allotment-customer": "corp", "x-allotment-feature": "chat"}
CHAT = "/v1/authz/v1/chat/completions"
BODY = {"model": "gpt-4o", "max_tokens": 100, "messages": [{"role": "user", "content": "x" * 400}]}


@pytest.fixture
def way(way):
    """The same, with a customer who has room for prompts."""
    way.bench.entitle(
        Limit("tokens-a-day", "output_tokens", 10_000, WindowKind.DAY),
        Limit("inputs-a-day", "input_tokens", 30_000, WindowKind.DAY),
        customer="corp",
    )
    return way


def request(method: str, path: str, headers, body: bytes = b"") -> bytes:
    pairs = headers.items() if isinstance(headers, dict) else headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in pairs)
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n{lines}\r\n".encode() + body


def ask(way, path: str = CHAT, headers=WHOSE, body: bytes = b"", method: str = "POST", *, guarded: bool = False):
    """The answer to one question, after as many exchanges and commits as it takes."""
    http = way.http(guarded=guarded)
    said = http.feed(request(method, path, headers, body), heads=method == "HEAD")
    for _ in range(3):
        if not said:
            way.catch_up()
            said = http.responses(heads=method == "HEAD")
    (response,) = said
    return response


def held(way):
    """What is held now, of the one call in flight."""
    (one,) = way.bench.books.reservations
    return one


def settle(way, name: str, body: bytes = b"", **headers):
    named = {f"x-allotment-{key.replace('_', '-')}": value for key, value in headers.items()}
    http = way.http()
    said = http.feed(request("POST", f"/v1/settle/{name}", named, body))
    way.bench.commit()
    (response,) = said or http.responses()
    return response


def events(way):
    """How calls ended that left an event."""
    way.bench.commit()
    return [ended for ended in way.bench.books.ended._book.values() if ended.said is not None]


def test_a_call_with_its_body_is_held_as_the_metering_proxy_would(way):
    response = ask(way, body=json.dumps(BODY).encode())
    assert response.status == 200
    assert response.headers["x-allotment-reservation"] == held(way).id
    assert response.headers["ratelimit"].startswith('"')
    assert held(way).amounts["output_tokens"] == 100
    assert 400 < held(way).amounts["input_tokens"] < 1_000
    assert held(way).call.model == "gpt-4o"


def test_headers_alone_are_enough(way):
    named = {
        **WHOSE, "x-allotment-user": "ann", "x-allotment-tags": "team=red", "x-allotment-model": "gpt-4o",
        "x-allotment-body-bytes": "1000", "x-forwarded-method": "POST", "x-forwarded-uri": "/v1/chat/completions",
        "authorization": "Bearer k",
    }  # fmt: skip
    assert ask(way, "/v1/authz", named, method="GET").status == 200
    call = held(way).call
    assert (call.subject.user, call.tags, call.model) == ("ann", {"team": "red"}, "gpt-4o")
    assert call.subject.api_key is not None
    assert held(way).amounts == {"requests": 1, "input_tokens": 1_256, "output_tokens": 2_048}


def test_amounts_are_held_as_they_are_said_whatever_is_asked_about(way):
    named = {**WHOSE, "x-allotment-amounts": "requests=1, output_tokens=77"}
    assert ask(way, "/v1/authz", named, method="GET").status == 200
    assert held(way).amounts == {"requests": 1, "output_tokens": 77}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_what_costs_nothing_is_allowed_and_holds_nothing(way, method):
    assert ask(way, CHAT, {}, method=method).status == 200
    assert not len(way.bench.books.reservations)


def test_a_head_that_had_to_wait_is_answered_without_a_body(way):
    way.bench.entitle(Limit("tokens-a-day", "output_tokens", 1_000, WindowKind.DAY), customer="new")
    named = {"x-allotment-customer": "new", "x-allotment-feature": "chat", "x-allotment-amounts": "requests=1"}
    assert ask(way, "/v1/authz/x", named, method="HEAD").headers["x-allotment-reservation"]


def test_refusals_name_code_and_limit_in_headers(way):
    response = ask(way, headers={**WHOSE, "x-allotment-amounts": "output_tokens=20000"})
    assert response.status == 402
    assert response.headers["x-allotment-code"] == "requested_usage_exceeds_limit"
    assert response.headers["x-allotment-limit"] == "tokens-a-day"
    assert response.json["error"]["code"] == "requested_usage_exceeds_limit"


@pytest.mark.parametrize(
    ("path", "headers", "field"),
    [
        (CHAT, {"x-allotment-feature": "chat"}, "x-allotment-customer"),
        (CHAT, {"x-allotment-customer": "corp"}, "x-allotment-feature"),
        (CHAT, {**WHOSE, "x-allotment-amounts": "requests"}, "x-allotment-amounts"),
        (CHAT, {**WHOSE, "x-allotment-amounts": "requests=-1"}, "x-allotment-amounts"),
        (CHAT, {**WHOSE, "x-allotment-amounts": "requests=many"}, "x-allotment-amounts"),
        (CHAT, {**WHOSE, "x-allotment-body-bytes": "many"}, "x-allotment-body-bytes"),
        (CHAT, {**WHOSE, "x-allotment-body-bytes": "9" * 30}, "x-allotment-body-bytes"),
        (CHAT, {**WHOSE, "x-allotment-model": "a b"}, "x-allotment-model"),
        (CHAT, {**WHOSE, "x-allotment-provider": "a b"}, "x-allotment-provider"),
        (CHAT, {**WHOSE, "x-allotment-settles": "maybe"}, "x-allotment-settles"),
        (CHAT, [*WHOSE.items(), ("X-Allotment-Customer", "evil")], "x-allotment-customer"),
        ("/v1/authz", WHOSE, "x-forwarded-method"),
        ("/v1/authz", {**WHOSE, "x-forwarded-method": "POST"}, "x-forwarded-uri"),
        ("/v1/authz", [("x-forwarded-uri", "/a"), ("x-forwarded-uri", "/b")], "x-forwarded-uri"),
    ],
)
def test_what_is_said_wrongly_is_named(way, path, headers, field):
    response = ask(way, path, headers)
    assert (response.status, response.json["field"]) == (400, field)
    assert not len(way.bench.books.reservations)


def test_a_path_that_only_begins_alike_is_no_door(way):
    assert ask(way, "/v1/authzz").status == 404
    assert "/v1/authz, /v1/settle/{reservation}" in ask(way, "/v1/nothing").json["detail"]


def test_who_will_not_settle_counts_what_is_likely_at_once(way):
    response = ask(way, headers={**WHOSE, "x-allotment-settles": "no", "x-allotment-body-bytes": "4000"})
    assert response.status == 200
    assert not len(way.bench.books.reservations)
    (ended,) = events(way)
    assert ended.said.amounts == {"requests": 1, "input_tokens": 1_000, "output_tokens": 512}
    assert (ended.said.usage_source.value, ended.said.outcome.value) == ("estimated", "complete")


def test_who_learns_later_what_it_was_corrects_it(way):
    name = ask(way, headers={**WHOSE, "x-allotment-settles": "no"}).headers["x-allotment-reservation"]
    way.bench.commit()
    body = {"reservation": name, "tokens": {"input": 3, "output": 4}}
    http = way.http()
    said = http.post("/v1/settle", body)
    way.bench.commit()
    (response,) = said or http.responses()
    assert response.json["corrects"]


def test_an_answer_settles_what_the_provider_says(way):
    name = ask(way, body=json.dumps(BODY).encode()).headers["x-allotment-reservation"]
    answer = (RECORDED / "openai-chat-1.json").read_bytes()
    response = settle(way, name, answer, status="200", outcome="complete")
    usage = json.loads(answer)["usage"]
    assert response.status == 200
    assert response.json["amounts"] == {
        "requests": 1, "input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"],
    }  # fmt: skip
    assert not len(way.bench.books.reservations)
    assert settle(way, name, answer, status="200", outcome="complete").json["duplicate"], "a repeat changes nothing"


@pytest.mark.parametrize("name", ["openai-chat-stream-1.sse", "anthropic-messages-stream-2.sse"])
def test_the_two_ends_of_a_long_stream_are_enough(way, name):
    whole = (RECORDED / name).read_bytes()
    counted = []
    for body in (whole, whole[:1_500] + whole[-1_500:]):
        reservation = ask(way, body=json.dumps(BODY).encode()).headers["x-allotment-reservation"]
        said = settle(way, reservation, body, status="200", outcome="complete", answer_bytes=str(len(whole)))
        counted.append(said.json["amounts"])
        assert events(way)[-1].said.usage_source.value == "provider"
    assert counted[0] == counted[1]
    assert len(whole) > 3_000


def test_the_end_of_a_long_body_is_enough(way):
    vectors = [{"embedding": [0.123456] * 20_000, "index": 0, "object": "embedding"}]
    whole = json.dumps({"object": "list", "data": vectors, "usage": {"prompt_tokens": 9, "total_tokens": 9}}).encode()
    name = ask(way, "/v1/authz/v1/embeddings", body=b'{"input": "x", "model": "e"}').headers["x-allotment-reservation"]
    said = settle(way, name, whole[:65_536] + whole[-65_536:], status="200", outcome="complete",
                  answer_bytes=str(len(whole)))  # fmt: skip
    assert said.json["amounts"] == {"requests": 1, "input_tokens": 9, "output_tokens": 0}


def test_a_stream_that_broke_off_is_estimated_from_what_was_seen(way):
    name = ask(way, body=json.dumps(BODY).encode()).headers["x-allotment-reservation"]
    part = (RECORDED / "openai-chat-stream-1.sse").read_bytes()[:1_000]
    amounts = settle(way, name, part, status="200", outcome="aborted").json["amounts"]
    assert amounts["input_tokens"] > 80
    (ended,) = events(way)
    assert (ended.said.usage_source.value, ended.said.outcome.value) == ("estimated", "aborted")
    assert 0 < amounts["output_tokens"] < 100
    name = ask(way, body=json.dumps(BODY).encode()).headers["x-allotment-reservation"]
    more = settle(way, name, part, status="200", outcome="aborted", answer_bytes="10000").json["amounts"]
    assert more["output_tokens"] >= 8 * amounts["output_tokens"], "ten times as many bytes came"


def test_an_error_costs_nothing_and_what_was_never_sent_neither(way):
    for said in ({"status": "500", "outcome": "complete"}, {"outcome": "unsent"}):
        name = ask(way, body=json.dumps(BODY).encode()).headers["x-allotment-reservation"]
        assert settle(way, name, b'{"error": {}}' if "status" in said else b"", **said).status == 200
    assert not len(way.bench.books.reservations)
    assert events(way) == []


def test_no_answer_in_time_is_charged_its_prompt(way):
    name = ask(way, body=json.dumps(BODY).encode()).headers["x-allotment-reservation"]
    amounts = settle(way, name, outcome="aborted").json["amounts"]
    assert amounts["input_tokens"] > 80
    assert amounts["output_tokens"] == 0


def test_an_answer_that_cannot_be_read_counts_what_is_likely(way):
    for more in ({}, {"x": "y"}):
        name = ask(way, body=json.dumps(BODY).encode()).headers["x-allotment-reservation"]
        body = b"\x1f\x8b gzip" if more else b""
        http = way.http()
        headers = {"x-allotment-outcome": "complete", "x-allotment-status": "200", "content-encoding": "gzip"}
        said = http.feed(request("POST", f"/v1/settle/{name}", headers, body))
        way.bench.commit()
        (response,) = said or http.responses()
        assert response.json["amounts"]["output_tokens"] == 100


def test_a_page_that_is_no_models_answer_counts_what_was_said(way):
    named = {**WHOSE, "x-allotment-amounts": "requests=1"}
    name = ask(way, "/v1/authz/page", named, method="GET").headers["x-allotment-reservation"]
    said = settle(way, name, b"<html>hello</html>", status="200", outcome="complete")
    assert said.json["amounts"] == {"requests": 1}
    assert events(way)[-1].said.outcome.value == "complete"


def test_meters_that_nobody_declared_are_left_out(way):
    name = ask(way, body=json.dumps(BODY).encode()).headers["x-allotment-reservation"]
    answer = {"usage": {"input_tokens": 5, "output_tokens": 6, "server_tool_use": {"web_search_requests": 3}}}
    said = settle(way, name, json.dumps(answer).encode(), status="200", outcome="complete")
    assert said.json["amounts"] == {"requests": 1, "input_tokens": 5, "output_tokens": 6}


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({}, "x-allotment-outcome"),
        ({"outcome": "fine"}, "x-allotment-outcome"),
        ({"outcome": "complete", "status": "2000"}, "x-allotment-status"),
        ({"outcome": "complete", "answer_bytes": "-1"}, "x-allotment-answer-bytes"),
    ],
)
def test_endings_that_are_said_wrongly_are_named_and_end_nothing(way, headers, field):
    name = ask(way, body=json.dumps(BODY).encode()).headers["x-allotment-reservation"]
    response = settle(way, name, **headers)
    assert (response.status, response.json["field"]) == (400, field)
    assert len(way.bench.books.reservations) == 1


def test_an_agent_that_was_started_again_counts_what_the_proxy_repeats(way):
    answer = (RECORDED / "openai-chat-1.json").read_bytes()
    lost = settle(way, "authz-lost", answer, status="200", outcome="complete")
    assert (lost.status, lost.json["field"]) == (400, "x-allotment-customer")
    said = settle(
        way, "authz-lost", answer, status="200", outcome="complete", customer="corp", feature="chat", body_bytes="400"
    )
    assert said.json["amounts"]["output_tokens"] == json.loads(answer)["usage"]["completion_tokens"]


def test_odd_names_of_reservations_are_refused(way):
    assert settle(way, "%20", outcome="complete").status == 400
    assert ask(way, "/v1/settle/x", {}, method="GET").status == 405


def test_web_pages_cannot_use_the_loopback_port(way):
    assert ask(way, guarded=True).status == 421, "by a name that it has rebound"
    form = b"POST /v1/authz/x HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n"
    (response,) = way.http(guarded=True).feed(form)
    assert response.status == 400, "no page may send the headers that say whose call it is"


@pytest.mark.parametrize("uri", ["", "/v1/files", "/v1/chat/completions"])
def test_an_ending_is_taken_whatever_is_said_of_its_path(way, uri):
    named = {"x-allotment-outcome": "complete", "x-allotment-status": "200", "x-forwarded-uri": uri, **WHOSE}
    http = way.http()
    said = http.feed(request("POST", "/v1/settle/authz-unheard-of", named, b'{"usage": {"input_tokens": 5}}'))
    way.bench.commit()
    (response,) = said or http.responses()
    assert response.status == 200


def test_trailers_say_nothing(way):
    lines = "".join(f"{name}: {value}\r\n" for name, value in WHOSE.items())
    raw = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n{lines}\r\n2\r\n{{}}\r\n0\r\n"
    http = way.http()
    said = http.feed(f"{raw}x-allotment-amounts: requests=7\r\n\r\n".encode())
    for _ in range(3):
        if not said:
            way.catch_up()
            said = http.responses()
    assert said[0].status == 200
    assert held(way).amounts["requests"] == 1


NAMES = [
    *(f"x-allotment-{name}" for name in (
        "customer", "feature", "user", "workspace", "role", "tags", "model", "provider", "amounts", "body-bytes",
        "settles", "outcome", "status", "answer-bytes",
    )),
    "x-forwarded-method", "x-forwarded-uri", "x-envoy-auth-partial-body", "content-type", "content-encoding",
    "authorization",
]  # fmt: skip
ODD = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)
LIKELY = st.sampled_from([
    "acme", "chat", "0", "7", "1" * 17, "yes", "no", "complete", "aborted", "unsent", "requests=1", "a=1,b=2", "a=b,c",
    "=", "POST", "/v1/files", "/v1/chat", "true", "gzip", "Bearer k",
])  # fmt: skip
PATHS = ["/v1/authz", "/v1/authz/v1/chat", "/v1/settle/authz-1", "/v1/settle/", "/v1/authz/../settle/x"]
BODIES = [b"{}", b'{"model": 7}', b'{"usage": {"input_tokens": 3}}', b"data: [DONE]"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    path=st.sampled_from(PATHS),
    headers=st.dictionaries(st.sampled_from(NAMES), ODD | LIKELY, max_size=8),
    method=st.sampled_from(["POST", "POST", "GET", "PATCH"]),
    body=st.binary(max_size=60) | st.sampled_from(BODIES),
)
def test_whatever_is_said_is_answered(open_way, path, headers, method, body):
    pairs = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    raw = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n{pairs}\r\n".encode("latin-1")
    http = open_way.http()
    said = http.feed(raw + body)
    if not said:
        open_way.catch_up()
        open_way.pass_time(60_000)
        said = http.responses()
    (response,) = said
    assert response.status < 500 or response.json["code"] in ("lease_unavailable", "overloaded")
