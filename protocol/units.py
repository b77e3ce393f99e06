"""Quantities and their names: meters, token classes, and how classes sum into meters.

Source of the rule: OpenTelemetry's GenAI conventions, where ``input_tokens`` includes what was read from and written to
a cache and ``output_tokens`` includes reasoning. Token classes are the disjoint parts; they never overlap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from protocol.ids import Key
from protocol.violations import Violation

QUANTITY_MAX = 2**53 - 1
"""The largest quantity on any wire: JSON readers keep whole numbers exactly up to here."""

METERS_MAX = 16
"""How many meters one call may name."""

Quantity = Annotated[int, msgspec.Meta(ge=0, le=QUANTITY_MAX)]
Amounts = Annotated[dict[Key, Quantity], msgspec.Meta(max_length=METERS_MAX)]
SignedAmounts = Annotated[
    dict[Key, Annotated[int, msgspec.Meta(ge=-QUANTITY_MAX, le=QUANTITY_MAX)]], msgspec.Meta(max_length=METERS_MAX)
]

REQUESTS = "requests"
INPUT_TOKENS = "input_tokens"
OUTPUT_TOKENS = "output_tokens"

INPUT_CLASSES = ("input", "cache_read", "cache_write", "input_audio", "input_image")
OUTPUT_CLASSES = ("output", "reasoning", "output_audio", "output_image")
TOKEN_CLASSES = frozenset(INPUT_CLASSES + OUTPUT_CLASSES)
TokenClass = Literal[
    "input", "cache_read", "cache_write", "input_audio", "input_image",
    "output", "reasoning", "output_audio", "output_image",
]  # fmt: skip


def normalise(amounts: Mapping[str, int], tokens: Mapping[str, int]) -> dict[str, int]:
    """Turn what a caller reports into meters: classes summed, and one request unless it says otherwise.

    Args:
        amounts: quantities by meter.
        tokens: quantities by token class; where given, ``amounts`` may not name the meters they sum into.

    Raises:
        Violation: an unknown token class, the same tokens said twice, or more meters in all than a call may name.
    """
    meters = {REQUESTS: 1, **amounts}
    if tokens:
        _add_tokens(meters, amounts, tokens)
    if len(meters) > METERS_MAX:
        raise Violation("amounts", f"make {len(meters)} meters, `requests` included", f"at most {METERS_MAX}")
    return meters


def _add_tokens(meters: dict[str, int], amounts: Mapping[str, int], tokens: Mapping[str, int]) -> None:
    for name in tokens:
        if name not in TOKEN_CLASSES:
            raise Violation(f"tokens.{name}", "is not a token class", "one of " + ", ".join(sorted(TOKEN_CLASSES)))
    for meter, classes in ((INPUT_TOKENS, INPUT_CLASSES), (OUTPUT_TOKENS, OUTPUT_CLASSES)):
        if meter in amounts:
            raise Violation(f"amounts.{meter}", "is given beside `tokens`, which sums into it", "one of the two")
        total = sum(tokens.get(name, 0) for name in classes)
        if total > QUANTITY_MAX:
            raise Violation("tokens", f"sum to {total} {meter}", f"at most {QUANTITY_MAX}")
        meters[meter] = total
