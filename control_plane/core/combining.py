"""Makes one of what a plan and its add-ons say: features, limits and rates."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from control_plane.core.feature_values import is_number, sum_of
from control_plane.core.plans import PlanBody, PlanLimit
from protocol.entitlements import Feature, FeatureKind, FeatureValue, Rate
from protocol.units import QUANTITY_MAX

Bodies = list[tuple[PlanBody, str, int]]
"""What the plan, first, and each add-on say, what each is called (``plan:pro@3``), and how many there are of it."""


class Combine(StrEnum):
    """How several values of one feature, or of limits that count the same, become one.

    ``sum`` adds amounts, each as often as its add-on was bought; ``max`` takes the most generous, ``min`` the tightest.
    Switches, and values that are true or false: ``sum`` and ``max`` are on where any is on, ``min`` where all are.
    Values of static features that are no numbers (texts, lists, maps) cannot be added or compared: the first that is
    given counts, the plan's before those of its add-ons.
    """

    SUM = "sum"
    MAX = "max"
    MIN = "min"


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a part of a value comes from, and how much it gives; ``None``: unlimited, or no quantity."""

    source: str
    amount: int | None = None


def features(bodies: Bodies, rules: Mapping[str, Combine], sources: dict[str, tuple[Source, ...]]) -> list[Feature]:
    """Every feature that one of them names, in order of first mention; notes on ``sources`` who gave what."""
    found: dict[str, Feature] = {}
    for body, name, _ in bodies:
        for feature in body.features:
            rule = rules.get(f"feature:{feature.key}", Combine.SUM)
            known = found.get(feature.key)
            found[feature.key] = feature if known is None else _one_feature(known, feature, rule)
            sources[feature.key] = (*sources.get(feature.key, ()), Source(name))
    return list(found.values())


def _one_feature(known: Feature, more: Feature, rule: Combine) -> Feature:
    """Terms of single roles stay as the first says them."""
    both, any_ = known.enabled and more.enabled, known.enabled or more.enabled
    enabled = both if rule is Combine.MIN else any_
    value = known.value
    if known.kind is FeatureKind.STATIC and more.enabled:
        value = _one_value(known.value if known.enabled else None, more.value, rule)
    return Feature(known.key, known.kind, enabled, value, known.by_role)


def _one_value(known: FeatureValue, more: FeatureValue, rule: Combine) -> FeatureValue:
    if known is None:
        return more
    if isinstance(known, bool) and isinstance(more, bool):
        return (known and more) if rule is Combine.MIN else (known or more)
    if is_number(known) and is_number(more):
        match rule:
            case Combine.SUM:
                return sum_of(known, more)
            case Combine.MAX:
                return max(known, more)
            case Combine.MIN:
                return min(known, more)
    return known


def limits(
    bodies: Bodies, rules: Mapping[str, Combine], seats: int, sources: dict[str, tuple[Source, ...]]
) -> tuple[PlanLimit, ...]:
    """Every limit; those that count the same (:attr:`Limit.counter`) become one, which is otherwise as the first says.

    A limit's rule is that of its feature, or of its meter if it counts every feature.

    Args:
        seats: what limits that count by the seat are multiplied by.
    """
    found: dict[str, PlanLimit] = {}
    for body, name, quantity in bodies:
        for limit in body.limits:
            rule = rules.get(f"feature:{limit.feature}" if limit.feature else f"meter:{limit.meter}", Combine.SUM)
            times = (quantity if rule is Combine.SUM else 1) * (seats if limit.per_seat else 1)
            scaled = _times(limit, times)
            known = found.get(limit.counter)
            found[limit.counter] = scaled if known is None else _one_limit(known, scaled, rule)
            key = limit.key if known is None else known.key
            sources[key] = (*sources.get(key, ()), Source(name, scaled.amount))
    return tuple(found.values())


def _times(limit: PlanLimit, times: int) -> PlanLimit:
    if times == 1:
        return limit
    by_role = {role: _product(amount, times) for role, amount in limit.by_role.items()}
    overage_max = 0 if limit.amount is None else _product(limit.overage_max, times) or 0
    amount = _product(limit.amount, times)
    if amount is not None:
        amount = min(amount, QUANTITY_MAX - overage_max)
    burst = None if limit.burst is None else _product(limit.burst, times)
    return msgspec.structs.replace(limit, amount=amount, overage_max=overage_max, burst=burst, by_role=by_role)


def _product(amount: int | None, times: int) -> int | None:
    return None if amount is None else min(amount * times, QUANTITY_MAX)


def _one_limit(known: PlanLimit, more: PlanLimit, rule: Combine) -> PlanLimit:
    amount = _one_amount(known.amount, more.amount, rule)
    overage_max = 0 if amount is None else (_one_amount(known.overage_max, more.overage_max, rule) or 0)
    if amount is not None:
        amount = min(amount, QUANTITY_MAX - overage_max)
    burst = known.burst
    if known.smooth and (known.burst is not None or more.burst is not None):
        burst = _one_amount(known.burst_max, more.burst_max, rule)
    by_role = dict(known.by_role)
    for role in more.by_role.keys() | known.by_role.keys():
        ours, theirs = known.by_role.get(role, known.amount), more.by_role.get(role, more.amount)
        by_role[role] = _one_amount(ours, theirs, rule)
    return msgspec.structs.replace(known, amount=amount, overage_max=overage_max, burst=burst, by_role=by_role)


def _one_amount(known: int | None, more: int | None, rule: Combine) -> int | None:
    """``None`` is unlimited: the largest of all, and what a sum with it is."""
    if rule is Combine.MIN:
        given = [amount for amount in (known, more) if amount is not None]
        return min(given, default=None)
    if known is None or more is None:
        return None
    return max(known, more) if rule is Combine.MAX else min(known + more, QUANTITY_MAX)


def rates(bodies: Bodies) -> tuple[Rate, ...]:
    """The plan's rates, and those of add-ons for what the plan has none for."""
    found: dict[tuple[str, str | None, str | None], Rate] = {}
    for body, _, _ in bodies:
        for rate in body.rates:
            found.setdefault((rate.meter, rate.feature, rate.model and rate.model.lower()), rate)
    return tuple(found.values())
