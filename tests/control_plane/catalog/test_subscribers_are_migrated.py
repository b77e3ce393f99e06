"""Subscribers are moved to a newer version of their plan or add-on: looked at first, page by page, each once."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.operations import migrate_plan
from control_plane.operations.author import Author
from control_plane.operations.enter_corrections import enter_corrections
from protocol.events import Subject, UsageEvent

DAY = {"key": "day", "meter": "requests", "amount": 10, "window": "day"}


def publish(admin: Any, amount: int, kind: str = "plans", key: str = "pro", **more: Any) -> None:
    admin.put(
        f"/v1/{kind}/{key}",
        {"name": key, "features": [{"feature": "chat"}], "limits": [{**DAY, "amount": amount, **more}]},
    )


def subscribe(admin: Any, customer: str, **order: Any) -> None:
    admin.put(f"/v1/customers/{customer}", {"name": customer})
    admin.put(f"/v1/customers/{customer}/subscription", {"plan": "pro", **order})


def migrate(admin: Any, **order: Any) -> Any:
    return admin.post("/v1/plans/pro/migrations", {"migration": "autumn", "to": 2, **order})


def have(admin: Any, customer: str) -> str:
    return str(admin.get(f"/v1/customers/{customer}/entitlement")["plan"])


@pytest.fixture
def fleet(admin: Any) -> None:
    """Five customers on version 1, and one that has cancelled; version 2 allows less."""
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    publish(admin, 10)
    for name in ("a", "b", "c", "d", "e", "gone"):
        subscribe(admin, name)
    admin.delete("/v1/customers/gone/subscription")
    publish(admin, 4)
    subscribe(admin, "new")


def use(database: Any, clock: Any, customer: str, calls: int, user: str | None = None) -> None:
    author = Author("test", clock.now_ms())
    events = [
        UsageEvent(f"{customer}-{at}", customer, "chat", clock.now_ms(), {"requests": 1}, Subject(user))
        for at in range(calls)
    ]
    database.run(lambda connection: enter_corrections(connection, "test", events, author))


def test_a_preview_says_who_and_whose_limits_fall_below_their_use(
    admin: Any, fleet: None, database: Any, clock: Any
) -> None:
    use(database, clock, "b", 6)
    use(database, clock, "c", 4)
    before = admin.get("/v1/audit-log")
    seen = migrate(admin, dry_run=True)
    assert seen["moved"] == ["a", "b", "c", "d", "e"]
    assert seen["below"] == [{"customer": "b", "limit": "day", "scope_value": "", "used": 6, "before": 10, "after": 4}]
    assert admin.get("/v1/audit-log") == before
    assert {have(admin, name) for name in "abcde"} == {"pro@1"}


def test_all_are_moved_once_and_their_usage_counts_on(admin: Any, fleet: None, database: Any, clock: Any) -> None:
    use(database, clock, "a", 3)
    assert migrate(admin)["moved"] == ["a", "b", "c", "d", "e"]
    assert {have(admin, name) for name in ("a", "b", "c", "d", "e", "new")} == {"pro@2"}
    assert have(admin, "gone") == "pro@1", "what is over is left alone"
    (balance,) = admin.get("/v1/customers/a/balances")["items"]
    assert (balance["amount"], balance["used"], balance["remaining"]) == (4, 3, 1)
    assert migrate(admin)["moved"] == []


def test_who_is_moved_back_by_hand_is_not_moved_again_under_the_same_name(admin: Any, fleet: None) -> None:
    migrate(admin)
    subscribe(admin, "b", version=1)
    again = migrate(admin)
    assert (again["moved"], again["held_back"], have(admin, "b")) == ([], ["b"], "pro@1")
    assert migrate(admin, migration="winter")["moved"] == ["b"]


def test_pages_go_on_where_they_were_interrupted(admin: Any, fleet: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate_plan, "PAGE", 2)
    first = migrate(admin)
    assert (first["moved"], first["next_cursor"] is not None) == (["a", "b"], True)
    assert migrate(admin)["moved"] == [], "the first page again"
    moved, cursor = [], first["next_cursor"]
    while cursor is not None:
        page = migrate(admin, cursor=cursor)
        moved += page["moved"]
        cursor = page["next_cursor"]
    assert moved == ["c", "d", "e"]


def test_at_the_end_of_each_ones_period_and_what_is_arranged_still_comes(admin: Any, fleet: None, clock: Any) -> None:
    admin.put("/v1/plans/free", {"name": "Free"})
    month_ms = 31 * 86_400_000
    admin.put("/v1/customers/a/subscription", {"plan": "free", "when": "2027-06-01T00:00:00Z"})
    admin.post("/v1/customers/b/subscription/moves", {"action": "pause"})
    assert migrate(admin, when="period_end")["moved"] == ["a", "b", "c", "d", "e"]
    assert {have(admin, name) for name in "abcde"} == {"pro@1"}
    coming = admin.get("/v1/customers/a/subscription")["coming"]
    assert [one["value"] for one in coming if one["track"] == "plan"] == [["pro", 2], ["free", 1]]
    assert migrate(admin, when="period_end")["moved"] == []
    clock.advance(month_ms)
    assert have(admin, "c") == "pro@2"
    assert admin.get("/v1/customers/b/subscription")["status"] == "paused"


def test_only_the_versions_that_are_named_are_left(admin: Any, fleet: None) -> None:
    publish(admin, 6)
    subscribe(admin, "newest", version=3)
    assert migrate(admin, to=3, **{"from": [2]})["moved"] == ["new"]
    assert have(admin, "a") == "pro@1"
    back = migrate(admin, migration="back", to=1, **{"from": [3]})
    assert back["moved"] == ["new", "newest"], "older ones too, where they are named"


def test_add_ons_are_moved_and_their_quantity_stays(admin: Any, fleet: None) -> None:
    publish(admin, 5, "add-ons", "more")
    subscribe(admin, "a", add_ons=[{"add_on": "more", "quantity": 3}])
    publish(admin, 7, "add-ons", "more")
    order = {"migration": "more", "to": 2}
    assert admin.post("/v1/add-ons/more/migrations", {**order, "dry_run": True})["moved"] == ["a"]
    assert admin.post("/v1/add-ons/more/migrations", order)["moved"] == ["a"]
    found = admin.get("/v1/customers/a/subscription")
    assert (found["version"], found["add_ons"]) == (1, [{"add_on": "more", "version": 2, "quantity": 3}])
    assert admin.get("/v1/customers/a/balances")["items"][0]["amount"] == 10 + 3 * 7


def test_a_customer_that_would_have_too_many_limits_stays_and_is_named(admin: Any, fleet: None) -> None:
    limits = [{**DAY, "key": f"l{at}", "scope": "tag", "scope_tag": f"t{at}"} for at in range(64)]
    more = [{**one, "key": f"m{at}", "scope_tag": f"m{at}"} for at, one in enumerate(limits[:10])]
    admin.put("/v1/add-ons/more", {"name": "More", "limits": more})
    subscribe(admin, "a", version=1, add_ons=[{"add_on": "more"}])
    admin.put("/v1/plans/pro", {"name": "Pro", "limits": limits})
    found = migrate(admin, to=3)
    assert found["refused"] == [
        {"customer": "a", "detail": "add_ons: and the plan have 74 limits together; expected at most 64"}
    ]
    assert (found["moved"], have(admin, "a")) == (["b", "c", "d", "e", "new"], "pro@1")


def test_wrong_orders_are_refused_by_name(admin: Any, support: Any, fleet: None) -> None:
    for order, status, field in (
        ({"to": 9}, 404, "to"),
        ({"when": "2020-01-01T00:00:00Z"}, 400, "when"),
        ({"when": "soon"}, 400, "when"),
        ({"migration": "x" * 41}, 400, "migration"),
        ({"from": ["one"]}, 400, "from[0]"),
        ({"cursor": "?"}, 400, "cursor"),
    ):
        body = {"migration": "autumn", "to": 2, **order}
        answer = admin("POST", "/v1/plans/pro/migrations", json=body)
        assert (answer.status_code, answer.json()["field"]) == (status, field), answer.text
    assert support("POST", "/v1/plans/pro/migrations", json={"migration": "x", "to": 2}).status_code == 403


def test_the_command_shows_who_and_then_moves_them(
    allotment: Any, admin: Any, fleet: None, database: Any, clock: Any
) -> None:
    use(database, clock, "b", 6)
    seen = allotment("migrate-plan", "pro", "--dry-run")
    assert seen.exit_code == 0, seen.output
    assert "Would be moved to pro@2: 5 customers, 1 of them with limits below what they have used." in seen.output
    assert "Limits that fall below what is used" in seen.output
    assert "Moved to pro@2: 5 customers, " in allotment("migrate-plan", "pro", "--to", "2").output
    assert "Moved to pro@2: 0 customers, " in allotment("migrate-plan", "pro", "--to", "2", "--from", "1").output
    assert allotment("migrate-plan", "pro", "--from", "one").exit_code == 2
    assert "no version 9" in allotment("migrate-plan", "pro", "--to", "9").output
    assert "There is no add-on" in allotment("migrate-add-on", "none").output
