"""Meters that are made of events: counts, greatest, latest and distinct values, and sums of some calls only. Pure.

They are read, in usage and on dashboards; no limit is on them. A lease is a part of a sum that its holder may use up,
and neither the greatest of values nor the number of distinct ones can be cut into parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, NamedTuple

import msgspec

from protocol.events import UsageEvent
from protocol.ids import MODEL_PATTERN
from protocol.violations import Violation

HOUR_MS = 3_600_000
GROUPS_MAX = 3
FILTERS_MAX = 8
VALUES_MAX = 64
AGGREGATES_MAX = 64
"""Meters of this sort in a catalog: every event is held against each."""

ATTRIBUTES = (
    "feature", "model", "provider", "user", "workspace", "role", "api_key", "usage_source", "outcome",
)  # fmt: skip
TAG = "tag:"
_WORDS = "one of " + ", ".join((*ATTRIBUTES, "tag:NAME"))

Attribute = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^({'|'.join(ATTRIBUTES)}|tag:[A-Za-z0-9][A-Za-z0-9._:@+~-]{{0,127}})\Z",
        max_length=132,
        description=_WORDS,
    ),
]
Value = Annotated[str, msgspec.Meta(pattern=MODEL_PATTERN, max_length=128)]
Values = Annotated[tuple[Value, ...], msgspec.Meta(min_length=1, max_length=VALUES_MAX)]


class Aggregation(StrEnum):
    """What becomes of the values of many calls."""

    SUM = "sum"
    COUNT = "count"
    MAX = "max"
    LATEST = "latest"
    UNIQUE_COUNT = "unique_count"


class Aggregate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a meter is made of events.

    Attributes:
        of: of ``sum``, ``max`` and ``latest`` the meter whose amounts are looked at; of ``unique_count`` the attribute
            whose distinct values are counted; of ``count`` nothing.
        filter: only calls of which each of these attributes has one of the values.
        group_by: attributes that the meter can be told apart by.
    """

    aggregation: Aggregation = Aggregation.SUM
    of: str | None = None
    filter: Annotated[dict[Attribute, Values], msgspec.Meta(max_length=FILTERS_MAX)] = {}
    group_by: Annotated[tuple[Attribute, ...], msgspec.Meta(max_length=GROUPS_MAX)] = ()


REPORTED = Aggregate()
"""No aggregate at all: what callers report, or rates make, added up."""


class Place(NamedTuple):
    """Where a value is kept. ``group_1`` and so on: the values of ``group_by``, ``""`` where there are fewer;
    ``member``: of ``unique_count`` the value that was seen, else ``""``."""

    customer: str
    meter: str
    hour_ms: int
    group_1: str
    group_2: str
    group_3: str
    member: str


class Made(NamedTuple):
    """What is kept: the quantity, and of ``latest`` when it was."""

    quantity: int
    at_ms: int = 0


class Counted(NamedTuple):
    """An event, or a call with all its corrections, and the instant at which it counts."""

    event: UsageEvent
    at_ms: int


def violations(aggregate: Aggregate, meters: Mapping[str, bool]) -> Iterator[Violation]:
    """Every rule that a declaration breaks.

    Args:
        meters: by name, whether a meter is reported.
    """
    aggregation, of = aggregate.aggregation, aggregate.of
    if aggregation in (Aggregation.SUM, Aggregation.MAX, Aggregation.LATEST):
        expected = "a meter that callers report or rates make"
        if of is None and aggregate != REPORTED:
            yield Violation("of", "is missing", expected)
        elif of is not None and not meters.get(of, False):
            problem = "is made of events itself" if of in meters else "is no meter that is known"
            yield Violation("of", f"is {of!r}, which {problem}", expected)
    elif aggregation is Aggregation.COUNT and of is not None:
        yield Violation("of", f"is {of!r}", "none: calls are counted, whatever they came to")
    elif aggregation is Aggregation.UNIQUE_COUNT and not is_attribute(of or ""):
        yield Violation("of", f"is {of!r}" if of else "is missing", _WORDS)
    if len(set(aggregate.group_by)) < len(aggregate.group_by):
        yield Violation("group_by", "names an attribute twice", "each once")


@lru_cache(maxsize=256)
def is_attribute(text: str) -> bool:
    """Whether events have such an attribute."""
    try:
        msgspec.convert(text, Attribute)
    except msgspec.ValidationError:
        return False
    return True


def attribute(event: UsageEvent, name: str) -> str:
    """An attribute of an event; ``""`` where it was not said."""
    if name.startswith(TAG):
        return event.tags.get(name.removeprefix(TAG), "")
    match name:
        case "feature":
            return event.feature
        case "model":
            return event.model or ""
        case "provider":
            return event.provider or ""
        case "usage_source":
            return event.usage_source.value
        case "outcome":
            return event.outcome.value
        case _:
            return getattr(event.subject, name) or ""


def make(aggregates: Mapping[str, Aggregate], counted: Iterable[Counted]) -> dict[Place, Made]:
    """What these events come to in each meter, by the hour. Corrections among them only move sums."""
    found: dict[Place, Made] = {}
    for event, at_ms in counted:
        for meter, aggregate in aggregates.items():
            seen = _seen(aggregate, event, at_ms)
            if seen is None:
                continue
            made, member = seen
            groups = [attribute(event, name) for name in aggregate.group_by] + [""] * GROUPS_MAX
            first, second, third = groups[:GROUPS_MAX]
            place = Place(event.customer, meter, at_ms - at_ms % HOUR_MS, first, second, third, member)
            before = found.get(place)
            found[place] = made if before is None else merge(aggregate.aggregation, before, made)
    return found


def merge(aggregation: Aggregation, one: Made, other: Made) -> Made:
    """What two parts of the same place come to."""
    match aggregation:
        case Aggregation.MAX:
            return max(one, other)
        case Aggregation.LATEST:
            return max(one, other, key=lambda made: (made.at_ms, made.quantity))
        case _:
            return Made(one.quantity + other.quantity)


def corrected(call: UsageEvent, corrections: Sequence[UsageEvent]) -> UsageEvent | None:
    """A call as its corrections left it; ``None``: they left nothing of it, it never was."""
    amounts = dict(call.amounts)
    for correction in corrections:
        for meter, amount in correction.amounts.items():
            amounts[meter] = amounts.get(meter, 0) + amount
    if corrections and not any(amounts.values()):
        return None
    return msgspec.structs.replace(call, amounts=amounts)


def _seen(aggregate: Aggregate, event: UsageEvent, at_ms: int) -> tuple[Made, str] | None:
    """What an event adds, and its member; ``None``: it is none of those that count."""
    aggregation, of = aggregate.aggregation, aggregate.of or ""
    if aggregation is not Aggregation.SUM and event.corrects is not None:
        return None
    if any(attribute(event, name) not in values for name, values in aggregate.filter.items()):
        return None
    if aggregation is Aggregation.COUNT:
        return Made(1), ""
    if aggregation is Aggregation.UNIQUE_COUNT:
        member = attribute(event, of)
        return (Made(1), member) if member else None
    if of not in event.amounts:
        return None
    return Made(event.amounts[of], at_ms if aggregation is Aggregation.LATEST else 0), ""


def encode(aggregate: Aggregate) -> str:
    """The text that is stored; empty for what is reported."""
    return "" if aggregate == REPORTED else msgspec.json.encode(aggregate, order="sorted").decode()


@lru_cache(maxsize=1024)
def decode(text: str) -> Aggregate:
    """An aggregate from its stored text."""
    return msgspec.json.decode(text, type=Aggregate) if text else REPORTED
