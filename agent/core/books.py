"""All of the agent's state, in one place with one owner (``main``); only plain functions touch it, so no lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from agent.core.budget import Allowance
from agent.core.calls import Arriving, CallBook
from agent.core.decide import Path, path_of
from agent.core.derived import card_of
from agent.core.estimate import Estimates
from agent.core.fetched import Answers
from agent.core.kinds import new_allowance
from agent.core.leases import AllowanceKey, Lease
from agent.core.pending import Group, Pending
from agent.core.rates import RateAllowance
from agent.core.reservations import EndedBook, ReservationBook
from agent.core.tally import Tally
from protocol.admission import Priority
from protocol.entitlements import Entitlement, Feature, Scope
from protocol.local_messages import Call, Reserve
from protocol.rates import NO_RATES, RateCard
from protocol.uplink_messages import FirstCall

PARKED_MAX = 20_000
PATHS_MAX = 1_024
ALLOWANCES_MAX = 200_000
"""Counters kept here: with limits for each user, a host that serves very many of them asks to be relieved."""
CUSTOMERS_MAX = 100_000
RESERVATIONS_MAX = 200_000
UNKNOWN_MS = 5_000
"""For how long "no such customer" is believed before the control plane is asked again."""

Shape = tuple[str, tuple[str | None, ...], tuple[str, ...]]
"""Feature, whose counters, meters."""

Attempt = Callable[[], bool]
"""Try an operation again, and answer its caller if that gave an answer. ``False``: it still waits."""


@dataclass(slots=True)
class Parked:
    """A call that waits for a lease, for the journal or for returns, within its own deadline.

    Attributes:
        wants: the reservation it waits for, so that a release withdraws it.
    """

    attempt: Attempt
    deadline_ms: int
    wants: Reserve | None = None


@dataclass(slots=True)
class Customer:
    """What this agent knows of one customer.

    Attributes:
        entitlement: ``None`` until the control plane (or the journal) has said one.
        told_version: of the newest that came with a sync; a watch may have brought a newer one, of which leases are
            still to be heard.
        unknown_until_ms: the control plane said that there is no such customer; believed until then.
        first_call: the call that waits for the first lease, as it will be asked; ``None`` when none does. After a
            change of the plan, one that was refused before.
        unmet: the last call that was not let through at once: call, amounts without derived ones, priority, and when.
        scopes, scope_tags: of whom this version of the entitlement keeps counters, beside the customer itself.
        paths: limits on the path by the shape of a call, for this version of the entitlement.
        card: the rates of the entitlement. derived: meters that they make of others; callers never report them.
        queues: rates that calls wait for to fill.
    """

    name: str
    entitlement: Entitlement | None = None
    told_version: int = 0
    features: dict[str, Feature] = field(default_factory=dict)
    meters: frozenset[str] = frozenset()
    ends_at_ms: int | None = None
    unknown_until_ms: int = 0
    first_call: FirstCall | None = None
    unmet: tuple[Call, dict[str, int], Priority, int] | None = None
    parked: list[Parked] = field(default_factory=list)
    scopes: tuple[Scope, ...] = ()
    scope_tags: tuple[str, ...] = ()
    card: RateCard = NO_RATES
    derived: frozenset[str] = frozenset()
    queues: list[RateAllowance] = field(default_factory=list)
    paths: dict[Shape, Path] = field(default_factory=dict)
    last_used_ms: int = 0

    def entitle(self, entitlement: Entitlement, asked_at_ms: int) -> None:
        """Take a newer entitlement; the newest version wins."""
        self.card = card_of(entitlement.rates, entitlement.plan)
        if self.card.rates is not entitlement.rates:
            entitlement = msgspec.structs.replace(entitlement, rates=self.card.rates)
        self.entitlement = entitlement
        self.features = {feature.key: feature for feature in entitlement.features}
        self.meters = frozenset(entitlement.meters)
        self.derived = frozenset(rate.meter for rate in entitlement.rates)
        kept = {limit.scope for limit in entitlement.limits}
        kept |= {Scope.ROLE for limit in entitlement.limits if limit.roles or limit.except_roles}
        self.scopes = tuple(scope for scope in Scope if scope in kept - {Scope.CUSTOMER, Scope.TAG})
        self.scope_tags = tuple(sorted({limit.scope_tag for limit in entitlement.limits if limit.scope_tag}))
        self.ends_at_ms = None if entitlement.ends_in_ms is None else asked_at_ms + entitlement.ends_in_ms
        self.unknown_until_ms = 0
        for path in self.paths.values():
            for step in path.steps:
                step.allowance.forget_denial()  # it was said under the plan before
        self.paths.clear()

    def shape(self, call: Call, meters: Iterable[str]) -> Shape:
        """What decides which counters a call touches: its feature and meters, and of its subject and tags only what
        some limit keeps counters for."""
        if not self.scopes and not self.scope_tags:
            return (call.feature, (), tuple(meters))
        subject, tags = call.subject, call.tags
        whose = [getattr(subject, scope.value) for scope in self.scopes]
        return (call.feature, (*whose, *[tags.get(tag) for tag in self.scope_tags]), tuple(meters))

    def count_afresh(self) -> None:
        """All who wait are about to be tried again: what they lack is counted anew, not once more."""
        for path in self.paths.values():
            for step in path.steps:
                step.allowance.backlog = 0


@dataclass(slots=True)
class Counters:
    """What happened since the start, for ``status``."""

    allowed: int = 0
    throttled: int = 0
    blocked: int = 0
    reserved: int = 0
    settled: int = 0
    released: int = 0
    recorded: int = 0
    expired: int = 0
    refused_input: int = 0
    waited: int = 0
    syncs: int = 0
    sync_failures: int = 0
    commits: int = 0
    commit_failures: int = 0
    events_written: int = 0
    events_confirmed: int = 0
    event_problems: int = 0


@dataclass(slots=True)
class Books:
    """Everything the agent holds in memory.

    Attributes:
        estimates: what was learned of model calls, whoever brought them.
        calls: model calls whose answers are fed to this agent. arriving: requests of such that come in pieces. answers:
            whose they were, for when more is told of them later.
        asking: leases that shall be asked for in the next sync, by id, and the allowances that they are for.
        freed: customers of whom calls gave something back while others wait for it.
        look_again: customers whose entitlement may have changed.
        report_all: the next sync must list every lease (a recall, or the first of this boot).
        wake_sync, tell_sync, wake_writer, wake_tick, send_answers: set by ``main``: something is to be sent at once, or
            soon; is to be written; somebody waits, or a call has no row yet; late answers have gathered.
        committing: a group is on its way to the disk.
        round_trip_ms: how long exchanges have taken of late; slow ones are forgotten slowly.
        news: something is to be sent soon. unreported: events or reports wait that return nothing to anybody; they may
            wait for more (``pace``).
        exchanging: an exchange with the control plane is under way.
        generation: of the control plane's database, as last heard.
        report_from: where the next report of leases begins, when there are more than one may hold.
        uplink_down: the last exchange failed; nobody is kept waiting for the control plane meanwhile.
        refusing: why nothing may be allowed at all (revoked, draining), or ``""``.
        draining: the agent stops: what is asked from now on is for the next one.
    """

    agent: str
    journal: str
    boot: int
    nonce: str
    customers: dict[str, Customer] = field(default_factory=dict)
    allowances: dict[AllowanceKey, Allowance] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    reservations: ReservationBook = field(default_factory=ReservationBook)
    ended: EndedBook = field(default_factory=EndedBook)
    pending: Pending = field(default_factory=Pending)
    counters: Counters = field(default_factory=Counters)
    tally: Tally = field(default_factory=Tally)
    estimates: Estimates = field(default_factory=Estimates)
    calls: CallBook = field(default_factory=CallBook)
    answers: Answers = field(default_factory=Answers)
    arriving: Arriving = field(default_factory=Arriving)
    asking: dict[str, Allowance] = field(default_factory=dict)
    freed: set[str] = field(default_factory=set)
    look_again: set[str] = field(default_factory=set)
    waiting_for_disk: set[str] = field(default_factory=set)
    parked: int = 0
    report_all: bool = True
    confirmed_at_ms: int = 0
    round_trip_ms: int = 0
    news: bool = False
    unreported: bool = False
    exchanging: bool = False
    committing: bool = False
    uplink_down: bool = False
    refusing: str = ""
    draining: bool = False
    lease_serial: int = 0
    report_from: int = 0
    generation: str = ""
    wake_sync: Callable[[], None] = lambda: None
    tell_sync: Callable[[], None] = lambda: None
    wake_writer: Callable[[], None] = lambda: None
    wake_tick: Callable[[], None] = lambda: None
    send_answers: Callable[[], None] = lambda: None

    def bring_news(self) -> None:
        """Something is to be sent soon."""
        if not self.news:
            self.news = True
            self.tell_sync()

    def note_unreported(self) -> None:
        """Something is to be sent when there is more, or after a while."""
        if not self.unreported:
            self.unreported = True
            self.tell_sync()

    def customer(self, name: str) -> Customer:
        """The entry of this customer, made when it is not there."""
        found = self.customers.get(name)
        if found is None:
            found = self.customers[name] = Customer(name)
        return found

    def crowded_for(self, name: str) -> bool:
        """Whether this customer is new, and as many as memory is meant for are known already."""
        return len(self.customers) >= CUSTOMERS_MAX and name not in self.customers

    def too_many_counters_for(self, customer: Customer, call: Call, meters: dict[str, int]) -> bool:
        """Whether this call would need new counters, and as many as memory is meant for are kept already."""
        full = len(self.allowances) >= ALLOWANCES_MAX
        return full and customer.shape(call, meters) not in customer.paths

    def allowance(self, key: AllowanceKey, now_ms: int) -> Allowance:
        """The entry of this counter, made when it is not there."""
        found = self.allowances.get(key)
        if found is None:
            found = self.allowances[key] = new_allowance(key, now_ms)
        return found

    def holder(self, lease: Lease) -> Allowance | None:
        """The part of the counter that this lease belongs to."""
        allowance = self.allowances.get(lease.key)
        if allowance is None or (lease.begun and not lease.finishing):
            return allowance
        return allowance.finishing if lease.finishing else allowance.ahead

    def new_lease_id(self) -> str:
        """An id that no other journal, boot or ask has ever used."""
        self.lease_serial += 1
        return f"{self.journal}-{self.boot}-{self.lease_serial}"

    def path(self, customer: Customer, call: Call, meters: dict[str, int], now_ms: int) -> Path:
        """The limits that a call touches; looked up once for each shape of call."""
        shape = customer.shape(call, meters)
        path = customer.paths.get(shape)
        if path is None:
            assert customer.entitlement is not None
            if len(customer.paths) >= PATHS_MAX:
                customer.paths.clear()
            path = customer.paths[shape] = path_of(
                customer.entitlement,
                call.feature,
                call.subject,
                call.tags,
                meters,
                lambda key: self.allowance(key, now_ms),
            )
        return path

    def idle(self) -> bool:
        """Whether neither the disk nor the control plane is waited for."""
        return not (self.committing or self.pending.urgent or self.asking or self.look_again)

    def watermark_step(self, lease: Lease) -> int:
        """How far the journal runs ahead of what is used of this lease."""
        allowance = self.holder(lease)
        return 0 if allowance is None else allowance.watermark_step()

    def gather(self, opened_before_ms: int) -> Group:
        """Take out what the next commit writes."""
        group = self.pending.gather(self.watermark_step, opened_before_ms)
        group.freed, self.freed = self.freed, set()
        for row in group.rows:
            allowance = self.holder(row.lease)
            if allowance is not None:
                allowance.awaited = 0
        return group
