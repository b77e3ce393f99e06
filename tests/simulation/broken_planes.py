"""Rules of the control plane broken on purpose: what to replace in it, the way a wrong commit would."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from typing import Any

import control_plane.operations.register_start
from control_plane.core import incarnations, lease_life, reconciliation
from control_plane.core.lease_life import Life, Movement, Status
from control_plane.operations import grant_leases, reclaim_leases, settle_reports
from control_plane.operations.keep_books import Books, life_of
from control_plane.store import leases
from control_plane.store.database import Database
from tests.simulation.broken_agents import Patch


def grant_before_commit() -> list[Patch]:
    """Now and then an answer leaves although its transaction did not last."""
    right = Database.run
    count = [0]

    def run(self: Database, work: Any) -> Any:
        count[0] += 1
        if count[0] % 25:
            return right(self, work)

        class UndoneError(Exception):
            pass

        kept: list[Any] = []

        def and_undo(connection: Any) -> None:
            kept.append(work(connection))
            raise UndoneError

        with contextlib.suppress(UndoneError):
            right(self, and_undo)
        return kept[-1]

    return [(Database, "run", run)]


def shrink_before_acknowledged() -> list[Patch]:
    right = Books.change

    def change(self: Books, row: leases.Row) -> leases.Row:
        lower = min(row.cap, row.settled + row.in_flight + row.unreported + row.keep)
        if row.status == Status.RECALLED and lower < row.cap:
            self.accounts[row.key].outstanding -= row.cap - lower
            self.accounts[row.key].changed = True
            row = row._replace(cap=lower)
        return right(self, row)

    return [(Books, "change", change)]


def last_write_wins() -> list[Patch]:
    right = lease_life.hear

    def hear(life: Life, heard: Any) -> tuple[Life, Movement]:
        if life.status is Status.CLOSED or heard.closed:
            return right(replace(life, settled=heard.settled), heard)
        news, movement = right(replace(life, settled=heard.settled), heard)
        return news, movement

    return [(lease_life, "hear", hear)]


def new_disk_releases() -> list[Patch]:
    def release(exchange: Any) -> None:
        for row in list(exchange.rows.values()):
            if row.journal != exchange.request.journal and row.status != leases.CLOSED:
                life, movement = lease_life.close(life_of(row), "settled")
                exchange.rows[row.lease] = exchange.books.move(row, life, movement)

    return [(settle_reports, "_leave_in_limbo", release)]


def expiry_reclaims() -> list[Patch]:
    def expire(connection: Any, now_ms: int) -> int:
        before_ms = now_ms - 60_550
        found = leases.silent(connection, before_ms, 500)
        books = Books(connection, now_ms)
        if not found:
            return 0
        books.open({row.key: 0 for row in found})
        for row in found:
            books.move(row, *lease_life.close(life_of(row), "settled"))
        books.save()
        return len(found)

    sweeps = tuple(expire if sweep is reclaim_leases.expire_silent else sweep for sweep in reclaim_leases.SWEEPS)
    sweeper = sys.modules["control_plane.background.reclaim"]  # the package has a function of this name
    return [(sweeper, "SWEEPS", sweeps)]


def late_reports_ignored() -> list[Patch]:
    right = settle_reports._hear

    def hear(exchange: Any, row: leases.Row, report: Any) -> leases.Row:
        if row.status in (Status.EXPIRED, Status.LIMBO, Status.CLOSED):
            exchange.answer.closed[row.lease] = None
            return row
        return right(exchange, row, report)

    return [(settle_reports, "_hear", hear)]


def start_closes_all() -> list[Patch]:
    right = settle_reports._unlisted

    def unlisted(exchange: Any, _listed: set[str]) -> list[leases.Row]:
        return right(exchange, set())

    return [(settle_reports, "_unlisted", unlisted)]


def boot_order_ignored() -> list[Patch]:
    """A start that was overtaken long ago still settles what it does not list - of newer starts, too."""

    def close_unused(exchange: Any, listed: set[str]) -> None:
        for row in settle_reports._unlisted(exchange, listed):
            settle_reports._never_used(exchange, row)

    right = settle_reports.settle_reports

    def settle(exchange: Any) -> None:
        if exchange.request.snapshot:
            close_unused(exchange, {report.lease for report in exchange.request.leases})
        right(exchange)

    import control_plane.operations.sync_agent as syncing

    return [(syncing, "settle_reports", settle)]


def copies_accepted() -> list[Patch]:
    right = control_plane.operations.register_start.standing

    def standing(known: Any, boot: int, nonce: str, *, snapshot: bool) -> incarnations.Standing:
        found = right(known, boot, nonce, snapshot=snapshot)
        wrong = (incarnations.Standing.COPIED, incarnations.Standing.LATE, incarnations.Standing.REFUSED)
        return incarnations.Standing.CURRENT if found in wrong and known.get(boot) else found

    return [(control_plane.operations.register_start, "standing", standing)]


def gaps_accepted() -> list[Patch]:
    right = reconciliation.new_part

    def new_part(high_water: int, first: int, count: int) -> int | None:
        return right(max(high_water, first - 1), first, count)

    return [(reconciliation, "new_part", new_part)]


def duplicates_counted() -> list[Patch]:
    """The high-water mark is not looked at: a repeated batch is taken for new."""

    def new_part(_high_water: int, _first: int, _count: int) -> int:
        return 0

    return [(reconciliation, "new_part", new_part)]


def too_much_lent() -> list[Patch]:
    right = grant_leases.allocation.slice_of

    def slice_of(available: int, want: Any, crowd: Any, *rest: Any, **named: Any) -> Any:
        return right(available + 1 if available >= 0 else available, want, crowd, *rest, **named)

    return [(grant_leases.allocation, "slice_of", slice_of)]
