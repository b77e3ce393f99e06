"""Agents that crash, repeat themselves, lose disks and hear nothing: after every step of any story, the books are right
and no allowance is overspent."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import func, select

from control_plane.core.catalog import PlanFeature
from control_plane.core.entitlements import SubscriptionStatus
from control_plane.operations.apply_catalog import publish_plan, put_feature
from control_plane.operations.audit_books import check_books
from control_plane.operations.author import Author
from control_plane.operations.change_customer import put_customer
from control_plane.operations.change_subscription import subscribe
from control_plane.operations.reclaim_leases import SWEEPS
from control_plane.operations.sync_agent import Synced, sync_agent
from control_plane.store import agents, allowances, tables
from control_plane.store.catalog import FeatureRow
from control_plane.store.database import Connection, Database
from protocol.codec import encode_msgpack
from protocol.entitlements import FeatureKind, Limit, LimitEnd, Scope
from protocol.events import Charge, EventBatch, Subject, UsageEvent
from protocol.leases import LeaseReport
from protocol.uplink_messages import Ask, CustomerSync, FirstCall, SyncReply, SyncRequest
from protocol.windows import WindowKind

NOW_MS = 1_790_000_000_000
NAMES = ("acme", "bolt")
numbers = itertools.count(1)
amounts = st.integers(0, 40)


def limits(amount: int) -> tuple[Limit, ...]:
    return (
        Limit("hour", "requests", amount, WindowKind.HOUR),
        Limit("tokens", "input_tokens", amount, WindowKind.DAY, at_end=LimitEnd.OVERAGE, overage_max=10),
        Limit("user", "input_tokens", amount, WindowKind.HOUR, scope=Scope.USER),
    )


COUNTERS = [(limit.counter, limit.meter, limit.scope) for limit in limits(1)]


@dataclass
class Held:
    """A lease as its holder's disk knows it."""

    customer: str
    meter: str
    cap: int
    settled: int = 0
    in_flight: int = 0
    orphan: int = 0
    closed: bool = False

    @property
    def used(self) -> int:
        return self.settled + self.in_flight + self.orphan


@dataclass
class Agent:
    """What is on an agent's disk, and what it has asked and not been answered."""

    name: str
    journal: str
    boot: int = 1
    nonce: str = "n1"
    introduced: bool = False
    held: dict[str, Held] = field(default_factory=dict)
    events: list[UsageEvent] = field(default_factory=list)
    before: dict[int, list[UsageEvent]] = field(default_factory=dict)
    confirmed: dict[int, int] = field(default_factory=dict)
    asks: dict[str, tuple[str, Ask]] = field(default_factory=dict)
    sent: list[SyncRequest] = field(default_factory=list)


class Story(RuleBasedStateMachine):
    """One example is one story in one fresh database."""

    database: Database
    fresh: Iterator[Database]

    def __init__(self) -> None:
        super().__init__()
        self.database = next(self.fresh)
        self.now_ms = NOW_MS
        self.agents: list[Agent] = []
        self.gone: dict[str, Held] = {}  # leases of disks that were lost: what they may have paid for
        self.told: dict[tuple[str, str], UsageEvent] = {}  # events that some living disk holds, by identity
        self.ceiling = 0

    # -- the world

    @initialize(amount=st.integers(20, 200))
    def begin(self, amount: int) -> None:
        self.change_plans(amount)
        for name in ("a1", "a2", "a3"):
            self.database.run(lambda connection, name=name: agents.add(connection, name, name, self.now_ms))
            self.agents.append(Agent(name, f"journal-{name}"))

    @rule(amount=st.integers(0, 300))
    def change_plans(self, amount: int) -> None:
        self.ceiling = max(self.ceiling, amount)
        author, plan = Author("test", self.now_ms), f"plan-{next(numbers)}"

        def work(connection: Connection) -> None:
            put_feature(connection, FeatureRow("chat", "chat", FeatureKind.METERED), author)
            publish_plan(connection, plan, plan, (PlanFeature("chat"),), limits(amount), author)
            for name in NAMES:
                put_customer(connection, name, name, author)
                subscribe(connection, name, plan, None, SubscriptionStatus.ACTIVE, author)

        self.database.run(work)

    @rule(ms=st.sampled_from([200, 20_000, 70_000, 1_000_000, 4_000_000]))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms
        for sweep in SWEEPS:
            self.database.run(lambda connection, sweep=sweep: sweep(connection, self.now_ms))

    # -- agents on their own

    @rule(who=st.integers(0, 2), pick=st.integers(0, 50), amount=amounts, lands=st.booleans(), known=st.integers(0, 4))
    def call(self, who: int, pick: int, amount: int, lands: bool, known: int) -> None:
        """Use a lease: held by a call in flight, or settled by an event that charges it; now and then under an id
        that somebody has used before."""
        agent = self.agents[who]
        alive = [(name, held) for name, held in agent.held.items() if not held.closed]
        if not alive:
            return
        name, held = alive[pick % len(alive)]
        amount = min(amount, held.cap - held.used)
        if not lands:
            held.in_flight += amount
        elif amount:
            held.settled += amount
            repeat = self.told_before(held.customer, pick) if known == 0 else None
            self.write(agent, held.customer, {held.meter: amount}, (Charge(name, amount),), repeat)

    @rule(who=st.integers(0, 2), pick=st.integers(0, 50), part=st.integers(0, 3))
    def land(self, who: int, pick: int, part: int) -> None:
        """A call in flight ends: some of what it held was used."""
        agent = self.agents[who]
        flying = [(name, held) for name, held in agent.held.items() if held.in_flight]
        if flying:
            name, held = flying[pick % len(flying)]
            used, held.in_flight = held.in_flight * part // 3, 0
            held.settled += used
            if used:
                self.write(agent, held.customer, {held.meter: used}, (Charge(name, used),))

    @rule(who=st.integers(0, 2), customer=st.sampled_from(NAMES), amount=amounts, known=st.integers(0, 3))
    def record(self, who: int, customer: str, amount: int, known: int) -> None:
        """Usage that no lease paid; now and then under an id that somebody has used before."""
        repeat = self.told_before(customer, amount) if known == 0 else None
        self.write(self.agents[who], customer, {"input_tokens": amount}, (), repeat)

    @rule(who=st.integers(0, 2), pick=st.integers(0, 50), keep=amounts, closing=st.booleans())
    def give_back(self, who: int, pick: int, keep: int, closing: bool) -> None:
        held = list(self.agents[who].held.values())
        if held:
            one = held[pick % len(held)]
            one.cap = min(one.cap, one.used + keep)
            one.closed = one.closed or (closing and one.in_flight == 0)

    def told_before(self, customer: str, pick: int) -> UsageEvent | None:
        old = [event for event in self.told.values() if event.customer == customer]
        return old[pick % len(old)] if old else None

    def write(
        self,
        agent: Agent,
        customer: str,
        used: dict[str, int],
        charges: tuple[Charge, ...],
        repeat: UsageEvent | None = None,
    ) -> None:
        name = repeat.event if repeat else f"e{next(numbers)}"
        subject = Subject(user="ann" if len(agent.events) % 2 else None)
        event = UsageEvent(name, customer, "chat", self.now_ms, used, subject, charges=charges)
        agent.events.append(event)
        self.told.setdefault((customer, name), event)

    # -- agents and the control plane

    @rule(
        who=st.integers(0, 2),
        customer=st.sampled_from(NAMES),
        which=st.integers(0, 2),
        need=amounts,
        heard=st.booleans(),
    )
    def ask(self, who: int, customer: str, which: int, need: int, heard: bool) -> None:
        counter, _, scope = COUNTERS[which]
        user = "ann" if scope is Scope.USER and need % 2 else ""
        lease = f"l{next(numbers)}"
        self.agents[who].asks[lease] = (customer, Ask(lease, counter, user, need, need * 30, max(need, 1)))
        self.sync(self.agents[who], heard=heard)

    @rule(who=st.integers(0, 2), customer=st.sampled_from(NAMES), need=st.integers(1, 10))
    def first_call(self, who: int, customer: str, need: int) -> None:
        call = FirstCall(f"f{next(numbers)}", "chat", Subject(), {"requests": 1, "input_tokens": need})
        self.sync(self.agents[who], CustomerSync(customer, 0, (call,)))

    @rule(who=st.integers(0, 2), heard=st.booleans())
    def report(self, who: int, heard: bool) -> None:
        self.sync(self.agents[who], heard=heard)

    @rule(who=st.integers(0, 2), pick=st.integers(0, 100))
    def an_old_request_arrives(self, who: int, pick: int) -> None:
        sent = self.agents[who].sent
        if sent:
            self.deliver(self.agents[who], sent[pick % len(sent)])

    @rule(who=st.integers(0, 2))
    def the_same_again_changes_nothing(self, who: int) -> None:
        request = self.sync(self.agents[who])
        before = self.database.read(everything)
        self.deliver(self.agents[who], request)
        after = self.database.read(everything)
        assert before == after

    # -- faults

    @rule(who=st.integers(0, 2))
    def crash(self, who: int) -> None:
        """The process dies and starts again on its disk: what was in flight may have been used."""
        agent = self.agents[who]
        agent.before[agent.boot] = agent.events
        agent.events = []
        agent.boot += 1
        agent.nonce, agent.introduced = f"n{next(numbers)}", False
        agent.asks = {}
        for held in agent.held.values():
            held.orphan, held.in_flight = held.orphan + held.in_flight, 0

    @rule(who=st.integers(0, 2))
    def lose_the_disk(self, who: int) -> None:
        """Its events that nobody has confirmed are lost with it; its leases may have paid for anything."""
        agent = self.agents[who]
        self.gone.update(agent.held)
        self.agents[who] = Agent(agent.name, f"journal-{next(numbers)}", nonce=f"n{next(numbers)}", sent=agent.sent)

    # -- the exchange

    def sync(self, agent: Agent, *customers: CustomerSync, heard: bool = True) -> SyncRequest:
        asks: dict[str, list[Ask]] = {}
        for customer, ask in agent.asks.values():
            asks.setdefault(customer, []).append(ask)
        named = [CustomerSync(customer, 0, asks=tuple(of)) for customer, of in asks.items()]
        reports = tuple(
            LeaseReport(name, held.cap, held.settled, held.in_flight, held.orphan, held.closed)
            for name, held in agent.held.items()
        )
        batches = [
            batch
            for boot, events in [*agent.before.items(), (agent.boot, agent.events)]
            for batch in self.batches(boot, agent.confirmed.get(boot, 0), events)
        ]
        request = SyncRequest(
            agent.journal, agent.boot, agent.nonce, (*named, *customers), reports, tuple(batches), not agent.introduced
        )
        agent.sent.append(request)
        reply = self.deliver(agent, request)
        if heard and reply is not None:
            self.adopt(agent, reply)
        return request

    @staticmethod
    def batches(boot: int, confirmed: int, events: list[UsageEvent]) -> list[EventBatch]:
        rest = events[confirmed:]
        if not rest:
            return []
        body = encode_msgpack(rest)
        return [EventBatch(boot, confirmed + 1, len(rest), crc32(body), body)]

    def deliver(self, agent: Agent, request: SyncRequest) -> SyncReply | None:
        outcome = self.database.run(lambda connection: sync_agent(connection, agent.name, request, self.now_ms))
        return outcome.reply if isinstance(outcome, Synced) else None

    def adopt(self, agent: Agent, reply: SyncReply) -> None:
        agent.introduced = True
        for mark in reply.high_water:
            agent.confirmed[mark.boot] = max(mark.seq, agent.confirmed.get(mark.boot, 0))
        for grant in reply.grants:
            agent.asks.pop(grant.lease, None)
            meter = grant.counter.split("/")[1]
            agent.held.setdefault(grant.lease, Held(grant.customer, meter, grant.amount))
        for denial in reply.denials:
            agent.asks.pop(denial.lease, None)
        for recall in reply.recalls:
            held = agent.held[recall.lease]
            held.cap = min(held.cap, held.used + recall.keep)
        assert not reply.unknown_leases
        for name in reply.closed:
            self.gone[name] = agent.held.pop(name, None) or self.gone.get(name) or Held("", "", 0)

    # -- what must always be so

    @invariant()
    def the_books_are_right(self) -> None:
        assert self.database.read(check_books) == []

    @invariant()
    def nothing_is_used_that_is_not_charged(self) -> None:
        known = self.gone | {name: held for agent in self.agents for name, held in agent.held.items()}
        for name, (granted, cap) in self.database.read(caps).items():
            if name in known:
                assert known[name].used <= cap <= granted

    @invariant()
    def no_more_is_lent_than_there_is(self) -> None:
        chosen = self.database.read(direct_debits)
        for row in self.database.read(lambda connection: list(allowances.all_rows(connection))):
            overage = 10 if "/input_tokens/day" in row.key.counter else 0
            taken = row.posted + row.outstanding + row.direct
            assert taken <= self.ceiling + overage + chosen.get(row.key, 0)

    def teardown(self) -> None:
        """In the end every event that a living disk holds is in the ledger, once."""
        for agent in self.agents:
            self.sync(agent)
        stored = self.database.read(stored_events)
        for agent in self.agents:
            for events in [*agent.before.values(), agent.events]:
                assert {(event.customer, event.event) for event in events} <= stored
        self.the_books_are_right()
        self.database.dispose()


def caps(connection: Connection) -> dict[str, tuple[int, int]]:
    columns = tables.leases.c
    query = select(columns.lease, columns.granted, columns.cap)
    return {row.lease: (row.granted, row.cap) for row in connection.execute(query)}


def direct_debits(connection: Connection) -> dict[allowances.Key, int]:
    """What was debited without a lease, give-backs left out: it may pass a limit, for it is already used."""
    columns = tables.entries.c
    key = (columns.customer, columns.counter, columns.scope_value, columns.window_start_ms)
    query = select(*key, func.sum(columns.amount)).where(columns.kind == "direct", columns.amount > 0).group_by(*key)
    return {allowances.Key(*row[:4]): int(row[4]) for row in connection.execute(query)}


def stored_events(connection: Connection) -> set[tuple[str, str]]:
    columns = tables.events.c
    return {(row.customer, row.event) for row in connection.execute(select(columns.customer, columns.event))}


def everything(connection: Connection) -> list[Any]:
    """All that a repeated request must leave as it is: everything but what agents lately asked for."""
    names = ("allowances", "leases", "entries", "events", "event_conflicts", "rollups", "incarnations", "changes")
    kept = [tables.metadata.tables[name] for name in names]
    return [sorted(map(repr, connection.execute(select(table)))) for table in kept]


@pytest.fixture
def fresh_databases(sqlite_template: Path, tmp_path: Path) -> Iterator[Iterator[Database]]:
    def each() -> Iterator[Database]:
        for number in itertools.count():
            path = tmp_path / f"{number}.db"
            shutil.copy(sqlite_template, path)
            yield Database(f"sqlite:///{path}")

    return each()


def test_any_story_keeps_the_books(fresh_databases: Iterator[Database]) -> None:
    class Bound(Story):
        fresh = fresh_databases

    options = settings(
        max_examples=25,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Bound, settings=options)
