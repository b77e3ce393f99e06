"""Slots: what the fields of any provider's usage mean to us, before they are made disjoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from agent.core.tokens.usage import COUNT_MAX, Troubles

IGNORED = ""
"""The field is known, and counts nothing of ours: durations, money, tiers, or parts of what another field says."""

TOTAL = "total"
INPUT = "input"
"""Input tokens, what was read from and written to a cache included."""
FRESH = "fresh"
"""Input tokens, what was read from and written to a cache left out."""
MISSED = "missed"
"""Input tokens that a cache did not have."""
TOOL_PROMPT = "tool_prompt"
"""Input tokens that the provider's own tools put in, beside the others."""
CACHE_READ, CACHE_WRITE = "cache_read", "cache_write"
INPUT_AUDIO, INPUT_IMAGE = "input_audio", "input_image"
CACHED_AUDIO, CACHED_IMAGE = "cached_audio", "cached_image"
TOOL_AUDIO, TOOL_IMAGE = "tool_audio", "tool_image"
OUTPUT = "output"
"""Output tokens, reasoning included."""
ANSWER = "answer"
"""Output tokens, reasoning left out."""
REASONING = "reasoning"
BESIDE_OUTPUT = "beside_output"
"""Output tokens that the others leave out and that are no reasoning."""
OUTPUT_AUDIO, OUTPUT_IMAGE = "output_audio", "output_image"

WEB_SEARCHES, WEB_FETCHES = "web_searches", "web_fetches"
TOOL_CALLS = "tool_calls"
"""Calls of tools that the answer holds: the caller's and the provider's own, searches too."""
IMAGES, PAGES, CHARACTERS = "images", "pages", "characters"
AUDIO_SECONDS = "audio_seconds"
SEARCH_UNITS = "search_units"
CACHE_WRITE_1H, CACHE_WRITE_12H = "cache_write_1h_tokens", "cache_write_12h_tokens"
"""Part of what was written to a cache: kept for longer, which costs more."""

METERS = frozenset({
    WEB_SEARCHES, WEB_FETCHES, TOOL_CALLS, IMAGES, PAGES, CHARACTERS, AUDIO_SECONDS, SEARCH_UNITS,
    CACHE_WRITE_1H, CACHE_WRITE_12H, "requests",
})  # fmt: skip
"""The slots that are meters of their own."""

Slots = dict[str, int]
Special = Callable[[Any, str, Slots, Troubles], None]
"""Reads one field that is neither a number nor an object: its value, its place, and where to put what it says."""
Fields = Mapping[str, "str | Fields | Special"]
"""By name: the slot, or what an object under that name holds, or who reads it."""


def whole(value: Any) -> int | None:
    """``value`` as a count, if it is one: whole, not negative, and nothing absurd. ``12.0`` is twelve."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= COUNT_MAX else None


def put(slot: str, value: Any, where: str, slots: Slots, troubles: Troubles) -> None:
    """Put a count into its slot; what is no count is refused. Of two that differ, the larger counts."""
    count = whole(value)
    if count is None:
        troubles.add(where, f"is {str(value)[:40]}: not counted, for it is no whole number from 0 to {COUNT_MAX}")
        return
    before = slots.get(slot)
    if before is not None and before != count:
        troubles.add(where, f"is {count}, and {before} elsewhere: the larger counts")
        count = max(before, count)
    slots[slot] = count


def seconds(value: Any, where: str, slots: Slots, troubles: Troubles) -> None:
    """Seconds of audio: part of one is a whole one."""
    if type(value) is float and math.isfinite(value):
        value = math.ceil(value)
    put(AUDIO_SECONDS, value, where, slots, troubles)


def entries(value: Any, where: str, troubles: Troubles) -> list[dict[str, Any]]:
    """The objects of a list; what else it holds is reported."""
    if type(value) is not list:
        troubles.add(where, "is not understood: no list")
        return []
    found = [entry for entry in value if type(entry) is dict]
    if len(found) < len(value):
        troubles.add(where, "holds what is not understood")
    return found


def walk(node: Mapping[str, Any], fields: Fields, where: str, slots: Slots, troubles: Troubles) -> None:
    """Put all that ``node`` says into slots. What is not in ``fields`` and holds a number is reported."""
    for name, value in node.items():
        if value is None:
            continue
        field = fields.get(name)
        if type(field) is str:
            if type(value) is int and field not in slots and field and 0 <= value <= COUNT_MAX:
                slots[field] = value  # as `put`, which nearly all of them need not
            elif field:
                put(field, value, where + name, slots, troubles)
        elif field is None:
            if counts(value):
                troubles.add(where + name, "is not understood")
        elif callable(field):
            field(value, where + name, slots, troubles)
        elif type(value) is dict:
            walk(value, field, f"{where}{name}.", slots, troubles)  # type: ignore[arg-type]  # a str is met above
        else:
            troubles.add(where + name, "is not understood: no object")


def counts(value: Any, depth: int = 4) -> bool:
    """Whether a number other than zero is in it: what is nothing is not missed. What lies too deep may be one."""
    if isinstance(value, int | float):
        return type(value) is not bool and value != 0
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return not depth or any(counts(one, depth - 1) for one in value)
