"""Credits: grants fill a balance, use burns them in one published order, and what is left when one ends rolls over or
is forfeited."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

LATE_MS = 120_000
"""What was lent of a grant before it ended may be used, and told of, so long after: it is still taken from that one."""

PRIORITY_MAX = 255


class Category(StrEnum):
    """Where a grant comes from; given ones burn before bought ones of the same priority and end."""

    PROMOTIONAL = "promotional"
    ROLLOVER = "rollover"
    INCLUDED = "included"
    PURCHASED = "purchased"


class GrantStatus(StrEnum):
    """Whether use may burn it now."""

    PENDING = "pending"
    ACTIVE = "active"
    EXPIRED = "expired"
    VOIDED = "voided"


class Grant(NamedTuple):
    """An amount of credit. It counts for ``from_ms <= t < until_ms``; ``until_ms`` of ``None``: until it is burnt.

    Attributes:
        burned: how much of it use has burned. forfeited: how much was lost when it ended.
        cost_micros: what one million units of it cost, in millionths of its currency: cheaper ones burn first.
        closed: its end has been settled: what was left is forfeited or rolled over.
    """

    grant: str
    amount: int
    burned: int
    from_ms: int
    until_ms: int | None = None
    priority: int = 0
    category: Category = Category.PURCHASED
    cost_micros: int = 0
    forfeited: int = 0
    closed: bool = False
    voided: bool = False

    @property
    def left(self) -> int:
        """What use may still burn."""
        return 0 if self.closed else self.amount - self.burned

    def counts(self, at_ms: int) -> bool:
        """Whether use at that instant may burn it."""
        return self.from_ms <= at_ms and (self.until_ms is None or at_ms < self.until_ms)

    def status(self, at_ms: int) -> GrantStatus:
        """What it is called at an instant."""
        if at_ms < self.from_ms:
            return GrantStatus.PENDING
        if self.counts(at_ms):
            return GrantStatus.ACTIVE
        return GrantStatus.VOIDED if self.voided else GrantStatus.EXPIRED


@dataclass(frozen=True)
class Pool:
    """The grants of one meter that have not been closed, and what closed ones have given."""

    closed_burned: int = 0
    grants: tuple[Grant, ...] = ()

    def ceiling(self, at_ms: int) -> int:
        """What use in all may come to: what ended grants have given, and all of those that count. The balance that is
        left is this less all that was ever used, so it needs no clearing, and no grant is ever spent twice."""
        return self.closed_burned + sum(
            grant.amount if grant.counts(at_ms) else grant.burned for grant in self.grants if grant.from_ms <= at_ms
        )

    def granted(self, at_ms: int) -> int:
        """What the grants that count then gave, whether or not it is burned."""
        return sum(grant.amount for grant in self.grants if grant.counts(at_ms))

    def edges(self) -> Iterator[int]:
        """Every instant at which one of them begins or ends."""
        for grant in self.grants:
            yield grant.from_ms
            if grant.until_ms is not None:
                yield grant.until_ms


class Burn(NamedTuple):
    """So much of a grant was burned; negative: given back to it. ``late``: out of what it had forfeited."""

    grant: str
    amount: int
    late: bool = False


_FIRST = {category: at for at, category in enumerate(Category)}


def in_burn_order(grants: Iterable[Grant]) -> list[Grant]:
    """The published order: priority (low first), end (soonest first, none last), category (promotional, rolled over,
    included, purchased), cost (cheapest first), beginning, id."""
    return sorted(
        grants,
        key=lambda grant: (
            grant.priority,
            grant.until_ms is None,
            grant.until_ms or 0,
            _FIRST[grant.category],
            grant.cost_micros,
            grant.from_ms,
            grant.grant,
        ),
    )


def burn(grants: Sequence[Grant], amount: int, at_ms: int, now_ms: int) -> tuple[list[Burn], int]:
    """Burn ``amount`` that was used at ``at_ms`` and is told of now.

    First from grants that counted when it was used, then from those that ended shortly before (it had been lent before
    they did), then from those that count now.

    Returns: what is burned of which, and what no grant covers.
    """
    burns: list[Burn] = []
    taken: dict[str, int] = {}
    rest = amount
    for grant, late in _candidates(grants, at_ms, now_ms):
        free = (grant.forfeited if late else grant.left) - taken.get(grant.grant, 0)
        part = min(rest, free)
        if part > 0:
            burns.append(Burn(grant.grant, part, late))
            taken[grant.grant] = taken.get(grant.grant, 0) + part
            rest -= part
    return burns, rest


def _candidates(grants: Sequence[Grant], at_ms: int, now_ms: int) -> Iterator[tuple[Grant, bool]]:
    ordered = in_burn_order(grants)
    then = [grant for grant in ordered if grant.counts(at_ms)]
    yield from ((grant, grant.closed) for grant in then)
    for grant in ordered:
        if grant.until_ms is not None and grant.until_ms <= at_ms < grant.until_ms + LATE_MS:
            yield grant, grant.closed
    yield from ((grant, False) for grant in ordered if grant.counts(now_ms) and grant not in then and not grant.closed)


def give_back(grants: Sequence[Grant], amount: int) -> tuple[list[Burn], int]:
    """Undo ``amount`` of what was burned, the last in burn order first.

    Returns: what is given back to which (negative), and what could not be, because nothing was burned.
    """
    burns: list[Burn] = []
    rest = amount
    for grant in reversed(in_burn_order(grants)):
        part = min(rest, grant.burned)
        if part > 0:
            burns.append(Burn(grant.grant, -part, late=grant.closed))
            rest -= part
    return burns, rest


def rollover(before: int, at_least: int, at_most: int) -> int:
    """What goes on into the next period: ``min(at_most, max(before, at_least))`` (OpenMeter's rule)."""
    return min(at_most, max(before, at_least))
