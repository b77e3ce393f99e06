"""Estimates: bounds that hold, shares that are kept, slices that are there in time, and memory that does not grow."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.estimate import (
    MEDIA_TOKENS,
    OUTPUT_TOKENS_MAX,
    SLICE_TOKENS,
    TEMPLATE_TOKENS,
    UNSEEN_TOKENS,
    Estimates,
)
from agent.core.prompts import Prompt, prompt_of
from agent.core.tokens.read import usage_of
from agent.core.tokens.usage import Usage
from protocol.admission import Estimate
from protocol.events import Outcome, UsageSource
from protocol.units import QUANTITY_MAX
from tests.agent.core.recorded import STREAMS, events, read


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}], **fields}).encode()


def ended(inputs: int, outputs: int, output_bytes: int = 0) -> Usage:
    tokens = {"input": inputs, "output": outputs}
    return Usage(tokens, {}, UsageSource.PROVIDER, Outcome.COMPLETE, output_bytes=output_bytes)


texts = st.recursive(
    st.text() | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner),
)


def all_text(node: Any) -> int:
    """Bytes of every text, counted in another way."""
    if isinstance(node, str):
        return len(node.encode(errors="replace"))
    if isinstance(node, dict):
        return sum(len(name.encode(errors="replace")) + all_text(value) for name, value in node.items())
    return sum(map(all_text, node)) if isinstance(node, list) else 0


@settings(deadline=None)
@given(texts, st.booleans())
def test_every_byte_of_every_text_is_in_the_bound(content: Any, spaced: bool) -> None:
    sent = {"messages": [{"role": "user", "content": content}]}
    prompt = prompt_of(json.dumps(sent, ensure_ascii=not spaced, indent=2 if spaced else None).encode(errors="replace"))
    assert prompt.text_bytes >= all_text(sent) - 3 * str(sent).count("\\ud")
    assert Estimates().input_tokens("m", prompt, Estimate.WORST) >= prompt.text_bytes + TEMPLATE_TOKENS


@settings(deadline=None)
@given(st.binary() | st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"[1,2]", b"null"]))
def test_what_is_no_request_counts_byte_by_byte(data: bytes) -> None:
    assert prompt_of(data).text_bytes >= (0 if data[:1] == b"{" else len(data))


def test_a_request_tells_how_long_its_answers_may_be() -> None:
    for fields, output_max, choices in (
        ({}, None, 1),
        ({"max_tokens": 50}, 50, 1),
        ({"max_completion_tokens": 60, "n": 3}, 60, 3),
        ({"max_output_tokens": 70}, 70, 1),
        ({"generationConfig": {"maxOutputTokens": 80, "candidateCount": 2}}, 80, 2),
        ({"inferenceConfig": {"maxTokens": 90}}, 90, 1),
        ({"max_tokens": "many", "n": -4}, None, 1),
        ({"max_tokens": 1e300, "n": 10**9}, None, 128),
    ):
        prompt = prompt_of(body(**fields))
        assert (prompt.output_max, prompt.choices) == (output_max, choices), fields


PICTURE = base64.b64encode(random.Random(1).randbytes(60_000)).decode()
PICTURES: list[dict[str, Any]] = [
    {"type": "image_url", "image_url": {"url": "data:image/png;base64," + PICTURE}},
    {"type": "input_image", "image_url": "data:image/png;base64," + PICTURE},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}},
    {"inlineData": {"mimeType": "image/png", "data": PICTURE}},
    {"image": {"format": "png", "source": {"bytes": PICTURE}}},
    {"type": "input_audio", "input_audio": {"data": PICTURE, "format": "wav"}},
]


@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_counts_as_one_and_not_as_its_bytes(picture: dict[str, Any]) -> None:
    prompt = prompt_of(body(messages=[{"role": "user", "content": [{"type": "text", "text": "what?"}, picture]}]))
    assert (prompt.media, prompt.text_bytes < 500) == (1, True)
    assert Estimates().input_tokens("m", prompt, Estimate.WORST) > MEDIA_TOKENS


def test_text_that_looks_like_a_picture_counts_as_text() -> None:
    for text in ("0123456789abcdef" * 1_000, "data:," + "x" * 16_000, PICTURE):
        assert prompt_of(body(messages=[{"role": "user", "content": text}])).text_bytes >= len(text)
        assert prompt_of(body(input=text)).text_bytes >= len(text)


def test_what_the_provider_adds_is_allowed_for() -> None:
    own = {"type": "function", "function": {"name": "f"}}
    for fields, unseen in (
        ({"tools": [own, {"name": "f", "input_schema": {}}, {"functionDeclarations": []}]}, False),
        ({"tools": [own, {"type": "web_search_20250305", "name": "web_search"}]}, True),
        ({"tools": [{"googleSearch": {}}]}, True),
        ({"previous_response_id": "resp_1"}, True),
        ({"cachedContent": "cachedContents/1"}, True),
        ({"model": "openai/gpt-4o:online"}, True),
        ({"previous_response_id": None, "tools": None}, False),
    ):
        prompt = prompt_of(body(**fields))
        assert prompt.unseen is unseen, fields
        worst = Estimates().input_tokens("m", prompt, Estimate.WORST)
        assert worst == prompt.text_bytes + TEMPLATE_TOKENS + unseen * UNSEEN_TOKENS


def test_a_limit_without_bounds_holds_no_fortune() -> None:
    assert Estimates().output_tokens("m", Prompt(1, output_max=10**11), Estimate.WORST) == 4 * OUTPUT_TOKENS_MAX
    assert Estimates().output_tokens("m", Prompt(1, output_max=100, choices=3), Estimate.WORST) == 300
    assert Estimates().output_tokens("m", Prompt(1), Estimate.WORST) == OUTPUT_TOKENS_MAX


def test_nothing_is_learned_from_a_few_calls() -> None:
    estimates, prompt = Estimates(), Prompt(4_000)
    for _ in range(29):
        estimates.learn("m", prompt, ended(1_000, 100, 400))
    assert estimates.input_tokens("m", prompt, Estimate.P95) == 4_000 + TEMPLATE_TOKENS
    estimates.learn("m", prompt, ended(1_000, 100, 400))
    assert 1_000 <= estimates.input_tokens("m", prompt, Estimate.P95) <= 1_100
    assert 100 <= estimates.output_tokens("m", prompt, Estimate.P95) <= 110
    assert estimates.input_tokens("other", prompt, Estimate.P95) == 4_000 + TEMPLATE_TOKENS


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.05, 0.9), st.floats(0.1, 1.5))
def test_about_one_call_of_twenty_passes_p95(seed: int, ratio: float, sigma: float) -> None:
    rng, estimates = random.Random(seed), Estimates()
    passed = {"inputs": 0, "outputs": 0}
    for at in range(3_000):
        prompt = Prompt(rng.randrange(1_000, 30_000))
        inputs = max(1, int(prompt.text_bytes * min(1.0, ratio * rng.uniform(0.7, 1.3))))
        outputs = max(1, int(rng.lognormvariate(5, sigma)))
        if at >= 1_000:
            passed["inputs"] += inputs > estimates.input_tokens("m", prompt, Estimate.P95)
            passed["outputs"] += outputs > estimates.output_tokens("m", prompt, Estimate.P95)
        assert inputs <= estimates.input_tokens("m", prompt, Estimate.WORST)
        estimates.learn("m", prompt, ended(inputs, outputs))
    assert all(count <= 0.075 * 2_000 for count in passed.values()), passed


@given(st.integers(1, 10**7), st.integers(0, 10**5), st.integers(0, 10**5), st.booleans())
def test_p95_is_never_more_than_the_worst(size: int, inputs: int, outputs: int, unseen: bool) -> None:
    estimates, prompt = Estimates(), Prompt(size, unseen=unseen)
    for _ in range(40):
        estimates.learn("m", Prompt(size), ended(inputs, outputs))
    assert estimates.input_tokens("m", prompt, Estimate.P95) <= estimates.input_tokens("m", prompt, Estimate.WORST)
    assert estimates.output_tokens("m", prompt, Estimate.P95) <= estimates.output_tokens("m", prompt, Estimate.WORST)


def test_newer_calls_weigh_more() -> None:
    estimates, prompt = Estimates(), Prompt(10_000)
    for tokens, times in ((5_000, 4_000), (2_000, 12_000)):
        for _ in range(times):
            estimates.learn("m", prompt, ended(tokens, tokens, 4 * tokens))
    assert 2_000 <= estimates.input_tokens("m", prompt, Estimate.P95) <= 2_200
    assert 2_000 <= estimates.output_tokens("m", prompt, Estimate.P95) <= 2_200


def test_memory_is_bounded_whatever_models_are_called() -> None:
    estimates = Estimates(spreads_max=100)
    for at in range(2_000):
        estimates.learn(f"m{at}", Prompt(at + 1), ended(at + 1, at + 1, at + 1))
    assert len(estimates._spreads) == 100
    spread = next(iter(estimates._spreads.values()))
    for at in range(50_000):
        spread.add(at * at + 1, 1, 1)
    assert len(spread._buckets) < 300
    assert spread.calls <= 2_048


def test_only_what_a_provider_said_of_a_whole_call_is_learned() -> None:
    estimates, prompt = Estimates(), Prompt(4_000)
    usage = ended(10, 10, 40)
    for other in (
        {"usage_source": UsageSource.NONE},
        {"usage_source": UsageSource.ESTIMATED},
        {"outcome": Outcome.ABORTED},
        {"outcome": Outcome.ERROR},
        {"batch": True},
    ):
        estimates.learn("m", prompt, msgspec.structs.replace(usage, **other))
    assert not estimates._spreads
    estimates.learn("m", Prompt(4_000, media=1), usage)
    estimates.learn("m", Prompt(4_000, unseen=True), usage)
    assert {what for what, _, _ in estimates._spreads} == {"output", "text"}


@settings(deadline=None)
@given(
    st.integers(0, 20_000),
    st.integers(1, 20_000) | st.none(),
    st.integers(1, 3),
    st.integers(1, 8),
    st.booleans(),
    st.integers(1, 40),
)
def test_slices_are_held_before_they_are_used(
    outputs: int, output_max: int | None, choices: int, per_token: int, learned: bool, step: int
) -> None:
    estimates, prompt = Estimates(), Prompt(100, output_max=output_max, choices=choices)
    outputs = min(outputs, (output_max or outputs) * choices)
    for _ in range(40 * learned):
        estimates.learn("m", prompt, ended(10, 1_000, 1_000 * per_token))
    held = estimates.first_slice(prompt)
    for used in range(0, outputs + 1, step):
        assert used <= held
        more = estimates.next_slice("m", prompt, used * per_token, held)
        assert more is None or held < more <= (output_max or more) * choices
        held = more or held
    spent = outputs if learned else outputs * per_token
    assert held <= max(SLICE_TOKENS * choices, spent * 1.1 + 2 * SLICE_TOKENS)


def test_a_stream_of_which_nothing_was_said_goes_on_in_slices_beyond_what_was_thought_the_most() -> None:
    estimates, prompt = Estimates(), Prompt(100)
    held = estimates.output_tokens("m", prompt, Estimate.WORST)
    assert estimates.next_slice("m", prompt, 60_000, held) == 60_000 + SLICE_TOKENS
    assert estimates.bytes_within("m", prompt, 10_000, held) == held - SLICE_TOKENS // 2 - 10_000


def test_no_estimate_is_more_than_a_quantity_may_be() -> None:
    huge = Prompt(QUANTITY_MAX, media=9, output_max=QUANTITY_MAX, choices=QUANTITY_MAX, unseen=True)
    for estimate in Estimate:
        assert Estimates().input_tokens("m", huge, estimate) == QUANTITY_MAX
        assert Estimates().output_tokens("m", huge, estimate) == QUANTITY_MAX
    assert Estimates().next_slice("m", huge, QUANTITY_MAX, 5) == QUANTITY_MAX


def test_a_stream_that_ran_ahead_of_its_slice_is_caught_up_with() -> None:
    assert Estimates().next_slice("m", Prompt(1), 5_000, 512) == 5_000 + SLICE_TOKENS
    assert Estimates().next_slice("m", Prompt(1, output_max=2_000), 5_000, 512) == 2_000
    assert Estimates().next_slice("m", Prompt(1, output_max=2_000), 5_000, 2_000) is None


@pytest.mark.parametrize("name", STREAMS)
def test_a_call_that_broke_off_is_charged_for_what_was_said_and_streamed(name: str) -> None:
    estimates, prompt = Estimates(), Prompt(4_000)
    found = events(STREAMS[name])
    for until in range(1, len(found)):
        usage = read(*(b"data: " + data + b"\n\n" for data in found[:until]))
        charged = estimates.completed("m", prompt, usage)
        if usage.usage_source is UsageSource.PROVIDER:
            assert charged == usage
            continue
        assert charged.usage_source is UsageSource.ESTIMATED
        assert all(charged.tokens.get(token_class, 0) >= count for token_class, count in usage.tokens.items())
        assert sum(charged.tokens.get(one, 0) for one in ("input", "cache_read", "cache_write")) > 0
        assert charged.tokens.get("output", 0) + charged.tokens.get("reasoning", 0) >= usage.output_bytes // 3
        assert charged.outcome is usage.outcome


def test_a_call_that_broke_off_is_charged_at_its_models_own_ratio() -> None:
    estimates, prompt = Estimates(), Prompt(4_000)
    for _ in range(40):
        estimates.learn("m", prompt, ended(2_000, 300, 600))
    broken = read(b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 100 + b'"}}]}\n\n')
    assert estimates.completed("m", prompt, broken).tokens == {"input": 2_000, "output": 50}
    assert estimates.completed("m", None, broken).tokens == {"output": 50}
    assert estimates.completed("new", prompt, broken).tokens == {"input": 1_000, "output": 34}
    said = usage_of(b'{"usage":{"prompt_tokens":3}}')
    assert estimates.completed("m", prompt, said) == said
