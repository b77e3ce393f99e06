"""What the body of a request tells of its cost before it is sent: how much text, how much else, how long an answer.

A tokenizer gives every byte of a text at most one token, so the bytes of all texts bound their tokens. What bytes do
not tell - images, and what the provider puts in from its own side - is counted apart.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from agent.core.tokens.slots import whole

ITEM_BYTES = 4
"""Counted for every item beside its text: templates put marks of their own around messages and tools."""

NODES_MAX = 200_000
"""How many items of a request are looked at; those of larger ones count as the bytes they are."""

_OUTPUT_LIMITS = frozenset({
    "max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "maxTokens", "max_gen_len",
    "maxTokenCount", "max_tokens_to_sample", "num_predict",
})  # fmt: skip
_CONFIGS = frozenset({"generationConfig", "generation_config", "inferenceConfig", "textGenerationConfig", "options"})
_CHOICES = frozenset({"n", "best_of", "candidateCount", "candidate_count"})
_MEDIA = frozenset({
    "image", "image_url", "input_image", "audio", "input_audio", "file", "input_file", "document", "video", "video_url",
})  # fmt: skip
_MEDIA_KEYS = frozenset({"inlineData", "inline_data", "fileData", "file_data"})
_BLOB_KEYS = frozenset({"data", "url", "image_url", "file_data", "bytes", "b64_json", "fileUri"})
_ELSEWHERE = frozenset({
    "previous_response_id", "conversation", "cachedContent", "cached_content", "web_search_options", "plugins",
    "container", "mcp_servers", "data_sources",
})  # fmt: skip
_OWN_TOOL = frozenset({
    "function", "functionDeclarations", "function_declarations", "input_schema", "toolSpec", "parameters",
})  # fmt: skip
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{256}")


class Prompt(msgspec.Struct, frozen=True, gc=False):
    """What a request tells.

    Attributes:
        text_bytes: an upper bound of the tokens of all its texts: their UTF-8 bytes and a little for each item.
        media: images, sounds, films and documents in it.
        unseen: the provider adds what is not in the request: a stored conversation, a cache, what its own tools find.
        output_max: the longest answer that it allows, in tokens, if it says so.
        choices: how many answers it asks for.
    """

    text_bytes: int
    media: int = 0
    unseen: bool = False
    output_max: int | None = None
    choices: int = 1


def prompt_of(body: bytes) -> Prompt:
    """What the body of a request tells. Never raises: of what is no JSON, every byte counts as text."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Prompt(len(body))
    if not isinstance(found, dict):
        return Prompt(len(body))
    text_bytes, media = _weighed(found, len(body))
    limits = [whole(value) for name, value in _settings(found) if name in _OUTPUT_LIMITS]
    choices = [whole(value) for name, value in _settings(found) if name in _CHOICES]
    return Prompt(
        text_bytes,
        media,
        _has_unseen(found),
        max((limit for limit in limits if limit), default=None),
        min(128, max((choice for choice in choices if choice), default=1)),
    )


def _weighed(body: dict[str, Any], bytes_max: int) -> tuple[int, int]:
    """Bytes of all texts, and how much is no text."""
    text_bytes = media = nodes = 0
    stack: list[Any] = [body]
    while stack:
        node = stack.pop()
        nodes += 1
        if nodes > NODES_MAX:
            return max(bytes_max, text_bytes), media
        text_bytes += ITEM_BYTES
        if isinstance(node, str):
            text_bytes += len(node) if node.isascii() else len(node.encode(errors="replace"))
        elif isinstance(node, dict):
            kind = node.get("type")
            if (isinstance(kind, str) and kind in _MEDIA) or not _MEDIA_KEYS.isdisjoint(node) or _is_source(node):
                media += 1
            for name, value in node.items():
                text_bytes += len(name.encode(errors="replace"))
                if name not in _BLOB_KEYS or not _is_blob(value):
                    stack.append(value)
        elif isinstance(node, list):
            stack.extend(node)
        elif node is not None:
            text_bytes += 24  # the longest number
    return text_bytes, media


def _is_blob(value: Any) -> bool:
    """Whether it is the bytes of something. Only where those stand: a message may be hexadecimal, and costs tokens."""
    return isinstance(value, str) and (value.startswith("data:") or _BASE64.match(value) is not None)


def _is_source(node: dict[str, Any]) -> bool:
    """Bedrock's way: ``{"image": {"source": ...}}``."""
    return any(isinstance(node.get(name), dict) and "source" in node[name] for name in ("image", "document", "video"))


def _settings(body: dict[str, Any]) -> list[tuple[str, Any]]:
    found = list(body.items())
    for name in _CONFIGS:
        if isinstance(body.get(name), dict):
            found.extend(body[name].items())
    return found


def _has_unseen(body: dict[str, Any]) -> bool:
    if any(body.get(name) for name in _ELSEWHERE) or str(body.get("model")).endswith(":online"):
        return True
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and _OWN_TOOL.isdisjoint(tool) and tool.get("type") not in ("function", "custom"):
            return True
    return False
