"""What a plan says, and the rules that a plan must keep before it is published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated

import msgspec

from protocol.entitlements import FEATURES_MAX, LIMITS_MAX, Feature, FeatureKind, Limit, LimitEnd
from protocol.ids import Key
from protocol.units import INPUT_TOKENS, OUTPUT_TOKENS, QUANTITY_MAX, REQUESTS
from protocol.violations import Violation
from protocol.windows import WindowKind

BUILT_IN_METERS = {REQUESTS: "requests", INPUT_TOKENS: "tokens", OUTPUT_TOKENS: "tokens"}
"""Meters that exist without being declared, and their units."""

FeatureValue = Annotated[str, msgspec.Meta(max_length=4096)] | int | bool | None


class PlanFeature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One feature of a plan as its author writes it; the feature's kind comes from the catalog.

    Attributes:
        enabled: whether the plan includes it.
        value: what a static feature is set to; other kinds have none.
    """

    feature: Key
    enabled: bool = True
    value: FeatureValue = None


class PlanBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A published plan version: never changes once written, so it names the kinds of its features itself."""

    features: tuple[Feature, ...] = ()
    limits: tuple[Limit, ...] = ()


def compose_plan(
    features: tuple[PlanFeature, ...], limits: tuple[Limit, ...], kinds: Mapping[str, FeatureKind], meters: set[str]
) -> PlanBody:
    """The body of a plan from what its author wrote, checked against the catalog.

    Args:
        kinds: every feature of the catalog and its kind.
        meters: every declared meter; the built-in ones need no declaration.

    Raises: Violation: the first rule it breaks, naming ``limits[2].meter`` and what would be right.
    """
    _check_bounds(features, limits)
    seen: set[str] = set()
    for index, feature in enumerate(features):
        _check_feature(f"features[{index}]", feature, kinds, seen)
    for violation in _limit_violations(limits, kinds, meters | BUILT_IN_METERS.keys()):
        raise violation
    composed = tuple(Feature(f.feature, kinds[f.feature], f.enabled, f.value) for f in features)
    return PlanBody(features=composed, limits=limits)


def _check_bounds(features: tuple[PlanFeature, ...], limits: tuple[Limit, ...]) -> None:
    if len(features) > FEATURES_MAX:
        raise Violation("features", f"has {len(features)} entries", f"at most {FEATURES_MAX}")
    if len(limits) > LIMITS_MAX:
        raise Violation("limits", f"has {len(limits)} entries", f"at most {LIMITS_MAX}")


def _check_feature(path: str, feature: PlanFeature, kinds: Mapping[str, FeatureKind], seen: set[str]) -> None:
    kind = kinds.get(feature.feature)
    if kind is None:
        raise Violation(
            f"{path}.feature", f"names the unknown feature {feature.feature!r}", "one that is in the catalog"
        )
    if feature.feature in seen:
        raise Violation(f"{path}.feature", f"names {feature.feature!r} a second time", "each feature once")
    seen.add(feature.feature)
    if kind is not FeatureKind.STATIC and feature.value is not None:
        raise Violation(f"{path}.value", f"is given for a {kind.value} feature", "a value for static features only")
    if kind is FeatureKind.STATIC and feature.enabled and feature.value is None:
        raise Violation(f"{path}.value", "is missing", "the value of a static feature")
    if isinstance(feature.value, int) and abs(feature.value) > QUANTITY_MAX:
        raise Violation(f"{path}.value", f"is {feature.value}", f"at most {QUANTITY_MAX} either way")


def _limit_violations(
    limits: tuple[Limit, ...], kinds: Mapping[str, FeatureKind], meters: set[str]
) -> Iterator[Violation]:
    keys: dict[str, int] = {}
    counters: dict[str, int] = {}
    for index, limit in enumerate(limits):
        path = f"limits[{index}]"
        if limit.key in keys:
            first = keys[limit.key]
            yield Violation(f"{path}.key", f"is {limit.key!r}, like that of limits[{first}]", "a name of its own")
        if limit.counter in counters:
            first = counters[limit.counter]
            yield Violation(
                path, f"counts the same as limits[{first}]", "one limit for each feature, meter, window and scope"
            )
        keys[limit.key] = counters[limit.counter] = index
        if limit.meter not in meters:
            yield Violation(f"{path}.meter", f"names the unknown meter {limit.meter!r}", "one that is in the catalog")
        if limit.feature is not None and limit.feature not in kinds:
            yield Violation(
                f"{path}.feature", f"names the unknown feature {limit.feature!r}", "one that is in the catalog"
            )
        yield from _end_violations(path, limit)


def _end_violations(path: str, limit: Limit) -> Iterator[Violation]:
    overage = limit.at_end is LimitEnd.OVERAGE
    if limit.window is WindowKind.REQUEST and limit.at_end is not LimitEnd.BLOCK:
        yield Violation(f"{path}.at_end", f"is {limit.at_end.value!r}", "block: a request window bounds a single call")
    if overage and limit.amount is None:
        yield Violation(f"{path}.at_end", "is 'overage' although the limit is unlimited", "block, or an amount")
    if overage and limit.overage_max == 0:
        yield Violation(f"{path}.overage_max", "is 0", "how much may pass the limit at most, from 1")
    if not overage and limit.overage_max:
        yield Violation(f"{path}.overage_max", f"is {limit.overage_max}", "0, unless at_end is overage")
    if limit.amount is not None and limit.amount + limit.overage_max > QUANTITY_MAX:
        yield Violation(
            f"{path}.overage_max", "passes the largest quantity with the amount", f"a sum up to {QUANTITY_MAX}"
        )


def encode_plan(body: PlanBody) -> str:
    """The canonical text of a plan's body: equal plans have equal texts."""
    return msgspec.json.encode(body).decode()


@lru_cache(maxsize=1024)
def decode_plan(text: str) -> PlanBody:
    """The body of a plan from its stored text; the same text gives the same (immutable) object."""
    return msgspec.json.decode(text, type=PlanBody)
