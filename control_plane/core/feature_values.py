"""What a static feature may be set to: any JSON value, within bounds that every program on the way can read. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import msgspec

from protocol.entitlements import Feature, FeatureValue
from protocol.units import QUANTITY_MAX
from protocol.violations import Violation

VALUE_BYTES_MAX = 4_096
"""Of one value, as JSON."""

VALUES_BYTES_MAX = 65_536
"""Of all values that a customer has, those of single roles included: an agent answers with them in one message."""

VALUE_DEPTH_MAX = 8
_NAME_LETTERS_MAX = 80


def value_violations(path: str, value: FeatureValue) -> Iterator[Violation]:
    """What is wrong with a value, the innermost part named.

    Whole numbers are bounded as quantities are: beyond that other languages read them as something else (RFC 7493).
    """
    yield from _inner(path, value, 0)
    if value is not None and (size := _bytes(value)) > VALUE_BYTES_MAX:
        yield Violation(path, f"takes {size} bytes as JSON", f"at most {VALUE_BYTES_MAX}")


def values_bytes(features: Iterable[Feature]) -> int:
    """How much the values of these features take together, as JSON."""
    total = 0
    for feature in features:
        values = (feature.value, *(terms.value for terms in feature.by_role.values()))
        total += sum(_bytes(value) for value in values if value is not None)
    return total


def sum_of(one: int | float, more: int | float) -> int | float:
    """The sum within the bounds of a value; fractions are added as they are written, 0.1 and 0.2 to 0.3."""
    if isinstance(one, int) and isinstance(more, int):
        return max(-QUANTITY_MAX, min(QUANTITY_MAX, one + more))
    total = float(Decimal(repr(one)) + Decimal(repr(more)))
    return total if math.isfinite(total) else one


def is_number(value: FeatureValue) -> bool:
    """Whether it can be added and compared; true and false cannot."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def alike(one: Any, other: Any) -> bool:
    """Whether two plans, or parts of them, say the same, in whatever order maps are. To Python 1, 1.0 and True are
    equal; a value may be any of them."""
    if isinstance(one, msgspec.Struct):
        names = one.__struct_fields__
        return type(one) is type(other) and all(alike(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    kinds = [(isinstance(each, bool), isinstance(each, float)) for each in (one, other)]
    return bool(one == other) and kinds[0] == kinds[1]


def _inner(path: str, value: FeatureValue, depth: int) -> Iterator[Violation]:
    if isinstance(value, int) and abs(value) > QUANTITY_MAX:
        yield Violation(path, f"is {value}" if abs(value) < 10**30 else "is too large", f"at most {QUANTITY_MAX}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield Violation(path, f"is {value}", "a finite number")
    elif isinstance(value, dict | list):
        if depth == VALUE_DEPTH_MAX:
            yield Violation(path, "is nested too deeply", f"at most {VALUE_DEPTH_MAX} lists and maps in each other")
            return
        named = value.items() if isinstance(value, dict) else enumerate(value)
        for name, one in named:
            step = f"[{name}]" if isinstance(name, int) else f".{ascii(name)[1:-1][:_NAME_LETTERS_MAX]}"
            yield from _inner(path + step, one, depth + 1)


def _bytes(value: FeatureValue) -> int:
    return len(msgspec.json.encode(value))
