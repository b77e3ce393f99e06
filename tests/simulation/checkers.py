"""What must hold at every moment. Each checker has a name, and its breach ends the run.

The numbers in the comments are those of the properties in the design notes on leases.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from agent.core.books import Books
from agent.core.leases import Lease
from agent.core.reservations import Reservation
from protocol.local_messages import Record, Settle
from tests.simulation.books_view import LeaseRow
from tests.simulation.contracts import TOKENS, Key, counter_of

if TYPE_CHECKING:
    from tests.simulation.hosts import Host
    from tests.simulation.world import World


class Checkers:
    """All of them, and what they remember from one look to the next."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen: dict[str, LeaseRow] = {}
        self._looked_at_ms = 0
        self._marks: dict[tuple[str, str, int], int] = {}
        self.said: dict[tuple[str, str], dict[str, int]] = {}
        self._record_charges: dict[str, list[tuple[str, Key, int]]] = {}
        self._records_counted: set[str] = set()

    def start_afresh(self) -> None:
        """The database was put back: what was seen of it before does not bind it any longer."""
        self._seen.clear()
        self._marks.clear()
        self._world.provider.closed.clear()
        self._looked_at_ms = 0

    # At once, as it happens.

    def at_admission(self, host: Host, held: Reservation) -> None:
        """22: every limit on the path of an admitted call holds all of it, as far as the agent's plan says now (a limit
        that has left the plan since the call began holds what was reserved under it, and no more)."""
        agent = host.agent
        assert agent is not None
        entitlement = agent.books.customers[held.call.customer].entitlement
        assert entitlement is not None
        expected = sum(
            1
            for limit in entitlement.limits
            if limit.amount is not None and limit.meter in held.amounts and limit.feature in (None, held.call.feature)
        )
        if len(held.lines) < expected:
            self._breach("all or none", f"{held.id}: {len(held.lines)} limits hold for it, not {expected}")
        counters = {limit.counter for limit in entitlement.limits}
        for line in held.lines:
            holds, wanted = sum(hold for _, hold in line.holds), held.amounts[line.meter]
            if line.allowance[1] in counters and holds != wanted:
                self._breach("all or none", f"{held.id} on {host.name}: {holds} of {wanted} {line.meter} held")

    def after_restart(self, books: Books) -> None:
        """12: what was used before a crash is covered by what the journal remembers."""
        provider = self._world.provider
        if books.journal in provider.tainted:
            return
        for lease in books.leases.values():
            used = provider.by_lease.get(lease.id, 0)
            if used > lease.used:
                text = f"{lease.id}: {used} used before the restart, the journal remembers {lease.used}"
                self._breach("the journal runs ahead of use", text)
        if self._world.put_back:
            return
        for name in sorted(self._world.view.alive_in(books.journal) - books.leases.keys()):
            if provider.by_lease.get(name):
                self._breach(
                    "a lease stays in the journal until its end is heard", f"{name} was used, and is forgotten"
                )

    def recorded(self, host: Host, told: Record) -> None:
        """Which leases a record takes room on, so that the truth per lease includes it once it is acknowledged."""
        agent = host.agent
        assert agent is not None
        event = agent.books.pending.events[-1].event if agent.books.pending.events else None
        if event is None or event.event != told.event:
            return
        self._record_charges[told.event] = [
            (charge.lease, (*lease.key, lease.window_start_ms), charge.amount)
            for charge in event.charges
            if (lease := agent.books.leases.get(charge.lease)) is not None
        ]

    def acknowledged(self, customer: str, told: Settle | Record) -> None:
        """31: what callers were told is on the disk and will be in the ledger, once."""
        name = told.event if isinstance(told, Record) else told.reservation
        self.said[customer, name] = dict(told.amounts)
        if isinstance(told, Record) and name not in self._records_counted:
            self._records_counted.add(name)
            self._world.provider.afterwards[customer, TOKENS] += told.amounts[TOKENS]

    # Every so often.

    def look(self) -> None:
        """Everything that can be seen from outside, now."""
        self.look_at_hosts()
        self._look_at_leases()
        self._look_at_allowances()
        self._look_at_marks()
        self._look_at_parked()

    def look_at_hosts(self) -> None:
        """2: truly used <= watermark <= cap <= granted, at every holder."""
        provider = self._world.provider
        for host in self._world.hosts:
            if host.agent is None or host.disk.gone:
                continue
            for lease in host.agent.books.leases.values():
                self._look_at_chain(host, lease)
                used = provider.by_lease.get(lease.id, 0)
                if used > lease.used and not provider.is_tainted(lease.id):
                    self._breach("the chain", f"{lease.id} on {host.name}: {used} used, {lease.used} accounted for")

    def _look_at_chain(self, host: Host, lease: Lease) -> None:
        if not lease.settled + lease.held + lease.orphan <= max(lease.watermark, lease.settled):
            text = f"{lease.settled}+{lease.held}+{lease.orphan} beyond the watermark {lease.watermark}"
            self._breach("the chain", f"{lease.id} on {host.name}: {text}")
        if lease.watermark > lease.cap or min(lease.settled, lease.held, lease.orphan, lease.cap) < 0:
            self._breach("the chain", f"{lease.id} on {host.name}: watermark {lease.watermark}, cap {lease.cap}")

    def _look_at_leases(self) -> None:
        """3, 8, 10: a lease is charged for what it paid for; its counters never run back; it has one holder."""
        provider = self._world.provider
        now_ms = self._world.time.now_ms()
        for row in self._world.view.leases(self._looked_at_ms - 1_000):
            used = provider.by_lease.get(row.lease, 0)
            tainted = provider.is_tainted(row.lease)
            if used > row.cap and not tainted:
                self._breach("charged covers used", f"{row.lease} ({row.status}): {used} used, {row.cap} charged")
            before = self._seen.get(row.lease)
            if before is not None:
                self._compare(before, row)
            if row.status == "closed":
                provider.closed.add(row.lease)
                self._seen.pop(row.lease, None)
            else:
                self._seen[row.lease] = row
        self._looked_at_ms = now_ms

    def _compare(self, before: LeaseRow, row: LeaseRow) -> None:
        if row.granted != before.granted or row.settled < before.settled or row.key != before.key:
            self._breach("counters never run back", f"{before} became {row}")
        # Of a copied disk's lease, one life may have used what the other gave back: that is charged, whatever it does.
        if row.cap > before.cap and not self._world.provider.is_tainted(row.lease):
            self._breach("counters never run back", f"the cap grew: {before} became {row}")
        if (row.agent, row.journal) != (before.agent, before.journal):
            self._breach("one holder", f"{before} became {row}")

    def _look_at_allowances(self) -> None:
        """4, 5: what is posted and lent stays within the bound, but for what was debited after the fact."""
        if self._world.put_back:
            return  # what is shown again is taken in, whatever that does to the limit; nothing is lent meanwhile
        contracts, provider = self._world.contracts, self._world.provider
        given_back: dict[Key, int] | None = None
        for row in self._world.view.allowances():
            bound = contracts.bound(row.key) + provider.forgiven.get(row.key, 0)
            if row.posted + row.outstanding <= bound:
                continue
            if given_back is None:
                provider.forgive()
                given_back = self._world.view.given_back()
            bound = contracts.bound(row.key) + provider.forgiven.get(row.key, 0)
            charged = row.posted + row.outstanding + given_back.get(row.key, 0)
            if charged > bound:
                self._breach("lent within the bound", f"{row.key}: {charged} posted and lent, at most {bound}")

    def _look_at_marks(self) -> None:
        """31: high-water marks never run back."""
        marks = self._world.view.marks()
        for name, mark in self._marks.items():
            if marks.get(name, 0) < mark:
                self._breach("marks never run back", f"{name}: {mark} became {marks.get(name, 0)}")
        self._marks = marks

    def _look_at_parked(self) -> None:
        """No parked call is forgotten: each is answered at its deadline, or a moment later."""
        now_ms = self._world.time.now_ms()
        for callers in self._world.callers:
            for request in callers.overdue(now_ms):
                self._breach("no parked call is forgotten", request)

    # For counting effects.

    def what_a_kill_hits(self, host: Host) -> Iterator[str]:
        """What an agent has in its hands that a kill could tear."""
        agent = host.agent
        if agent is None:
            yield "a start"
            return
        books = agent.books
        if books.committing:
            yield "a commit under way"
        if books.pending.events:
            yield "events not yet on disk"
        if books.pending.opened:
            yield "calls in flight without a row"
        if any(held.journaled for held in books.reservations):
            yield "calls in flight with a row"
        if any(lease.done for lease in books.leases.values()):
            yield "closed leases not yet acknowledged"
        if agent._outbox.events:
            yield "events not yet confirmed"
        if any(lease.used for lease in books.leases.values()):
            yield "leases in use"
        if books.asking:
            yield "asks under way"
        if books.parked:
            yield "parked calls"

    def expected_counters(self, customer: str) -> set[str]:
        """Counters that the present plan keeps."""
        return {counter_of(limit) for limit in self._world.contracts.of[customer].limits}

    def _breach(self, checker: str, text: str) -> None:
        self._world.chronicle.breach(checker, text)
