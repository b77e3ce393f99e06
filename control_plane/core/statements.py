"""Statements: what a customer used in a billing period, what passed its limits and what that costs, and its credits.
Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class UsageLine(msgspec.Struct, frozen=True):
    """So much was used of a meter by calls of one feature; ``events``: how many calls."""

    meter: str
    feature: str
    quantity: int
    events: int


class OverageLine(msgspec.Struct, frozen=True):
    """What passed one limit in one window, of one scope value; ``cost_micros`` is null where it has no price."""

    limit: str
    meter: str
    scope_value: str
    window: str
    window_start: str
    window_end: str
    amount: int
    used: int
    overage: int
    cost_micros: int | None
    currency: str | None


class CreditLine(msgspec.Struct, frozen=True):
    """So much credit was burned, less what was given back; by when it was booked."""

    meter: str
    burned: int


class AdjustmentLine(msgspec.Struct, frozen=True):
    """An event that happened in a period that was closed, and is in the usage of this one."""

    event: str
    happened_at: str
    entered_at: str
    amounts: dict[str, int]


class Total(msgspec.Struct, frozen=True):
    """What overage costs in one currency, in whole micro-units."""

    currency: str
    micros: int


class Statement(msgspec.Struct, frozen=True):
    """One billing period of one customer.

    Attributes:
        plan: at its end. usage: by meter and feature, adjustments included. overage: of limits that allow or price it,
            for each of their windows that ended in the period, by the amount at the period's end.
        adjustments: the first of them; ``adjustments_count``: how many there are.
    """

    customer: str
    start: str
    end: str
    plan: str
    usage: tuple[UsageLine, ...]
    overage: tuple[OverageLine, ...]
    overage_total: tuple[Total, ...]
    credits: tuple[CreditLine, ...]
    adjustments: tuple[AdjustmentLine, ...]
    adjustments_count: int


def totals(lines: Iterable[OverageLine]) -> tuple[Total, ...]:
    """What they cost together, by currency."""
    sums: dict[str, int] = {}
    for line in lines:
        if line.currency is not None and line.cost_micros is not None:
            sums[line.currency] = sums.get(line.currency, 0) + line.cost_micros
    return tuple(Total(currency, micros) for currency, micros in sorted(sums.items()))
