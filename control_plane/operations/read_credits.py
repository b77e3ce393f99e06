"""Says how a customer's credits stand: what remains, what is reserved, and what grants it is made of."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.core.credits import GrantStatus, in_burn_order
from control_plane.operations.burn_credits import grant_of, pool_counter
from control_plane.operations.change_customer import require_customer
from control_plane.store import credits
from control_plane.store.credits import GrantRow
from control_plane.store.database import Connection


@dataclass(frozen=True)
class CreditBalance:
    """One meter's balance.

    Attributes:
        settled: what is left of grants that count now, less what is used and not yet taken from them: the number to
            show people. reserved: what calls in flight hold of it. remaining: the rest, for new calls.
        overdrawn: what was used beyond every grant; the next one that is given pays for it.
        grants: those that count now or will, in burn order.
    """

    meter: str
    settled: int
    reserved: int
    overdrawn: int
    grants: tuple[GrantRow, ...]

    @property
    def remaining(self) -> int:
        """What new calls may use; below 0 it is overdrawn."""
        return self.settled - self.reserved


def read_credits(connection: Connection, customer: str, now_ms: int) -> list[CreditBalance]:
    """Every balance that was ever granted something. Raises: NotFound."""
    require_customer(connection, customer)
    rows: dict[str, dict[str, GrantRow]] = {}
    for row in credits.open_grants(connection, [customer]):
        rows.setdefault(row.meter, {})[row.grant] = row
    for _, meter in credits.closed_burned(connection, [customer]):
        rows.setdefault(meter, {})
    return [_balance(connection, customer, meter, rows[meter], now_ms) for meter in sorted(rows)]


def _balance(
    connection: Connection, customer: str, meter: str, rows: dict[str, GrantRow], now_ms: int
) -> CreditBalance:
    use = credits.use(connection, customer, pool_counter(meter))
    unburned = use.used - credits.burned(connection, customer, meter)
    grants = in_burn_order(grant_of(row) for row in rows.values())
    left = sum(grant.left for grant in grants if grant.status(now_ms) is GrantStatus.ACTIVE)
    settled = left - unburned
    shown = [grant for grant in grants if grant.status(now_ms) in (GrantStatus.ACTIVE, GrantStatus.PENDING)]
    return CreditBalance(meter, settled, use.in_flight, max(0, -settled), tuple(rows[grant.grant] for grant in shown))
