"""What customers have been promised: the plans as the world writes them, and the most that may ever be used under them.

The bounds are the harness's own: computed from what it published, never read from the product.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, str, str, int]
"""customer, counter, scope value, start of the window: one allowance."""

FEATURES = ("chat", "image")
TOKENS = "output_tokens"

# Meter, window, scope, feature, and how much of it in one window relative to the others.
_KINDS: tuple[tuple[str, str, str, str | None, float], ...] = (
    (TOKENS, "minute", "customer", None, 1.0),
    (TOKENS, "hour", "customer", None, 2.5),
    (TOKENS, "day", "customer", None, 3.0),
    (TOKENS, "lifetime", "customer", None, 4.0),
    (TOKENS, "minute", "user", None, 0.5),
    (TOKENS, "day", "user", None, 1.5),
    ("requests", "minute", "customer", "chat", 0.3),
    ("requests", "hour", "customer", None, 0.8),
    (TOKENS, "minute", "customer", "image", 0.4),
)


def counter_of(limit: Mapping[str, Any]) -> str:
    """The name of what a limit counts."""
    return f"{limit.get('feature') or '*'}/{limit['meter']}/{limit['window']}/{limit.get('scope', 'customer')}"


def ceiling_of(limit: Mapping[str, Any]) -> int:
    """The most that a plan ever lets be used: the amount, and the overage that its author chose."""
    return int(limit["amount"]) + int(limit.get("overage_max", 0))


@dataclass
class Contract:
    """One customer's. ``limits``: of the plan that was published last."""

    customer: str
    limits: list[dict[str, Any]]
    status: str = "active"
    version: int = 0


@dataclass
class Contracts:
    """All customers', and what bounds their use now.

    Attributes:
        most: by (customer, counter): the highest ceiling that may be in force at this moment.
        grandfathered: by allowance: what was used or lent when a plan was cut; a cut cannot unspend.
    """

    of: dict[str, Contract] = field(default_factory=dict)
    most: dict[tuple[str, str], int] = field(default_factory=dict)
    grandfathered: dict[Key, int] = field(default_factory=dict)

    def bound(self, key: Key) -> int:
        """The most that may be used of an allowance, but for what was reported after the fact."""
        return max(self.most.get((key[0], key[1]), 0), self.grandfathered.get(key, 0))

    def about_to_publish(self, customer: str, limits: list[dict[str, Any]]) -> None:
        """From now on either plan may be in force."""
        for limit in limits:
            place = (customer, counter_of(limit))
            self.most[place] = max(self.most.get(place, 0), ceiling_of(limit))

    def published(self, customer: str, limits: list[dict[str, Any]], taken: Mapping[Key, int]) -> None:
        """The new plan is in force. ``taken``: what is used or lent at this moment, by allowance."""
        self.of[customer].limits = limits
        for place in [place for place in self.most if place[0] == customer]:
            del self.most[place]
        for limit in limits:
            self.most[customer, counter_of(limit)] = ceiling_of(limit)
        for key, amount in taken.items():
            if amount > self.bound(key):
                self.grandfathered[key] = amount


def draw_limits(dice: random.Random, load: float) -> list[dict[str, Any]]:
    """A plan's limits, one to four of them.

    Args:
        load: how much of a window's use one unit of size stands for.
    """
    limits: list[dict[str, Any]] = []
    for meter, window, scope, feature, weight in dice.sample(_KINDS, dice.randint(1, 4)):
        amount = max(1, round(load * weight * dice.uniform(0.3, 2.0)))
        limit: dict[str, Any] = {"key": f"limit-{len(limits)}", "meter": meter, "window": window, "amount": amount}
        if scope != "customer":
            limit["scope"] = scope
        if feature:
            limit["feature"] = feature
        ending = dice.random()
        if ending < 0.15:
            limit |= {"at_end": "overage", "overage_max": max(1, amount // 4)}
        elif ending < 0.3:
            limit["at_end"] = "throttle"
        if dice.random() < 0.3:
            limit["when_offline"] = "stop"
        limits.append(limit)
    return limits


def changed(dice: random.Random, limits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The next version of a plan: amounts go up or down, now and then a limit goes or comes."""
    after = [dict(limit) for limit in limits]
    for limit in after:
        if dice.random() < 0.7:
            limit["amount"] = max(1, round(limit["amount"] * dice.choice([0.1, 0.5, 0.8, 1.5, 3.0])))
    if len(after) > 1 and dice.random() < 0.2:
        after.pop(dice.randrange(len(after)))
    return after
