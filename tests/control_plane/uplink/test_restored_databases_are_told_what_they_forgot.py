"""A database put back to an older state: its own grants are known by their seals, nothing is lent twice meanwhile, and
events come again, once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, insert, select

from control_plane.core.learning import EXPECTED_MS, LISTEN_MS, expected_since_ms
from control_plane.core.seals import holds, seal_of
from control_plane.operations.learn_again import end_learning, say_restored
from control_plane.operations.sync_agent import Synced, TurnedAway
from control_plane.operations.take_custody import take_custody
from control_plane.store import custody, tables, trust_tables
from protocol.entitlements import Limit
from protocol.events import Charge, UsageEvent
from protocol.leases import Grant, LeaseReport, Standing
from protocol.uplink_messages import Ask, CustomerSync, HighWater, SyncReply, SyncRequest

_ids = itertools.count(1)
State = dict[Any, list[dict[str, Any]]]


def backup(world: Any) -> State:
    """Everything that is in the database."""
    every = tables.metadata.sorted_tables
    return world.read(
        lambda connection: {
            table: [dict(row) for row in connection.execute(select(table)).mappings()] for table in every
        }
    )


def put_back(world: Any, state: State) -> None:
    """The database as it was."""

    def work(connection: Any) -> None:
        for table, rows in state.items():
            connection.execute(delete(table))
            if rows:
                connection.execute(insert(table), rows)

    world.database.run(work)


def charged(world: Any) -> int:
    table = tables.allowances
    query = select(func.coalesce(func.sum(table.c.posted + table.c.direct + table.c.outstanding), 0))
    return int(world.read(lambda connection: connection.execute(query).scalar_one()))


def present(world: Any) -> custody.Generation:
    return world.read(custody.present).generation


@dataclass
class Held:
    """One lease on a host's disk."""

    grant: Grant
    settled: int = 0
    orphan: int = 0
    closing: bool = False

    def report(self) -> LeaseReport:
        used = self.settled + self.orphan
        cap = used if self.closing else self.grant.amount
        return LeaseReport(self.grant.lease, cap, self.settled, 0, self.orphan, self.closing)


@dataclass
class Host:
    """An agent as far as a restore concerns it: its journal, what it was told, and what was truly used."""

    world: Any
    name: str
    journal: str
    limit: Limit
    boot: int = 1
    leases: dict[str, Held] = field(default_factory=dict)
    closed: dict[str, Held] = field(default_factory=dict)
    events: dict[int, list[UsageEvent]] = field(default_factory=dict)
    marks: dict[int, int] = field(default_factory=dict)
    gone: dict[int, int] = field(default_factory=dict)
    generation: str = ""
    first: bool = True
    everything: bool = False
    show: tuple[str, ...] = ()
    used: int = 0
    denied: int = 0

    def request(self, customers: Iterable[CustomerSync] = ()) -> SyncRequest:
        snapshot = self.first or self.everything or bool(self.show)
        held = dict(self.leases)
        if snapshot:
            held |= self.closed
        lost = {boot: top for boot, top in self.gone.items() if top > self.marks.get(boot, 0)}
        batches = []
        for boot, written in self.events.items():
            after = max(self.marks.get(boot, 0), self.gone.get(boot, 0))
            if len(written) > after:
                batches.append(self.world.batch(boot, after + 1, written[after:]))
        return SyncRequest(
            self.journal,
            self.boot,
            f"nonce-{self.journal}-{self.boot}",
            tuple(customers),
            tuple(lease.report() for lease in held.values()),
            tuple(batches),
            snapshot,
            sealed=tuple(held[name].grant for name in self.show if name in held),
            confirmed=tuple(HighWater(boot, seq) for boot, seq in self.marks.items()),
            lost=tuple(HighWater(boot, top) for boot, top in lost.items()),
            generation=self.generation,
        )

    def send(self, request: SyncRequest) -> SyncReply:
        self.world.clock.advance(1)
        outcome = self.world.sync(self.name, request)
        if outcome == TurnedAway("snapshot_required"):
            self.everything = True
            return self.send(self.request(request.customers))
        assert isinstance(outcome, Synced), outcome
        reply = outcome.reply
        self.first = False
        self.everything = reply.generation != self.generation
        self.generation, self.show = reply.generation, reply.show
        self.denied += len(reply.denials)
        for mark in reply.high_water:
            self.marks[mark.boot] = mark.seq
        for name in reply.closed:
            if name in self.leases and self.leases[name].closing:
                self.closed[name] = self.leases.pop(name)
        for grant in reply.grants:
            self.leases[grant.lease] = Held(grant)
        for name in reply.unknown_leases:
            self.leases.pop(name, None)
        return reply

    def sync(self, *customers: CustomerSync) -> SyncReply:
        """Say everything that there is to say, until nothing more is asked."""
        reply = self.send(self.request(customers))
        while self.everything or self.show or any(len(self.events[b]) > self.marks.get(b, 0) for b in self.events):
            reply = self.send(self.request())
        return reply

    def ask(self, need: int) -> SyncReply:
        lease = f"{self.journal}-{self.boot}-{next(_ids)}"
        ask = Ask(lease, self.limit.counter, "", need, 1, need)
        return self.send(self.request([CustomerSync("acme", 0, asks=(ask,))]))

    def use(self, amount: int) -> None:
        """Call the provider, as far as there are rights here, and write it down."""
        for lease in self.leases.values():
            part = min(amount, lease.grant.amount - lease.settled - lease.orphan)
            if part > 0 and not lease.closing:
                lease.settled += part
                self.used += part
                name = f"event-{next(_ids)}"
                paid = (Charge(lease.grant.lease, part),)
                self.events.setdefault(self.boot, []).append(
                    self.world.event("acme", {"requests": part}, event=name, paid=paid)
                )
                return

    def close_one(self) -> None:
        for lease in self.leases.values():
            lease.closing = True
            return

    def crash(self, lost: int) -> None:
        """Start again; ``lost`` may have been used of one lease although no event says so (and it was)."""
        for lease in self.leases.values():
            part = min(lost, lease.grant.amount - lease.settled - lease.orphan)
            if part > 0 and not lease.closing:
                lease.orphan += part
                self.used += part
                break
        self.boot, self.first, self.everything, self.show = self.boot + 1, True, False, ()


@pytest.fixture
def hosts(world: Any) -> list[Host]:
    limit = world.limit(amount=1_000)
    world.customer("acme", limit)
    return [Host(world, agent.name, agent.journal, limit) for agent in world.agents(3)]


def sweep(world: Any) -> None:
    world.database.run(lambda connection: end_learning(connection, world.clock.now_ms()))


def test_a_forgotten_lease_is_shown_and_charged_again(world: Any, hosts: list[Host]) -> None:
    host, other, _ = hosts
    host.sync()
    other.sync()
    before = backup(world)
    host.ask(100)
    (lease,) = host.leases.values()
    host.use(30)
    host.sync()
    put_back(world, before)
    assert charged(world) == 0
    first = host.send(host.request())
    assert (first.show, first.unknown_leases) == ((lease.grant.lease,), ())
    assert present(world).cause == "made", "that a lease is not known proves nothing before its seal is seen"
    host.sync()
    assert charged(world) == lease.grant.amount
    assert (present(world).cause, present(world).agent) == ("noticed", host.name)
    assert world.books() == []
    assert not other.ask(10).grants, "nothing is lent before everybody has said what they hold"
    host.close_one()
    host.sync()
    host.sync()
    assert (charged(world), host.leases) == (30, {})
    assert world.books() == []


def test_nothing_finite_is_lent_until_all_have_told_and_a_term_has_passed(world: Any, hosts: list[Host]) -> None:
    for host in hosts:
        host.sync()
        host.ask(50)
    world.database.run(lambda connection: say_restored(connection, "operator", "from last night", world.clock.now_ms()))
    for host in hosts[:2]:
        host.sync()
        assert not host.ask(50).grants
    world.clock.advance(LISTEN_MS)
    sweep(world)
    assert not hosts[0].ask(50).grants, "one agent has not told yet"
    hosts[2].sync()
    sweep(world)
    assert present(world).ended_at_ms == world.clock.now_ms()
    assert hosts[0].ask(50).grants


def test_agents_that_stay_away_are_waited_for_only_so_long(world: Any, hosts: list[Host]) -> None:
    for host in hosts:
        host.sync()
    world.database.run(lambda connection: say_restored(connection, "operator", "drill", world.clock.now_ms()))
    hosts[0].sync()
    known = present(world)
    world.clock.set(known.at_most_until_ms - 2)
    sweep(world)
    denials = hosts[0].ask(50).denials
    assert [(denial.exhausted, denial.retry_in_ms) for denial in denials] == [(False, 1_000)]
    assert hosts[0].ask(50).grants, "even where the sweep has not come by"
    sweep(world)
    assert present(world).ended_at_ms == world.clock.now_ms()


def test_an_agent_revoked_is_not_waited_for(world: Any, hosts: list[Host]) -> None:
    for host in hosts:
        host.sync()
    world.database.run(lambda connection: say_restored(connection, "operator", "drill", world.clock.now_ms()))
    assert world.read(lambda connection: custody.missing(connection, present(world))) == 3
    for host in hosts[1:]:
        host.sync()
    revoked = tables.agents.c.agent == hosts[0].name
    world.database.run(
        lambda connection: connection.execute(tables.agents.update().where(revoked).values(revoked_at_ms=1))
    )
    assert world.read(lambda connection: custody.missing(connection, present(world))) == 0


def test_an_old_message_never_passes_for_having_told_all(world: Any, hosts: list[Host]) -> None:
    host = hosts[0]
    old = host.request()
    host.sync()
    world.database.run(lambda connection: say_restored(connection, "operator", "drill", world.clock.now_ms()))
    assert isinstance(world.sync(host.name, old), Synced)
    assert world.read(lambda connection: custody.missing(connection, present(world))) == 1
    host.sync()
    assert world.read(lambda connection: custody.missing(connection, present(world))) == 0


def test_events_come_again_once_and_only_what_nobody_has_is_written_off(world: Any, hosts: list[Host]) -> None:
    host = hosts[0]
    host.ask(500)
    host.use(10)
    host.sync()
    before = backup(world)
    for _ in range(4):
        host.use(20)
        host.sync()
    put_back(world, before)
    host.gone = {1: 3}  # two of the four are no longer kept
    host.sync()
    rows = world.read(lambda connection: connection.execute(select(tables.events.c.seq)).scalars().all())
    assert sorted(rows) == [1, 4, 5]
    kept = world.read(lambda connection: connection.execute(select(tables.event_conflicts)).all())
    assert [(row.code, row.seq, msgspec.msgpack.decode(row.body)) for row in kept] == [
        ("lost_in_restore", 2, {"from": 2, "to": 3, "boot": 1})
    ]
    host.close_one()
    host.sync()
    assert charged(world) == host.used == 90, "what leases were charged with does not depend on the events"
    assert [line for line in world.books() if "but events" not in line] == []


def test_events_wait_until_the_leases_that_paid_for_them_are_known(world: Any, hosts: list[Host]) -> None:
    host = hosts[0]
    host.sync()
    before = backup(world)
    host.ask(100)
    host.use(40)
    put_back(world, before)
    reply = host.send(host.request())
    assert (bool(reply.show), reply.high_water) == (True, ())
    host.sync()
    table = tables.allowances.c
    sums = world.read(lambda connection: connection.execute(select(table.direct, table.outstanding)).one())
    assert tuple(sums) == (0, host.leases[reply.show[0]].grant.amount), "nothing was debited beside its lease"


def test_a_lease_of_before_that_is_not_listed_is_not_taken_for_unused(world: Any, hosts: list[Host]) -> None:
    host = hosts[0]
    host.ask(100)
    host.sync()
    before = backup(world)
    (held,) = host.leases.values()
    host.crash(30)
    held.closing = True
    host.sync()
    assert host.leases == {}
    host.closed.clear()  # long ago, and no longer remembered
    put_back(world, before)
    world.database.run(lambda connection: say_restored(connection, "operator", "x", world.clock.now_ms()))
    host.crash(0)
    host.sync()
    host.crash(0)
    host.sync()
    assert charged(world) == held.grant.amount >= host.used
    assert world.books() == []


def test_an_agent_that_claims_much_makes_nobody_listen_again_and_again(world: Any, hosts: list[Host]) -> None:
    host = hosts[0]
    host.sync()
    for _ in range(3):
        host.marks = {1: 1_000_000}
        host.sync()
        world.clock.advance(LISTEN_MS)
        for each in hosts:
            each.sync()
        sweep(world)
    assert present(world).generation == 2


ALTERED = [
    {"amount": 1},
    {"customer": "other"},
    {"counter": "*/requests/hour/customer"},
    {"scope_value": "u"},
    {"window_start_ms": 1},
    {"window_end_ms": 1},
    {"overage": 1},
    {"finishing": True},
    {"per_ms": 1},
    {"burst": 1},
    {"lease": "other"},
    {"seal": b""},
    {"seal": b"x" * 32},
]


@pytest.mark.parametrize("change", ALTERED, ids=str)
def test_a_seal_holds_for_nothing_but_the_grant_as_it_was_given(change: dict[str, Any]) -> None:
    key = b"k" * 32
    grant = Grant("lease", "acme", "*/requests/day/customer", "", 100, 60_000, 0, 9, 9, Standing(0, 0))
    sealed = msgspec.structs.replace(grant, seal=seal_of(key, "agent", "journal", grant))
    assert holds([b"o" * 32, key], "agent", "journal", sealed)
    assert not holds([key], "agent", "journal", msgspec.structs.replace(sealed, **change))
    assert not holds([key], "thief", "journal", sealed)
    assert not holds([key], "agent", "another", sealed)
    assert not holds([b"o" * 32], "agent", "journal", sealed)
    assert not holds([], "agent", "journal", sealed)


def test_a_foreign_grant_is_not_taken_in_and_is_noted(world: Any, hosts: list[Host]) -> None:
    host, thief, _ = hosts
    thief.sync()
    host.ask(100)
    (held,) = host.leases.values()
    thief.leases["stolen"] = Held(msgspec.structs.replace(held.grant, lease="stolen"))
    thief.sync()
    assert thief.leases == {}
    codes = world.read(lambda connection: connection.execute(select(trust_tables.troubles.c.code)).scalars().all())
    assert codes == ["bad_seal"]
    assert (charged(world), present(world).generation) == (held.grant.amount, 1)


def test_a_closed_lease_is_never_opened_by_its_seal(world: Any, hosts: list[Host]) -> None:
    host = hosts[0]
    host.ask(100)
    (held,) = host.leases.values()
    host.use(10)
    host.close_one()
    host.sync()
    host.sync()
    assert charged(world) == 10
    again = LeaseReport(held.grant.lease, held.grant.amount, 10)
    request = msgspec.structs.replace(host.request(), leases=(again,), sealed=(held.grant,), snapshot=True)
    reply = host.send(request)
    assert (reply.closed, reply.show, reply.renewed) == ((held.grant.lease,), (), ())
    assert charged(world) == 10


def test_a_share_of_a_rate_is_not_revived(world: Any, hosts: list[Host]) -> None:
    host = hosts[0]
    host.sync()
    key = world.read(custody.present).key
    grant = Grant(
        "rate", "acme", "*/requests/minute-rate/customer", "", 60, 60_000, 0, 9, 9, Standing(0, 0), per_ms=60_000
    )
    host.leases["rate"] = Held(msgspec.structs.replace(grant, seal=seal_of(key, host.name, host.journal, grant)))
    reply = host.sync()
    assert (reply.closed, charged(world)) == (("rate",), 0)


def test_a_key_from_outside_seals_and_the_old_one_is_still_believed(world: Any, hosts: list[Host]) -> None:
    host = hosts[0]
    host.sync()
    before = backup(world)
    host.ask(100)
    put_back(world, before)
    for _ in range(2):
        world.database.run(lambda connection: take_custody(connection, b"outside" * 6, b"fresh", 5, 1))
    assert len(world.read(custody.keys)) == 2
    assert present(world).learning_max_ms == 300_000
    host.sync()
    (held,) = host.leases.values()
    assert charged(world) == held.grant.amount
    assert (present(world).at_most_until_ms - present(world).begun_at_ms) == 300_000


@given(st.integers(0, 2**41), st.one_of(st.none(), st.integers(0, 2**41)))
def test_everybody_of_the_hour_before_is_expected(now_ms: int, newest_ms: int | None) -> None:
    since_ms = expected_since_ms(now_ms, newest_ms)
    assert since_ms <= now_ms - EXPECTED_MS
    assert newest_ms is None or since_ms <= newest_ms - EXPECTED_MS


STEP = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 2), st.integers(1, 200)),
    st.tuples(st.just("use"), st.integers(0, 2), st.integers(1, 200)),
    st.tuples(st.just("sync"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("close"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("crash"), st.integers(0, 2), st.integers(0, 50)),
)


def act(hosts: list[Host], steps: Iterable[tuple[str, int, int]]) -> None:
    for verb, which, amount in steps:
        host = hosts[which]
        match verb:
            case "ask":
                host.ask(amount)
            case "use":
                host.use(amount)
            case "sync":
                host.sync()
            case "close":
                host.close_one()
            case _:
                host.crash(amount)


@given(st.lists(STEP, max_size=25), st.lists(STEP, max_size=25), st.lists(STEP, max_size=25), st.booleans())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_restore_makes_a_limit_be_passed_or_an_event_be_lost(
    world: Any, early: list[Any], lost: list[Any], late: list[Any], told: bool
) -> None:
    """Whatever happened before, between and after: what is truly used never passes the limit, and is charged."""
    limit = world.limit(amount=1_000, key=f"limit-{next(_ids)}")
    empty = {table: rows for table, rows in backup(world).items() if table.name in {"generations", "seal_keys"}}
    put_back(world, {table: empty.get(table, []) for table in tables.metadata.sorted_tables})
    world.database.run(lambda connection: connection.execute(delete(trust_tables.generations)))
    world.database.run(lambda connection: take_custody(connection, None, b"k" * 32, 10, 1))
    world.customer("acme", limit)
    hosts = [Host(world, agent.name, agent.journal, limit) for agent in world.agents(3)]
    for host in hosts:
        host.sync()
    act(hosts, early)
    before = backup(world)
    act(hosts, lost)
    put_back(world, before)
    if told:  # else it is noticed; and what is lent before that is the one thing that cannot be known
        world.database.run(lambda connection: say_restored(connection, "operator", "x", world.clock.now_ms()))
    else:
        late = []
    for host in hosts:
        host.sync()
    world.clock.advance(LISTEN_MS)
    sweep(world)
    act(hosts, late)
    for host in hosts:
        host.sync()
    used = sum(host.used for host in hosts)
    assert used <= limit.amount
    assert used <= charged(world)
    assert world.books() == []
    written = sum(len(events) for host in hosts for events in host.events.values())
    counted = world.read(lambda c: c.execute(select(func.count()).select_from(tables.events)).scalar_one())
    assert counted == written, "each event once"
