"""Rules of the agent broken on purpose: what to replace in it, the way a wrong commit would."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

import agent.operations.adopt_sync
import agent.operations.commit_group
import agent.operations.extend
import agent.operations.reserve
import agent.running
from agent.core import pending
from agent.core.budget import Allowance
from agent.core.leases import Lease
from agent.core.reservations import Line

Patch = tuple[object, str, Any]
"""An object, the name of one of its attributes, and what is wrong there."""


def use_before_debit() -> list[Patch]:
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


def use_before_journal() -> list[Patch]:
    right = agent.operations.adopt_sync.new_lease

    def new_lease(*arguments: Any) -> Any:
        lease = right(*arguments)
        lease.watermark = lease.cap
        return lease

    return [(agent.operations.adopt_sync, "new_lease", new_lease)]


def raise_before_commit() -> list[Patch]:
    right = pending.Pending.gather

    def gather(self: pending.Pending, *arguments: Any) -> pending.Group:
        group = right(self, *arguments)
        for row in group.rows:
            if not row.lease.closing:
                row.lease.watermark = min(row.lease.cap, max(row.lease.watermark, row.watermark))
        return group

    return [(pending.Pending, "gather", gather)]


def return_before_durable() -> list[Patch]:
    right = Lease.report

    def report(self: Lease) -> Any:
        said = right(self)
        return type(said)(
            said.lease, self.cap, said.settled, said.in_flight, said.unreported, self.closing and not self.held
        )

    return [(Lease, "report", report)]


def forget_before_acknowledged() -> list[Patch]:
    right = agent.operations.commit_group.to_write

    def to_write(group: Any, *arguments: Any) -> Any:
        write = right(group, *arguments)
        closed = [row.lease.id for row in group.rows if row.lease.closing and row.lease.held == 0]
        write.forgotten = [*write.forgotten, *closed]
        return write

    import agent.background.write_events as writing

    return [(writing, "to_write", to_write)]


def orphans_forgotten() -> list[Patch]:
    right = agent.running.restore

    def restore(books: Any, *arguments: Any) -> None:
        right(books, *arguments)
        for lease in books.leases.values():
            lease.orphan = lease.durable_orphan = 0

    return [(agent.running, "restore", restore)]


def freed_before_durable() -> list[Patch]:
    right = Lease.end_hold

    def end_hold(self: Lease, hold: int, used: int, _journaled: bool) -> int:
        return right(self, hold, used, False)

    return [(Lease, "end_hold", end_hold)]


def grow_in_place() -> list[Patch]:
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


def subset() -> list[Patch]:
    """A call that several limits touch takes of the first alone."""
    right = agent.operations.reserve.admit

    def admit(*arguments: Any, **named: Any) -> Any:
        outcome = right(*arguments, **named)
        if type(outcome).__name__ == "Admitted" and len(outcome.path.steps) > 1:
            path = replace(outcome.path, steps=outcome.path.steps[:1])
            return msgspec.structs.replace(outcome, path=path)
        return outcome

    return [(agent.operations.reserve, "admit", admit)]


def no_journal_identity() -> list[Patch]:
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


def cap_is_watermark() -> list[Patch]:
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
