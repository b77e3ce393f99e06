"""Takes what was used of a balance from its grants, in burn order; a movement in the ledger for each part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from control_plane.core.credits import LATE_MS, Burn, Category, Grant, burn, give_back
from control_plane.store import credits, customers
from control_plane.store.credits import GrantRow, Transfer
from control_plane.store.database import Connection
from protocol.entitlements import Scope
from protocol.windows import WindowKind


class Used(NamedTuple):
    """What one event used of a meter, signed; and when."""

    event: str
    amount: int
    at_ms: int


def pool_counter(meter: str) -> str:
    """The counter of a balance (:attr:`protocol.entitlements.Limit.counter`)."""
    return f"*/{meter}/{WindowKind.GRANTS.value}/{Scope.CUSTOMER.value}"


def burn_credits(
    connection: Connection, customer: str, meter: str, used: Sequence[Used], now_ms: int
) -> dict[str, int]:
    """Bring the grants of one balance up to what is known to be used of it.

    All that was ever used less all that was ever burned is what is to be burned now; so doing it twice changes nothing,
    and what no grant covers (an overdraft) is taken from the next one that is given.

    Args:
        used: the events that are new, so that movements name them; what none of them explains, such as what a crash
            left unreported, is burned as of now.

    Returns: by grant, how much more of it is burned.
    """
    since_ms = min([now_ms, *(one.at_ms for one in used)]) - LATE_MS
    rows = {row.grant: row for row in credits.hold(connection, customer, meter, since_ms)}
    if not rows:
        return {}
    before = {grant: row.burned for grant, row in rows.items()}
    rest = credits.use(connection, customer, pool_counter(meter)).used - credits.burned(connection, customer, meter)
    for event, at_ms, amount in _parts(rest, used, now_ms):
        grants = [grant_of(row) for row in rows.values()]
        burns, _ = burn(grants, amount, at_ms, now_ms) if amount > 0 else give_back(grants, -amount)
        for part in burns:
            rows[part.grant] = _burn(connection, rows[part.grant], part, event, now_ms)
    return {grant: row.burned - before[grant] for grant, row in rows.items()}


def grant_of(row: GrantRow) -> Grant:
    """A grant as the core sees it."""
    return Grant(
        grant=row.grant,
        amount=row.amount,
        burned=row.burned,
        from_ms=row.from_ms,
        until_ms=row.until_ms,
        priority=row.priority,
        category=Category(row.category),
        cost_micros=row.cost_micros,
        forfeited=row.forfeited,
        closed=row.closed,
        voided=row.voided_at_ms is not None,
    )


def lost_account(row: GrantRow) -> str:
    """Where what is left of a grant goes when it ends."""
    return credits.EXPIRED if row.voided_at_ms is None else credits.VOIDED


def _parts(rest: int, used: Sequence[Used], now_ms: int) -> list[tuple[str | None, int, int]]:
    """What is to be burned: by which event, when it was used, how much."""
    if rest < 0:
        undone = next((one.event for one in used if one.amount < 0), None)
        return [(undone, now_ms, rest)]
    parts: list[tuple[str | None, int, int]] = []
    for one in used:
        part = min(rest, one.amount)
        if part > 0:
            parts.append((one.event, one.at_ms, part))
            rest -= part
    return [*parts, (None, now_ms, rest)] if rest else parts


def _burn(connection: Connection, row: GrantRow, part: Burn, event: str | None, now_ms: int) -> GrantRow:
    """A grant that has been closed takes it from what it had forfeited, or gives it back there."""
    account, size = credits.account_of(row.grant), abs(part.amount)
    lost = lost_account(row)
    move = Transfer(row.customer, row.meter, account, credits.USED, size, "burn", event, now_ms)
    if part.amount < 0:
        move = move._replace(from_account=credits.USED, to_account=account, cause="undo")
    again = Transfer(row.customer, row.meter, lost, account, size, "late", event, now_ms)
    if part.amount < 0:
        again = again._replace(from_account=account, to_account=lost)
    moves = [move]
    if part.late:
        moves = [again, move] if part.amount > 0 else [move, again]
    credits.move(connection, moves)
    forfeited = row.forfeited - part.amount if part.late else row.forfeited
    changed = row._replace(burned=row.burned + part.amount, forfeited=forfeited)
    credits.change(connection, changed)
    if part.late:  # what the balance allows is made of what ended grants have given
        customers.make_due(connection, names=[row.customer])
    return changed
