"""What LiteLLM tells of a call: whose it is, how much it may use, what it used. Reads; decides and sends nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from allotment.integrations.amounts import (
    LONG_ANSWER_TOKENS,
    SLICE_TOKENS,
    Prompt,
    as_key,
    disjoint,
    likely_output,
    text_bytes,
    whole,
)
from allotment.metered import AsyncMeteredCall
from allotment.requests import Call

_FREE = re.compile(r"a?(retrieve_batch|create_file|vector_store_\w+|create_skill|moderation)|(call|list)_mcp_tools?")
_ANSWERS = re.compile(r"a?(text_)?completion|a?responses|a?anthropic_messages|a?generate_content(_stream)?|\w*pass\w*")
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "maxOutputTokens")
_SSE_TEXT = re.compile(rb'"(?:text|partial_json|thinking|content|arguments)"\s*:\s*"((?:[^"\\]|\\.)*)"')


class Flight:
    """One call in flight.

    Attributes:
        heard: something of its answer has been streamed; ``output_bytes``: how much text.
        timeouts: attempts that got no answer in time, each counted by itself.
    """

    def __init__(self, call: AsyncMeteredCall, prompt: Prompt) -> None:
        self.call = call
        self.prompt = prompt
        self.heard = False
        self.output_bytes = 0
        self.timeouts = 0

    def estimated(self) -> dict[str, int]:
        """The prompt and what was streamed, where nobody said what they cost."""
        return {"input": self.prompt.tokens_likely, "output": likely_output(self.output_bytes)}

    def say(
        self,
        tokens: Mapping[str, int],
        *,
        outcome: str,
        estimated: bool,
        model: str | None = None,
        provider: str | None = None,
    ) -> None:
        """What is to be settled."""
        source = "estimated" if estimated else "provider"
        if model and provider:
            model = model.removeprefix(f"{provider}/")  # LiteLLM's name of it, after a fallback
        self.call.report(
            tokens={name: count for name, count in tokens.items() if count}, outcome=outcome, usage_source=source,
            model=model or self.call.call.model, provider=as_key(provider),
        )  # fmt: skip


def costs_nothing(call_type: str) -> bool:
    """Lists, uploads and tools: no model answers."""
    return _FREE.fullmatch(call_type) is not None


def whose(key: Any, data: Mapping[str, Any], feature: str | None) -> Call | str:
    """Whose call it is; a sentence where that cannot be told."""
    fixed = {**_map(getattr(key, "team_metadata", None)), **_map(getattr(key, "metadata", None))}
    request = _map(data.get("proxy_server_request"))
    headers = {str(name).lower(): value for name, value in _map(request.get("headers")).items()}
    customer = fixed.get("allotment_customer")
    role = getattr(key, "user_role", None)
    if not customer and str(getattr(role, "value", role)) == "proxy_admin":
        customer = headers.get("x-allotment-customer")
    named = fixed.get("allotment_feature") or headers.get("x-allotment-feature") or feature
    if not customer:
        return "nobody is known whose call this is: the virtual key's metadata must say allotment_customer"
    if not named:
        return "it is not known which feature this call is of: the header x-allotment-feature must say so"
    token = getattr(key, "token", None) or getattr(key, "api_key", None)
    return Call(
        str(customer), str(named), user=as_key(getattr(key, "end_user_id", None)),
        api_key=as_key(token and str(token)[:16]), model=str(data["model"]) if data.get("model") else None,
    )  # fmt: skip


def prompt_of(data: Mapping[str, Any]) -> Prompt:
    """What the caller has sent."""
    body = _map(data.get("proxy_server_request")).get("body")
    return Prompt(
        body
        if isinstance(body, Mapping) and body
        else {name: data.get(name) for name in ("messages", "input", "prompt")}
    )


def first_output(data: Mapping[str, Any], call_type: str) -> int:
    """How much output to hold before it is sent: of a stream a slice, of a whole answer what it may be."""
    if _ANSWERS.fullmatch(call_type) is None:
        return 0
    config = _map(data.get("generationConfig")) or _map(data.get("config"))
    limit = max(whole(data.get(name)) or whole(config.get(name)) for name in _LIMITS) or LONG_ANSWER_TOKENS
    if data.get("stream") or call_type.endswith("_stream"):
        limit = min(limit, SLICE_TOKENS)
    return limit * min(128, max(1, whole(data.get("n"))))


def outputs_in(chunk: Any) -> int:
    """How many bytes of text one piece of a stream holds."""
    if isinstance(chunk, bytes | str):
        data = chunk.encode() if isinstance(chunk, str) else chunk
        return sum(len(text) for text in _SSE_TEXT.findall(data))
    delta = getattr(chunk, "delta", None)
    if isinstance(delta, str):
        return text_bytes(delta)
    found = 0
    for choice in getattr(chunk, "choices", None) or ():
        delta = getattr(choice, "delta", None)
        texts = [getattr(delta, name, None) for name in ("content", "reasoning_content")]
        for tool in getattr(delta, "tool_calls", None) or ():
            function = getattr(tool, "function", None)
            texts += [getattr(function, "arguments", None), getattr(function, "name", None)]
        found += sum(text_bytes(text) for text in texts if isinstance(text, str))
    return found


def tokens_of(logged: Mapping[str, Any], response: Any) -> dict[str, int]:
    """Token classes of what LiteLLM logged, which counts as OpenAI does: sums that include their parts.

    Of what it passes through unread, it logs the answer as it came.
    """
    usage = _map(_map(logged.get("metadata")).get("usage_object")) or _map(getattr(response, "usage", None))
    usage = usage or _unread_usage(response)
    inputs = usage.get("prompt_tokens", usage.get("input_tokens", logged.get("prompt_tokens")))
    outputs = usage.get("completion_tokens", usage.get("output_tokens", logged.get("completion_tokens")))
    read = _map(usage.get("prompt_tokens_details")) or _map(usage.get("input_tokens_details"))
    written = _map(usage.get("completion_tokens_details")) or _map(usage.get("output_tokens_details"))
    return disjoint(
        inputs,
        outputs,
        cache_read=read.get("cached_tokens") or usage.get("cache_read_input_tokens"),
        cache_write=read.get("cache_write_tokens") or usage.get("cache_creation_input_tokens"),
        input_audio=read.get("audio_tokens"),
        input_image=read.get("image_tokens"),
        reasoning=written.get("reasoning_tokens"),
        output_audio=written.get("audio_tokens"),
        output_image=written.get("image_tokens"),
    )


def unread(response: Any) -> str:
    """An answer that LiteLLM has passed through without reading it."""
    said = response.get("response") if isinstance(response, Mapping) else None
    return said if isinstance(said, str) else ""


def _unread_usage(response: Any) -> Mapping[str, Any]:
    try:
        usage = _map(_map(json.loads(unread(response))).get("usage"))
    except ValueError:
        return {}
    beside = [whole(usage.get(name)) for name in ("cache_read_input_tokens", "cache_creation_input_tokens")]
    if "prompt_tokens" in usage or not any(beside):
        return usage
    return {**usage, "input_tokens": whole(usage.get("input_tokens")) + sum(beside)}  # Anthropic counts them apart


def _map(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    dump = getattr(value, "model_dump", None)
    found = dump() if callable(dump) else None
    return found if isinstance(found, Mapping) else {}
