"""One customer as the product itself makes it: subscribed, lent to, and with events of four weeks in its books."""

from __future__ import annotations

import random
from zlib import crc32

from litestar.testing import TestClient

from control_plane.app import create_app
from control_plane.clock import random_id, random_secret
from control_plane.core.reconciliation import said
from control_plane.core.tokens import Role
from control_plane.operations.audit_books import check_books
from control_plane.operations.issue_token import TokenOrder, issue
from control_plane.operations.sync_agent import Synced, sync_agent
from control_plane.store import agents
from control_plane.store.database import Connection, Database
from protocol.codec import encode_msgpack
from protocol.events import Charge, EventBatch, Subject, UsageEvent
from protocol.leases import Grant, LeaseReport
from protocol.uplink_messages import Ask, CustomerSync, SyncReply, SyncRequest

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
BEGUN_MS = 1_788_220_800_000  # 2026-09-01T00:00:00Z
NOW_MS = BEGUN_MS + 27 * DAY_MS + 12 * HOUR_MS
TEMPLATE = "c0000000"
AGENT = "agent-of-all"
LENT = 10**7
EVENTS_AN_HOUR = 12
BATCH_MAX = 1_000

COUNTERS = {
    "requests": "*/requests/month/customer",
    "input_tokens": "*/input_tokens/billing_period/customer",
    "output_tokens": "*/output_tokens/billing_period/customer",
}
LIMITS = [
    {"key": "requests", "meter": "requests", "amount": 10**10, "window": "month"},
    {"key": "input", "meter": "input_tokens", "amount": 10**12, "window": "billing_period"},
    {"key": "output", "meter": "output_tokens", "amount": 10**12, "window": "billing_period"},
    {"key": "rate", "meter": "requests", "amount": 600, "window": "minute", "smooth": True},
    {"key": "slots", "meter": "requests", "amount": 50, "window": "in_flight"},
    {"key": "call", "meter": "input_tokens", "amount": 200_000, "window": "request"},
]


class Clock:
    """Stands where it is set."""

    at_ms = BEGUN_MS

    def now_ms(self) -> int:
        """Milliseconds."""
        return self.at_ms


def make_template(database: Database, events: int) -> dict[str, bytes]:
    """Make the customer, with so many events. Returns: what each event says, as its digest is made of it."""
    database.migrate()
    _subscribe(database)
    database.run(lambda connection: agents.add(connection, AGENT, AGENT, BEGUN_MS))
    asks = tuple(Ask(f"{TEMPLATE}-{meter}", counter, "", LENT) for meter, counter in COUNTERS.items())
    lent = _sync(database, SyncRequest(f"j-{TEMPLATE}", 1, "n", (CustomerSync(TEMPLATE, 0, (), asks),), snapshot=True))
    grants = {grant.counter.split("/")[1]: grant for grant in lent.grants}
    assert set(grants) == set(COUNTERS), lent.denials
    used = _events(grants, events)
    for first in range(0, events, BATCH_MAX):
        some = used[first : first + BATCH_MAX]
        body = encode_msgpack(some)
        batch = EventBatch(1, first + 1, len(some), crc32(body), body)
        _sync(database, SyncRequest(f"j-{TEMPLATE}", 1, "n", (), (), (batch,)))
    sums = {meter: sum(event.amounts[meter] for event in used) for meter in COUNTERS}
    reports = tuple(
        LeaseReport(grant.lease, grant.amount, sums[meter], closed=meter == "requests")
        for meter, grant in grants.items()
    )
    _sync(database, SyncRequest(f"j-{TEMPLATE}", 1, "n", (), reports))
    assert database.read(lambda connection: check_books(connection, told_all=True)) == []
    return {event.event: said(event) for event in used}


def _subscribe(database: Database) -> None:
    def admin(connection: Connection) -> str:
        order = TokenOrder(Role.ADMIN, "bench")
        return issue(connection, order, random_id(), random_secret(), actor="bench", now_ms=BEGUN_MS)[1]

    headers = {"Authorization": f"Bearer {database.run(admin)}"}
    with TestClient(create_app(database, Clock())) as client:
        for path, body in (
            ("plans/large", {"name": "Large", "limits": LIMITS}),
            (f"customers/{TEMPLATE}", {"name": TEMPLATE}),
            (f"customers/{TEMPLATE}/subscription", {"plan": "large"}),
        ):
            client.put(f"/v1/{path}", json=body, headers=headers).raise_for_status()


def _sync(database: Database, request: SyncRequest) -> SyncReply:
    outcome = database.run(lambda connection: sync_agent(connection, AGENT, request, NOW_MS))
    assert isinstance(outcome, Synced), outcome
    return outcome.reply


def _events(grants: dict[str, Grant], count: int) -> list[UsageEvent]:
    """Calls come in busy hours, a few a minute, of three users; every call is paid by leases."""
    dice = random.Random(3)
    made = []
    for number in range(count):
        hour = number // EVENTS_AN_HOUR
        start_ms = BEGUN_MS + hour * 7 * HOUR_MS % (26 * DAY_MS)
        if number < EVENTS_AN_HOUR:  # one of the hours has just been
            start_ms = NOW_MS - HOUR_MS
        amounts = {"requests": 1, "input_tokens": dice.randrange(1, 900), "output_tokens": dice.randrange(1, 400)}
        made.append(
            UsageEvent(
                f"{TEMPLATE}-e{number}",
                TEMPLATE,
                "chat",
                start_ms + number % 4 * 60_000 + number * 7 % 60_000,
                amounts,
                Subject(user=f"user-{dice.randrange(3)}"),
                model="gpt-5" if hour % 2 else "claude-sonnet-4",
                charges=tuple(Charge(grants[meter].lease, amount) for meter, amount in amounts.items()),
            )
        )
    return made
