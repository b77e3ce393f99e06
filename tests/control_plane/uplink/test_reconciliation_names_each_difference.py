"""Reconciling is silent while the books are right, and names whatever row of any kind was changed or removed; over HTTP
and from the command line alike, in however small pieces it looks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import delete, insert, update

from control_plane.cli.commands import main
from control_plane.operations import reconcile as operation
from control_plane.operations.audit_books import Part
from control_plane.operations.reconcile import reconcile
from control_plane.store import tables
from control_plane.store.database import Connection
from protocol.codec import encode_msgpack
from protocol.entitlements import Scope
from protocol.events import Subject, UsageEvent
from protocol.leases import LeaseReport

tables_by_name = tables.metadata.tables


@pytest.fixture
def books(world: Any) -> None:
    """Three customers with everything that books hold: leases open and closed, debits, corrections, repetitions."""
    day = world.limit(amount=1_000)
    each = world.limit("input_tokens", 10_000, "day", scope=Scope.USER, key="each")
    for name in ("acme", "beta", "gamma"):
        world.customer(name, day, each)
    agent = world.agent()
    for name in ("acme", "beta", "gamma"):
        grant = agent.borrow(name, day, 10)
        agent.borrow(name, day, 5)
        subject = Subject(user="ann", workspace="w")
        paid = world.event(name, {"requests": 4, "input_tokens": 40}, paid=(), subject=subject, model="m")
        with_charge = world.event(name, {"requests": 3}, [grant], tags={"team": "red"})
        back = world.event(name, {"requests": -1}, corrects=paid.event)
        agent.upload(paid, with_charge, back)
        agent.upload(with_charge)
        agent.report(LeaseReport(grant.lease, grant.amount, 6, closed=True))
    assert differences(world) == []
    assert world.books() == []


def differences(world: Any) -> list[Any]:
    return [one for found in reconcile(world.database) for one in found.differences]


def change(table: str, column: str, value: Any, **where: Any) -> Callable[[Connection], int]:
    of = tables_by_name[table]
    found = [of.c.customer == "beta", *(of.c[name] == one for name, one in where.items())]
    new = value(of.c[column]) if callable(value) else value
    return lambda connection: connection.execute(update(of).where(*found).values({column: new})).rowcount


def remove(table: str, **where: Any) -> Callable[[Connection], int]:
    of = tables_by_name[table]
    found = [of.c.customer == "beta", *(of.c[name] == one for name, one in where.items())]
    return lambda connection: connection.execute(delete(of).where(*found)).rowcount


def more(column: Any) -> Any:
    return column + 1


def invent(connection: Connection) -> int:
    entry = {
        "customer": "beta", "counter": "*/requests/day/customer", "scope_value": "", "window_start_ms": 0,
        "kind": "direct", "amount": 7, "released": 0, "cause": "uncharged", "event": "never", "at_ms": 0,
    }  # fmt: skip
    connection.execute(insert(tables_by_name["entries"]).values(**entry))
    return 1


FORGED = encode_msgpack(UsageEvent("forged", "beta", "chat", 0, {"requests": 1}))

WRONGS = {
    "a sum by the hour": (
        change("rollups", "quantity", more, dimension=""),
        Part.USAGE,
        "hourly sums and events differ",
    ),
    "a sum of a user": (change("rollups", "quantity", more, dimension="user"), Part.USAGE, "/user=ann at 20"),
    "a sum of a tag": (remove("rollups", dimension="tag:team"), Part.USAGE, "/tag:team=red at 20"),
    "how many events": (change("rollups", "events", more, dimension=""), Part.USAGE, "how many events there are"),
    "a sum by the minute": (change("minute_rollups", "quantity", more), Part.USAGE, "by the minute and events differ"),
    "a lost minute": (remove("minute_rollups"), Part.USAGE, "sums by the minute and events differ: 0 and"),
    "a lost event": (remove("events"), Part.USAGE, "hourly sums and events differ"),
    "an event's body": (change("events", "body", FORGED), Part.USAGE, "its body was changed"),
    "an event's garbage": (change("events", "body", b"\xc1"), Part.USAGE, "cannot be read"),
    "an event's digest": (change("events", "digest", b"\0" * 32), Part.USAGE, "its body was changed"),
    "an event's time": (change("events", "at_ms", more), Part.USAGE, "the event counts at"),
    "a charge": (change("entries", "amount", more, kind="post"), Part.LEASES, "events, repetitions and unreported use"),
    "a debit": (change("entries", "amount", more, cause="uncharged"), Part.ENTRIES, "leases left"),
    "a correction": (change("entries", "amount", more, cause="correction"), Part.ENTRIES, "to be charged"),
    "a repetition": (change("entries", "amount", -99, cause="duplicate"), Part.ENTRIES, "was granted 10"),
    "a lost entry": (remove("entries", kind="grant"), Part.ALLOWANCES, "outstanding and the ledger differ"),
    "an invented entry": (invent, Part.ENTRIES, "for event never, which is not there"),
    "what was posted": (change("allowances", "posted", more), Part.ALLOWANCES, "posted and the ledger differ"),
    "what was debited": (change("allowances", "direct", more), Part.ALLOWANCES, "direct and the ledger differ"),
    "what is lent": (change("allowances", "outstanding", more), Part.ALLOWANCES, "outstanding and caps of leases"),
    "a lost allowance": (remove("allowances"), Part.ALLOWANCES, "has leases or entries, but no allowance"),
    "a lease": (change("leases", "cap", more, status="open"), Part.ALLOWANCES, "outstanding and caps of leases"),
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_whatever_was_changed_is_named(world: Any, books: None, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    do, part, text = WRONGS[wrong]
    assert world.database.run(do) >= 1
    found = differences(world)
    monkeypatch.setattr(operation, "EVENTS_MAX", 1)  # each customer by itself, an event after the other
    assert sorted(differences(world)) == sorted(found)
    assert {one.customer for one in found} == {"beta"}
    assert any(one.part is part and text in one.text for one in found), found
    assert sorted(world.books()) == sorted(one.text for one in found)


def test_over_http_some_customers_are_looked_at_at_a_time(
    world: Any, books: None, support: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation, "CUSTOMERS_MAX", 2)
    whole = {"customers": 2, "agree": True, "items": []}
    first = support.get("/v1/reconciliation")
    assert {**first, "next_cursor": None} == {**whole, "next_cursor": None}
    last = support.get(f"/v1/reconciliation?cursor={first['next_cursor']}")
    assert last == {**whole, "customers": 1, "next_cursor": None}
    world.database.run(WRONGS["a lost event"][0])
    assert support.get("/v1/reconciliation?customer=acme")["agree"]
    beta = support.get("/v1/reconciliation?customer=beta")
    assert (beta["customers"], beta["agree"], beta["next_cursor"]) == (1, False, None)
    assert {item["customer"] for item in beta["items"]} == {"beta"}
    assert support("GET", "/v1/reconciliation?customer=nobody").status_code == 404


def test_the_command_says_it_and_exits_with_1(world: Any, books: None, database_url: str) -> None:
    run = CliRunner(env={"ALLOTMENT_DATABASE_URL": database_url})
    good = run.invoke(main, ["reconcile"])
    assert (good.exit_code, good.stdout) == (0, "The books of 3 customers agree.\n")
    world.database.run(WRONGS["a sum by the minute"][0])
    bad = run.invoke(main, ["reconcile"])
    assert bad.exit_code == 1
    assert "usage and events: beta/" in bad.stdout
    assert "The books of 3 customers disagree in" in bad.stdout
    told = json.loads(run.invoke(main, ["reconcile", "--json", "--customer", "beta"]).stdout)
    assert told["customers"] == 1
    assert {(one["part"], one["customer"]) for one in told["differences"]} == {("usage and events", "beta")}
    assert run.invoke(main, ["reconcile", "--customer", "acme"]).exit_code == 0
    nobody = run.invoke(main, ["reconcile", "--customer", "nobody"])
    assert (nobody.exit_code, "There is no customer" in nobody.stderr) == (1, True)
