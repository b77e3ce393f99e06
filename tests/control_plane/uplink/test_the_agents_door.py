"""What agents say over HTTP: enrolment, sync and watch, and everything that is not one of these."""

from __future__ import annotations

import time
from typing import Any

import httpx
import msgspec
import pytest

from protocol.codec import encode_msgpack
from protocol.uplink_messages import (
    ENROLL_PATH,
    SYNC_BYTES_MAX,
    SYNC_PATH,
    WATCH_PATH,
    CustomerSync,
    SyncReply,
    SyncRequest,
    WatchReply,
)

MSGPACK = {"Content-Type": "application/msgpack"}
HELLO = SyncRequest("journal-1", 1, "nonce-1", snapshot=True)


@pytest.fixture
def send(client: Any, tokens: Any) -> Any:
    def call(body: bytes, token: str | None = None, **headers: str) -> httpx.Response:
        said = {**MSGPACK, "Authorization": f"Bearer {token or tokens.agent}", **headers}
        answer: httpx.Response = client.post(SYNC_PATH, content=body, headers=said)
        return answer

    return call


def problem(answer: httpx.Response) -> tuple[int, str, str | None]:
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    return answer.status_code, said["code"], said["field"]


def test_a_join_token_buys_an_identity_that_syncs(client: Any, tokens: Any, send: Any, admin: Any) -> None:
    joined = client.post(ENROLL_PATH, json={"join_token": tokens.join, "name": "host-7"})
    assert joined.status_code == 201
    answer = send(encode_msgpack(HELLO), joined.json()["token"])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/msgpack"
    said = msgspec.msgpack.decode(answer.content, type=SyncReply)
    assert said == SyncReply(generation=said.generation)
    assert said.generation.startswith("1-")
    names = {item["name"] for item in admin.get("/v1/agents")["items"]}
    assert "host-7" in names


def test_a_join_token_is_good_for_as_many_agents_as_it_was_made_for(client: Any, admin: Any) -> None:
    made = admin.post("/v1/tokens", {"role": "join", "name": "one", "uses": 1})
    token = next(value for value in made.values() if isinstance(value, str) and value.startswith("alt_join_"))
    statuses = [client.post(ENROLL_PATH, json={"join_token": token, "name": "host"}).status_code for _ in range(2)]
    assert statuses == [201, 401]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91" * 5_000,
        b"{}",
        msgspec.msgpack.encode([]),
        msgspec.msgpack.encode({"journal": "j", "boot": 0, "nonce": "n"}),
        msgspec.msgpack.encode({"journal": "j", "boot": True, "nonce": "n"}),
        msgspec.msgpack.encode({"journal": "j\x00", "boot": 1, "nonce": "n"}),
        msgspec.msgpack.encode({"journal": "j", "boot": 2**40, "nonce": "n", "snapshot": True}),
        msgspec.msgpack.encode({"journal": "j", "boot": 1, "nonce": "n", "unknown": 1}),
    ],
)
def test_garbage_is_a_bad_request(send: Any, body: bytes) -> None:
    assert problem(send(body))[0] == 400


def test_numbers_from_the_future_are_refused(send: Any) -> None:
    batch = {"boot": 2, "first": 1, "count": 1, "crc32": 0, "body": b""}
    body = {"journal": "j", "boot": 1, "nonce": "n", "snapshot": True, "batches": [batch]}
    assert problem(send(msgspec.msgpack.encode(body))) == (400, "invalid_request", "batches[0].boot")


@pytest.mark.parametrize("scope_value", ["\x00", "a b", "\ud800".encode("utf-8", "replace").decode(), "é"])
def test_odd_scope_values_and_counters_are_denied_and_stored_nowhere(send: Any, world: Any, scope_value: str) -> None:
    limit = world.limit()
    world.customer("acme", limit)
    asks = [
        {"lease": f"l{at}", "counter": counter, "scope_value": scope_value, "need": 1}
        for at, counter in enumerate([limit.counter, "\x00", "a/b", "*/requests/never/customer"])
    ]
    body = {**msgspec.to_builtins(HELLO), "customers": [{"customer": "acme", "asks": asks}]}
    answer = send(msgspec.msgpack.encode(body))
    assert answer.status_code == 200
    reply = msgspec.msgpack.decode(answer.content, type=SyncReply)
    assert len(reply.denials) == 4
    assert not reply.grants


def test_too_large_a_body_is_refused(send: Any) -> None:
    assert send(b"\x00" * (SYNC_BYTES_MAX + 1)).status_code == 413


def test_another_content_type_is_refused(send: Any) -> None:
    assert problem(send(encode_msgpack(HELLO), **{"Content-Type": "text/plain"}))[0] == 415


def test_a_start_must_introduce_itself_and_a_copy_is_told_so(send: Any) -> None:
    assert problem(send(encode_msgpack(SyncRequest("j", 1, "n")))) == (400, "snapshot_required", "snapshot")
    assert send(encode_msgpack(HELLO)).status_code == 200
    copy = msgspec.structs.replace(HELLO, nonce="another")
    assert problem(send(encode_msgpack(copy)))[:2] == (409, "journal_quarantined")


def test_an_earlier_start_that_is_still_alive_is_heard_and_then_stopped(send: Any, world: Any) -> None:
    assert send(encode_msgpack(HELLO)).status_code == 200
    newer = msgspec.structs.replace(HELLO, boot=HELLO.boot + 1, nonce="newer")
    assert send(encode_msgpack(newer)).status_code == 200
    older = msgspec.structs.replace(HELLO, snapshot=False)
    assert problem(send(encode_msgpack(older)))[:2] == (409, "journal_quarantined")
    assert send(encode_msgpack(msgspec.structs.replace(newer, snapshot=False))).status_code == 200


def test_other_roles_may_not_sync(send: Any, tokens: Any) -> None:
    for token in (tokens.admin, tokens.support, tokens.join):
        assert send(encode_msgpack(HELLO), token).status_code in {401, 403}


def test_a_revoked_agent_is_turned_away(send: Any, admin: Any) -> None:
    assert send(encode_msgpack(HELLO)).status_code == 200
    admin.delete("/v1/agents/agent-1")
    assert send(encode_msgpack(HELLO)).status_code == 401


def test_a_first_watch_is_answered_at_once_and_later_ones_when_something_changes(
    client: Any, tokens: Any, world: Any
) -> None:
    headers = {"Authorization": f"Bearer {tokens.agent}"}

    def watch(cursor: int, wait_ms: int) -> WatchReply:
        answer = client.get(WATCH_PATH, params={"cursor": cursor, "wait_ms": wait_ms}, headers=headers)
        assert answer.status_code == 200, answer.text
        return msgspec.msgpack.decode(answer.content, type=WatchReply)

    first = watch(-1, 50_000)
    assert not first.reset
    assert watch(first.cursor, 10) == first
    world.customer("acme", world.limit())
    begun = time.monotonic()
    news = watch(first.cursor, 10_000)
    assert news.customers == ("acme",)
    assert time.monotonic() - begun < 5
    assert watch(news.cursor + 1_000_000, 0).reset


@pytest.mark.parametrize(
    "query", ["cursor=-2", "cursor=x", "cursor=1&wait_ms=60000", "", "cursor=99999999999999999999"]
)
def test_a_watch_with_odd_parameters_is_a_bad_request(client: Any, tokens: Any, query: str) -> None:
    answer = client.get(f"{WATCH_PATH}?{query}", headers={"Authorization": f"Bearer {tokens.agent}"})
    assert problem(answer)[0] == 400


def test_a_sync_names_unknown_customers(send: Any) -> None:
    said = msgspec.structs.replace(HELLO, customers=(CustomerSync("nobody"),))
    reply = msgspec.msgpack.decode(send(encode_msgpack(said)).content, type=SyncReply)
    assert reply.unknown_customers == ("nobody",)
