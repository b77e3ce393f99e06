"""Gemini's and Vertex AI's usage: the prompt includes what was cached, candidates leave thoughts out, and what the
provider's own tools put into the prompt lies beside it.

Source: ``total = prompt + candidates + tool use + thoughts`` of Google's own library, and recorded answers. Video and
documents have no token class of their own; they are plain input.
"""

from __future__ import annotations

from typing import Any

from agent.core.tokens import slots as s
from agent.core.tokens.slots import IGNORED, Fields, Slots, Special, entries, put, whole
from agent.core.tokens.usage import Troubles

_PLAIN = frozenset({"TEXT", "VIDEO", "DOCUMENT", "MODALITY_UNSPECIFIED"})


def _modalities(audio: str, image: str) -> Special:
    """A reader of ``[{"modality": ..., "tokenCount": ...}]``."""

    def read(value: Any, where: str, slots: Slots, troubles: Troubles) -> None:
        sums: Slots = {}
        for entry in entries(value, where, troubles):
            modality, count = str(entry.get("modality"))[:32], entry.get("tokenCount", 0)
            slot = {"AUDIO": audio, "IMAGE": image}.get(modality)
            if whole(count) is None:
                put(IGNORED, count, where, {}, troubles)
            elif slot:
                sums[slot] = sums.get(slot, 0) + int(count)
            elif modality not in _PLAIN:
                troubles.add(where, f"has {count} tokens of the unknown modality {modality}")
        for slot, count in sums.items():
            put(slot, count, where, slots, troubles)

    return read


_PROMPT = _modalities(s.INPUT_AUDIO, s.INPUT_IMAGE)

FIELDS: Fields = {
    "promptTokenCount": s.INPUT,
    "candidatesTokenCount": s.ANSWER,
    "responseTokenCount": s.ANSWER,  # the live interface's name for it
    "thoughtsTokenCount": s.REASONING,
    "toolUsePromptTokenCount": s.TOOL_PROMPT,
    "cachedContentTokenCount": s.CACHE_READ,
    "totalTokenCount": s.TOTAL,
    "promptTokensDetails": _PROMPT,
    "promptTokenDetails": _PROMPT,  # embeddings
    "candidatesTokensDetails": _modalities(s.OUTPUT_AUDIO, s.OUTPUT_IMAGE),
    "responseTokensDetails": _modalities(s.OUTPUT_AUDIO, s.OUTPUT_IMAGE),
    "cacheTokensDetails": _modalities(s.CACHED_AUDIO, s.CACHED_IMAGE),
    "toolUsePromptTokensDetails": _modalities(s.TOOL_AUDIO, s.TOOL_IMAGE),
    "token_count": s.INPUT,  # Vertex embeddings
    "billableCharacterCount": s.CHARACTERS,
    "trafficType": IGNORED,
    "serviceTier": IGNORED,
}
