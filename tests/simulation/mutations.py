"""Rules broken on purpose, one at a time: each must be caught by some checker within a few seeds.

A mutation replaces functions of the product inside one world, the way a wrong commit would. R1 to R12 are the rules of
the design notes on leases (2.3).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import msgspec

import agent.operations.adopt_sync
import agent.operations.commit_group
import agent.operations.extend
import agent.operations.reserve
import agent.running
import control_plane.operations.register_start
from agent.core import pending
from agent.core.budget import Allowance
from agent.core.leases import Lease
from agent.core.reservations import Line
from control_plane.core import incarnations, lease_life, reconciliation
from control_plane.core.lease_life import Life, Movement, Status
from control_plane.operations import grant_leases, reclaim_leases, settle_reports
from control_plane.operations.keep_books import Books, life_of
from control_plane.store import leases
from control_plane.store.database import Database

Patch = tuple[object, str, Any]


@dataclass(frozen=True)
class Mutation:
    """One broken rule. ``rule``: of the design notes; ``text``: what is done wrong."""

    name: str
    rule: str
    text: str
    patches: Callable[[], list[Patch]]

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """The product with this rule broken."""
        with contextlib.ExitStack() as undo:
            for target, name, wrong in self.patches():
                undo.enter_context(mock.patch.object(target, name, wrong))
            yield


# Agent.


def _use_before_debit() -> list[Patch]:
    right = agent.operations.reserve.take

    def take(books: Any, step: Any, amount: int, now_ms: int, *rest: Any) -> Line:
        line = right(books, step, amount, now_ms, *rest)
        for lease, hold in line.holds:
            lease.held -= hold  # remembered by the call, but nobody else sees it
        return line

    def end_hold(self: Lease, hold: int, used: int, journaled: bool) -> int:
        part = min(used, hold)
        self.settled += part
        return part

    return [
        (agent.operations.reserve, "take", take),
        (agent.operations.extend, "take", take),
        (Lease, "end_hold", end_hold),
    ]


def _use_before_journal() -> list[Patch]:
    right = agent.operations.adopt_sync.new_lease

    def new_lease(*arguments: Any) -> Any:
        lease = right(*arguments)
        lease.watermark = lease.cap
        return lease

    return [(agent.operations.adopt_sync, "new_lease", new_lease)]


def _raise_before_commit() -> list[Patch]:
    right = pending.Pending.gather

    def gather(self: pending.Pending, *arguments: Any) -> pending.Group:
        group = right(self, *arguments)
        for row in group.rows:
            if not row.lease.closing:
                row.lease.watermark = min(row.lease.cap, max(row.lease.watermark, row.watermark))
        return group

    return [(pending.Pending, "gather", gather)]


def _return_before_durable() -> list[Patch]:
    right = Lease.report

    def report(self: Lease) -> Any:
        said = right(self)
        return type(said)(
            said.lease, self.cap, said.settled, said.in_flight, said.unreported, self.closing and not self.held
        )

    return [(Lease, "report", report)]


def _forget_before_acknowledged() -> list[Patch]:
    right = agent.operations.commit_group.to_write

    def to_write(group: Any, *arguments: Any) -> Any:
        write = right(group, *arguments)
        closed = [row.lease.id for row in group.rows if row.lease.closing and row.lease.held == 0]
        write.forgotten = [*write.forgotten, *closed]
        return write

    import agent.background.write_events as writing

    return [(writing, "to_write", to_write)]


def _orphans_forgotten() -> list[Patch]:
    right = agent.running.restore

    def restore(books: Any, *arguments: Any) -> None:
        right(books, *arguments)
        for lease in books.leases.values():
            lease.orphan = lease.durable_orphan = 0

    return [(agent.running, "restore", restore)]


def _freed_before_durable() -> list[Patch]:
    right = Lease.end_hold

    def end_hold(self: Lease, hold: int, used: int, _journaled: bool) -> int:
        return right(self, hold, used, False)

    return [(Lease, "end_hold", end_hold)]


def _grow_in_place() -> list[Patch]:
    """Asked again for a lease that has been granted, the answer is its full size again - and the agent believes it."""
    right = agent.operations.adopt_sync._granted

    def granted(books: Any, grant: Any, *rest: Any) -> None:
        known = books.leases.get(grant.lease)
        right(books, grant, *rest)
        if known is not None and not known.closing:
            known.cap = max(known.cap, grant.amount)

    deny = agent.operations.adopt_sync._denied

    def denied(books: Any, denial: Any, *rest: Any) -> None:
        deny(books, denial, *rest)
        for lease in books.leases.values():
            if lease.key == (denial.customer, denial.counter, denial.scope_value) and not lease.closing:
                lease.cap = max(lease.cap, lease.granted)  # nothing new: so the old one is topped up

    return [(agent.operations.adopt_sync, "_granted", granted), (agent.operations.adopt_sync, "_denied", denied)]


def _subset() -> list[Patch]:
    """A call that several limits touch takes of the first alone."""
    right = agent.operations.reserve.admit

    def admit(*arguments: Any, **named: Any) -> Any:
        outcome = right(*arguments, **named)
        if type(outcome).__name__ == "Admitted" and len(outcome.path.steps) > 1:
            path = replace(outcome.path, steps=outcome.path.steps[:1])
            return msgspec.structs.replace(outcome, path=path)
        return outcome

    return [(agent.operations.reserve, "admit", admit)]


# Control plane.


def _grant_before_commit() -> list[Patch]:
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


def _shrink_before_acknowledged() -> list[Patch]:
    right = Books.change

    def change(self: Books, row: leases.Row) -> leases.Row:
        lower = min(row.cap, row.settled + row.in_flight + row.unreported + row.keep)
        if row.status == Status.RECALLED and lower < row.cap:
            self.accounts[row.key].outstanding -= row.cap - lower
            self.accounts[row.key].changed = True
            row = row._replace(cap=lower)
        return right(self, row)

    return [(Books, "change", change)]


def _last_write_wins() -> list[Patch]:
    right = lease_life.hear

    def hear(life: Life, heard: Any) -> tuple[Life, Movement]:
        if life.status is Status.CLOSED or heard.closed:
            return right(replace(life, settled=heard.settled), heard)
        news, movement = right(replace(life, settled=heard.settled), heard)
        return news, movement

    return [(lease_life, "hear", hear)]


def _new_disk_releases() -> list[Patch]:
    def release(exchange: Any) -> None:
        for row in list(exchange.rows.values()):
            if row.journal != exchange.request.journal and row.status != leases.CLOSED:
                life, movement = lease_life.close(life_of(row), "settled")
                exchange.rows[row.lease] = exchange.books.move(row, life, movement)

    return [(settle_reports, "_leave_in_limbo", release)]


def _expiry_reclaims() -> list[Patch]:
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


def _late_reports_ignored() -> list[Patch]:
    right = settle_reports._hear

    def hear(exchange: Any, row: leases.Row, report: Any) -> leases.Row:
        if row.status in (Status.EXPIRED, Status.LIMBO, Status.CLOSED):
            exchange.answer.closed[row.lease] = None
            return row
        return right(exchange, row, report)

    return [(settle_reports, "_hear", hear)]


def _start_closes_all() -> list[Patch]:
    right = settle_reports._unlisted

    def unlisted(exchange: Any, _listed: set[str]) -> list[leases.Row]:
        return right(exchange, set())

    return [(settle_reports, "_unlisted", unlisted)]


def _boot_order_ignored() -> list[Patch]:
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


def _no_journal_identity() -> list[Patch]:
    """An agent is known by its name and a counter alone, as in most systems: a new disk goes on counting."""
    right = agent.running._remember
    starts: dict[str, int] = {}

    def remember(settings: Any, clock: Any) -> Any:
        journal, books, outbox = right(settings, clock)
        name = settings.agent_name
        starts[name] = max(starts.get(name, 0) + 1, books.boot)
        books.journal, books.boot = name, starts[name]
        return journal, books, outbox

    return [(agent.running, "_remember", remember)]


def _copies_accepted() -> list[Patch]:
    right = control_plane.operations.register_start.standing

    def standing(known: Any, boot: int, nonce: str, *, snapshot: bool) -> incarnations.Standing:
        found = right(known, boot, nonce, snapshot=snapshot)
        wrong = (incarnations.Standing.COPIED, incarnations.Standing.LATE, incarnations.Standing.REFUSED)
        return incarnations.Standing.CURRENT if found in wrong and known.get(boot) else found

    return [(control_plane.operations.register_start, "standing", standing)]


def _gaps_accepted() -> list[Patch]:
    right = reconciliation.new_part

    def new_part(high_water: int, first: int, count: int) -> int | None:
        return right(max(high_water, first - 1), first, count)

    return [(reconciliation, "new_part", new_part)]


def _duplicates_counted() -> list[Patch]:
    """The high-water mark is not looked at: a repeated batch is taken for new."""

    def new_part(_high_water: int, _first: int, _count: int) -> int:
        return 0

    return [(reconciliation, "new_part", new_part)]


def _too_much_lent() -> list[Patch]:
    right = grant_leases.allocation.slice_of

    def slice_of(available: int, want: Any, crowd: Any, *rest: Any, **named: Any) -> Any:
        return right(available + 1 if available >= 0 else available, want, crowd, *rest, **named)

    return [(grant_leases.allocation, "slice_of", slice_of)]


def _cap_is_watermark() -> list[Patch]:
    """The allowance looks at caps where it should look at what the journal covers."""
    right = Allowance.take

    def take(self: Allowance, *arguments: Any, **named: Any) -> Any:
        for lease in self.leases:
            lease.watermark = lease.cap
        return right(self, *arguments, **named)

    look = Allowance.look

    def looked(self: Allowance, now_ms: int, **named: Any) -> int:
        look(self, now_ms, **named)
        return self.free_now

    return [(Allowance, "take", take), (Allowance, "look", looked)]


MUTATIONS: tuple[Mutation, ...] = (
    Mutation("use before debit", "R1", "calls go to the provider before they are held on a lease", _use_before_debit),
    Mutation("use before journal", "R2", "a lease is spent before its row is on disk", _use_before_journal),
    Mutation(
        "raise before commit",
        "R2",
        "watermarks rise when they are written, not when they are on disk",
        _raise_before_commit,
    ),
    Mutation("spend up to the cap", "R2", "the journal's watermark is not looked at", _cap_is_watermark),
    Mutation(
        "orphans forgotten", "R2", "what a crash left unaccounted for is free after the restart", _orphans_forgotten
    ),
    Mutation(
        "freed before durable",
        "R2",
        "what a journaled call frees is used before its end is on disk",
        _freed_before_durable,
    ),
    Mutation("grant before commit", "R3", "an answer leaves although its transaction was undone", _grant_before_commit),
    Mutation(
        "shrink before acknowledged", "R4", "a recall lowers the cap before the holder has", _shrink_before_acknowledged
    ),
    Mutation(
        "return before durable",
        "R4",
        "the holder says that it gave back what its disk still has",
        _return_before_durable,
    ),
    Mutation("grow in place", "R5", "a lease is topped up instead of another one lent", _grow_in_place),
    Mutation("last write wins", "R6", "counters are replaced, not merged by maximum", _last_write_wins),
    Mutation(
        "forget before acknowledged",
        "R7",
        "a closed lease leaves the journal before its end was heard",
        _forget_before_acknowledged,
    ),
    Mutation("no journal identity", "R8", "an agent is known by name and a counter alone", _no_journal_identity),
    Mutation("a start closes all", "R9", "a start closes what it lists, too", _start_closes_all),
    Mutation("boot order ignored", "R9", "an old start closes what newer ones hold", _boot_order_ignored),
    Mutation("new disk releases", "R10", "a new journal frees what the old one held", _new_disk_releases),
    Mutation("copies accepted", "R10", "two lives of one journal are served", _copies_accepted),
    Mutation("expiry reclaims", "R11", "a silent lease is closed at what was last heard", _expiry_reclaims),
    Mutation("late reports ignored", "R12", "nobody listens to a lease that was given up", _late_reports_ignored),
    Mutation("a subset is held", "all or none", "a call takes of one of its limits", _subset),
    Mutation("one too many lent", "never more than is left", "the lender is off by one", _too_much_lent),
    Mutation("gaps accepted", "dense events", "events after a gap are taken in", _gaps_accepted),
    Mutation("marks not looked at", "events once", "a repeated batch is taken for new", _duplicates_counted),
)
