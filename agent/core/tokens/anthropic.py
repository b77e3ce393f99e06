"""Anthropic's usage: input, cache reads and cache writes lie beside each other; iterations are passes of one call.

Compactions and advisors are billed and in no total; models that declined before another answered may be. Source: the
types of Anthropic's own library (``input_tokens`` leaves the cache out; "a compaction entry's tokens are not included
in the top-level usage fields"), and recorded answers.
"""

from __future__ import annotations

from typing import Any

from agent.core.tokens import slots as s
from agent.core.tokens.classes import token_classes
from agent.core.tokens.slots import IGNORED, Fields, Slots, entries, walk
from agent.core.tokens.usage import Pass, Troubles, named
from protocol.ids import is_model_name
from protocol.units import INPUT_CLASSES, OUTPUT_CLASSES

PASSES_MAX = 256

FIELDS: Fields = {
    "input_tokens": s.FRESH,
    "cache_read_input_tokens": s.CACHE_READ,
    "cache_creation_input_tokens": s.CACHE_WRITE,
    "cache_creation": {"ephemeral_5m_input_tokens": IGNORED, "ephemeral_1h_input_tokens": s.CACHE_WRITE_1H},
    "output_tokens": s.OUTPUT,
    "output_tokens_details": {"thinking_tokens": s.REASONING, "reasoning_tokens": s.REASONING},
    "server_tool_use": {
        "web_search_requests": s.WEB_SEARCHES,
        "web_fetch_requests": s.WEB_FETCHES,
        "code_execution_requests": IGNORED,  # counted with the other calls of tools
        "tool_search_requests": IGNORED,
    },
    "fallback_credit": IGNORED,
    "service_tier": IGNORED,
    "inference_geo": IGNORED,
    "speed": IGNORED,
    "iterations": lambda *_: None,  # read below
    "type": IGNORED,
    "model": IGNORED,
}

_TURNS = frozenset({"message", "fallback_message"})
"""The kinds of iterations that the totals are made of."""


def with_iterations(
    tokens: dict[str, int], iterations: Any, model: str | None, slots: Slots, troubles: Troubles
) -> tuple[dict[str, int], tuple[Pass, ...]]:
    """``tokens``, which the totals come to, with what they leave out; and apart, what other models spent."""
    turns: list[Pass] = []
    beside: list[Pass] = []
    found = entries(iterations, "usage.iterations", troubles)
    if len(found) > PASSES_MAX:
        troubles.add("usage.iterations", f"are {len(found)}: the first {PASSES_MAX} count")
    for entry in found[:PASSES_MAX]:
        own: Slots = {}
        walk(entry, FIELDS, "usage.iterations.", own, troubles)
        kind, whose = str(entry.get("type", "message"))[:64], entry.get("model")
        if not isinstance(whose, str) or not is_model_name(whose) or (model is None and kind in _TURNS):
            whose = model
        one = Pass(named(kind), whose, token_classes(own, troubles))
        (turns if kind in _TURNS else beside).append(one)
        longer = own.get(s.CACHE_WRITE_1H, 0)
        if longer and kind not in _TURNS:
            slots[s.CACHE_WRITE_1H] = slots.get(s.CACHE_WRITE_1H, 0) + longer
    foreign = [turn for turn in turns if turn.model != model]
    if turns and _sides([turn.tokens for turn in turns]) == _sides([tokens]):
        for turn in foreign:
            tokens = _less(tokens, turn.tokens)
    elif turns and _sides([turn.tokens for turn in turns if turn.model == model]) != _sides([tokens]):
        troubles.add("usage.iterations", "do not come to the usage of the whole: the whole counts")
        foreign = []
    for one in beside:
        if one.model == model:
            tokens = {name: tokens.get(name, 0) + one.tokens.get(name, 0) for name in {**tokens, **one.tokens}}
    return tokens, tuple(foreign + [one for one in beside if one.model != model])


def _sides(passes: list[dict[str, int]]) -> tuple[int, int]:
    """Input and output tokens in all."""
    return (
        sum(tokens.get(name, 0) for tokens in passes for name in INPUT_CLASSES),
        sum(tokens.get(name, 0) for tokens in passes for name in OUTPUT_CLASSES),
    )


def _less(tokens: dict[str, int], part: dict[str, int]) -> dict[str, int]:
    """Tokens without a part of them. Whose reasoning it was is not said: the answer's output pays first."""
    left = dict(tokens)
    owed = 0
    for classes in (INPUT_CLASSES, OUTPUT_CLASSES):
        for name in classes:
            owed += part.get(name, 0)
            paid = min(part.get(name, 0), left.get(name, 0))
            left[name] = left.get(name, 0) - paid
            owed -= paid
        for name in classes:
            paid = min(owed, left.get(name, 0))
            left[name] = left.get(name, 0) - paid
            owed -= paid
    return {name: count for name, count in left.items() if count}
