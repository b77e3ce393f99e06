"""An agent borrows and spends over its door; people see it in balances, leases, events and usage."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from protocol.codec import encode_msgpack
from protocol.events import Charge, EventBatch, Subject, UsageEvent
from protocol.leases import LeaseReport
from protocol.uplink_messages import ENROLL_PATH, MSGPACK, SYNC_PATH, CustomerSync, FirstCall, SyncReply, SyncRequest


def test_lent_spent_and_returned(admin: Any, client: Any, tokens: Any, clock: Any) -> None:
    limit = {"key": "daily", "meter": "requests", "amount": 1000, "window": "day"}
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    admin.put("/v1/plans/pro", {"name": "Pro", "features": [{"feature": "chat"}], "limits": [limit]})
    admin.put("/v1/customers/acme", {"name": "Acme"})
    admin.put("/v1/customers/acme/subscription", {"plan": "pro"})
    joined = client.post(ENROLL_PATH, json={"join_token": tokens.join, "name": "host-7"}).json()

    def sync(request: SyncRequest) -> SyncReply:
        answer = client.post(
            SYNC_PATH,
            content=encode_msgpack(request),
            headers={"Authorization": f"Bearer {joined['token']}", "Content-Type": MSGPACK},
        )
        assert answer.status_code == 200, answer.text
        return msgspec.msgpack.decode(answer.content, type=SyncReply)

    def balance() -> tuple[int, int, int, int]:
        item = admin.get("/v1/customers/acme/balances")["items"][0]
        return item["used"], item["in_flight"], item["lent"], item["remaining"]

    call = FirstCall("first", "chat", Subject(user="u7"), {"requests": 1})
    ask = CustomerSync("acme", first_calls=(call,))
    reply = sync(SyncRequest("journal-1", 1, "nonce-1", (ask,), snapshot=True))
    (grant,) = reply.grants
    assert reply.entitlements[0].plan == "pro@1"
    assert balance() == (0, 0, grant.amount, 1000)

    event = UsageEvent(
        "call-1",
        "acme",
        "chat",
        clock.now_ms(),
        {"requests": 1},
        subject=Subject(user="u7"),
        model="gpt-x",
        charges=(Charge(grant.lease, 1),),
    )
    body = encode_msgpack([event])
    batch = EventBatch(boot=1, first=1, count=1, crc32=zlib.crc32(body), body=body)
    report = LeaseReport(grant.lease, cap=grant.amount, settled=1, in_flight=2)
    reply = sync(SyncRequest("journal-1", 1, "nonce-1", leases=(report,), batches=(batch,)))
    assert [(mark.boot, mark.seq) for mark in reply.high_water] == [(1, 1)]
    assert balance() == (1, 2, grant.amount - 3, 997)

    sync(SyncRequest("journal-1", 1, "nonce-1", leases=(LeaseReport(grant.lease, grant.amount, 1, closed=True),)))
    assert balance() == (1, 0, 0, 999)
    usage = admin.get("/v1/customers/acme/usage?group_by=meter,feature,model,user")["items"]
    expected = {"quantity": 1, "events": 1, "meter": "requests", "feature": "chat", "model": "gpt-x", "user": "u7"}
    assert usage == [expected]
    (seen,) = admin.get("/v1/customers/acme/events")["items"]
    assert (seen["event"], seen["usage"]["charges"]) == ("call-1", [[grant.lease, 1, False]])
    (lease,) = admin.get("/v1/customers/acme/leases")["items"]
    assert (lease["status"], lease["agent"]) == ("closed", joined["agent"])
    named = {item["agent"]: item for item in admin.get("/v1/agents")["items"]}
    assert named[joined["agent"]]["name"] == "host-7"
    assert named[joined["agent"]]["last_seen_at"] is not None
