"""The parts of an answer that matter here, decoded from JSON; the rest is passed over without being built.

One struct for the answers of all providers: their names do not collide. Leaves are untyped, because a provider may put
anything there; where even an outer part is of another type than expected, the rest of the document is still read.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from agent.core.tokens.bounded import Overlong
from agent.core.tokens.usage import Troubles


class Block(msgspec.Struct, gc=False, rename={"tool_use": "toolUse"}):
    """A part of what was put out: text, a call of a tool, an image."""

    type: Any = None
    action: Any = None
    tool_use: Any = None


class Choice(msgspec.Struct, gc=False):
    """One of several answers, in OpenAI's interface."""

    index: Any = 0
    finish_reason: Any = None
    delta: Any = None
    message: Any = None
    text: Any = None
    usage: Any = None


class Part(msgspec.Struct, gc=False, rename="camel"):
    """A part of a candidate."""

    text: Any = None
    function_call: Any = None
    executable_code: Any = None
    inline_data: Any = None


class Content(msgspec.Struct, gc=False):
    """What a candidate holds."""

    parts: list[Part] | None = None


class Grounding(msgspec.Struct, gc=False, rename="camel"):
    """What a candidate was grounded on."""

    web_search_queries: Any = None


class Candidate(msgspec.Struct, gc=False, rename="camel"):
    """One of several answers, in Gemini's interface."""

    index: Any = 0
    content: Content | None = None
    finish_reason: Any = None
    grounding_metadata: Grounding | None = None


class Embedded(msgspec.Struct, gc=False):
    """What Vertex AI says of one text's vector."""

    statistics: Any = None


class Prediction(msgspec.Struct, gc=False):
    """One of Vertex AI's predictions."""

    embeddings: Embedded | None = None
    mime_type: Any = msgspec.field(default=None, name="mimeType")


class Document(
    msgspec.Struct,
    gc=False,
    rename={
        "usage_metadata": "usageMetadata", "response_id": "responseId", "model_version": "modelVersion",
        "prompt_feedback": "promptFeedback", "model_output": "modelOutput", "record_id": "recordId",
        "message_start": "messageStart", "message_stop": "messageStop", "block_start": "contentBlockStart",
        "block_delta": "contentBlockDelta", "metrics": "amazon-bedrock-invocationMetrics",
        "input_text_token_count": "inputTextTokenCount", "total_output_count": "totalOutputTextTokenCount",
    },
):  # fmt: skip
    """One document of an answer: all of it, an event of a stream, a line of a batch, or one of these inside another."""

    type: Any = None
    object: Any = None
    id: Any = None
    model: Any = None
    status: Any = None
    error: Any = None
    usage: Any = None
    service_tier: Any = None
    # OpenAI and those like it
    choices: list[Choice] | None = None
    delta: Any = None
    item: Block | None = None
    output_index: Any = None
    output: "list[Block] | Document | str | None" = None  # noqa: UP037 - msgspec resolves it
    data: msgspec.Raw = msgspec.Raw()
    tool_usage: Any = None
    svg_usage: Any = None
    x_groq: Any = None
    usage_info: Any = None
    task: Any = None
    duration: Any = None
    request_counts: Any = None
    # Anthropic
    message: "Document | str | None" = None  # noqa: UP037
    index: Any = None
    content_block: Block | None = None
    content: list[Block] | str | None = None
    # Gemini and Vertex AI
    usage_metadata: Any = None
    candidates: list[Candidate] | None = None
    model_version: Any = None
    response_id: Any = None
    prompt_feedback: Any = None
    predictions: list[Prediction] | None = None
    # Bedrock
    message_start: Any = None
    block_start: Any = None
    block_delta: Any = None
    message_stop: Any = None
    metadata: Any = None
    metrics: Any = None
    input_text_token_count: Any = None
    total_output_count: Any = None
    results: Any = None
    prompt_token_count: Any = None
    generation_token_count: Any = None
    # Ollama and Cohere
    prompt_eval_count: Any = None
    eval_count: Any = None
    done: Any = None
    meta: Any = None
    # Envelopes
    response: "Document | str | None" = None  # noqa: UP037
    result: "Document | str | None" = None  # noqa: UP037
    body: "Document | str | None" = None  # noqa: UP037
    model_output: "Document | str | None" = None  # noqa: UP037
    custom_id: Any = None
    record_id: Any = None
    status_code: Any = None


def among(value: Any, words: frozenset[str]) -> bool:
    """Whether it is one of these words: a leaf may be anything, and need not even be hashable."""
    return isinstance(value, str) and value in words


_decoder = msgspec.json.Decoder(Document)
_types = {field.encode_name: field for field in msgspec.structs.fields(Document)}


def decode(data: bytes | Overlong, troubles: Troubles, *, cut: bool = False) -> Document | None:
    """The document, or as much of it as can be understood. Of one that may have been ``cut`` off nothing is expected.

    Never raises: what is no JSON, and what is no object, is reported.
    """
    if isinstance(data, Overlong):
        troubles.add("document", f"is too long, {data.size} bytes: read at its ends only")
        return _converted(data.fields(), troubles)
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    # Another type than expected somewhere, or halves of characters: servers that cut their own texts send those.
    try:
        found = json.loads(data.decode(errors="replace"))
    except (ValueError, RecursionError):
        if not cut or data.rstrip()[-1:] == b"}":
            troubles.add("document", "is not understood: no JSON")
        return None
    if not isinstance(found, dict):
        troubles.add("document", "is not understood: no JSON object")
        return None
    return _converted(found, troubles)


def _converted(found: dict[str, Any], troubles: Troubles) -> Document:
    """A document of the fields that are of the types expected; the others are reported."""
    document = Document()
    for name, value in found.items():
        field = _types.get(name)
        if field is None or value is None or field.name == "data":
            continue
        try:
            setattr(document, field.name, msgspec.convert(value, field.type))
        except (msgspec.ValidationError, RecursionError):
            troubles.add(name, "is not understood: of another type than expected")
    return document
