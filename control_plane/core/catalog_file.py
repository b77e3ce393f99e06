"""The catalog as one file: what its author writes of meters, features, price books, plans and add-ons. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any

import msgspec

from control_plane.core.aggregates import Aggregate
from control_plane.core.combining import Combine
from control_plane.core.plans import Bundle
from control_plane.core.price_books import OVERRIDES_MAX, Currency, Markup, ModelPrice
from control_plane.core.texts import DisplayName, Sentence, Unit
from protocol.entitlements import FeatureKind
from protocol.ids import Key

ENTRIES_MAX = 1_000
"""Entries of one kind in a file."""


class MeterWrite(Aggregate, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=False):
    """What a meter counts: its unit, a sentence about it, and how it is made of events where callers do not report it.
    Only the sentence and ``combine`` may change.

    Attributes:
        combine: how limits on it, of a plan and its add-ons, become one, where they count calls of every feature.
    """

    unit: Unit
    description: Sentence = ""
    combine: Combine = Combine.SUM

    @property
    def aggregate(self) -> Aggregate:
        """How it is made of events."""
        return Aggregate(*(getattr(self, name) for name in Aggregate.__struct_fields__))


def meter_write(unit: str, description: str, combine: Combine, aggregate: Aggregate) -> MeterWrite:
    """A meter as its author would write it."""
    how = {name: getattr(aggregate, name) for name in Aggregate.__struct_fields__}
    return MeterWrite(unit=unit, description=description, combine=combine, **how)


class FeatureWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a feature is called, and its kind, which never changes.

    Attributes:
        combine: how what a plan and its add-ons say of it, and of the limits on it, become one.
        disabled: switches it off for everybody, whatever any plan says.
    """

    name: DisplayName
    kind: FeatureKind
    combine: Combine = Combine.SUM
    disabled: bool = False


class PriceBookWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an admin says of a price book. Prices are micro-units of the currency for a million tokens or other units;
    ``markup_bp`` is hundredths of a percent on top."""

    currency: Currency
    markup_bp: Markup = 0
    overrides: Annotated[tuple[ModelPrice, ...], msgspec.Meta(max_length=OVERRIDES_MAX)] = ()


class PlanWrite(Bundle, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a plan or an add-on shall be."""

    name: DisplayName

    @property
    def bundle(self) -> Bundle:
        """What it says, without its name."""
        return Bundle(*(getattr(self, name) for name in Bundle.__struct_fields__))


class CatalogFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A catalog, by key. What is not in it stays as it is: nothing is ever deleted."""

    meters: Annotated[dict[Key, MeterWrite], msgspec.Meta(max_length=ENTRIES_MAX)] = {}
    features: Annotated[dict[Key, FeatureWrite], msgspec.Meta(max_length=ENTRIES_MAX)] = {}
    price_books: Annotated[dict[Key, PriceBookWrite], msgspec.Meta(max_length=ENTRIES_MAX)] = {}
    plans: Annotated[dict[Key, PlanWrite], msgspec.Meta(max_length=ENTRIES_MAX)] = {}
    add_ons: Annotated[dict[Key, PlanWrite], msgspec.Meta(max_length=ENTRIES_MAX)] = {}


def plan_write(name: str, bundle: Bundle) -> PlanWrite:
    """A plan or add-on as its author would write it."""
    return PlanWrite(name=name, **{field: getattr(bundle, field) for field in Bundle.__struct_fields__})


def concise(value: Any) -> Any:
    """The same in builtins, without what says no more than the default: what a person would write."""
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.fields(value)
        # What has no default goes first: it says what this is.
        ordered = sorted(fields, key=lambda field: not field.required)
        given = {field.encode_name: getattr(value, field.name) for field in ordered if not _is_default(field, value)}
        return {name: concise(one) for name, one in given.items()}
    if isinstance(value, Mapping):
        return {str(key): concise(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [concise(one) for one in value]
    return value.value if isinstance(value, Enum) else value


def _is_default(field: msgspec.structs.FieldInfo, value: msgspec.Struct) -> bool:
    if field.required:
        return False
    default = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    return bool(getattr(value, field.name) == default)
