"""Recomputes what every sum should be from what it was made of, and names each difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from control_plane.operations.audit_entries import entry_differences
from control_plane.operations.audit_leases import lease_differences, limit_differences
from control_plane.operations.audit_meters import meter_differences
from control_plane.operations.audit_usage import usage_differences
from control_plane.store import allowances, leases, ledger
from control_plane.store.allowances import Key
from control_plane.store.database import Connection
from control_plane.store.ledger import DIRECT, GRANT, POST, RETURN, Fold
from control_plane.store.spans import EVERYBODY, Span
from protocol.instants import INSTANT_MS_MAX

_NOTHING = Fold(0, 0)
_HOUR_MS = 3_600_000


class Part(StrEnum):
    """Between what a difference is."""

    ALLOWANCES = "allowances and ledger"
    ENTRIES = "ledger and events"
    LEASES = "leases and events"
    LIMITS = "leases and limits"
    USAGE = "usage and events"
    METERS = "meters and events"


class Difference(NamedTuple):
    """Two things that should be equal, and are not; ``text`` begins with where."""

    part: Part
    customer: str
    text: str

    @classmethod
    def of(cls, part: Part, text: str) -> Difference:
        """A difference by its text, which begins with the customer."""
        return cls(part, text.partition("/")[0], text)


def check_books(connection: Connection, *, told_all: bool = False) -> list[str]:
    """Every difference between the sums and what they are sums of; empty when the books are right.

    For each allowance: outstanding = caps of its leases that are not closed = granted - returned - released;
    posted and direct = their ledger entries. For each hour and minute, dimension, meter, feature and model: the sum of
    usage = the events, and so are meters made of events; and each event is as it was when it was accepted. Events that
    contradict an accepted one are in neither, while what their leases paid stays posted: it was probably used, and an
    allowance may so be charged more than the events say. For each closed lease: what was posted = what its events say;
    for each entry of an event: what no lease paid of it; for rates and slots: no more is lent than there is.

    Args:
        told_all: every agent has sent all its events, and none was lost: then they must explain every charge.

    Reads everything at once: for tests. :mod:`control_plane.operations.reconcile` does it in pieces.
    """
    usage = usage_differences(connection, EVERYBODY, 0, INSTANT_MS_MAX + _HOUR_MS)
    books = book_differences(connection, EVERYBODY, told_all=told_all)
    meters = meter_differences(connection, EVERYBODY, 0, INSTANT_MS_MAX + _HOUR_MS)
    return [*(one.text for one in books), *usage, *meters]


def book_differences(connection: Connection, span: Span, *, told_all: bool = False) -> Iterator[Difference]:
    """All but those of usage, of some customers."""
    for part, texts in (
        (Part.ALLOWANCES, _allowances(connection, span)),
        (Part.ENTRIES, entry_differences(connection, span)),
        (Part.LEASES, lease_differences(connection, span, told_all=told_all)),
        (Part.LIMITS, limit_differences(connection, span)),
    ):
        for text in texts:
            yield Difference.of(part, text)


def _allowances(connection: Connection, span: Span) -> Iterator[str]:
    caps = leases.sums(connection, span)
    folds = ledger.folds(connection, span)
    known: set[Key] = set()
    for row in allowances.all_rows(connection, span):
        known.add(row.key)
        where = "/".join(str(part) for part in row.key)
        granted, returned, posted, direct = (
            folds.get((row.key, kind), _NOTHING) for kind in (GRANT, RETURN, POST, DIRECT)
        )
        yield from _compare(
            where,
            {
                "outstanding and caps of leases": (row.outstanding, caps.get(row.key, 0)),
                "outstanding and the ledger": (row.outstanding, granted.amount - returned.amount - posted.released),
                "posted and the ledger": (row.posted, posted.amount),
                "direct and the ledger": (row.direct, direct.amount),
            },
        )
    for key in sorted((set(caps) | {key for key, _ in folds}) - known):
        yield f"{'/'.join(str(part) for part in key)}: has leases or entries, but no allowance"


def _compare(where: str, pairs: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    for what, (kept, computed) in pairs.items():
        if kept != computed:
            yield f"{where}: {what} differ: {kept} and {computed}"
