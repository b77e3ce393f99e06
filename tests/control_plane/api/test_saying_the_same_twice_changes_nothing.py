"""The catalog, customers and subscriptions: what each change does, and that repeating it does nothing."""

from __future__ import annotations

from typing import Any

from control_plane.store import changes
from control_plane.store.database import Database

LIMIT: dict[str, Any] = {"key": "daily", "meter": "requests", "amount": 10, "window": "day"}


def state(admin: Any, database: Database) -> tuple[object, ...]:
    audit = admin.get("/v1/audit-log?limit=1000")["items"]
    customers = admin.get("/v1/customers?limit=1000")["items"]
    return len(audit), customers, database.read(changes.bounds)


def put_twice(admin: Any, database: Database, path: str, body: object) -> Any:
    first = admin.put(path, body)
    before = state(admin, database)
    assert admin.put(path, body) == first
    assert state(admin, database) == before
    return first


def plan(admin: Any, name: str, amount: int) -> Any:
    return admin.put(f"/v1/plans/{name}", {"name": name, "limits": [{**LIMIT, "amount": amount}]})


def test_puts_are_idempotent(admin: Any, database: Database) -> None:
    put_twice(admin, database, "/v1/features/chat", {"name": "Chat", "kind": "metered"})
    put_twice(admin, database, "/v1/meters/images", {"unit": "images", "description": "made"})
    body = {"name": "Pro", "features": [{"feature": "chat"}], "limits": [LIMIT]}
    assert put_twice(admin, database, "/v1/plans/pro", body)["version"] == 1
    assert put_twice(admin, database, "/v1/customers/acme", {"name": "Acme"})["version"] == 1
    put_twice(admin, database, "/v1/customers/acme/subscription", {"plan": "pro"})
    admin.delete("/v1/customers/acme/subscription")
    before = state(admin, database)
    admin.delete("/v1/customers/acme/subscription")
    assert state(admin, database) == before
    admin.delete("/v1/customers/acme")
    before = state(admin, database)
    admin.delete("/v1/customers/acme")
    assert state(admin, database) == before


def test_an_answer_can_be_sent_back_as_it_came(admin: Any, database: Database) -> None:
    admin.put("/v1/features/model", {"name": "Model", "kind": "static"})
    body = {"name": "Pro", "features": [{"feature": "model", "value": "large"}], "limits": [LIMIT]}
    published = admin.put("/v1/plans/pro", body)
    again = {key: published[key] for key in ("name", "features", "limits", "rates")}
    assert put_twice(admin, database, "/v1/plans/pro", again)["version"] == 1


def test_publishing_makes_a_version_and_moves_no_subscriber(admin: Any) -> None:
    plan(admin, "pro", 10)
    admin.put("/v1/customers/acme", {"name": "Acme"})
    admin.put("/v1/customers/acme/subscription", {"plan": "pro"})
    before = admin.get("/v1/customers/acme/entitlement")
    assert plan(admin, "pro", 20)["version"] == 2
    assert admin.get("/v1/customers/acme/entitlement") == before
    assert admin.get("/v1/plans/pro?version=1")["limits"][0]["amount"] == 10
    assert admin.get("/v1/plans/pro")["limits"][0]["amount"] == 20
    assert [item["version"] for item in admin.get("/v1/plans")["items"]] == [2]
    admin.put("/v1/customers/acme/subscription", {"plan": "pro", "status": "paused"})
    assert admin.get("/v1/customers/acme/entitlement")["plan"] == "pro@1"
    admin.put("/v1/customers/acme/subscription", {"plan": "pro", "version": 2, "status": "active"})
    after = admin.get("/v1/customers/acme/entitlement")
    assert (after["plan"], after["status"], after["limits"][0]["amount"]) == ("pro@2", "active", 20)


def test_every_change_of_what_a_customer_may_use_raises_its_version_and_tells_the_agents(
    admin: Any, database: Database
) -> None:
    plan(admin, "free", 1)
    plan(admin, "pro", 10)
    admin.put("/v1/customers/acme", {"name": "Acme"})
    steps = [
        ("PUT", "/subscription", {"plan": "free"}, "active"),
        ("PUT", "/subscription", {"plan": "pro"}, "active"),
        ("PUT", "/subscription", {"plan": "pro", "status": "paused"}, "paused"),
        ("PUT", "/subscription", {"plan": "pro", "status": "active"}, "active"),
        ("DELETE", "/subscription", None, "cancelled"),
        ("DELETE", "", None, "archived"),
        ("PUT", "", {"name": "Acme"}, "cancelled"),
        ("PUT", "/subscription", {"plan": "pro"}, "active"),
    ]
    for number, (method, path, body, status) in enumerate(steps, start=2):
        cursor = database.read(changes.bounds).newest
        assert admin(method, f"/v1/customers/acme{path}", json=body).status_code == 200
        entitlement = admin.get("/v1/customers/acme/entitlement")
        assert (entitlement["version"], entitlement["status"]) == (number, status)
        rows = database.read(lambda connection, cursor=cursor: changes.after(connection, cursor, 10))
        assert [(row.customer, row.kind) for row in rows] == [("acme", "entitlement")]


def test_a_new_name_is_no_new_entitlement(admin: Any) -> None:
    admin.put("/v1/customers/acme", {"name": "Acme"})
    assert admin.put("/v1/customers/acme", {"name": "Acme Inc."})["version"] == 1


def test_the_billing_anchor_is_set_once(admin: Any, clock: Any) -> None:
    plan(admin, "pro", 10)
    admin.put("/v1/customers/acme", {"name": "Acme"})
    anchor = admin.put("/v1/customers/acme/subscription", {"plan": "pro"})["anchor"]
    clock.advance(86_400_000)
    cancelled = admin.delete("/v1/customers/acme/subscription")
    again = admin.put("/v1/customers/acme/subscription", {"plan": "pro"})
    assert (cancelled["anchor"], again["anchor"]) == (anchor, anchor)
    assert again["started_at"] != anchor


def test_what_was_counted_in_can_not_be_redefined(admin: Any) -> None:
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    admin.put("/v1/meters/images", {"unit": "images"})
    assert admin("PUT", "/v1/features/chat", json={"name": "Chat", "kind": "boolean"}).status_code == 409
    assert admin("PUT", "/v1/meters/images", json={"unit": "pixels"}).status_code == 409
    assert admin("PUT", "/v1/meters/requests", json={"unit": "calls"}).json()["code"] == "meter_built_in"
    assert admin.put("/v1/features/chat", {"name": "Talk", "kind": "metered"})["name"] == "Talk"
    assert admin.get("/v1/meters/requests")["built_in"]


MISSING: list[tuple[str, str, object, str]] = [
    ("GET", "features/nope", None, "feature_not_found"),
    ("GET", "meters/nope", None, "meter_not_found"),
    ("GET", "plans/nope", None, "plan_not_found"),
    ("GET", "plans/pro?version=9", None, "plan_not_found"),
    ("GET", "customers/nope", None, "customer_not_found"),
    ("DELETE", "customers/nope", None, "customer_not_found"),
    ("GET", "customers/nope/entitlement", None, "customer_not_found"),
    ("GET", "customers/nope/balances", None, "customer_not_found"),
    ("GET", "customers/nope/usage", None, "customer_not_found"),
    ("GET", "customers/nope/events", None, "customer_not_found"),
    ("GET", "customers/nope/leases", None, "customer_not_found"),
    ("PUT", "customers/nope/subscription", {"plan": "pro"}, "customer_not_found"),
    ("GET", "customers/acme/subscription", None, "subscription_not_found"),
    ("DELETE", "customers/acme/subscription", None, "subscription_not_found"),
    ("PUT", "customers/acme/subscription", {"plan": "nope"}, "plan_not_found"),
    ("PUT", "customers/acme/subscription", {"plan": "pro", "version": 9}, "plan_version_not_found"),
    ("DELETE", "agents/nope", None, "agent_not_found"),
    ("DELETE", "tokens/0123456789ab", None, "token_not_found"),
]


def test_what_does_not_exist_is_named(admin: Any) -> None:
    plan(admin, "pro", 10)
    admin.put("/v1/customers/acme", {"name": "Acme"})
    for method, path, body, code in MISSING:
        response = admin(method, f"/v1/{path}", json=body)
        assert (response.status_code, response.json()["code"]) == (404, code), path


def test_an_archived_customer_can_not_subscribe(admin: Any) -> None:
    plan(admin, "pro", 10)
    admin.put("/v1/customers/acme", {"name": "Acme"})
    admin.delete("/v1/customers/acme")
    response = admin("PUT", "/v1/customers/acme/subscription", json={"plan": "pro"})
    assert (response.status_code, response.json()["code"]) == (409, "customer_archived")


def test_a_refused_plan_names_the_limit(admin: Any) -> None:
    response = admin(
        "PUT", "/v1/plans/pro", json={"name": "Pro", "limits": [LIMIT, {**LIMIT, "key": "b", "meter": "tokns"}]}
    )
    assert (response.status_code, response.json()["field"]) == (400, "limits[1].meter")


def test_lists_come_in_pages_and_leave_nothing_out(admin: Any) -> None:
    names = [f"c{number:02}" for number in range(7)]
    for name in names:
        admin.put(f"/v1/customers/{name}", {"name": name})
    seen: list[str] = []
    path = "/v1/customers?limit=3"
    sizes = []
    while path:
        answer = admin.get(path)
        sizes.append(len(answer["items"]))
        seen += [item["customer"] for item in answer["items"]]
        path = answer["next_cursor"] and f"/v1/customers?limit=3&cursor={answer['next_cursor']}"
    assert (seen, sizes) == (names, [3, 3, 1])
    audit = admin.get("/v1/audit-log?limit=2")
    older = admin.get(f"/v1/audit-log?limit=2&cursor={audit['next_cursor']}")
    assert [item["target"] for item in audit["items"] + older["items"]] == names[:-5:-1]


def test_meters_list_the_built_in_ones_in_their_place(admin: Any) -> None:
    for name in ("audio", "zebras", "noise"):
        admin.put(f"/v1/meters/{name}", {"unit": name})
    every = ["audio", "input_tokens", "noise", "output_tokens", "requests", "zebras"]
    seen: list[str] = []
    cursor = ""
    for _ in range(3):
        answer = admin.get(f"/v1/meters?limit=2{cursor}")
        seen += [item["meter"] for item in answer["items"]]
        cursor = f"&cursor={answer['next_cursor']}"
    assert seen == every
    assert answer["next_cursor"] is None


def test_the_audit_log_says_who_did_what(admin: Any, support: Any) -> None:
    admin.put("/v1/customers/acme", {"name": "Acme"})
    admin.put("/v1/customers/other", {"name": "Other"})
    items = support.get("/v1/audit-log?customer=acme")["items"]
    assert [(item["actor"], item["action"], item["body"]) for item in items] == [
        (admin.token.split("_")[2], "customer.put", {"name": "Acme"})
    ]
