"""Balances, usage, events and leases show what the tables hold."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from sqlalchemy import insert

from control_plane.store.database import Connection, Database
from control_plane.store.tables import allowances, event_conflicts, events, leases, rollups
from protocol.codec import encode_msgpack
from protocol.events import UsageEvent
from protocol.windows import WindowKind, window_at

HOUR_MS = 3_600_000
LIMITS: list[dict[str, Any]] = [
    {"key": "daily", "meter": "requests", "amount": 100, "window": "day", "at_end": "overage", "overage_max": 20},
    {"key": "each", "meter": "requests", "amount": 5, "window": "day", "scope": "user"},
    {"key": "all", "meter": "input_tokens", "amount": None, "window": "lifetime"},
    {"key": "call", "meter": "input_tokens", "amount": 1000, "window": "request"},
]


@pytest.fixture
def acme(admin: Any) -> Any:
    admin.put("/v1/plans/pro", {"name": "Pro", "limits": LIMITS})
    admin.put("/v1/customers/acme", {"name": "Acme"})
    admin.put("/v1/customers/acme/subscription", {"plan": "pro"})
    return admin


def add_allowance(connection: Connection, counter: str, scope_value: str, now_ms: int, **sums: int) -> None:
    window = window_at(WindowKind.DAY if "/day/" in counter else WindowKind.LIFETIME, now_ms)
    row = {"posted": 0, "direct": 0, "outstanding": 0, "recalled_at_ms": 0, **sums}
    connection.execute(
        insert(allowances).values(
            customer="acme",
            counter=counter,
            scope_value=scope_value,
            window_start_ms=window.start_ms,
            window_end_ms=window.end_ms,
            **row,
        )
    )


def add_lease(connection: Connection, lease: str, counter: str, now_ms: int, **numbers: Any) -> None:
    row = {
        "customer": "acme",
        "lease": lease,
        "counter": counter,
        "scope_value": "",
        "window_start_ms": window_at(WindowKind.DAY, now_ms).start_ms,
        "agent": "agent-1",
        "journal": "j",
        "boot": 1,
        "granted": 30,
        "cap": 30,
        "settled": 0,
        "in_flight": 0,
        "unreported": 0,
        "overage": 0,
        "central": False,
        "status": "open",
        "keep": 0,
        "ttl_ms": 60_000,
        "granted_at_ms": now_ms,
        "renewed_at_ms": now_ms,
        "closed_at_ms": None,
        **numbers,
    }
    connection.execute(insert(leases).values(**row))


def test_a_limit_nobody_has_touched_shows_nothing_used(acme: Any) -> None:
    items = {item["limit"]: item for item in acme.get("/v1/customers/acme/balances")["items"]}
    assert set(items) == {"daily", "all", "call"}  # per-user limits show users that used something
    daily = items["daily"]
    assert (daily["used"], daily["remaining"], daily["amount"], daily["ceiling"]) == (0, 100, 100, 120)
    assert (daily["window_start"], daily["window_end"]) == ("2026-09-21T00:00:00Z", "2026-09-22T00:00:00Z")
    assert (items["all"]["unlimited"], items["all"]["remaining"]) == (True, None)
    assert (items["call"]["window_start"], items["call"]["remaining"]) == (None, 1000)


def test_used_is_what_is_charged_and_what_open_leases_settled(acme: Any, database: Database, clock: Any) -> None:
    counter = "*/requests/day/customer"

    def work(connection: Connection) -> None:
        add_allowance(connection, counter, "", clock.now_ms(), posted=40, direct=2, outstanding=60)
        add_lease(connection, "a", counter, clock.now_ms(), settled=7, in_flight=3, unreported=1)
        add_lease(connection, "b", counter, clock.now_ms(), settled=1, status="limbo")
        add_lease(connection, "c", counter, clock.now_ms(), settled=20, status="closed")

    database.run(work)
    daily = acme.get("/v1/customers/acme/balances")["items"][0]
    assert (daily["used"], daily["in_flight"], daily["lent"]) == (51, 3, 48)
    assert daily["remaining"] == 100 - 51 - 3
    items = acme.get("/v1/customers/acme/leases")["items"]
    assert [(item["lease"], item["status"]) for item in items] == [("a", "open"), ("b", "limbo"), ("c", "closed")]
    assert [item["lease"] for item in acme.get("/v1/customers/acme/leases?status=limbo")["items"]] == ["b"]


def test_remaining_is_never_negative_and_yesterday_is_another_window(acme: Any, database: Database, clock: Any) -> None:
    counter = "*/requests/day/customer"
    database.run(lambda connection: add_allowance(connection, counter, "", clock.now_ms(), posted=115))
    assert acme.get("/v1/customers/acme/balances")["items"][0]["remaining"] == 0
    clock.advance(24 * HOUR_MS)
    assert acme.get("/v1/customers/acme/balances")["items"][0]["used"] == 0


def test_limits_per_user_come_in_pages_and_one_user_can_be_asked_for(acme: Any, database: Database, clock: Any) -> None:
    def work(connection: Connection) -> None:
        for number in range(5):
            add_allowance(connection, "*/requests/day/user", f"u{number}", clock.now_ms(), direct=number)

    database.run(work)
    seen: list[tuple[str, str]] = []
    cursor = ""
    for _ in range(4):
        answer = acme.get(f"/v1/customers/acme/balances?limit=2{cursor}")
        seen += [(item["limit"], item["scope_value"]) for item in answer["items"]]
        cursor = f"&cursor={answer['next_cursor']}"
    assert answer["next_cursor"] is None
    assert seen == [("daily", ""), *(("each", f"u{number}") for number in range(5)), ("all", ""), ("call", "")]
    for user, used in (("u3", 3), ("nobody", 0)):
        items = acme.get(f"/v1/customers/acme/balances?user={user}")["items"]
        assert [(i["scope_value"], i["used"]) for i in items if i["limit"] == "each"] == [(user, used)]


def add_rollups(connection: Connection, start_ms: int) -> None:
    for hour in range(30):
        for meter, quantity in (("requests", 1), ("input_tokens", 100)):
            for dimension, value, calls in (("", "", 2), ("user", "u1", 1), ("tag:team", "red", 2)):
                connection.execute(
                    insert(rollups).values(
                        customer="acme",
                        dimension=dimension,
                        value=value,
                        hour_ms=start_ms + hour * HOUR_MS,
                        meter=meter,
                        feature="chat",
                        model="m",
                        quantity=quantity * calls,
                        events=calls,
                    )
                )


def test_usage_adds_up_by_what_is_asked(acme: Any, database: Database) -> None:
    start_ms = 1_789_948_800_000  # 2026-09-21T00:00:00Z
    database.run(lambda connection: add_rollups(connection, start_ms))
    whole = "from=2026-09-21T00:00:00Z&to=2026-09-22T06:00:00Z"
    usage = acme.get(f"/v1/customers/acme/usage?{whole}")
    assert usage["items"] == [
        {"quantity": 6000, "events": 60, "meter": "input_tokens"},
        {"quantity": 60, "events": 60, "meter": "requests"},
    ]
    days = acme.get(f"/v1/customers/acme/usage?{whole}&group_by=day,meter")["items"]
    assert [(item["day"], item["quantity"]) for item in days if item["meter"] == "requests"] == [
        ("2026-09-21T00:00:00Z", 48),
        ("2026-09-22T00:00:00Z", 12),
    ]
    users = acme.get(f"/v1/customers/acme/usage?{whole}&group_by=meter,user,model,feature")["items"]
    assert {item["user"]: item["quantity"] for item in users if item["meter"] == "requests"} == {"": 30, "u1": 30}
    one = acme.get(f"/v1/customers/acme/usage?{whole}&user=u1")["items"]
    assert one[1] == {"quantity": 30, "events": 30, "meter": "requests"}
    teams = acme.get(f"/v1/customers/acme/usage?{whole}&group_by=tag:team,meter")["items"]
    assert teams[1] == {"quantity": 60, "events": 60, "meter": "requests", "tag": "red"}
    assert acme.get(f"/v1/customers/acme/usage?{whole}&tag=team:blue")["items"] == []
    part = "from=2026-09-21T01:30:00Z&to=2026-09-21T02:10:00Z&group_by=hour,meter"
    hours = acme.get(f"/v1/customers/acme/usage?{part}&user=u1")  # of subjects sums are kept by the hour
    assert (hours["from"], hours["to"]) == ("2026-09-21T01:00:00Z", "2026-09-21T03:00:00Z")
    assert len(hours["items"]) == 4
    month = acme.get("/v1/customers/acme/usage")
    assert (month["from"], month["to"]) == ("2026-08-22T15:00:00Z", "2026-09-21T15:00:00Z")
    assert month["items"][1]["quantity"] == 30


WRONG_QUESTIONS = [
    ("from=yesterday", "from"),
    ("to=2026-09-21T00:00:00", "to"),
    ("from=2026-09-22T00:00:00Z&to=2026-09-21T00:00:00Z", "from"),
    ("group_by=planet", "group_by"),
    ("group_by=meter,meter", "group_by"),
    ("group_by=user,workspace", "group_by"),
    ("group_by=user&workspace=w", "group_by"),
    ("group_by=tag:", "group_by"),
    ("tag=team", "tag"),
    ("group_by=tag:NAME", "group_by"),
    ("window=month&from=2026-09-21T00:00:00Z", "window"),
    ("offset=-1", "offset"),
    ("window=hour&offset=1", "offset"),
    ("window=month&offset=-1000", "offset"),
    ("window=fortnight", "window"),
    ("zone=Europe/Berlin", "zone"),
    ("grain=day&zone=Europe/Atlantis", "zone"),
    ("grain=day&zone=../etc/passwd", "zone"),
    ("grain=day&zone=Asia/Kolkata&user=u1", "zone"),
    ("grain=minute&user=u1", "grain"),
    ("grain=month&from=1970-01-01T00:00:00Z&zone=Asia/Kolkata", "from"),
    ("cursor=WzEsMl0", "cursor"),
]


def test_a_wrong_question_names_the_parameter(acme: Any) -> None:
    for query, field in WRONG_QUESTIONS:
        response = acme("GET", f"/v1/customers/acme/usage?{query}")
        assert (response.status_code, response.json()["field"]) == (400, field)


def add_event(connection: Connection, name: str, seq: int, at_ms: int) -> None:
    usage = UsageEvent(name, "acme", "chat", at_ms, {"requests": 1})
    connection.execute(
        insert(events).values(
            customer="acme",
            event=name,
            journal="j",
            boot=1,
            seq=seq,
            agent="agent-1",
            feature="chat",
            at_ms=at_ms,
            received_at_ms=at_ms,
            digest=b"\0" * 32,
            body=encode_msgpack(usage),
        )
    )


def test_events_come_newest_first_and_pages_split_equal_instants(acme: Any, database: Database, clock: Any) -> None:
    def work(connection: Connection) -> None:
        for seq, (name, age_ms) in enumerate([("a", 2), ("b", 1), ("c", 1), ("d", 1), ("e", 0)], start=1):
            add_event(connection, name, seq, clock.now_ms() - age_ms)

    database.run(work)
    seen: list[str] = []
    cursor = ""
    for _ in range(3):
        answer = acme.get(f"/v1/customers/acme/events?limit=2{cursor}")
        seen += [item["event"] for item in answer["items"]]
        cursor = f"&cursor={answer['next_cursor']}"
    assert seen == ["e", "d", "c", "b", "a"]
    assert answer["items"][0]["usage"]["amounts"] == {"requests": 1}


def test_events_that_were_not_accepted_are_shown_whole(acme: Any, database: Database, clock: Any) -> None:
    usage = UsageEvent("e", "ghost", "chat", clock.now_ms(), {"requests": 1})
    bodies = [("ghost", encode_msgpack(usage)), ("", b"\xc1garbage")]

    def work(connection: Connection) -> None:
        for seq, (customer, body) in enumerate(bodies):
            connection.execute(
                insert(event_conflicts).values(
                    customer=customer,
                    event="",
                    agent="agent-1",
                    journal="j",
                    boot=1,
                    seq=seq,
                    code="unknown_customer",
                    body=body,
                    received_at_ms=clock.now_ms(),
                )
            )

    database.run(work)
    garbage, ghost = acme.get("/v1/event-conflicts")["items"]
    assert (garbage["usage"], garbage["raw"]) == (None, "wWdhcmJhZ2U=")
    assert (ghost["raw"], msgspec.convert(ghost["usage"], UsageEvent)) == (None, usage)
    assert [item["customer"] for item in acme.get("/v1/event-conflicts?customer=ghost")["items"]] == ["ghost"]


def test_a_revoked_agent_is_shown_and_its_token_is_dead(admin: Any, client: Any, tokens: Any) -> None:
    ask = {"Authorization": f"Bearer {tokens.agent}"}
    assert client.get("/v1/plans", headers=ask).status_code == 403
    revoked = admin.delete("/v1/agents/agent-1")
    assert revoked["revoked_at"] is not None
    assert admin.delete("/v1/agents/agent-1") == revoked
    assert client.get("/v1/plans", headers=ask).status_code == 401
    assert admin.get("/v1/agents")["items"] == [revoked]
