"""What a plan says, and the rules that a plan must keep before it is published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import chain

import msgspec

from control_plane.core.credit_features import free_violations
from control_plane.core.feature_values import VALUES_BYTES_MAX, value_violations, values_bytes
from control_plane.core.limit_rules import grant_violations, limit_violations, plan_limit_violations
from control_plane.core.plans import Bundle, PlanBody, PlanFeature
from control_plane.core.price_books import PriceBookUse
from control_plane.core.rate_rules import book_rate_violations, rate_violations
from protocol.entitlements import FEATURES_MAX, LIMITS_MAX, RATES_MAX, Feature, FeatureKind, Rate, RoleTerms
from protocol.units import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS
from protocol.violations import Violation

BUILT_IN_METERS = {REQUESTS: "requests", INPUT_TOKENS: "tokens", OUTPUT_TOKENS: "tokens"}
"""Meters that exist without being declared, and their units."""


def compose_plan(
    bundle: Bundle,
    kinds: Mapping[str, FeatureKind],
    meters: set[str],
    price_books: tuple[PriceBookUse, ...] = (),
    book_rates: tuple[Rate, ...] = (),
) -> PlanBody:
    """The body of a plan from what its author wrote, checked against the catalog.

    Args:
        kinds: every feature of the catalog and its kind.
        meters: every declared meter; the built-in ones need no declaration.
        price_books, book_rates: its price books in pinned versions, and what they make.

    Raises: Violation: the first rule it breaks, naming ``limits[2].meter`` and what would be right.
    """
    for name, entries, most in (
        ("features", bundle.features, FEATURES_MAX),
        ("limits", bundle.limits, LIMITS_MAX),
        ("rates", bundle.rates, RATES_MAX),
    ):
        if len(entries) > most:
            raise Violation(name, f"has {len(entries)} entries", f"at most {most}")
    known = meters | BUILT_IN_METERS.keys()
    seen: set[str] = set()
    for index, feature in enumerate(bundle.features):
        _check_feature(f"features[{index}]", feature, kinds, seen)
    features = tuple(Feature(f.feature, kinds[f.feature], f.enabled, f.value, f.by_role) for f in bundle.features)
    rates = (*bundle.rates, *book_rates)
    found: tuple[Iterable[Violation], ...] = (
        plan_limit_violations(bundle.limits),
        limit_violations(bundle.limits, kinds, known),
        rate_violations(bundle.rates, kinds, known, meters),
        book_rate_violations(bundle.rates, book_rates, kinds, known, meters),
        grant_violations(bundle.grants, known),
        free_violations(features, bundle.limits, rates),
    )
    for violation in chain.from_iterable(found):
        raise violation
    if (size := values_bytes(features)) > VALUES_BYTES_MAX:
        raise Violation("features", f"have values of {size} bytes together", f"at most {VALUES_BYTES_MAX}")
    return PlanBody(
        features=features,
        limits=bundle.limits,
        rates=rates,
        price_books=price_books,
        grants=bundle.grants,
        unfinished_calls=bundle.unfinished_calls,
    )


def authored(body: PlanBody) -> Bundle:
    """What its author wrote; of price books the versions that were pinned."""
    features = tuple(PlanFeature(one.key, one.enabled, one.value, one.by_role) for one in body.features)
    own = tuple(rate for rate in body.rates if not rate.book)
    return Bundle(features, body.limits, own, body.price_books, body.grants, body.unfinished_calls)


def _check_feature(path: str, feature: PlanFeature, kinds: Mapping[str, FeatureKind], seen: set[str]) -> None:
    kind = kinds.get(feature.feature)
    if kind is None:
        raise Violation(
            f"{path}.feature", f"names the unknown feature {feature.feature!r}", "one that is in the catalog"
        )
    if feature.feature in seen:
        raise Violation(f"{path}.feature", f"names {feature.feature!r} a second time", "each feature once")
    seen.add(feature.feature)
    _check_value(path, kind, feature)
    for role, terms in feature.by_role.items():
        _check_value(f"{path}.by_role.{role}", kind, terms)


def _check_value(path: str, kind: FeatureKind, terms: PlanFeature | RoleTerms) -> None:
    if kind is not FeatureKind.STATIC and terms.value is not None:
        raise Violation(f"{path}.value", f"is given for a {kind.value} feature", "a value for static features only")
    if kind is FeatureKind.STATIC and terms.enabled and terms.value is None:
        raise Violation(f"{path}.value", "is missing", "the value of a static feature")
    for violation in value_violations(f"{path}.value", terms.value):
        raise violation


def encode_plan(body: PlanBody) -> str:
    """The text of a plan's body, with what is in maps in its author's order."""
    return msgspec.json.encode(body).decode()


@lru_cache(maxsize=1024)
def decode_plan(text: str) -> PlanBody:
    """The body of a plan from its stored text; the same text gives the same (immutable) object."""
    return msgspec.json.decode(text, type=PlanBody)
