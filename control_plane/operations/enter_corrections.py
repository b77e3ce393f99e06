"""Enters corrections that are made here, not by an agent: into the events, the sums, counters and credits."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from control_plane.core import reconciliation
from control_plane.core.kinds import counted
from control_plane.operations.author import Author
from control_plane.operations.burn_credits import Used, burn_credits
from control_plane.operations.keep_books import Books
from control_plane.operations.resolve_entitlement import standing_of
from control_plane.operations.sum_events import add_to_sums
from control_plane.store import events, rollups
from control_plane.store.allowances import Key
from control_plane.store.database import Connection
from protocol.codec import encode_msgpack
from protocol.events import UsageEvent
from protocol.windows import WindowKind


def enter_corrections(
    connection: Connection, customer: str, maker: str, corrections: Sequence[UsageEvent], author: Author
) -> int:
    """Enter what is not there yet; how many that were. Each counts at its own instant, in the windows of that time.

    The customer's row must be held. To be called once in a transaction.

    Args:
        maker: what makes these corrections; it stands where the agent stands of other events.
    """
    rows = [_row(maker, correction, author.now_ms) for correction in corrections]
    added = events.add_new(connection, rows)
    entered = [correction for correction in corrections if (customer, correction.event) in added]
    standing = standing_of(connection, [customer], author.now_ms)
    limits = standing.entitlements[customer].limits + standing.shadow.get(customer, ())
    windows: dict[Key, int] = {}
    owed: list[tuple[Key, reconciliation.Debit, str]] = []
    sums: rollups.Sums = {}
    for event in entered:
        for debit in reconciliation.debits(limits, event, {}, set(), event.at_ms, standing.calendars[customer]):
            key = Key(customer, debit.limit.counter, debit.scope_value, debit.window.start_ms)
            windows[key] = debit.window.end_ms
            owed.append((key, debit, event.event))
        add_to_sums(sums, event, event.at_ms)
    books = Books(connection, author.now_ms)
    books.open(windows)
    for key, debit, name in owed:
        if debit.amount:
            books.debit(key, debit.amount, debit.cause, name)
    books.save()
    for key in sorted(books.accounts):
        what = counted(key.counter)
        if what.window == WindowKind.GRANTS:
            used = [Used(one.event, one.amounts[what.meter], one.at_ms) for one in entered if what.meter in one.amounts]
            burn_credits(connection, customer, what.meter, used, author.now_ms)
    rollups.add(connection, sums)
    books.publish()
    return len(entered)


def _row(maker: str, event: UsageEvent, now_ms: int) -> events.Row:
    body = encode_msgpack(event)
    # No journal ever held it: it has one to itself, so that the place of every event is its own.
    place = blake2b(f"{event.customer}/{event.event}".encode(), digest_size=16).hexdigest()
    return events.Row(
        customer=event.customer,
        event=event.event,
        journal=f"{maker}~{place}",
        boot=0,
        seq=0,
        agent=maker,
        feature=event.feature,
        at_ms=event.at_ms,
        received_at_ms=now_ms,
        digest=reconciliation.digest(event),
        body=body,
        corrects=event.corrects,
    )
