"""Which family a usage object belongs to, by the names in it, and what it says in that family's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent.core.tokens import anthropic, bedrock, google, openai
from agent.core.tokens import slots as s
from agent.core.tokens.slots import Fields, Slots, counts, put, walk, whole
from agent.core.tokens.usage import Troubles

_FAMILIES = [
    (fields, {name for name, field in fields.items() if field} - {"tokens"})
    for fields in (openai.FIELDS, anthropic.FIELDS, google.FIELDS, bedrock.FIELDS)
]
"""Each family's fields, and those of their names that tell anything."""

_CLEAR = (
    ("prompt_tokens", openai.FIELDS),
    ("total_tokens", openai.FIELDS),
    ("cache_read_input_tokens", anthropic.FIELDS),
    ("cache_creation_input_tokens", anthropic.FIELDS),
    ("totalTokenCount", google.FIELDS),
    ("promptTokenCount", google.FIELDS),
    ("inputTokens", bedrock.FIELDS),
)
"""Names that settle it, in this order; of the rest, who knows most of the names."""

_GUESSES = (
    (re.compile(r"total", re.IGNORECASE), s.TOTAL),
    (re.compile(r"input|prompt|request", re.IGNORECASE), s.INPUT),
    (re.compile(r"output|completion|candidate|generat|response", re.IGNORECASE), s.OUTPUT),
)


def read_usage(usage: Mapping[str, Any], troubles: Troubles) -> Slots:
    """The slots that it fills."""
    fields = _family(usage)
    slots: Slots = {}
    if fields is None:
        _guess(usage, slots, troubles)
    else:
        walk(usage, fields, "usage.", slots, troubles)
    return slots


def _family(usage: Mapping[str, Any]) -> Fields | None:
    for name, fields in _CLEAR:
        if name in usage:
            return fields
    best, most = None, 0
    for fields, names in _FAMILIES:
        known = len(usage.keys() & names)
        if known > most:
            best, most = fields, known
    return best


def _guess(usage: Mapping[str, Any], slots: Slots, troubles: Troubles) -> None:
    """Count what looks like tokens by its name, and say so: an unknown shape is better counted roughly than lost."""
    for name, value in usage.items():
        if whole(value) is not None and "token" in name.lower():
            for pattern, slot in _GUESSES:
                if pattern.search(name):
                    troubles.add(f"usage.{name}", f"is guessed to be {slot} tokens")
                    put(slot, value, f"usage.{name}", slots, troubles)
                    break
            else:
                troubles.add(f"usage.{name}", "is not understood")
        elif counts(value):
            troubles.add(f"usage.{name}", "is not understood")
