"""Text, tools and images that an answer holds: how much text was streamed, and what else is counted.

Each part of a stream has a key, so that a part seen twice counts once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from agent.core.tokens import slots as s
from agent.core.tokens.documents import Block, Candidate, Document, among

Key = tuple[str, object, object]
"""The meter, and which part of the answer it is."""

_NO_TEXT = frozenset({
    "id", "type", "role", "citation", "signature", "thoughtSignature", "thought_signature", "encrypted_content", "data",
    "mimeType", "mime_type", "format", "channel", "extra_content", "annotations", "reasoning_details", "obfuscation",
})  # fmt: skip
"""What stands beside the text in a part of a stream, and was not written by the model."""

_SOUND = frozenset({"response.audio.delta", "response.output_audio.delta", "speech.audio.delta"})
"""Events whose delta is no text."""

_DRAWN = frozenset({"image_generation.completed", "image_edit.completed"})
"""Events that bring one whole image each."""

_DEPTH_MAX = 8


def text_bytes(document: Document) -> int:
    """UTF-8 bytes of the text, the reasoning and the arguments of tools that this part of a stream brings."""
    found = 0
    for choice in document.choices or ():
        found += string_bytes(choice.delta) + string_bytes(choice.text)
    if document.delta is not None and not among(document.type, _SOUND):
        found += string_bytes(document.delta)
    for candidate in document.candidates or ():
        found += candidate_bytes(candidate)
    if isinstance(document.block_delta, dict):
        found += string_bytes(document.block_delta.get("delta"))
    if document.done is False:  # Ollama
        message = document.message
        found += string_bytes(message.content if isinstance(message, Document) else None)
        found += string_bytes(document.response if isinstance(document.response, str) else None)
    return found


def candidate_bytes(candidate: Candidate) -> int:
    """The same of one of Gemini's candidates."""
    found = 0
    for part in (candidate.content and candidate.content.parts) or ():
        found += string_bytes(part.text) + string_bytes(part.executable_code)
        if part.function_call is not None:
            found += len(_encoded(part.function_call))
    return found


def string_bytes(node: Any, depth: int = _DEPTH_MAX) -> int:
    """UTF-8 bytes of all texts in ``node``."""
    if isinstance(node, str):
        return len(node) if node.isascii() else len(node.encode(errors="replace"))
    found = 0
    if isinstance(node, dict):
        for name, value in node.items():
            if value and value is not True and name not in _NO_TEXT and depth:
                found += string_bytes(value, depth - 1)
    elif isinstance(node, list) and depth:
        for value in node:
            found += string_bytes(value, depth - 1)
    return found


def whole_bytes(data: bytes) -> int:
    """The same of a whole answer, decoded once more: only those whose usage is missing are worth it."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 0
    if not isinstance(found, dict):
        return 0
    named = ("choices", "content", "output", "candidates", "message", "text", "outputText", "generation", "completion")
    return sum(string_bytes(found.get(name)) for name in named)


def parts_of(document: Document) -> list[Key]:
    """What this document holds that is counted: calls of tools, searches, images."""
    found: list[Key] = []
    if document.choices is not None:
        for choice in document.choices:
            body = choice.delta or choice.message
            if isinstance(body, dict) and not _COUNTED.isdisjoint(body):
                found.extend(_of_choice(body, hashable(choice.index)))
        return found
    for candidate in document.candidates or ():
        found.extend(_of_candidate(candidate))
    if document.content_block is not None:
        found.extend(_of_block(document.content_block, document.index))
    if document.item is not None:
        found.extend(_of_block(document.item, document.output_index))
    for blocks in (document.content, document.output):
        if isinstance(blocks, list):
            for at, block in enumerate(blocks):
                found.extend(_of_block(block, at))
        elif isinstance(blocks, Document) and isinstance(blocks.message, Document):  # Bedrock's converse
            found.extend(parts_of(blocks.message))
    start = document.block_start
    if isinstance(start, dict) and isinstance(start.get("start"), dict) and start["start"].get("toolUse"):
        found.append((s.TOOL_CALLS, "block", hashable(start.get("contentBlockIndex"))))
    if among(document.type, _DRAWN):
        found.append((s.IMAGES, "data", 0))
    if len(document.data) and document.object != "list":
        found.extend((s.IMAGES, "data", at) for at in range(images_in(document.data)))
    for at, prediction in enumerate(document.predictions or ()):
        if str(prediction.mime_type).startswith("image/"):
            found.append((s.IMAGES, "prediction", at))
    return found


_COUNTED = frozenset({"tool_calls", "function_call", "images"})


def _of_choice(body: dict[str, Any], whose: object) -> Iterator[Key]:
    calls = body.get("tool_calls")
    for at, call in enumerate(calls if isinstance(calls, list) else ()):
        yield s.TOOL_CALLS, whose, hashable(call.get("index", at) if isinstance(call, dict) else at)
    if body.get("function_call"):
        yield s.TOOL_CALLS, whose, "function_call"
    images = body.get("images")
    for at in range(len(images) if isinstance(images, list) else 0):
        yield s.IMAGES, whose, at


def _of_candidate(candidate: Candidate) -> Iterator[Key]:
    whose = hashable(candidate.index)
    for at, part in enumerate((candidate.content and candidate.content.parts) or ()):
        if (
            part.function_call is not None
        ):  # two of the same may stand beside each other; one that comes again stands alike
            yield s.TOOL_CALLS, whose, (at, _encoded(part.function_call))
        inline = part.inline_data
        if isinstance(inline, dict) and str(inline.get("mimeType")).startswith("image/"):
            data = str(inline.get("data"))
            yield s.IMAGES, whose, (len(data), data[-64:])
    queries = candidate.grounding_metadata and candidate.grounding_metadata.web_search_queries
    if isinstance(queries, list):
        for at in range(len(queries)):
            yield s.WEB_SEARCHES, whose, at


def _of_block(block: Block, at: object) -> Iterator[Key]:
    kind = block.type
    if isinstance(kind, str):
        if kind.endswith(("_call", "tool_use")):
            yield s.TOOL_CALLS, "block", hashable(at)
        if kind == "web_search_call":
            action = block.action.get("type") if isinstance(block.action, dict) else None
            if action is None or action == "search":  # pages that were opened cost nothing by themselves
                yield s.WEB_SEARCHES, "block", hashable(at)
        if kind == "image_generation_call":
            yield s.IMAGES, "block", hashable(at)
    elif block.tool_use is not None:
        yield s.TOOL_CALLS, "block", hashable(at)


class _Image(msgspec.Struct, gc=False):
    b64_json: msgspec.Raw = msgspec.Raw()
    url: msgspec.Raw = msgspec.Raw()


_images = msgspec.json.Decoder(list[_Image])


def images_in(data: msgspec.Raw) -> int:
    """How many images the answer of an image interface holds."""
    try:
        return sum(1 for image in _images.decode(data) if len(image.b64_json) > 4 or len(image.url) > 4)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 0


def _encoded(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return repr(value).encode(errors="replace")


def hashable(value: object) -> object:
    """``value``, or words for it, to tell parts apart by."""
    return value if isinstance(value, str | int | None) else str(value)[:64]
