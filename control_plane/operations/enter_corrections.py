"""Enters events that are made here, not by an agent: into the events, the sums, counters and credits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from control_plane.core import reconciliation
from control_plane.core.aggregates import Counted
from control_plane.core.kinds import counted
from control_plane.core.spans import parse_name
from control_plane.operations.add_to_meters import add_to_meters
from control_plane.operations.author import Author
from control_plane.operations.burn_credits import Used, burn_credits
from control_plane.operations.count_shadow import Shadow
from control_plane.operations.keep_books import Books
from control_plane.operations.resolve_entitlement import standing_of
from control_plane.operations.sum_events import add_to_sums
from control_plane.operations.tell_thresholds import tell_moved
from control_plane.store import events, periods, rollups
from control_plane.store.allowances import Key
from control_plane.store.database import Connection
from control_plane.store.periods import Adjustment
from protocol.codec import encode_msgpack
from protocol.entitlements import Limit
from protocol.events import UsageEvent
from protocol.instants import rfc3339
from protocol.windows import WindowKind

SPANS = "spans"
"""What begins the maker of events of spans."""

Owed = tuple[Key, reconciliation.Debit, UsageEvent]


class CounterEffect(msgspec.Struct, frozen=True):
    """How much more (negative: less) is used of one counter in one window."""

    counter: str
    limit: str
    scope_value: str
    window_start: str
    window_end: str
    change: int


class SumEffect(msgspec.Struct, frozen=True):
    """How much more was used in one hour."""

    hour: str
    meter: str
    feature: str
    change: int


class CreditEffect(msgspec.Struct, frozen=True):
    """How much more of one grant is burned."""

    meter: str
    grant: str
    change: int


class Effects(msgspec.Struct, frozen=True):
    """All that was moved."""

    counters: tuple[CounterEffect, ...] = ()
    sums: tuple[SumEffect, ...] = ()
    credits: tuple[CreditEffect, ...] = ()


@dataclass(frozen=True)
class Entered:
    """The events that were entered: the others were there before; and what they moved."""

    events: tuple[UsageEvent, ...]
    owed: tuple[Owed, ...]
    sums: rollups.Sums
    credits: tuple[CreditEffect, ...]

    @property
    def names(self) -> frozenset[tuple[str, str]]:
        """(customer, event) of each."""
        return frozenset((event.customer, event.event) for event in self.events)

    @property
    def effects(self) -> Effects:
        """What they moved, where all are one customer's."""
        return Effects(_counters(self.owed), _sums(self.sums), self.credits)


def enter_corrections(connection: Connection, maker: str, made: Sequence[UsageEvent], author: Author) -> Entered:
    """Enter what is not there yet. Each counts at its own instant, in the windows of that time; or, where its billing
    period is closed, at the beginning of the next.

    The rows of the customers must be held. To be called once in a transaction.

    Args:
        maker: what makes these events; it stands where the agent stands of other events.
        made: no identity twice.
    """
    standing = standing_of(connection, {event.customer for event in made}, author.now_ms)
    instants = [
        Counted(event, reconciliation.counts_from(event.at_ms, standing.closed_until[event.customer])) for event in made
    ]
    added = events.add_new(connection, [event_row(maker, *one, author.now_ms) for one in instants])
    entered = [one for one in instants if (one.event.customer, one.event.event) in added]
    windows: dict[Key, int] = {}
    owed: list[Owed] = []
    sums: rollups.Sums = {}
    for event, at_ms in entered:
        customer = event.customer
        limits = standing.entitlements[customer].limits + standing.shadow.get(customer, ())
        for debit in reconciliation.debits(limits, event, {}, set(), at_ms, standing.calendars[customer]):
            key = Key(customer, debit.limit.counter, debit.scope_value, debit.window.start_ms)
            windows[key] = debit.window.end_ms
            owed.append((key, debit, event))
        add_to_sums(sums, event, at_ms)
    books = Books(connection, author.now_ms)
    books.open(windows)
    _debit(books, owed, standing.shadow)
    books.save()
    told = tuple(one.event for one in entered)
    credits = _burn(connection, books, told, author.now_ms)
    rollups.add(connection, sums)
    add_to_meters(connection, entered)
    periods.adjust(connection, [_adjustment(*one, author.now_ms) for one in entered if one.at_ms != one.event.at_ms])
    tell_moved(connection, standing, books.accounts, author.now_ms)
    books.publish()
    return Entered(told, tuple(owed), sums, credits)


def _adjustment(event: UsageEvent, at_ms: int, now_ms: int) -> Adjustment:
    return Adjustment(event.customer, event.event, event.at_ms, at_ms, now_ms, event.amounts)


def _debit(books: Books, owed: Sequence[Owed], hidden: Mapping[str, tuple[Limit, ...]]) -> None:
    """Charge it all, noting what limits in shadow would have refused."""
    shadow = Shadow()
    for key, debit, event in owed:
        if debit.amount > 0 and event.corrects is None and debit.limit in hidden.get(key.customer, ()):
            shadow.look(books.accounts[key], debit.limit, debit.amount, event.at_ms, debit.window.end_ms)
        if debit.amount:
            books.debit(key, debit.amount, debit.cause, event.event)
    shadow.save(books.connection)


def _burn(connection: Connection, books: Books, entered: Sequence[UsageEvent], now_ms: int) -> tuple[CreditEffect, ...]:
    """Balances that were moved are taken from their grants, or given back to them."""
    found: list[CreditEffect] = []
    for key in sorted(books.accounts):
        what = counted(key.counter)
        if what.window == WindowKind.GRANTS:
            used = [
                Used(one.event, one.amounts[what.meter], one.at_ms)
                for one in entered
                if one.customer == key.customer and what.meter in one.amounts
            ]
            burned = burn_credits(connection, key.customer, what.meter, used, now_ms)
            found += [CreditEffect(what.meter, grant, change) for grant, change in sorted(burned.items()) if change]
    return tuple(found)


def _counters(owed: Sequence[Owed]) -> tuple[CounterEffect, ...]:
    changes: dict[Key, int] = {}
    about = {key: debit for key, debit, _ in owed}
    for key, debit, _ in owed:
        changes[key] = changes.get(key, 0) + debit.amount
    return tuple(
        CounterEffect(
            key.counter,
            about[key].limit.key,
            key.scope_value,
            rfc3339(key.window_start_ms),
            rfc3339(about[key].window.end_ms),
            change,
        )
        for key, change in sorted(changes.items())
        if change
    )


def _sums(sums: rollups.Sums) -> tuple[SumEffect, ...]:
    changes: dict[tuple[int, str, str], int] = {}
    for (_, dimension, _, at_ms, meter, feature, _), (quantity, _) in sums.items():
        if not dimension:
            place = (at_ms - at_ms % rollups.HOUR_MS, meter, feature)
            changes[place] = changes.get(place, 0) + quantity
    return tuple(
        SumEffect(rfc3339(hour_ms), meter, feature, change)
        for (hour_ms, meter, feature), change in sorted(changes.items())
        if change
    )


def event_row(maker: str, event: UsageEvent, at_ms: int, now_ms: int) -> events.Row:
    """An event that is made here, as it is stored."""
    journal, (boot, seq) = own_journal(maker, event), (0, 0)
    span = parse_name(event.event) if maker.startswith(SPANS) else None
    if span is not None:
        journal, (boot, seq) = trace_journal(event.customer, span.trace), span.place
    return events.Row(
        customer=event.customer,
        event=event.event,
        journal=journal,
        boot=boot,
        seq=seq,
        agent=maker,
        feature=event.feature,
        at_ms=at_ms,
        received_at_ms=now_ms,
        digest=reconciliation.digest(event),
        body=encode_msgpack(event),
        corrects=event.corrects,
    )


def own_journal(maker: str, event: UsageEvent) -> str:
    """No journal ever held it: it has one to itself, so that the place of every event is its own."""
    return f"{maker}~{_digest(event.customer, event.event)}"


def trace_journal(customer: str, trace: str) -> str:
    """Spans of one trace of a customer are found by this, whoever brings them."""
    return f"{SPANS}~{_digest(customer, trace)}"


def _digest(customer: str, name: str) -> str:
    return blake2b(f"{customer}/{name}".encode(), digest_size=16).hexdigest()
