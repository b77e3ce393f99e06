"""A small world for the agents' half: customers on plans, and agents that remember what a real one would."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from zlib import crc32

import msgspec
import pytest

from control_plane.core.plans import Bundle, PlanFeature, PlanLimit
from control_plane.operations.apply_catalog import publish_plan, put_feature, put_meter
from control_plane.operations.audit_books import check_books
from control_plane.operations.author import Author
from control_plane.operations.change_customer import put_customer
from control_plane.operations.change_subscription import SubscriptionOrder, order
from control_plane.operations.sync_agent import Synced, TurnedAway, sync_agent
from control_plane.store import agents
from control_plane.store.catalog import FeatureRow, MeterRow
from control_plane.store.database import Connection, Database
from protocol.admission import Priority
from protocol.codec import encode_msgpack
from protocol.entitlements import FeatureKind, Limit, Rate
from protocol.events import Charge, EventBatch, Subject, UsageEvent
from protocol.leases import Grant, LeaseReport
from protocol.uplink_messages import Ask, CustomerSync, FirstCall, SyncReply, SyncRequest
from protocol.windows import WindowKind

_ids = itertools.count(2)  # `agent-1` is who holds the token of tests


class Clock(Protocol):
    def now_ms(self) -> int: ...

    def advance(self, ms: int) -> None: ...


def limit(meter: str = "requests", amount: int | None = 1_000, window: str = "day", **more: Any) -> Limit:
    """A limit that counts something."""
    return Limit(more.pop("key", f"{meter}-{window}"), meter, amount, WindowKind(window), **more)


def batch(boot: int, first: int, events: Sequence[UsageEvent]) -> EventBatch:
    """Events as a journal uploads them."""
    body = encode_msgpack(list(events))
    return EventBatch(boot, first, len(events), crc32(body), body)


@dataclass
class FakeAgent:
    """One start of an agent: knows its identity and numbers its events."""

    world: World
    name: str
    journal: str
    boot: int = 1
    nonce: str = "nonce-1"
    introduced: bool = False
    seq: int = 0

    def request(
        self,
        customers: Iterable[CustomerSync] = (),
        leases: Iterable[LeaseReport] = (),
        batches: Iterable[EventBatch] = (),
        **more: Any,
    ) -> SyncRequest:
        snapshot = more.pop("snapshot", not self.introduced)
        return SyncRequest(
            self.journal, self.boot, self.nonce, tuple(customers), tuple(leases), tuple(batches), snapshot, **more
        )

    def send(self, request: SyncRequest) -> SyncReply:
        """Say it, and expect to be heard."""
        outcome = self.world.sync(self.name, request)
        assert isinstance(outcome, Synced), outcome
        self.introduced = True
        return outcome.reply

    def sync(self, *customers: CustomerSync, **more: Any) -> SyncReply:
        return self.send(self.request(customers, **more))

    def report(self, *reports: LeaseReport, **more: Any) -> SyncReply:
        return self.send(self.request(leases=reports, **more))

    def ask(self, customer: str, of: Limit, need: int, user: str = "", **more: Any) -> SyncReply:
        lease = more.pop("lease", None) or f"lease-{next(_ids)}"
        how = {name: more.pop(name) for name in ("ahead", "finishing", "priority") if name in more}
        ask = Ask(lease, of.counter, user, need, more.pop("demand_per_min", 1), more.pop("typical", 0), **how)
        return self.sync(CustomerSync(customer, 0, asks=(ask,)), **more)

    def borrow(self, customer: str, of: Limit, need: int, **more: Any) -> Grant:
        """Ask, and expect exactly one grant."""
        reply = self.ask(customer, of, need, **more)
        assert len(reply.grants) == 1, reply
        return reply.grants[0]

    def first_call(self, customer: str, amounts: dict[str, int], feature: str = "chat", **more: Any) -> SyncReply:
        tags, priority = more.pop("tags", {}), more.pop("priority", Priority.INTERACTIVE)
        call = FirstCall(f"first-{next(_ids)}", feature, Subject(**more), amounts, tags, priority)
        return self.sync(CustomerSync(customer, 0, first_calls=(call,)))

    def upload(self, *events: UsageEvent) -> SyncReply:
        """Send the next events."""
        self.seq += len(events)
        return self.sync(batches=[batch(self.boot, self.seq - len(events) + 1, events)])

    def restart(self) -> FakeAgent:
        """The next start on the same disk."""
        return FakeAgent(self.world, self.name, self.journal, self.boot + 1, f"nonce-{next(_ids)}")


@dataclass
class World:
    """A database with customers, a clock, and agents."""

    database: Database
    clock: Clock
    plans: int = 0

    limit = staticmethod(limit)
    batch = staticmethod(batch)

    @property
    def author(self) -> Author:
        return Author("test", self.clock.now_ms())

    def customer(self, name: str, *limits: Limit, status: str = "active", rates: tuple[Rate, ...] = ()) -> str:
        """A customer on a plan with these limits; said again, its plan changes."""
        self.plans += 1
        plan = f"plan-{self.plans}"

        def work(connection: Connection) -> None:
            put_feature(connection, FeatureRow("chat", "chat", FeatureKind.METERED), self.author)
            put_feature(connection, FeatureRow("search", "search", FeatureKind.METERED), self.author)
            put_meter(connection, MeterRow("credits", "credits", ""), self.author)
            features = (PlanFeature("chat"), PlanFeature("search"))
            whole = tuple(PlanLimit(**msgspec.structs.asdict(limit)) for limit in limits)
            publish_plan(connection, plan, plan, Bundle(features, whole, rates), self.author)
            put_customer(connection, name, name, self.author)
            order(connection, name, SubscriptionOrder(plan, paused=status == "paused"), self.author)

        self.database.run(work)
        return name

    def agent(self) -> FakeAgent:
        return self.agents(1)[0]

    def agents(self, count: int) -> list[FakeAgent]:
        """So many enrolled agents, each with a disk of its own."""
        names = [f"agent-{next(_ids)}" for _ in range(count)]

        def work(connection: Connection) -> None:
            for name in names:
                agents.add(connection, name, name, self.clock.now_ms())

        self.database.run(work)
        return [FakeAgent(self, name, f"journal-{next(_ids)}") for name in names]

    def event(self, customer: str, amounts: dict[str, int], charges: Sequence[Grant] = (), **more: Any) -> UsageEvent:
        paid = tuple(Charge(grant.lease, amounts[grant.counter.split("/")[1]]) for grant in charges)
        return UsageEvent(
            more.pop("event", f"event-{next(_ids)}"),
            customer,
            more.pop("feature", "chat"),
            more.pop("at_ms", self.clock.now_ms()),
            amounts,
            charges=more.pop("paid", paid),
            **more,
        )

    def sync(self, agent: str, request: SyncRequest) -> Synced | TurnedAway:
        return self.database.run(lambda connection: sync_agent(connection, agent, request, self.clock.now_ms()))

    def read(self, look: Callable[[Connection], Any]) -> Any:
        return self.database.read(look)

    def books(self) -> list[str]:
        return self.database.read(check_books)


@pytest.fixture
def world(database: Database, clock: Any) -> World:
    return World(database, clock)


@pytest.fixture
def new_world(clock: Any) -> Callable[[Database], World]:
    """Makes a world on a database of one's own."""
    return lambda database: World(database, clock)
