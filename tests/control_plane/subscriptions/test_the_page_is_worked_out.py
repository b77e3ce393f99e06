"""Every table of docs/subscriptions.md is executed, row by row, on both databases."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from control_plane.operations.keep_entitlements import keep_due
from control_plane.operations.sync_agent import Synced, sync_agent
from protocol.codec import encode_msgpack
from protocol.events import EventBatch, UsageEvent
from protocol.instants import from_datetime
from protocol.uplink_messages import SyncRequest

PAGE = (Path(__file__).parents[3] / "docs" / "subscriptions.md").read_text()
PLANS = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])
CUSTOMER = "/v1/customers/acme"
ROW = re.compile(r"^\| (\d{4}-\d\d-\d\d(?: \d\d:\d\d)?) \| `(.*?)` \|(.*)\|$")


def stories() -> list[tuple[str, list[tuple[str, str, list[str]]]]]:
    """Each table with its heading: when, request, what is seen."""
    found: list[tuple[str, list[tuple[str, str, list[str]]]]] = []
    heading = ""
    for line in PAGE.splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        if line.startswith("| when"):
            found.append((heading, []))
        if row := ROW.match(line):
            found[-1][1].append((row[1], row[2], re.findall(r"`(.*?)`", row[3])))
    return found


STORIES = stories()


def test_every_row_of_the_page_is_understood() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| 2")]
    assert len(rows) == sum(len(story) for _, story in STORIES) > 50
    assert len(STORIES) >= 11


class Reader:
    """Does what a row says, at the moment that it says."""

    def __init__(self, admin: Any, database: Any, clock: Any) -> None:
        self.admin, self.database, self.clock, self.seq = admin, database, clock, 0

    def at(self, text: str) -> None:
        self.clock.set(from_datetime(datetime.fromisoformat(text).replace(tzinfo=UTC)))
        while self.database.run(lambda connection: keep_due(connection, self.clock.now_ms())):
            pass

    def do(self, request: str) -> Any:
        verb, _, rest = request.partition(" ")
        if verb == "use":
            return self.use(*rest.split())
        path, _, body = rest.partition(" ")
        if verb == "GET" and body:  # one item of a list, by what names it
            found = self.admin.get(CUSTOMER + path)
            items = found["items"] if isinstance(found, dict) else found
            return next(item for item in items if body in (item.get("limit"), item.get("meter")))
        answer = self.admin(verb, CUSTOMER + path, **({"json": json.loads(body)} if body else {}))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def use(self, amount: str, meter: str) -> None:
        self.seq += 1
        event = UsageEvent(f"e{self.seq}", "acme", "chat", self.clock.now_ms(), {meter: int(amount)})
        body = encode_msgpack([event])
        batches = (EventBatch(1, self.seq, 1, crc32(body), body),)
        request = SyncRequest("journal", 1, "nonce", batches=batches, snapshot=True)
        outcome = self.database.run(lambda connection: sync_agent(connection, "agent-1", request, self.clock.now_ms()))
        assert isinstance(outcome, Synced)


@pytest.mark.parametrize("story", [rows for _, rows in STORIES], ids=[heading for heading, _ in STORIES])
def test_the_table_is_what_happens(admin: Any, database: Any, clock: Any, story: Any) -> None:
    reader = Reader(admin, database, clock)
    reader.at(story[0][0])
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    admin.put("/v1/meters/credits", {"unit": "credits"})
    for plan, body in PLANS.items():
        admin.put(f"/v1/plans/{plan}", {"name": plan, **body})
    admin.put(CUSTOMER, {"name": "Acme"})
    for when, request, seen in story:
        reader.at(when)
        answer = reader.do(request)
        for expected in seen:
            name, _, value = expected.partition(": ")
            assert said(name, answer) == value, (when, request, answer)


def said(name: str, answer: Any) -> str:
    """A field of an answer as the page writes it."""
    value = answer[name]
    if name == "coming":
        return json.dumps([[one["track"], one["at"]] for one in value])
    return "null" if value is None else str(value)
