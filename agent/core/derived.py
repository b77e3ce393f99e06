"""Derived meters: what the rates of an entitlement make of the meters that callers report."""

from __future__ import annotations

from protocol.entitlements import Rate, derive
from protocol.units import METERS_MAX, QUANTITY_MAX
from protocol.violations import Violation


def with_derived(rates: tuple[Rate, ...], feature: str, meters: dict[str, int]) -> dict[str, int]:
    """What a call counts as in all: what its caller says, and what that is turned into, rounded up once.

    Raises:
        Violation: the caller says a derived meter itself; there are more meters in all than a call may have; one of
            them is larger than a quantity may be.
    """
    if not rates:
        return meters
    made = derive(rates, feature, meters)
    for meter, amount in made.items():
        if meter in meters:
            raise Violation(f"amounts.{meter}", "is made of other meters by the plan's rates", "only those others")
        if amount > QUANTITY_MAX:
            raise Violation("amounts", f"make {amount} {meter}", f"at most {QUANTITY_MAX}")
    if len(meters) + len(made) > METERS_MAX:
        problem = f"make {len(meters) + len(made)} meters with those that rates make of them"
        raise Violation("amounts", problem, f"at most {METERS_MAX}")
    return meters | made


def derived_meters(rates: tuple[Rate, ...], feature: str) -> frozenset[str]:
    """Which meters the rates make of a call of this feature."""
    return frozenset(rate.meter for rate in rates if rate.feature in (None, feature))


def as_said(rates: tuple[Rate, ...], feature: str, meters: dict[str, int]) -> dict[str, int]:
    """What a caller says of all that a call counts as."""
    if not rates:
        return meters
    made = derived_meters(rates, feature)
    return {meter: amount for meter, amount in meters.items() if meter not in made}
