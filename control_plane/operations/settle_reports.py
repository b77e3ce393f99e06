"""What holders say of their leases: used, given back, done; and what a new start says by leaving leases out."""

from __future__ import annotations

from control_plane.core import lease_life
from control_plane.core.incarnations import Standing as Speaker
from control_plane.core.lease_life import Heard, Status
from control_plane.operations.adopt_sealed import adopt_sealed, note_shrinking
from control_plane.operations.exchange import LEASE_TTL_MS, Exchange
from control_plane.operations.keep_books import life_of
from control_plane.store import leases
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
    for row in list(exchange.rows.values()):
        earlier = row.journal == exchange.request.journal and row.boot < exchange.request.boot
        earlier = earlier and row.granted_at_ms >= begun_at_ms
        if earlier and row.status != leases.CLOSED and row.lease not in listed:
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
    heard = Heard(report.cap, report.settled, report.in_flight, report.unreported, report.closed, stale)
    life, movement = lease_life.hear(life_of(row), heard)
    if life.status is Status.CLOSED:
        exchange.answer.closed[row.lease] = None
        return row if life == life_of(row) else exchange.books.move(row, life, movement)
    if not stale:
        row = row._replace(boot=exchange.request.boot, renewed_at_ms=exchange.now_ms, journaled=True)
    return exchange.books.move(row, life, movement)


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
        overlent = exchange.books.accounts[row.key].available(limit.ceiling) < 0
    if overlent and row.cap > row.settled + row.unreported:
        exchange.answer.recalls[row.lease] = Recall(row.lease, 0)
    elif row.status == Status.RECALLED:
        exchange.answer.recalls[row.lease] = Recall(row.lease, row.keep)
