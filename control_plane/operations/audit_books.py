"""Recomputes what every sum should be from what it was made of, and names each difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from control_plane.operations.audit_leases import lease_differences, limit_differences
from control_plane.store import allowances, events, leases, ledger, rollups
from control_plane.store.allowances import Key
from control_plane.store.database import Connection
from control_plane.store.ledger import DIRECT, GRANT, POST, RETURN, Fold

_NOTHING = Fold(0, 0)


class _Amounts(msgspec.Struct):
    """The part of an event that is summed."""

    amounts: dict[str, int]


def check_books(connection: Connection, *, told_all: bool = False) -> list[str]:
    """Every difference between the sums and what they are sums of; empty when the books are right.

    For each allowance: outstanding = caps of its leases that are not closed = granted - returned - released;
    posted and direct = their ledger entries. For each customer and meter: the events = the hourly sums. Events that
    contradict an accepted one are in neither of these two sums, while what their leases paid stays posted: it was
    probably used, and an allowance may so be charged more than the events say.
    For each closed lease: what was posted = what its events say; for rates and slots: no more is lent than there is
    (:mod:`control_plane.operations.audit_leases`).

    Args:
        told_all: every agent has sent all its events, and none was lost: then they must explain every charge.

    Reads everything: for tests, audits and admins, never on a request path.
    """
    return [
        *_allowances(connection),
        *_usage(connection),
        *lease_differences(connection, told_all=told_all),
        *limit_differences(connection),
    ]


def _allowances(connection: Connection) -> Iterator[str]:
    caps = leases.sums(connection)
    folds = ledger.folds(connection)
    known: set[Key] = set()
    for row in allowances.all_rows(connection):
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


def _usage(connection: Connection) -> Iterator[str]:
    sums: dict[tuple[str, str], int] = {}
    decode = msgspec.msgpack.Decoder(_Amounts).decode
    for customer, body in events.bodies(connection):
        for meter, amount in decode(body).amounts.items():
            sums[customer, meter] = sums.get((customer, meter), 0) + amount
    totals = rollups.totals(connection)
    for customer, meter in sorted(set(sums) | set(totals)):
        pair = (totals.get((customer, meter), 0), sums.get((customer, meter), 0))
        yield from _compare(f"{customer}/{meter}", {"hourly sums and events": pair})


def _compare(where: str, pairs: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    for what, (kept, computed) in pairs.items():
        if kept != computed:
            yield f"{where}: {what} differ: {kept} and {computed}"
