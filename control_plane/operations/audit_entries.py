"""Holds what the ledger charged without a lease for an event to what the event says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from control_plane.core.kinds import counted
from control_plane.store import events, leases, ledger
from control_plane.store.database import Connection
from control_plane.store.ledger import Entry
from control_plane.store.spans import Span
from protocol.codec import MsgpackDecoder
from protocol.events import UsageEvent
from protocol.violations import Violation

_decode = MsgpackDecoder(UsageEvent)
CAUSES = ("uncharged", "correction", "duplicate")

Leases = Mapping[tuple[str, str], leases.Row]


def entry_differences(connection: Connection, span: Span) -> Iterator[str]:
    """For each entry of an event's: the event is there, and the entry = what its leases did not pay of it; of an event
    that was sent twice, at most what its lease was granted."""
    for entries in ledger.of_events(connection, span, CAUSES):
        names = {(entry.key.customer, entry.event or "") for entry in entries}
        said = {name: _readable(body) for name, body in events.by_name(connection, names).items()}
        payers = {(name, charge.lease) for (name, _), event in said.items() if event for charge in event.charges}
        payers |= {(entry.key.customer, entry.lease) for entry in entries if entry.lease is not None}
        rows = {(row.customer, row.lease): row for row in leases.by_name(connection, payers)}
        for entry in entries:
            where = f"{'/'.join(str(part) for part in entry.key)}: {entry.cause} {entry.amount} for event {entry.event}"
            name = (entry.key.customer, entry.event or "")
            if name not in said:
                yield f"{where}, which is not there"
            elif (event := said[name]) is not None:
                yield from _difference(where, entry, event, rows)


def _readable(body: bytes) -> UsageEvent | None:
    """``None`` for what is no event: that is named where events themselves are looked at."""
    try:
        return _decode(body)
    except Violation:
        return None


def _difference(where: str, entry: Entry, event: UsageEvent, rows: Leases) -> Iterator[str]:
    if entry.cause == "duplicate":
        row = rows.get((entry.key.customer, entry.lease or ""))
        if row is not None and not -row.granted <= entry.amount <= 0:
            yield f"{where}, whose lease {entry.lease} was granted {row.granted}"
        return
    paid = _paid(entry, event, rows)
    if paid is None:
        return
    rest = event.amounts.get(counted(entry.key.counter).meter, 0) - paid
    if entry.cause == "uncharged":
        rest = max(0, rest)
    if rest != entry.amount:
        yield f"{where}, of which leases left {rest} to be charged"


def _paid(entry: Entry, event: UsageEvent, rows: Leases) -> int | None:
    """What leases of the entry's counter paid; ``None``: one of the event's leases has been forgotten since."""
    charges: Sequence[tuple[int, leases.Row | None]] = [
        (charge.amount, rows.get((event.customer, charge.lease))) for charge in event.charges
    ]
    if any(row is None for _, row in charges):
        return None
    place = (entry.key.counter, entry.key.scope_value)
    return sum(min(amount, row.granted) for amount, row in charges if row and (row.counter, row.scope_value) == place)
