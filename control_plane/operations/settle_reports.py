"""What holders say of their leases: used, given back, done; and what a new start says by leaving leases out."""

from __future__ import annotations

from typing import assert_never

from control_plane.core import lease_life
from control_plane.core.incarnations import Standing as Speaker
from control_plane.core.kinds import Kind, kind_of
from control_plane.core.lease_life import Heard, Life, Movement, Status
from control_plane.operations.adopt_sealed import adopt_sealed, note_shrinking
from control_plane.operations.exchange import CLOCK_MARGIN_MS, LEASE_TTL_MS, Exchange
from control_plane.operations.keep_books import life_of
from control_plane.store import leases
from protocol.entitlements import Limit
from protocol.leases import LeaseReport, Recall, Renewal
from protocol.uplink_messages import LEASES_MAX


def find_leases(exchange: Exchange) -> None:
    """Load what the reports, and the start itself, may move; and name the allowances to be held for it."""
    exchange.learn_leases(report.lease for report in exchange.request.leases)
    adopt_sealed(exchange)
    if exchange.request.snapshot:
        for row in leases.alive_in_journal(exchange.connection, exchange.agent, exchange.request.journal):
            exchange.rows[row.lease] = row
    if exchange.speaker is Speaker.NEW_JOURNAL:
        for row in leases.alive_in_other_journals(exchange.connection, exchange.agent, exchange.request.journal):
            exchange.rows[row.lease] = row


def settle_reports(exchange: Exchange) -> None:
    """Take every report in; close what a new start never used; leave in limbo what a lost disk held."""
    reports = {report.lease: report for report in exchange.request.leases}
    if exchange.request.snapshot and exchange.speaker is not Speaker.LATE and len(reports) < LEASES_MAX:
        _close_unused(exchange, set(reports))
    if exchange.speaker is Speaker.NEW_JOURNAL:
        _leave_in_limbo(exchange)
    for report in exchange.request.leases:
        row = exchange.rows.get(report.lease)
        if row is not None and row.journal == exchange.request.journal:
            exchange.rows[row.lease] = _hear(exchange, row, report)


def _close_unused(exchange: Exchange, listed: set[str]) -> None:
    """Leases granted to an earlier start that are not in the journal now never were: nothing of them was used.

    Those granted before the database was last restored may have been closed since then by what was lost with it.
    """
    begun_at_ms = exchange.trust.generation.begun_at_ms
    for row in _unlisted(exchange, listed):
        if row.boot < exchange.request.boot and row.granted_at_ms > begun_at_ms:
            never_used(exchange, row)


def _unlisted(exchange: Exchange, listed: set[str]) -> list[leases.Row]:
    return [
        row
        for row in exchange.rows.values()
        if row.journal == exchange.request.journal and row.status != leases.CLOSED and row.lease not in listed
    ]


def never_used(exchange: Exchange, row: leases.Row) -> None:
    """Close a lease that its holder never had, or never took anything of."""
    life, movement = lease_life.close(life_of(row), "unused")
    exchange.rows[row.lease] = exchange.books.move(row, life, movement)
    exchange.answer.closed[row.lease] = None


def _leave_in_limbo(exchange: Exchange) -> None:
    for row in list(exchange.rows.values()):
        if row.journal != exchange.request.journal and row.status != leases.CLOSED:
            exchange.rows[row.lease] = exchange.books.change(row._replace(status=Status.LIMBO.value))


def _hear(exchange: Exchange, row: leases.Row, report: LeaseReport) -> leases.Row:
    stale = row.boot > exchange.request.boot
    note_shrinking(exchange, row, report)
    life, movement = _heard(exchange, row, report, stale=stale)
    if life.status is Status.CLOSED:
        exchange.answer.closed[row.lease] = None
        return row if life == life_of(row) else exchange.books.move(row, life, movement, report.level)
    if not stale:
        row = row._replace(boot=exchange.request.boot, renewed_at_ms=exchange.now_ms, journaled=True)
    return exchange.books.move(row, life, movement, report.level)


def _heard(exchange: Exchange, row: leases.Row, report: LeaseReport, *, stale: bool) -> tuple[Life, Movement]:
    """What the report makes of the lease. What is held or shared is not used up: nothing of it is ever charged."""
    life = life_of(row)
    match kind_of(row.counter):
        case Kind.QUOTA:
            said = Heard(report.cap, report.settled, report.in_flight, report.unreported, report.closed, stale)
        case Kind.SLOTS:
            # What a crash left behind is held until no call of then can live any longer; before that it is not done.
            orphan = 0 if life.status is Status.CLOSED else report.unreported
            cap = orphan if report.closed else report.cap
            said = Heard(cap, 0, report.in_flight, orphan, report.closed and not orphan, stale)
        case Kind.RATE:
            if (
                exchange.now_ms - row.renewed_at_ms > LEASE_TTL_MS + CLOCK_MARGIN_MS
                and life.status is not Status.CLOSED
            ):
                return lease_life.close(life, "silent")  # a share is never revived: it may be lent elsewhere by now
            said = Heard(report.cap, 0, 0, 0, report.closed, stale)
        case _ as never:
            assert_never(never)
    return lease_life.hear(life, said)


def renew_leases(exchange: Exchange) -> None:
    """Give every reported lease that lives on another term, and ask back what is wanted or no longer allowed."""
    if exchange.speaker is Speaker.LATE:
        return
    for report in exchange.request.leases:
        row = exchange.rows.get(report.lease)
        if row is None or row.journal != exchange.request.journal or row.status == leases.CLOSED:
            continue
        limit = exchange.limit(row.customer, row.counter)
        standing = exchange.standing(exchange.books.accounts[row.key], limit)
        exchange.answer.renewed.append(Renewal(row.lease, LEASE_TTL_MS, standing))
    for row in exchange.rows.values():
        if row.journal == exchange.request.journal and row.status != leases.CLOSED:
            _ask_back(exchange, row)


def _ask_back(exchange: Exchange, row: leases.Row) -> None:
    limit = exchange.limit(row.customer, row.counter)
    overlent = limit is None or limit.ceiling is None
    if limit is not None and limit.ceiling is not None:
        if row.burst:
            _fit_share(exchange, row, limit)
            return
        overlent = exchange.books.accounts[row.key].available(limit.ceiling) < 0
    if overlent and row.cap > row.settled + row.unreported:
        exchange.answer.recalls[row.lease] = Recall(row.lease, 0)
    elif row.status == Status.RECALLED:
        exchange.answer.recalls[row.lease] = Recall(row.lease, row.keep)


def _fit_share(exchange: Exchange, row: leases.Row, limit: Limit) -> None:
    """Where shares pass a rate or a burst that was lowered, all are asked down in proportion."""
    pool = exchange.books.govern(row.key, limit.amount or 0, limit.burst_max).pool
    keep = row.keep if row.status == Status.RECALLED else row.cap
    for most, lent in ((pool.amount, pool.lent.amount), (pool.burst, pool.lent.burst)):
        if lent > most:
            keep = min(keep, row.cap * most // lent)
    if keep < row.cap:
        exchange.answer.recalls[row.lease] = Recall(row.lease, keep)
