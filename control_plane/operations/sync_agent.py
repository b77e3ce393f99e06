"""Answers agents' syncs: who speaks, what it reports and asks, what has changed; all in one transaction.

Rows are locked in one order everywhere: the agent, its customers, new events, allowances, sums, meters, the change
feed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from control_plane.core.aggregates import Counted
from control_plane.core.incarnations import Standing as Speaker
from control_plane.core.kinds import counted
from control_plane.operations.accept_events import accept_events, book_events
from control_plane.operations.add_to_meters import add_to_meters
from control_plane.operations.burn_credits import burn_credits
from control_plane.operations.exchange import Exchange
from control_plane.operations.find_wishes import Wish, find_wishes
from control_plane.operations.grant_leases import Lender
from control_plane.operations.keep_for_review import keep_for_review
from control_plane.operations.read_batches import Reading, read_batches
from control_plane.operations.recognise import hear_stranger, lost_leases, remember_exchange
from control_plane.operations.register_start import quarantine, register_start
from control_plane.operations.resolve_entitlement import Standing
from control_plane.operations.settle_reports import find_leases, renew_leases, settle_reports
from control_plane.operations.take_back_unheard import find_unheard, take_back_unheard
from control_plane.operations.tell_thresholds import tell_moved
from control_plane.operations.unit_of_work import UnitOfWork
from control_plane.store import agents, leases, rollups
from control_plane.store.database import Connection
from protocol.events import UsageEvent
from protocol.uplink_messages import SyncReply, SyncRequest
from protocol.violations import Violation
from protocol.windows import WindowKind

BOOT_MAX = 2**31 - 1
SEQ_MAX = 2**53
SEEN_COARSE_MS = 10_000


@dataclass(frozen=True, slots=True)
class Synced:
    """The answer.

    Attributes:
        news: watches have something to hear.
        late: a newer start of the journal has spoken. What was said counts all the same; but whoever reads the answer
            is alive, so that two agents live on copies of one disk: it must stop.
        accepted: the events that were new, and counted.
    """

    reply: SyncReply
    news: bool
    late: bool = False
    accepted: tuple[UsageEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """Nothing of the request was applied: ``revoked``, ``quarantined`` or ``snapshot_required``."""

    why: str


class Sync(NamedTuple):
    """What one agent says, and when it was heard."""

    agent: str
    request: SyncRequest
    now_ms: int


def sync_agent(connection: Connection, agent: str, request: SyncRequest, now_ms: int) -> Synced | TurnedAway:
    """Take in what the agent says and answer what it asks. Said twice, the second time changes nothing.

    Raises: Violation: numbers that no honest agent sends.
    """
    return sync_agents(connection, [Sync(agent, request, now_ms)])[0]


def sync_agents(connection: Connection, syncs: Sequence[Sync]) -> list[Synced | TurnedAway]:
    """The same for several agents, one sync each, one after the other.

    Raises: Violation: as above. NotTogether: they are to be answered one by one.
    """
    unit = UnitOfWork(connection, [sync.agent for sync in syncs])
    exchanges: list[Exchange] = []
    outcomes = [_answer(unit, sync, exchanges) for sync in syncs]
    unit.write()
    _tell_moved(unit, exchanges)
    unit.publish()
    return outcomes


def _tell_moved(unit: UnitOfWork, exchanges: Sequence[Exchange]) -> None:
    """Once for all of them: what use reaches and leaves again within one transaction, nobody was told."""
    if exchanges:
        held = Standing({}, {}, {}, {}, {}, {})
        for exchange in exchanges:
            held.entitlements.update(exchange.held.entitlements)
            held.shadow.update(exchange.held.shadow)
            held.authored.update(exchange.held.authored)
        tell_moved(unit.connection, held, unit.accounts, max(exchange.now_ms for exchange in exchanges))


def _answer(unit: UnitOfWork, sync: Sync, exchanges: list[Exchange]) -> Synced | TurnedAway:
    """Answer one of them; ``exchanges`` gets what there was to talk about."""
    connection, (agent, request, now_ms) = unit.connection, sync
    _check(request)
    registered = agents.lock(connection, agent, now_ms, SEEN_COARSE_MS)
    if registered is None:
        return TurnedAway("revoked")
    trust = unit.trust(registered, request.generation)
    speaker, starts = register_start(connection, agent, request, now_ms)
    if speaker in {Speaker.COPIED, Speaker.REFUSED}:
        keep_for_review(connection, agent, request, now_ms)
        return TurnedAway("quarantined")
    if speaker is Speaker.SNAPSHOT_REQUIRED:
        hear_stranger(connection, trust, agent, request, now_ms)
        return TurnedAway("snapshot_required")
    exchange = Exchange(unit, agent, request, now_ms, speaker, starts, trust)
    find_leases(exchange)
    reading = read_batches(exchange)
    doubt = reading.contradiction or lost_leases(exchange)
    if doubt:
        quarantine(connection, agent, request.journal, doubt, now_ms)
        keep_for_review(connection, agent, request, now_ms)
        return TurnedAway("quarantined")
    wishes, unheard = _prepare(exchange, reading)
    _carry_out(exchange, reading, wishes)
    take_back_unheard(exchange, unheard)
    news = exchange.books.hand_over()
    _burn_credits(exchange, reading)
    rollups.add(connection, reading.sums)
    add_to_meters(connection, [Counted(item.event, item.at_ms) for item in reading.counted])
    remember_exchange(exchange)
    exchanges.append(exchange)
    accepted = tuple(item.event for item in reading.counted)
    return Synced(exchange.answer.reply(), news, late=speaker is Speaker.LATE, accepted=accepted)


def _prepare(exchange: Exchange, reading: Reading) -> tuple[list[Wish], list[leases.Row]]:
    """Everything that must be known before allowances can be locked, all of them at once and in order."""
    request = exchange.request
    exchange.learn_payers(reading.leases)
    holders = {row.customer for row in exchange.rows.values()}
    exchange.learn_customers({named.customer for named in request.customers} | reading.customers | holders)
    _tell_entitlements(exchange)
    accept_events(exchange, reading)
    wishes = find_wishes(exchange)
    exchange.learn_wished_for((wish.key.customer, wish.lease) for wish in wishes)
    unheard = find_unheard(exchange)
    for row in exchange.rows.values():
        exchange.touch_lease(row)
    return wishes, unheard


def _carry_out(exchange: Exchange, reading: Reading, wishes: list[Wish]) -> None:
    exchange.books.open(exchange.windows)
    exchange.read_again()
    for row in exchange.restored:
        exchange.books.take_in(row)
    settle_reports(exchange)
    book_events(exchange, reading)
    exchange.books.flush_leases()
    renew_leases(exchange)
    Lender(exchange, wishes).lend()


def _burn_credits(exchange: Exchange, reading: Reading) -> None:
    """Balances that this sync moved are taken from their grants."""
    for key in sorted(exchange.books.accounts):
        what = counted(key.counter)
        if what.window == WindowKind.GRANTS:
            exchange.unit.write()
            used = reading.used_of(key, what.meter)
            burn_credits(exchange.connection, key.customer, what.meter, used, exchange.now_ms)
            exchange.unit.forget_holder(key.customer)


def _tell_entitlements(exchange: Exchange) -> None:
    """Send what is newer than what the agent has; and have a look at its leases of those customers too, so that what
    a change took away is asked back without waiting for their next report."""
    newer: set[str] = set()
    for named in exchange.request.customers:
        entitlement = exchange.entitlements.get(named.customer)
        if entitlement is None:
            exchange.answer.unknown_customers.append(named.customer)
        elif entitlement.version > named.version:
            exchange.answer.entitlements.append(entitlement)
            if named.version:
                newer.add(named.customer)
    if newer:
        for row in leases.alive_in_journal(exchange.connection, exchange.agent, exchange.request.journal):
            if row.customer in newer:
                exchange.rows[row.lease] = row


def _check(request: SyncRequest) -> None:
    if request.boot > BOOT_MAX:
        raise Violation("boot", f"is {request.boot}", f"1 to {BOOT_MAX}")
    for at, batch in enumerate(request.batches):
        if batch.boot > request.boot:
            raise Violation(f"batches[{at}].boot", f"is {batch.boot}, a start yet to come", f"at most {request.boot}")
        if batch.first > SEQ_MAX:
            raise Violation(f"batches[{at}].first", f"is {batch.first}", f"1 to {SEQ_MAX}")
    for name, marks in (("confirmed", request.confirmed), ("lost", request.lost)):
        for at, mark in enumerate(marks):
            if not 1 <= mark.boot <= request.boot or mark.seq > SEQ_MAX:
                raise Violation(f"{name}[{at}]", "is a mark that cannot be", f"boots up to {request.boot}")
