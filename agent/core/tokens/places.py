"""Where an answer says what it used: providers put it in a dozen places."""

from __future__ import annotations

from typing import Any

from agent.core.tokens.documents import Document
from agent.core.tokens.slots import whole

_SINGLE = {
    "input_text_token_count": "inputTextTokenCount",
    "total_output_count": "totalOutputTextTokenCount",
    "prompt_token_count": "prompt_token_count",
    "generation_token_count": "generation_token_count",
    "prompt_eval_count": "prompt_eval_count",
    "eval_count": "eval_count",
}
"""Counts that stand by themselves in an answer, by our name for the place and the provider's for the count."""


def usage_in(document: Document) -> Any:
    """What it says it used, as its provider says it: an object, something odd, or ``None``."""
    usage = document.usage or document.usage_metadata
    if usage is None and document.choices is not None:
        if isinstance(document.x_groq, dict):
            usage = document.x_groq.get("usage")
        return usage or (document.choices[0].usage if document.choices else None)
    if usage is None and isinstance(document.metadata, dict):
        usage = document.metadata.get("usage")  # Bedrock's; what users note at OpenAI holds texts alone
        usage = usage if isinstance(usage, dict) else None
    if usage is None:
        return _elsewhere(document)
    if isinstance(usage, dict) and (document.tool_usage or document.request_counts):
        usage = {**usage, "tool_usage": document.tool_usage, "request_counts": document.request_counts}
    return usage


def _elsewhere(document: Document) -> dict[str, Any] | None:
    """Counts that no usage object holds."""
    found: dict[str, Any] = {}
    for ours, theirs in _SINGLE.items():
        count = getattr(document, ours)
        if count is not None:
            found[theirs] = count
    if isinstance(document.usage_info, dict):
        found.update(document.usage_info)
    if isinstance(document.meta, dict) and isinstance(document.meta.get("billed_units"), dict):
        found["billed_units"] = document.meta["billed_units"]
    if document.duration is not None and document.task in ("transcribe", "translate"):
        found["seconds"] = document.duration
    if isinstance(document.results, list) and document.input_text_token_count is not None:
        counts = [whole(one.get("tokenCount")) for one in document.results if isinstance(one, dict)]
        found["totalOutputTextTokenCount"] = sum(count or 0 for count in counts)
    _vertex(document, found)
    return found or None


def _vertex(document: Document, found: dict[str, Any]) -> None:
    said = [one.embeddings.statistics for one in document.predictions or () if one.embeddings is not None]
    counts = [whole(one.get("token_count")) for one in said if isinstance(one, dict)]
    if counts:
        found["token_count"] = sum(count or 0 for count in counts)
    if isinstance(document.metadata, dict) and document.metadata.get("billableCharacterCount") is not None:
        found["billableCharacterCount"] = document.metadata["billableCharacterCount"]


def others_in(document: Document) -> dict[str, dict[str, Any]]:
    """What other models used for the same answer, by kind: images that a tool made, drawings."""
    found = {}
    if isinstance(document.svg_usage, dict):
        found["svg"] = document.svg_usage
    if isinstance(document.tool_usage, dict) and isinstance(document.tool_usage.get("image_gen"), dict):
        found["image_gen"] = document.tool_usage["image_gen"]
    return found


def in_batch(document: Document) -> bool:
    """Whether it is a batch, or came out of one."""
    if document.object == "batch" or document.service_tier == "batch":
        return True
    if isinstance(document.usage, dict) and document.usage.get("service_tier") == "batch":
        return True
    return (document.custom_id or document.record_id) is not None
