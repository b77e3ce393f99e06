"""Amazon Bedrock's usage, of ``converse`` and of ``invoke`` for models that speak a shape of their own.

Cache reads and writes lie beside the input. What ``invoke`` says in headers or in the metrics of a stream's last chunk
counts where the answer itself says nothing. Ollama's and Cohere's counts are read here too: all are single fields.
"""

from __future__ import annotations

from typing import Any

from agent.core.tokens import slots as s
from agent.core.tokens.slots import IGNORED, Fields, Slots, entries, put
from agent.core.tokens.usage import Troubles


def _cache_details(value: Any, where: str, slots: Slots, troubles: Troubles) -> None:
    """``[{"ttl": "1h", "inputTokens": ...}]``: writes by how long they are kept."""
    for entry in entries(value, where, troubles):
        if entry.get("ttl") == "1h":
            put(s.CACHE_WRITE_1H, entry.get("inputTokens", 0), where, slots, troubles)


_COUNTED: Fields = {"input_tokens": s.INPUT, "output_tokens": s.OUTPUT, "search_units": s.SEARCH_UNITS}

FIELDS: Fields = {
    "inputTokens": s.FRESH,
    "outputTokens": s.OUTPUT,
    "totalTokens": s.TOTAL,
    "cacheReadInputTokens": s.CACHE_READ,
    "cacheReadInputTokenCount": s.CACHE_READ,
    "cacheWriteInputTokens": s.CACHE_WRITE,
    "cacheWriteInputTokenCount": s.CACHE_WRITE,
    "cacheDetails": _cache_details,
    "serverToolUsage": {"webSearchRequests": s.WEB_SEARCHES},
    "inputTokenCount": s.FRESH,  # metrics of a stream
    "outputTokenCount": s.OUTPUT,
    "invocationLatency": IGNORED,
    "firstByteLatency": IGNORED,
    "inputTextTokenCount": s.INPUT,  # Titan
    "totalOutputTextTokenCount": s.OUTPUT,
    "prompt_token_count": s.INPUT,  # Llama
    "generation_token_count": s.OUTPUT,
    "prompt_eval_count": s.INPUT,  # Ollama
    "eval_count": s.OUTPUT,
    "billed_units": _COUNTED,  # Cohere: what is billed may be less than what was read
    "tokens": {"input_tokens": IGNORED, "output_tokens": IGNORED},
    "cached_tokens": IGNORED,
}

HEADERS = {
    "x-amzn-bedrock-input-token-count": "inputTokenCount",
    "x-amzn-bedrock-output-token-count": "outputTokenCount",
    "x-amzn-bedrock-cache-read-input-token-count": "cacheReadInputTokenCount",
    "x-amzn-bedrock-cache-write-input-token-count": "cacheWriteInputTokenCount",
}
"""Which headers of an answer say which of the fields."""
