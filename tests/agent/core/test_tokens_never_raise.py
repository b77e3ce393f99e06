"""Whatever the bytes are, nothing raises, classes stay disjoint, and what cannot be a count is refused."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.tokens.documents import Document
from agent.core.tokens.read import usage_of, usages_of_lines
from agent.core.tokens.usage import Usage
from protocol.events import UsageSource
from protocol.ids import is_model_name
from protocol.units import QUANTITY_MAX, TOKEN_CLASSES, normalise
from tests.agent.core.recorded import ANSWERS, read

NAMES = [
    *sorted(Document.__struct_encode_fields__),
    "prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens", "prompt_tokens_details",
    "completion_tokens_details", "cached_tokens", "audio_tokens", "reasoning_tokens", "cache_read_input_tokens",
    "cache_creation_input_tokens", "iterations", "promptTokenCount", "thoughtsTokenCount", "candidatesTokenCount",
    "totalTokenCount", "promptTokensDetails", "cacheTokensDetails", "modality", "tokenCount", "inputTokens",
    "outputTokens", "cacheDetails", "ttl", "seconds", "delta", "finish_reason", "tool_calls", "parts", "toolUse",
    "server_tool_use", "web_search_requests", "billed_units",
]  # fmt: skip
"""Names that mean something somewhere."""

numbers = st.one_of(st.integers(-10, 10**14), st.integers(), st.floats(), st.booleans(), st.just(0))
leaves = st.one_of(st.none(), numbers, st.text(max_size=8), st.sampled_from(["AUDIO", "message", "error", "1h"]))
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=30,
)
bodies = st.dictionaries(st.sampled_from(NAMES), values, max_size=8)


def sound(usage: Usage) -> None:
    assert set(usage.tokens) <= TOKEN_CLASSES
    counts = [*usage.tokens.values(), *usage.meters.values()]
    assert all(type(count) is int and 0 < count <= QUANTITY_MAX for count in counts)
    normalise({name: count for name, count in usage.meters.items() if name != "requests"}, usage.tokens)
    assert usage.model is None or is_model_name(usage.model)
    assert usage.response is None or len(usage.response) <= 256
    assert all(len(trouble) < 250 for trouble in usage.troubles)
    assert usage.output_bytes >= 0


@settings(max_examples=150, deadline=None)
@given(bodies)
def test_any_json_is_read(body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    whole = usage_of(data)
    sound(whole)
    assert read(data) == whole
    sound(read(b"data: " + data + b"\n\n"))
    sound(read(b"[" + data + b"," + data + b"]"))
    for usage in usages_of_lines(data + b"\n" + data):
        assert usage == whole


@settings(max_examples=400, deadline=None)
@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"data: ", b"\n\n", b"\r", b"{", b"[", b'"', b"\x00"])))
def test_any_bytes_are_read(chunks: list[bytes]) -> None:
    usage = read(*chunks)
    sound(usage)
    assert usage == read(b"".join(chunks))
    sound(usage_of(b"".join(chunks)))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(ANSWERS)), st.integers(0), st.binary(min_size=1, max_size=3))
def test_a_recorded_answer_with_a_few_other_bytes_is_read(name: str, at: int, other: bytes) -> None:
    data = bytearray(ANSWERS[name])
    data[at % len(data) : at % len(data) + len(other)] = other
    sound(usage_of(bytes(data)))
    sound(read(bytes(data)))


def test_depth_and_size_do_no_harm() -> None:
    for name in (b"usage", b"message", b"response", b"choices", b"delta", b"x"):
        for deep in (b'{"%s":' % name * 100_000, b'{"%s":' % name * 700 + b"1" + b"}" * 700, b"[" * 100_000):
            sound(usage_of(deep))
            sound(read(b"data: " + deep + b"\n\n"))
    sound(usage_of(b'{"usage":{"prompt_tokens":' + b"9" * 10_000 + b"}}"))


counts = st.integers(0, 10**6)


@given(counts, counts, st.data())
def test_openais_classes_sum_to_its_totals(inputs: int, outputs: int, data: st.DataObject) -> None:
    read_ = data.draw(st.integers(0, inputs))
    write = data.draw(st.integers(0, inputs - read_))
    audio = data.draw(st.integers(0, inputs - read_ - write))
    reasoning = data.draw(st.integers(0, outputs))
    usage = usage_of(json.dumps({"usage": {
        "prompt_tokens": inputs, "completion_tokens": outputs, "total_tokens": inputs + outputs,
        "prompt_tokens_details": {"cached_tokens": read_, "cache_write_tokens": write, "audio_tokens": audio},
        "completion_tokens_details": {"reasoning_tokens": reasoning}}}).encode())  # fmt: skip
    meters = normalise({}, usage.tokens) if usage.tokens else {"input_tokens": 0, "output_tokens": 0}
    assert (meters["input_tokens"], meters["output_tokens"]) == (inputs, outputs)
    assert usage.tokens.get("cache_read", 0) == read_
    assert usage.tokens.get("reasoning", 0) == reasoning
    assert usage.usage_source is UsageSource.PROVIDER
    assert usage.troubles == ()


@given(counts, counts, counts, counts)
def test_anthropics_classes_lie_beside_each_other(fresh: int, read_: int, write: int, outputs: int) -> None:
    usage = usage_of(json.dumps({"usage": {
        "input_tokens": fresh, "cache_read_input_tokens": read_, "cache_creation_input_tokens": write,
        "output_tokens": outputs}}).encode())  # fmt: skip
    expected = {"input": fresh, "cache_read": read_, "cache_write": write, "output": outputs}
    assert usage.tokens == {name: count for name, count in expected.items() if count}


@given(counts, counts, counts, counts, st.data())
def test_geminis_classes_sum_to_its_total(prompt: int, tools: int, answer: int, thoughts: int, data: Any) -> None:
    cached = data.draw(st.integers(0, prompt))
    usage = usage_of(json.dumps({"usageMetadata": {
        "promptTokenCount": prompt, "toolUsePromptTokenCount": tools, "candidatesTokenCount": answer,
        "thoughtsTokenCount": thoughts, "cachedContentTokenCount": cached,
        "totalTokenCount": prompt + tools + answer + thoughts}}).encode())  # fmt: skip
    expected = {"input": prompt - cached + tools, "cache_read": cached, "output": answer, "reasoning": thoughts}
    assert usage.tokens == {name: count for name, count in expected.items() if count}
    assert usage.troubles == ()
