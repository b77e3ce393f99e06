"""What applying a catalog file changes: field by field, and for how many customers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from control_plane.core import combining
from control_plane.core.catalog_file import concise
from control_plane.core.combining import Bodies, Combine
from control_plane.core.entitlements import CatalogRules
from control_plane.core.feature_values import alike
from control_plane.core.plans import PlanFeature, PlanGrant, PlanLimit
from control_plane.core.price_books import ModelPrice, PriceBookUse
from control_plane.core.subscriptions import Terms
from protocol.entitlements import Rate


class FieldChange(msgspec.Struct, frozen=True):
    """One field that is another than before. Entries of lists are named by what they are about, as
    ``limits[tokens-a-day].amount``; ``None`` where there is none."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Subscribers:
    """So many customers that have the same terms now, whether or not they give anything at the moment.

    Attributes:
        bodies: of the plan and the add-ons, each with how many there are of it.
    """

    terms: Terms
    bodies: Bodies
    customers: int


def field_changes(before: Any, after: Any, path: str = "") -> Iterator[FieldChange]:
    """Every field in which two entries differ, in their order."""
    if alike(before, after):
        return
    if isinstance(before, msgspec.Struct) and type(before) is type(after):
        for name in before.__struct_fields__:
            inner = f"{path}.{name}".lstrip(".")
            yield from field_changes(getattr(before, name), getattr(after, name), inner)
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in {**before, **after}:
            yield from field_changes(before.get(key), after.get(key), f"{path}.{key}")
        return
    olds, news = _by_name(before), _by_name(after)
    if olds is None or news is None:
        yield FieldChange(path, concise(before), concise(after))
        return
    for name in {**olds, **news}:
        yield from field_changes(olds.get(name), news.get(name), f"{path}[{name}]")
    kept = [name for name in olds if name in news]
    if kept != (now := [name for name in news if name in olds]):
        yield FieldChange(f"{path} (their order)", kept, now)


def _by_name(entries: Any) -> dict[str, Any] | None:
    """The entries of a list by what each is about; ``None``: it is no list of such entries."""
    if not isinstance(entries, tuple):
        return None
    named = {_name(entry): entry for entry in entries}
    return named if len(named) == len(entries) and None not in named else None  # type: ignore[return-value]


def _name(entry: Any) -> str | None:
    match entry:
        case PlanLimit() | PlanGrant():
            return entry.key
        case PlanFeature():
            return entry.feature
        case ModelPrice():
            return entry.model.lower()
        case Rate():
            return f"{entry.meter} {entry.feature or '*'} {entry.model or '*'}"
        case PriceBookUse():
            return f"{entry.book} {entry.meter} {entry.feature or '*'}"
        case _:
            return None


def with_combine(rules: CatalogRules, name: str, combine: Combine) -> CatalogRules:
    """The same rules, one of them otherwise.

    Args:
        name: ``feature:KEY`` or ``meter:KEY``.
    """
    return replace(rules, combine={**rules.combine, name: combine})


def with_disabled(rules: CatalogRules, feature: str, *, disabled: bool) -> CatalogRules:
    """The same rules with one feature switched off for everybody, or not."""
    return replace(rules, disabled=rules.disabled | {feature} if disabled else rules.disabled - {feature})


def touched(subscribers: Iterable[Subscribers], before: CatalogRules, after: CatalogRules) -> int:
    """How many customers have something else by other rules; their overrides are left out of it."""
    return sum(one.customers for one in subscribers if _given(one, before) != _given(one, after))


def _given(one: Subscribers, rules: CatalogRules) -> object:
    found = combining.features(one.bodies, rules.combine, {})
    features = [(each, each.key in rules.disabled) for each in found]
    return features, combining.limits(one.bodies, rules.combine, 1, {})
