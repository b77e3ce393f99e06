"""The HTTP door and whatever can be wrong with a request: the right status, problem details, and nothing unbounded."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.api.http import BODY_BYTES_MAX, HEAD_BYTES_MAX, PIPELINED_MAX

CALL = {"customer": "acme", "feature": "chat"}
READ_BYTES = 65_536
GET_STATUS = b"GET /v1/status HTTP/1.1\r\nhost: localhost\r\n\r\n"
SHARED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def one(responses):
    (response,) = responses
    return response


def is_problem(response, status: int, code: str) -> dict:
    """The body, after looking at everything that every refusal has in common."""
    said = response.json
    assert (response.status, said["status"], said["code"]) == (status, status, code), said
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert said["type"] == "about:blank"
    assert said["title"]
    assert said["detail"] == said["error"]["message"]
    assert said["error"]["code"] == code
    assert said["error"]["param"] == said.get("field")
    return said


@pytest.mark.parametrize(
    "amount", ["-1", "1.0", "1.5", "NaN", "Infinity", '"1"', "true", "null", "9007199254740992", "1e400", "9" * 4_400]
)
def test_amount_that_is_none_is_refused_with_its_field(way, amount) -> None:
    body = f'{{"call": {json.dumps(CALL)}, "amounts": {{"output_tokens": {amount}}}}}'.encode()
    said = is_problem(one(way.http().post("/v1/check", body)), 400, "invalid_request")
    if amount not in {"NaN", "Infinity"}:  # those are not JSON at all
        assert said["field"].startswith("amounts")
    assert len(said["detail"]) < 300


@pytest.mark.parametrize("name", ["a\n", "a\x00b", "a" * 300, "../../etc", "é", "\u202eabc", "<script>", "💥"])
def test_id_that_is_none_is_refused_with_its_field_and_shown_in_ascii(way, name) -> None:
    said = is_problem(one(way.http().post("/v1/check", {"call": {**CALL, "customer": name}})), 400, "invalid_request")
    assert said["field"] == "call.customer"
    assert said["detail"].isascii()
    assert said["detail"].isprintable()


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"a":' * 20_000, b"\xff\xfe", b'{"call": 1}', b"\x00" * 100,
     json.dumps([[]] * 60_000).encode(), b'{"call":{},"call":{}}', b"{}"],
    ids=range(12),
)  # fmt: skip
def test_body_that_is_no_request_is_refused_and_the_connection_goes_on(way, body) -> None:
    http = way.http()
    is_problem(one(http.post("/v1/reserve", body)), 400, "invalid_request")
    assert one(http.feed(GET_STATUS)).status == 200


def test_unknown_field_and_an_operation_that_contradicts_the_path_are_refused(way) -> None:
    said = is_problem(one(way.http().post("/v1/check", {"call": CALL, "admin": True})), 400, "invalid_request")
    assert said["field"] == "admin"
    said = is_problem(one(way.http().post("/v1/release", {"reservation": "r", "op": "settle"})), 400, "invalid_request")
    assert said["field"] == "op"
    assert one(way.http().get("/v1/usage?customer=acme&admin=1")).status == 400
    assert one(way.http().get("/v1/usage?customer=a%00b")).status == 400
    assert one(way.http().get("/v1/usage")).json["field"] == "customer"


def test_unknown_path_lists_the_paths_and_wrong_method_says_which_is_allowed(way) -> None:
    said = is_problem(one(way.http().get("/v1/chekc")), 404, "route_not_found")
    assert "/v1/check" in said["detail"]
    response = one(way.http().get("/v1/check"))
    is_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    response = one(way.http().post("/v1/status", {}))
    is_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET"
    for method in ("DELETE", "PUT", "PATCH", "OPTIONS", "TRACE"):
        response = one(way.http().feed(f"{method} /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()))
        is_problem(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "target", ["*", "//", "http://[", "a:443", "/%ff%fe", "/\x7f", "/" + "x" * 2_000, "http://localhost/nope"]
)
def test_strange_target_is_not_found_or_not_http_but_never_a_fault(way, target) -> None:
    for method in ("GET", "OPTIONS"):
        response = one(way.http().feed(f"{method} {target} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode("latin-1")))
        assert response.status in {400, 404}
        assert len(response.body) < 1_500


def test_answer_to_head_has_the_head_alone_so_that_the_next_answer_is_not_misread(way) -> None:
    http = way.http()
    said = http.feed(
        b"HEAD /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2 + b"HEAD /nope HTTP/1.1\r\nhost: localhost\r\n\r\n",
        heads=True,
    )
    assert [response.status for response in said] == [200, 200, 404]
    assert one(http.feed(GET_STATUS)).status == 200


def test_offer_of_another_protocol_is_ignored_and_the_request_answered_once(way) -> None:
    for offer in ("h2c", "websocket"):
        http = way.http()
        head = f"GET /v1/status HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: {offer}\r\n\r\n"
        response = one(http.feed(head.encode()))
        assert response.status == 200
        assert response.headers["connection"] == "close"
        assert http.door.finished


def test_connect_is_refused(way) -> None:
    http = way.http()
    assert one(http.feed(b"CONNECT example.org:443 HTTP/1.1\r\nhost: localhost\r\n\r\n")).status in {400, 404, 405}
    assert http.door.finished


@pytest.mark.parametrize(
    "noise",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00\x00\x00\x05hello", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
     b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET  HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n: x\r\n\r\n",
     b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"GET / HTTP/1.1\nhost: localhost\n\n"],
    ids=range(9),
)  # fmt: skip
def test_noise_gets_one_answer_in_http_and_the_connection_ends(way, noise) -> None:
    http = way.http()
    said = http.feed(noise)
    if said:
        is_problem(one(said), 400, "invalid_request")
        assert http.door.finished
    else:  # not yet wrong
        assert http.door.partial
    assert http.feed(b"x" * 100) == [] or http.door.finished


@pytest.mark.parametrize(
    "head",
    ["content-length: 2\r\ncontent-length: 3", "content-length: 2\r\ntransfer-encoding: chunked", "content-length: -1",
     "content-length: 1e3", "content-length: 99999999999999999999999", "transfer-encoding: gzip, chunked, x",
     "transfer-encoding: chunked\r\ntransfer-encoding: chunked"],
)  # fmt: skip
def test_contradicting_lengths_are_refused_so_that_nothing_is_smuggled(way, head) -> None:
    http = way.http()
    said = http.feed(f"POST /v1/check HTTP/1.1\r\nhost: localhost\r\n{head}\r\n\r\n".encode() + b"{}" + GET_STATUS)
    assert said[0].status == 400
    assert len(said) == 1
    assert http.door.finished


def test_content_length_that_says_too_little_leaves_the_rest_as_noise(way) -> None:
    http = way.http()
    said = http.feed(b'POST /v1/check HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{} "x": 1}')
    assert [response.status for response in said] == [400, 400]
    assert http.door.finished


def test_content_length_that_says_too_much_waits_as_unfinished(way) -> None:
    http = way.http()
    assert http.feed(b"POST /v1/check HTTP/1.1\r\nhost: localhost\r\ncontent-length: 200\r\n\r\n{}") == []
    assert http.door.partial


def test_body_beyond_the_bound_is_413_before_it_is_sent_or_kept(way) -> None:
    http = way.http()
    said = http.feed(
        f"POST /v1/check HTTP/1.1\r\nhost: localhost\r\ncontent-length: {BODY_BYTES_MAX + 1}\r\n\r\n".encode()
    )
    is_problem(one(said), 413, "body_too_large")
    assert http.door.finished
    assert http.feed(b"x" * READ_BYTES) == []
    http = way.http()
    said = http.feed(b"POST /v1/check HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(1 + BODY_BYTES_MAX // READ_BYTES):
        assert not said
        said = http.feed(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
    is_problem(one(said), 413, "body_too_large")
    assert http.door.finished


def test_body_at_the_bound_is_read(way) -> None:
    body = json.dumps({"call": CALL}).encode()
    http = way.http()
    assert one(http.post("/v1/check", body + b" " * (BODY_BYTES_MAX - len(body)))).status == 200


@pytest.mark.parametrize(
    "endless",
    [b"GET /", b"GET / HTTP/1.1\r\nx: ", b"GET / HTTP/1.1\r\n",
     b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\nGET / HTTP/1.1\r\nx: "],
)  # fmt: skip
def test_head_without_an_end_is_413_and_takes_no_memory(way, endless) -> None:
    http = way.http()
    said = [response for response in http.feed(endless) if response.status != 404]
    tracemalloc.start()
    fed = 0
    while not said and fed < 100 * READ_BYTES:
        said = http.feed(b"a" * READ_BYTES)
        fed += READ_BYTES
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    is_problem(one(said), 413, "head_too_large")
    assert peak < 1_000_000
    assert http.door.finished


def test_many_headers_are_413_and_a_head_at_the_bound_is_read(way) -> None:
    lines = b"".join(b"x-%d: %s\r\n" % (i, b"y" * 100) for i in range(HEAD_BYTES_MAX // 100))
    is_problem(one(way.http().feed(b"GET /healthz HTTP/1.1\r\n" + lines)), 413, "head_too_large")
    room = HEAD_BYTES_MAX - len(b"/healthz" + b"hostlocalhost" + b"x")
    head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * room + b"\r\n\r\n"
    assert one(way.http().feed(head)).status == 200
    dripped = way.http()
    said = [response for byte in head for response in dripped.feed(bytes([byte]))]
    assert one(said).status == 200


def test_trailers_are_bounded_like_headers(way) -> None:
    http = way.http()
    http.feed(b"POST /v1/check HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
    tracemalloc.start()
    said = []
    for _ in range(50):
        said = said or http.feed(b"x: " + b"y" * READ_BYTES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert one(said).status == 413
    assert peak < 1_000_000


def test_a_client_that_waits_for_a_word_before_its_body_gets_it_in_its_turn(way) -> None:
    http = way.http()
    body = json.dumps({"call": CALL}).encode()
    head = b"POST /v1/check HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(
        body
    )
    assert one(http.feed(head)).status == 100
    assert one(http.feed(body)).status == 200
    head = head.replace(b"content-length: %d" % len(body), b"content-length: %d" % (BODY_BYTES_MAX + 1))
    assert one(way.http().feed(head)).status == 413


def test_chunked_body_is_read(way) -> None:
    body = json.dumps({"call": CALL}).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, body[i : i + 1]) for i in range(len(body))) + b"0\r\n\r\n"
    http = way.http()
    assert (
        one(
            http.feed(b"POST /v1/check HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n" + chunks)
        ).status
        == 200
    )
    assert not http.door.finished


def test_web_page_can_use_the_loopback_port_neither_by_form_nor_by_a_rebound_name(way) -> None:
    body = {"call": CALL}
    for host in ("evil.example", "evil.example:8080", "", "127.0.0.1.evil.example", "localhost.evil.example", "[::2]"):
        is_problem(one(way.http(guarded=True).post("/v1/check", body, host=host)), 421, "host_unknown")
        is_problem(one(way.http(guarded=True).get("/v1/status", host=host)), 421, "host_unknown")
        is_problem(one(way.http(guarded=True).get("/readyz", host=host)), 421, "host_unknown")
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "application/jsonp",
    ):
        said = is_problem(
            one(way.http(guarded=True).post("/v1/check", body, kind=kind)), 415, "content_type_unsupported"
        )
        assert said["field"] == "content-type"
    for host in ("localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "[::1]"):
        guarded = way.http(guarded=True)
        assert one(guarded.post("/v1/check", body, host=host, kind="application/json; charset=utf-8")).status == 200
    assert one(way.http().post("/v1/check", body, host="agent", kind="text/plain")).status == 200


def test_old_http_without_a_host_is_answered_and_closed(way) -> None:
    http = way.http()
    assert one(http.feed(b"GET /healthz HTTP/1.0\r\n\r\n")).status == 200
    assert http.door.finished


def test_after_connection_close_nothing_more_is_read(way) -> None:
    http = way.http()
    said = http.feed(b"GET /v1/status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n" + GET_STATUS * 3)
    assert one(said).headers["connection"] == "close"
    assert http.door.finished
    assert http.feed(GET_STATUS) == []


def test_more_pipelined_requests_than_may_wait_are_answered_when_none_waits(way) -> None:
    assert len(way.http().feed(GET_STATUS * (3 * PIPELINED_MAX))) == 3 * PIPELINED_MAX


def test_too_many_requests_behind_one_that_waits_end_the_connection_in_order(way) -> None:
    http = way.http()
    first = {"event": "e", "call": CALL}
    assert http.post("/v1/record", first) == []
    assert http.feed(GET_STATUS * (PIPELINED_MAX + 5)) == []
    way.bench.commit()
    said = http.responses()
    assert [response.status for response in said] == [200] * PIPELINED_MAX + [503]
    assert said[0].json["event"] == "e"
    assert http.door.finished


def test_answers_leave_in_the_order_of_their_requests_however_long_one_waits(way) -> None:
    http = way.http()
    assert one(http.feed(GET_STATUS)).status == 200
    assert http.post("/v1/record", {"event": "e", "call": CALL}) == []
    assert http.get("/healthz") == []
    assert http.post("/v1/check", {"call": {**CALL, "feature": "nope"}}) == []
    way.bench.commit()
    assert [response.status for response in http.responses()] == [200, 200, 403]


def test_last_request_that_waits_is_answered_before_the_connection_ends(way) -> None:
    http = way.http()
    body = json.dumps({"event": "e", "call": CALL}).encode()
    head = b"POST /v1/record HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    assert http.feed(head + body) == []
    assert not http.door.finished
    way.bench.commit()
    assert one(http.responses()).headers["connection"] == "close"
    assert http.door.finished


REQUESTS = st.lists(
    st.sampled_from([
        GET_STATUS,
        b"GET /nope HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST /v1/check HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /v1/check HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n",
        b"DELETE /v1/status HTTP/1.1\r\nhost: a\r\n\r\n",
    ]),
    min_size=1,
    max_size=5,
)  # fmt: skip


@settings(SHARED, max_examples=80)
@given(requests=REQUESTS, data=st.data())
def test_any_chunking_gives_what_one_write_gives(open_way, requests, data) -> None:
    whole = b"".join(requests)
    at_once = [response.status for response in open_way.http().feed(whole)]
    assert len(at_once) == len(requests)
    cuts = data.draw(
        st.one_of(st.just(list(range(len(whole)))), st.lists(st.integers(0, len(whole)), max_size=6).map(sorted))
    )
    http = open_way.http()
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert [response.status for piece in pieces for response in http.feed(piece)] == at_once


PIECES = [GET_STATUS, b"\r\n", b"POST /v1/check HTTP/1.1\r\n", b"content-length: 5\r\n", b"\r\n\r\n", b"{}",
          b"host: a\r\n", b"transfer-encoding: chunked\r\n"]  # fmt: skip


@settings(SHARED, max_examples=300)
@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from(PIECES)), max_size=8))
def test_no_bytes_whatever_end_in_a_fault(open_way, chunks) -> None:
    http = open_way.http()
    for chunk in chunks:
        for response in http.feed(chunk):
            assert response.status < 500
