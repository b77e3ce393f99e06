"""Agents that crash, repeat themselves, lose disks and hear nothing: after every step of any story, the books are right
and no allowance is overspent."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select

from control_plane.core.kinds import Kind, counted, kind_of
from control_plane.core.plans import Bundle, PlanFeature, PlanLimit
from control_plane.operations.apply_catalog import publish_plan, put_feature
from control_plane.operations.audit_books import check_books
from control_plane.operations.author import Author
from control_plane.operations.change_customer import put_customer
from control_plane.operations.change_subscription import SubscriptionOrder, order
from control_plane.operations.reclaim_leases import SWEEPS
from control_plane.operations.sync_agent import Sync, Synced, sync_agent, sync_agents
from control_plane.operations.unit_of_work import NotTogether
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


def limits(amount: int) -> tuple[Limit, ...]:
    return (
        Limit("hour", "requests", amount, WindowKind.HOUR),
        Limit("tokens", "input_tokens", amount, WindowKind.DAY, at_end=LimitEnd.OVERAGE, overage_max=10),
        Limit("user", "input_tokens", amount, WindowKind.HOUR, scope=Scope.USER),
        Limit("slots", "requests", amount, WindowKind.IN_FLIGHT),
        Limit("rate", "input_tokens", amount, WindowKind.MINUTE, smooth=True, burst=-(-amount // 2)),
    )


COUNTERS = [(limit.counter, limit.meter, limit.scope) for limit in limits(1)]


@dataclass
class Held:
    """A lease as its holder's disk knows it."""

    customer: str
    counter: str
    cap: int
    settled: int = 0
    in_flight: int = 0
    orphan: int = 0
    closed: bool = False

    @property
    def kind(self) -> Kind:
        return kind_of(self.counter)

    @property
    def meter(self) -> str:
        return counted(self.counter).meter

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


class Story:
    """One example is one story in one fresh database; every move takes an agent and three numbers."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now_ms = NOW_MS
        self.agents: list[Agent] = []
        self.gone: dict[str, Held] = {}  # leases of disks that were lost: what they may have paid for
        self.told: dict[tuple[str, str], UsageEvent] = {}  # events that some living disk holds, by identity
        self.ceiling = 0

    # -- the world

    def begin(self, amount: int) -> None:
        self.change_plans(0, amount, 0, 0)
        for name in ("a1", "a2", "a3"):
            self.database.run(lambda connection, name=name: agents.add(connection, name, name, self.now_ms))
            self.agents.append(Agent(name, f"journal-{name}"))

    def change_plans(self, _: int, amount: int, *__: int) -> None:
        amount *= 5
        self.ceiling = max(self.ceiling, amount)
        author, plan = Author("test", self.now_ms), f"plan-{next(numbers)}"

        def work(connection: Connection) -> None:
            put_feature(connection, FeatureRow("chat", "chat", FeatureKind.METERED), author)
            whole = tuple(PlanLimit(**msgspec.structs.asdict(limit)) for limit in limits(amount))
            publish_plan(connection, plan, plan, Bundle((PlanFeature("chat"),), whole), author)
            for name in NAMES:
                put_customer(connection, name, name, author)
                order(connection, name, SubscriptionOrder(plan), author)

        self.database.run(work)

    def time_passes(self, _: int, pick: int, *__: int) -> None:
        self.now_ms += (200, 200, 1_000, 20_000, 70_000, 1_000_000, 4_000_000)[pick % 7]
        for sweep in SWEEPS:
            self.database.run(lambda connection, sweep=sweep: sweep(connection, self.now_ms))

    # -- agents on their own

    def call(self, who: int, pick: int, amount: int, how: int) -> None:
        """Use a lease: held by a call in flight, or settled by an event that charges it; now and then under an id
        that somebody has used before."""
        agent = self.agents[who]
        alive = [(name, held) for name, held in agent.held.items() if not held.closed and held.kind is not Kind.RATE]
        if not alive:
            return
        name, held = alive[pick % len(alive)]
        amount = min(amount, held.cap - held.used)
        if how <= 1:
            held.in_flight += amount
        elif amount and held.kind is Kind.QUOTA:
            held.settled += amount
            repeat = self.told_before(held.customer, pick) if how == 2 else None
            self.write(agent, held.customer, {held.meter: amount}, (Charge(name, amount),), repeat)

    def land(self, who: int, pick: int, _: int, how: int) -> None:
        """A call in flight ends: some of what it held was used."""
        agent = self.agents[who]
        flying = [(name, held) for name, held in agent.held.items() if held.in_flight]
        if flying:
            name, held = flying[pick % len(flying)]
            used, held.in_flight = held.in_flight * min(how, 3) // 3, 0
            if used and held.kind is Kind.QUOTA:
                held.settled += used
                self.write(agent, held.customer, {held.meter: used}, (Charge(name, used),))

    def record(self, who: int, pick: int, amount: int, how: int) -> None:
        """Usage that no lease paid; now and then under an id that somebody has used before."""
        customer = NAMES[pick % 2]
        repeat = self.told_before(customer, pick) if how == 1 else None
        self.write(self.agents[who], customer, {"input_tokens": amount}, (), repeat)

    def give_back(self, who: int, pick: int, keep: int, how: int) -> None:
        """Lower the cap of one lease or of all, and be done with it if no call holds it."""
        held = list(self.agents[who].held.values())
        for one in held if how == 0 else held[pick % max(len(held), 1) :][:1]:
            one.cap = min(one.cap, one.used + keep // 8)
            one.closed = one.closed or (how <= 2 and one.in_flight == 0)

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

    def ask(self, who: int, pick: int, need: int, how: int) -> None:
        counter, _, scope = COUNTERS[pick % len(COUNTERS)]
        user = "ann" if scope is Scope.USER and need % 2 else ""
        lease = f"l{next(numbers)}"
        demand = 0 if how == 1 else need * 30
        self.agents[who].asks[lease] = (NAMES[pick % 2], Ask(lease, counter, user, need, demand, max(need // 2, 1)))
        self.sync(self.agents[who], heard=how > 0)

    def first_call(self, who: int, pick: int, need: int, _: int) -> None:
        call = FirstCall(f"f{next(numbers)}", "chat", Subject(), {"requests": 1, "input_tokens": need})
        self.sync(self.agents[who], CustomerSync(NAMES[pick % 2], 0, (call,)))

    def report(self, who: int, _: int, __: int, how: int) -> None:
        self.sync(self.agents[who], heard=how > 0)

    def all_speak_at_once(self, who: int, pick: int, need: int, how: int) -> None:
        """Answered in one transaction, they are told, and leave behind, what they would one after the other."""
        syncs = []
        for at, agent in enumerate(self.agents):
            if (at + who + how) % 3:
                counter, _, scope = COUNTERS[(pick + at * (how % 2)) % len(COUNTERS)]
                lease = f"l{next(numbers)}"
                user = "ann" if scope is Scope.USER and need % 2 else ""
                agent.asks[lease] = (NAMES[pick % 2], Ask(lease, counter, user, need, need * 30, max(need // 2, 1)))
            syncs.append(Sync(agent.name, self.words(agent), self.now_ms))

        def one_by_one(connection: Connection) -> Any:
            return [sync_agent(connection, *sync) for sync in syncs], traces(connection)

        def together(connection: Connection) -> Any:
            return sync_agents(connection, syncs), traces(connection)

        expected = self.database.run(one_by_one, keep=False)
        try:
            outcomes, left = self.database.run(together)
        except NotTogether:
            return
        assert (outcomes, left) == expected
        for agent, outcome in zip(self.agents, outcomes, strict=True):
            if isinstance(outcome, Synced):
                self.adopt(agent, outcome.reply)

    def an_old_request_arrives(self, who: int, pick: int, *_: int) -> None:
        sent = self.agents[who].sent
        if sent:
            self.deliver(self.agents[who], sent[-1 - pick % len(sent)])

    def the_same_again_changes_nothing(self, who: int, *_: int) -> None:
        request = self.sync(self.agents[who])
        before = self.database.read(everything)
        self.deliver(self.agents[who], request)
        after = self.database.read(everything)
        assert before == after

    # -- faults

    def crash(self, who: int, _: int, amount: int, how: int) -> None:
        """The process dies, now and then in the middle of calls on all its leases, and starts again on its disk: what
        was in flight may have been used."""
        agent = self.agents[who]
        for held in agent.held.values():
            held.closed = held.closed or held.kind is Kind.RATE  # the bucket is in memory only
            if how > 2 and not held.closed:
                held.in_flight += min(amount // 8, held.cap - held.used)
        agent.before[agent.boot] = agent.events
        agent.events = []
        agent.boot += 1
        agent.nonce, agent.introduced = f"n{next(numbers)}", False
        agent.asks = {}
        for held in agent.held.values():
            held.orphan, held.in_flight = held.orphan + held.in_flight, 0

    def lose_the_disk(self, who: int, *_: int) -> None:
        """Its events that nobody has confirmed are lost with it; its leases may have paid for anything."""
        agent = self.agents[who]
        self.gone.update(agent.held)
        new = Agent(agent.name, f"journal-{next(numbers)}", nonce=f"n{next(numbers)}", sent=agent.sent)
        self.agents[who] = new

    # -- the exchange

    def sync(self, agent: Agent, *customers: CustomerSync, heard: bool = True) -> SyncRequest:
        request = self.words(agent, *customers)
        reply = self.deliver(agent, request)
        if heard and reply is not None:
            self.adopt(agent, reply)
        return request

    def words(self, agent: Agent, *customers: CustomerSync) -> SyncRequest:
        """What it says now."""
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
            agent.held.setdefault(grant.lease, Held(grant.customer, grant.counter, grant.amount))
        for denial in reply.denials:
            agent.asks.pop(denial.lease, None)
        for recall in reply.recalls:
            held = agent.held[recall.lease]
            held.cap = min(held.cap, held.used + recall.keep)
        assert not reply.unknown_leases
        for name in reply.closed:
            self.gone[name] = agent.held.pop(name, None) or self.gone.get(name) or Held("", "*/*/*/*", 0)

    # -- what must always be so

    def the_books_are_right(self) -> None:
        assert self.database.read(lambda connection: check_books(connection, told_all=True)) == []

    def nothing_is_used_that_is_not_charged(self) -> None:
        known = self.gone | {name: held for agent in self.agents for name, held in agent.held.items()}
        for name, (granted, cap) in self.database.read(caps).items():
            if name in known and known[name].kind is Kind.QUOTA:
                assert known[name].used <= cap <= granted

    def no_more_is_lent_than_there_is(self) -> None:
        chosen = self.database.read(direct_debits)
        for row in self.database.read(lambda connection: list(allowances.all_rows(connection))):
            overage = 10 if "/input_tokens/day" in row.key.counter else 0
            taken = row.posted + row.outstanding + row.direct
            assert taken <= self.ceiling + overage + chosen.get(row.key, 0)

    def always(self) -> None:
        self.the_books_are_right()
        self.nothing_is_used_that_is_not_charged()
        self.no_more_is_lent_than_there_is()

    def end(self) -> None:
        """In the end every event that a living disk holds is in the ledger, once."""
        for agent in self.agents:
            self.sync(agent)
        stored = self.database.read(stored_events)
        for agent in self.agents:
            for events in [*agent.before.values(), agent.events]:
                assert {(event.customer, event.event) for event in events} <= stored
        self.the_books_are_right()


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


def traces(connection: Connection) -> list[Any]:
    """All that syncs leave behind; of numbers that the database draws, not which."""
    names = ("allowances", "leases", "entries", "events", "event_conflicts", "rollups", "incarnations", "demands")
    kept = [tables.metadata.tables[name] for name in names]
    rows = [[column for column in table.c if column is not tables.entries.c.entry] for table in kept]
    news = tables.metadata.tables["changes"]
    said = select(news.c.customer, news.c.kind, news.c.agent).distinct()
    return [sorted(map(repr, connection.execute(query))) for query in [*(select(*row) for row in rows), said]]


MOVES = [
    *[Story.call] * 8,
    *[Story.ask] * 6,
    *[Story.report] * 4,
    *[Story.all_speak_at_once] * 3,
    *[Story.land] * 3,
    *[Story.give_back] * 4,
    *[Story.an_old_request_arrives] * 3,
    *[Story.first_call] * 2,
    *[Story.record] * 2,
    *[Story.crash] * 2,
    *[Story.time_passes] * 2,
    Story.the_same_again_changes_nothing,
    Story.change_plans,
    Story.lose_the_disk,
]
moves = st.tuples(st.sampled_from(MOVES), st.integers(0, 2), st.integers(0, 50), st.integers(0, 40), st.integers(0, 5))


def tell(database: Database, amount: int, story: list[Any]) -> None:
    told = Story(database)
    told.begin(amount)
    for move, who, pick, number, how in story:
        move(told, who, pick, number, how)
        told.always()
    told.end()


anything = given(amount=st.integers(4, 40), story=st.lists(moves, min_size=30, max_size=60))


@anything
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_story_keeps_the_books(sqlite_template: Path, tmp_path: Path, amount: int, story: list[Any]) -> None:
    path = tmp_path / f"{next(numbers)}.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    try:
        tell(database, amount, story)
    finally:
        database.dispose()


@anything
@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_story_keeps_the_books_on_postgresql(postgresql_url: str, amount: int, story: list[Any]) -> None:
    database = Database(postgresql_url)
    try:
        with database.transaction() as connection:
            for table in reversed(tables.metadata.sorted_tables):
                if table.name not in {"generations", "seal_keys"}:  # every database has these from its beginning
                    connection.execute(delete(table))
        tell(database, amount, story)
    finally:
        database.dispose()
