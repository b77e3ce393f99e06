"""The page about usage: its calls are entered, its meters declared, and every answer on it is what is answered."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from control_plane.background.make_meters import make_some
from control_plane.cli.catalog_yaml import read_catalog
from control_plane.operations.forget_old import DAY_MS, RETENTION_MS
from protocol.instants import from_datetime

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "usage.md").read_text()
PATH = "/v1/customers/acme"


def tables(section: str) -> list[list[list[str]]]:
    """The tables of a section, without their heads: rows of cells."""
    text = re.split(r"^##+ ", PAGE.partition(f"# {section}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [
        [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
        for table in found
    ]


def ms(text: str) -> int:
    return from_datetime(datetime.fromisoformat(text))


@pytest.fixture
def acme(admin: Any, clock: Any) -> Any:
    """The customer of the page, at the moment of its questions."""
    clock.set(ms("2026-10-24T00:00:00Z"))
    (meters,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    admin.put("/v1/catalog", read_catalog(meters, "usage.md"))
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    limit = {"key": "input-a-day", "meter": "input_tokens", "amount": 1_000, "window": "day"}
    admin.put("/v1/plans/pro", {"name": "Pro", "features": [{"feature": "chat"}], "limits": [limit]})
    admin.put(PATH, {"name": "Acme"})
    admin.put(PATH + "/subscription", {"plan": "pro", "billing": {"anchor": "2026-10-24T00:00:00Z"}})
    clock.set(ms("2026-11-24T10:00:00Z"))
    calls, *_ = tables("A worked example")
    *made, (_, _, _, _, _, amended) = calls
    events = [
        {
            "event": f"call-{number}", "feature": "chat", "at": when, "subject": {"user": who}, "model": model,
            "outcome": outcome, "tokens": json.loads(tokens), "tags": dict([tag.split(":")]) if tag else {},
        }
        for number, (when, who, tag, model, outcome, tokens) in enumerate(made, 1)
    ]  # fmt: skip
    admin.put(PATH + "/backfills/calls", {"events": events, "reason": "the page"})
    order = {"kind": "amend", "event": "call-2", "tokens": json.loads(amended), "reason": "the page"}
    admin.put(PATH + "/corrections/second", order)
    return admin


def shown(item: dict[str, Any]) -> str:
    """As the page writes it: `ann input_tokens: 360 (2)`."""
    keys = [str(value) or "-" for name, value in item.items() if name not in {"quantity", "events"}]
    return f"{' '.join(keys)}: {item['quantity']} ({item['events']})"


def test_usage_is_what_the_page_says(acme: Any) -> None:
    _, asked, _ = tables("A worked example")
    assert len(asked) >= 7
    for query, items in asked:
        found = acme.get(f"{PATH}/usage{query}")["items"]
        assert ", ".join(map(shown, found)) == items, query


def test_what_cannot_be_answered_is_refused_as_the_page_says(acme: Any) -> None:
    *_, asked = tables("A worked example")
    assert len(asked) >= 4
    for query, because in asked:
        refused = acme("GET", f"{PATH}/usage{query}")
        assert (refused.status_code, refused.json()["detail"]) == (400, because), query


def test_meters_made_of_events_are_what_the_page_says(acme: Any, database: Any) -> None:
    while make_some(database):
        pass
    *_, asked = tables("Meters made of events")
    assert len(asked) >= 4
    for query, values in asked:
        meter, _, rest = query.partition("?")
        found = acme.get(f"{PATH}/meters/{meter}?from=2026-11-23T00:00:00Z&{rest}")
        assert found["whole"] is True
        said = []
        for one in found["items"]:
            keys = " ".join([*filter(None, [one["start"]]), *(value or "-" for value in one["group"].values())])
            said.append(f"{keys}: {one['value']}" if keys else str(one["value"]))
        assert ", ".join(said) == values, query


def test_a_limit_is_reached_when_the_page_says(acme: Any) -> None:
    ((said,),) = tables("When a limit will be reached")
    (balance,) = acme.get(f"{PATH}/balances")["items"]
    names = re.findall(r"`(\w+)`", re.findall(r"^\| `used`.*$", PAGE, re.MULTILINE)[0])
    assert [str(balance[name]) for name in names] == said


def test_the_books_agree_after_all_of_the_page(acme: Any) -> None:
    found = acme.get("/v1/reconciliation")
    assert (found["customers"], found["agree"], found["items"]) == (1, True, [])


def test_requests_on_the_page_are_answered(acme: Any) -> None:
    commands = re.findall(r'^curl "\$plane(\S+)"', PAGE, re.MULTILINE)
    assert len(commands) >= 4
    for path in commands:
        acme.get(path)


def test_parameters_routes_and_bounds_are_those_of_the_api(acme: Any) -> None:
    paths = acme.get("/schema/openapi.json")["paths"]
    for path in re.findall(r"`GET (/v1/[^`]+)`", PAGE):
        assert path in paths, path
    asked, *_ = (table for table in tables("Asking") if table[0][0].startswith("from"))
    named = {name for row in asked for name in re.findall(r"\w+", row[0])}
    known = {one["name"] for one in paths["/v1/customers/{customer}/usage"]["get"]["parameters"]}
    assert named == known - {"customer"}
    fields, _ = tables("Meters made of events")
    written = acme.get("/schema/openapi.json")["components"]["schemas"]["MeterWrite"]["properties"]
    assert {row[0] for row in fields} <= set(written)
    assert f"{RETENTION_MS // DAY_MS} by default" in PAGE
    for path in re.findall(r"`(tests/[\w/]+\.py)`", PAGE):
        assert (ROOT / path).is_file(), path
