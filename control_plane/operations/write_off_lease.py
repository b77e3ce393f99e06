"""Closes leases of holders that are lost, openly: an admin says why, and what was used; the rest goes back.

What the holder says later is the truth still: what it used beyond that is charged then (cause ``late``).
"""

from __future__ import annotations

from control_plane.core import lease_life
from control_plane.core.kinds import Kind, kind_of
from control_plane.core.lease_life import Status
from control_plane.operations.author import Author
from control_plane.operations.keep_books import Books, life_of
from control_plane.operations.refusals import Conflict, NotFound
from control_plane.operations.resolve_entitlement import standing_of
from control_plane.operations.tell_thresholds import tell_moved
from control_plane.store import leases
from control_plane.store.database import Connection
from protocol.violations import Violation

CAUSE = "write_off"
_SILENT = frozenset({Status.EXPIRED.value, Status.LIMBO.value})


def write_off_lease(
    connection: Connection, customer: str, lease: str, used: int | None, reason: str, author: Author
) -> None:
    """Close one lease whose holder is silent; one that is closed already is left as it is.

    Args:
        used: what to charge; ``None`` charges what its holder had reported, calls in flight included.

    Raises: NotFound. Conflict: its holder is not silent. Violation: ``used`` contradicts what is known.
    """
    found = _find(connection, customer, lease)
    if found.status == Status.CLOSED:
        return
    books = Books(connection, author.now_ms)
    books.open({found.key: 0})
    row = _find(connection, customer, lease)  # again, now that nobody else moves it
    if row.status != Status.CLOSED:
        _write_off(books, row, used, reason, author)
    books.save()
    _tell(books)
    books.publish()


def write_off_journal(connection: Connection, agent: str, journal: str, reason: str, author: Author) -> int:
    """Close every lease of a journal whose holder is silent, each charged with what was reported of it.

    Returns: how many there were.
    """
    silent = [row for row in leases.alive_in_journal(connection, agent, journal) if row.status in _SILENT]
    books = Books(connection, author.now_ms)
    if silent:
        books.open({row.key: 0 for row in silent})
        names = [(row.customer, row.lease) for row in silent]
        silent = [row for row in leases.by_name(connection, names) if row.status in _SILENT]
    for row in silent:
        _write_off(books, row, None, reason, author)
    books.save()
    _tell(books)
    books.publish()
    return len(silent)


def _tell(books: Books) -> None:
    standing = standing_of(books.connection, {key.customer for key in books.accounts}, books.now_ms)
    tell_moved(books.connection, standing, books.accounts, books.now_ms)


def _find(connection: Connection, customer: str, lease: str) -> leases.Row:
    for row in leases.by_name(connection, [(customer, lease)]):
        return row
    raise NotFound("lease_not_found", f"Customer {customer!r} has no lease {lease!r}.", "lease")


def _write_off(books: Books, row: leases.Row, used: int | None, reason: str, author: Author) -> None:
    if row.status not in _SILENT:
        detail = f"Lease {row.lease!r} is {row.status}: its holder speaks of it, and gives back what it does not use."
        raise Conflict("lease_in_use", detail, "lease")
    life = life_of(row)
    charged = _charged(row, used)
    books.move(row, *lease_life.close_at(life, charged, CAUSE))
    body = {"reason": reason, "used": charged, "cap": row.cap, "settled": row.settled, "agent": row.agent}
    author.write_down(books.connection, "lease.write_off", row.lease, body, row.customer)


def _charged(row: leases.Row, used: int | None) -> int:
    """What to charge. Slots in flight are only given back: holding them is no use that anybody counts."""
    if kind_of(row.counter) is Kind.SLOTS:
        if used:
            raise Violation("used", f"is {used}", "0: calls in flight are not summed up")
        return 0
    if used is None:
        return lease_life.reported(life_of(row))
    known = row.settled + row.unreported
    if not min(known, row.granted) <= used <= row.granted:
        raise Violation("used", f"is {used}", f"{known} (what is known to be used) to {row.granted} (what was granted)")
    return used
