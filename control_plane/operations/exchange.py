"""One sync while it is being answered: who asks, what is known of the customers, the books, and the answer so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from control_plane.core.entitlements import resolve
from control_plane.core.incarnations import Standing as Speaker
from control_plane.core.kinds import Kind, kind_of
from control_plane.operations.accounts import Account
from control_plane.operations.keep_books import Books
from control_plane.operations.learn_again import Trust, notice_restore
from control_plane.operations.resolve_entitlement import Standing as Held
from control_plane.operations.resolve_entitlement import facts_of, standing_of_rows
from control_plane.operations.unit_of_work import UnitOfWork, Used
from control_plane.store import agents, leases
from control_plane.store.allowances import Key
from control_plane.store.database import Connection
from protocol.entitlements import CustomerStatus, Entitlement, Limit, Scope
from protocol.events import EventBatch
from protocol.ids import is_key
from protocol.leases import Denial, Grant, Recall, Renewal, Standing
from protocol.uplink_messages import EventProblem, HighWater, SyncReply, SyncRequest
from protocol.windows import Calendar, Window

LEASE_TTL_MS = 60_000
CLOCK_MARGIN_MS = LEASE_TTL_MS // 200 + 250
"""Clocks may run 0.5 % apart: the holder has stopped for certain before the lender says so."""

_NOTHING_USED = Used(0, 0, 0, 0, 0, central=False)


@dataclass(slots=True)
class Answer:
    """What a sync will be answered, while it is being found out."""

    high_water: list[HighWater] = field(default_factory=list)
    event_problems: list[EventProblem] = field(default_factory=list)
    entitlements: list[Entitlement] = field(default_factory=list)
    unknown_customers: list[str] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    denials: list[Denial] = field(default_factory=list)
    renewed: list[Renewal] = field(default_factory=list)
    recalls: dict[str, Recall] = field(default_factory=dict)
    closed: dict[str, None] = field(default_factory=dict)
    unknown_leases: dict[str, None] = field(default_factory=dict)
    show: dict[str, None] = field(default_factory=dict)
    generation: str = ""

    def reply(self) -> SyncReply:
        """The message."""
        return SyncReply(
            tuple(self.high_water),
            tuple(self.event_problems),
            tuple(self.entitlements),
            tuple(self.unknown_customers),
            tuple(self.grants),
            tuple(self.denials),
            tuple(self.renewed),
            tuple(self.recalls.values()),
            tuple(self.closed),
            tuple(self.unknown_leases),
            tuple(self.show),
            self.generation,
        )


class Exchange:
    """The state of one sync inside its transaction.

    Attributes:
        speaker: what the asking incarnation is. ``starts``: every known start on its journal, by boot.
        rows: leases of the asking agent that this sync may move, by id. ``payers``: those that paid for its events.
        taken: (customer, lease) that it asks for and that are leases of other agents.
        windows: the allowances that it will touch, with the ends of their windows.
        trust: what the database knows of itself, and whether this agent has told it all. odd: by kind, how often and
            what, for people (store.troubles).
        restored: leases that are taken in by their seals.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        agent: str,
        request: SyncRequest,
        now_ms: int,
        speaker: Speaker,
        starts: dict[int, agents.Incarnation],
        trust: Trust,
    ) -> None:
        self.unit = unit
        self.connection: Connection = unit.connection
        self.agent = agent
        self.request = request
        self.now_ms = now_ms
        self.speaker = speaker
        self.starts = starts
        self.answer = Answer()
        self.books = Books(unit.connection, now_ms, unit)
        self.entitlements: dict[str, Entitlement] = {}
        self.held = Held({}, {}, {}, {}, {}, {})
        self.rows: dict[str, leases.Row] = {}
        self.taken: set[tuple[str, str]] = set()
        self.payers: dict[str, leases.Row] = {}
        self.windows: dict[Key, int] = {}
        self._used: dict[Key, Used] | None = None
        self.trust = trust
        self.restored: list[leases.Row] = []
        self.odd: dict[str, tuple[int, str]] = {}
        self._limits: dict[str, dict[str, Limit]] = {}
        self.books.ceiling_of = self._ceiling

    @property
    def batches(self) -> list[EventBatch]:
        """The request's batches, in the order in which they were written."""
        return sorted(self.request.batches, key=lambda batch: (batch.boot, batch.first))

    @property
    def this_start(self) -> agents.Incarnation:
        """The asking start, as it was known before this sync."""
        return self.starts[self.request.boot]

    @property
    def is_overtaken(self) -> bool:
        """Whether a newer sync of this start has asked already: a late copy, whose answer nobody waits for. (The very
        same sync again may be a repetition by something on the way.)"""
        return 0 < self.request.serial <= self.this_start.serial

    def learn_customers(self, names: set[str]) -> None:
        """Resolve the entitlements of these customers, and keep them from changing meanwhile."""
        agents.hold_customers(self.connection, names)
        self.held = standing_of_rows(self.connection, self.unit.holders(names), self.now_ms)
        self.entitlements = self.held.entitlements

    def learn_leases(self, names: Iterable[str]) -> None:
        """Load these leases, as far as they are the asking agent's."""
        self.rows.update({row.lease: row for row in leases.of_agent(self.connection, self.agent, names)})

    def learn_wished_for(self, names: Iterable[tuple[str, str]]) -> None:
        """Load what stands where these (customer, lease) are asked for."""
        wanted = list(names)
        for row in (*leases.wished_for(self.connection, self.agent, wanted), *self.unit.lent_just_now(wanted)):
            if row.agent == self.agent:
                self.rows[row.lease] = row
            else:
                self.taken.add((row.customer, row.lease))

    def learn_payers(self, names: Iterable[str]) -> None:
        """Load what these leases are slices of, as far as they are the asking agent's."""
        self.payers = {row.lease: row for row in leases.of_agent(self.connection, self.agent, names)}
        self.payers |= {row.lease: row for row in self.restored}

    def read_again(self) -> None:
        """Load the leases once more, now that their allowances are held and nobody else moves them."""
        if self.connection.dialect.name != "sqlite":
            self.learn_leases(list(self.rows))

    def limit(self, customer: str, counter: str) -> Limit | None:
        """The limit that governs a counter now: counted and finite, of an active customer; ``None`` without one."""
        entitlement = self.entitlements.get(customer)
        if entitlement is None or entitlement.status is not CustomerStatus.ACTIVE:
            return None
        known = self._limits.get(customer)
        if known is None:
            known = {limit.counter: limit for limit in entitlement.limits if limit.is_leased}
            self._limits[customer] = known
        return known.get(counter)

    def _ceiling(self, key: Key) -> int | None:
        limit = self.limit(key.customer, key.counter)
        return 0 if limit is None else limit.ceiling

    def window(self, customer: str, limit: Limit) -> Window:
        """The limit's present window."""
        return limit.window_at(self.now_ms, self.calendar(customer))

    def calendar(self, customer: str) -> Calendar:
        """By which calendar the customer's windows are told."""
        return self.held.calendars.get(customer, Calendar())

    def limit_from(self, customer: str, counter: str, at_ms: int) -> Limit | None:
        """The limit that will govern a counter at an instant to come, by what is arranged now."""
        if self.held.changes_at_ms.get(customer, at_ms + 1) > at_ms:
            return self.limit(customer, counter)
        document = resolve(facts_of(self.connection, [customer])[customer], at_ms)
        if document.status is not CustomerStatus.ACTIVE:
            return None
        return next((limit for limit in document.limits if limit.counter == counter and limit.is_leased), None)

    def note(self, code: str, detail: str) -> None:
        """Something is odd about what this agent says; people can see it (store.troubles)."""
        self.odd[code] = (self.odd.get(code, (0, ""))[0] + 1, detail)

    def doubt_database(self, code: str, detail: str, *, sealed: bool) -> None:
        """This agent says what the database should know: perhaps it was restored, and more must not be lent for now."""
        self.note(code, detail)
        for change in notice_restore(self.connection, self.trust, self.agent, detail, self.now_ms, sealed=sealed):
            self.books.announce(change)

    def touch(self, key: Key, window_end_ms: int) -> None:
        """This sync will change that allowance."""
        self.windows[key] = window_end_ms

    def touch_lease(self, row: leases.Row) -> None:
        """This sync may change that lease, and so its allowance, which exists since the lease was granted."""
        self.windows.setdefault(row.key, 0)

    def used_of(self, key: Key) -> Used:
        """What holders say of an allowance's leases that are not closed. To be asked once reports are in, and saved."""
        if self._used is None:
            self._used = self.unit.used(self.windows, self.agent)
        return self._used.get(key, _NOTHING_USED)

    def note_central(self, key: Key) -> None:
        """This exchange lends of that allowance call by call."""
        central = self.used_of(key)._replace(central=True)
        assert self._used is not None
        self._used[key] = central

    def standing(self, account: Account, limit: Limit | None) -> Standing:
        """How an allowance stands beyond what the asking agent holds."""
        used = self.used_of(account.key)
        if kind_of(account.key.counter) is Kind.SLOTS:
            elsewhere = used.in_flight - used.in_flight_here
        else:
            elsewhere = account.posted + account.direct + used.settled - used.settled_here
        amount = limit.amount if limit is not None and limit.amount is not None else 0
        return Standing(amount, max(0, elsewhere))


def is_scope_value(limit: Limit, value: str) -> bool:
    """Whether ``value`` can be whose counter it is; ``""`` is the customer's own, or unattributed use."""
    return not value or (limit.scope is not Scope.CUSTOMER and is_key(value))
