"""What passes the amount of a limit, and what it costs. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from control_plane.core.plans import PlanLimit, Price
from protocol.entitlements import Limit


class Overage(NamedTuple):
    """So much was used beyond the amount; ``micros``: what it costs, ``None`` where it has no price."""

    quantity: int
    micros: int | None
    currency: str | None


NO_OVERAGE = Overage(0, None, None)


def overage(limit: Limit, price: Price | None, used: int) -> Overage:
    """What passes a limit's amount in one window. Its cost is rounded up once, to whole micro-units of the currency."""
    if limit.amount is None or not limit.is_counted:
        return NO_OVERAGE
    quantity = max(0, used - limit.amount)
    if price is None:
        return Overage(quantity, None, None)
    return Overage(quantity, -(-quantity * price.micros // price.per), price.currency)


def prices_of(authored: Iterable[PlanLimit]) -> dict[str, Price]:
    """What overage costs, by limit; a limit's variations by role cost the same."""
    return {limit.key: limit.overage_price for limit in authored if limit.overage_price is not None}


def authored_key(limit: Limit) -> str:
    """The limit as its author named it, of one that may be its variation for a role."""
    return limit.key.partition("@")[0] if limit.roles else limit.key
