"""What a counter counts, read from its name: a quota that is used up, slots that are held, or a rate that is shared."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

_RATE = "-rate"
_PERIODS_MS = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}


class Kind(StrEnum):
    """How leases of a counter live: used up, held and given back, or kept for as long as they are renewed."""

    QUOTA = "quota"
    SLOTS = "slots"
    RATE = "rate"


class Counted(NamedTuple):
    """The parts of a counter's name (:attr:`protocol.entitlements.Limit.counter`).

    Attributes:
        feature: ``None``: calls of every feature.
        dimension: whose counter it is, ``tag:NAME`` for the values of a tag; ``""`` for the customer's own.
        period_ms: of a rate: the time in which it admits its amount; else 0.
        role: counts only calls of this role (of several: joined by ``@``); ``""``: of every role.
    """

    feature: str | None
    meter: str
    window: str
    dimension: str
    kind: Kind
    period_ms: int
    role: str = ""


@lru_cache(maxsize=4096)
def counted(counter: str) -> Counted:
    """What a counter's name says."""
    feature, meter, window, scope = counter.split("/")
    whose, _, role = scope.partition("@")
    kind = Kind.QUOTA
    if window.endswith(_RATE):
        kind = Kind.RATE
    elif window == "in_flight":
        kind = Kind.SLOTS
    return Counted(
        feature=None if feature == "*" else feature,
        meter=meter,
        window=window.removesuffix(_RATE),
        dimension="" if whose == "customer" else whose,
        role=role,
        kind=kind,
        period_ms=_PERIODS_MS[window.removesuffix(_RATE)] if kind is Kind.RATE else 0,
    )


def kind_of(counter: str) -> Kind:
    """How leases of this counter live."""
    return counted(counter).kind
