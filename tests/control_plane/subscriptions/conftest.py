"""A customer whose calls draw on a balance of credits, and an agent that tells of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import pytest

from control_plane.core.plans import Bundle, PlanFeature, PlanGrant, PlanLimit
from control_plane.operations.apply_catalog import publish_plan, put_feature, put_meter
from control_plane.operations.audit_books import check_books
from control_plane.operations.author import Author
from control_plane.operations.change_customer import put_customer
from control_plane.operations.change_subscription import SubscriptionOrder, order
from control_plane.operations.grant_credits import GrantOrder, grant_credits, void_grant
from control_plane.operations.keep_entitlements import keep_due
from control_plane.operations.read_credits import CreditBalance, read_credits
from control_plane.operations.sync_agent import Synced, sync_agent
from control_plane.store import agents, credits
from control_plane.store.catalog import FeatureRow, MeterRow
from control_plane.store.database import Connection, Database
from protocol.codec import encode_msgpack
from protocol.entitlements import FeatureKind, LimitEnd
from protocol.events import EventBatch, UsageEvent
from protocol.leases import LeaseReport
from protocol.uplink_messages import Ask, CustomerSync, SyncReply, SyncRequest
from protocol.windows import WindowKind

COUNTER = "*/credits/grants/customer"


@dataclass
class Purse:
    """The customer ``acme``, its credits, and one agent."""

    database: Database
    clock: Any
    numbers: dict[str, int] = field(default_factory=lambda: {"seq": 0, "lease": 0})

    @property
    def author(self) -> Author:
        return Author("test", self.clock.now_ms())

    def plan(self, *grants: PlanGrant, overdraft: int = 0, plan: str = "pro") -> None:
        """Put it on a plan with a balance and these grants."""

        def work(connection: Connection) -> None:
            put_feature(connection, FeatureRow("chat", "Chat", FeatureKind.METERED), self.author)
            put_meter(connection, MeterRow("credits", "credits", ""), self.author)
            end = LimitEnd.OVERAGE if overdraft else LimitEnd.BLOCK
            limit = PlanLimit("credits", "credits", 0, WindowKind.GRANTS, at_end=end, overage_max=overdraft)
            bundle = Bundle((PlanFeature("chat"),), (limit,), grants=grants)
            publish_plan(connection, plan, plan, bundle, self.author)
            if agents.lock(connection, "agent-9", self.clock.now_ms(), 0) is None:
                agents.add(connection, "agent-9", "agent-9", self.clock.now_ms())
            put_customer(connection, "acme", "Acme", self.author)
            order(connection, "acme", SubscriptionOrder(plan), self.author)

        self.database.run(work)

    def grant(self, name: str, amount: int, **more: Any) -> None:
        wanted = GrantOrder("credits", amount, "test", **more)
        self.database.run(lambda connection: grant_credits(connection, "acme", name, wanted, self.author))

    def void(self, name: str) -> None:
        self.database.run(lambda connection: void_grant(connection, "acme", name, self.author))

    def turn(self) -> None:
        """What time changes is written down."""
        while self.database.run(lambda connection: keep_due(connection, self.clock.now_ms())):
            pass

    def use(self, amount: int, at_ms: int | None = None, **more: Any) -> str:
        """An event that no lease paid."""
        self.numbers["seq"] += 1
        seq = self.numbers["seq"]
        at_ms = self.clock.now_ms() if at_ms is None else at_ms
        event = UsageEvent(f"event-{seq}", "acme", "chat", at_ms, {"credits": amount}, **more)
        body = encode_msgpack([event])
        self.sync(batches=(EventBatch(1, seq, 1, crc32(body), body),))
        return event.event

    def borrow(self, amount: int) -> str | None:
        """A lease of so much; ``None``: refused."""
        self.numbers["lease"] += 1
        lease = f"lease-{self.numbers['lease']}"
        ask = Ask(lease, COUNTER, "", amount, 1)
        reply = self.sync(customers=(CustomerSync("acme", 0, asks=(ask,)),))
        return lease if reply.grants else None

    def report(self, lease: str, granted: int, settled: int, *, closing: bool = False) -> None:
        self.sync(leases=(LeaseReport(lease, cap=granted, settled=settled, closed=closing),))

    def sync(self, **parts: Any) -> SyncReply:
        request = SyncRequest(
            "journal-9", 1, "nonce-9", snapshot=self.numbers["seq"] + self.numbers["lease"] < 2, **parts
        )
        outcome = self.database.run(lambda connection: sync_agent(connection, "agent-9", request, self.clock.now_ms()))
        assert isinstance(outcome, Synced), outcome
        return outcome.reply

    def balance(self) -> CreditBalance:
        (found,) = self.database.read(lambda connection: read_credits(connection, "acme", self.clock.now_ms()))
        return found

    def left(self) -> dict[str, int]:
        """What is left of each grant that has not ended, in burn order."""
        return {row.grant: row.amount - row.burned for row in self.balance().grants}

    def accounts(self) -> dict[str, int]:
        """Every account that is not empty."""
        found = self.database.read(credits.folds)
        return {account: amount for (_, _, account), amount in sorted(found.items()) if amount}

    def books(self) -> list[str]:
        return self.database.read(check_books)


@pytest.fixture
def purse(database: Database, clock: Any) -> Purse:
    return Purse(database, clock)
