"""Every recorded answer beside a maintained library that reads usage too: counts and prices; differences are listed."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price
from genai_prices.data import providers

from agent.core.tokens.read import usage_of
from agent.core.tokens.usage import Usage
from protocol.events import Outcome, UsageSource
from protocol.units import INPUT_CLASSES, OUTPUT_CLASSES
from tests.agent.core.recorded import ANSWERS, final_body

PROVIDERS = {provider.id: provider for provider in providers}
WHOSE = {
    "anthropic-messages": ("anthropic", "default"),
    "azure-responses": ("azure", "responses"),
    "bedrock-converse": ("aws", "default"),
    "bedrock-mantle-chat": ("openai", "chat"),
    "bedrock-mantle-responses": ("openai", "responses"),
    "cerebras-chat": ("cerebras", "chat"),
    "deepseek-chat": ("deepseek", "chat"),
    "deepseek-responses": ("openai", "responses"),
    "gemini-chat": ("google", "chat"),
    "gemini-embeddings": ("google", "default"),
    "gemini-generate": ("google", "default"),
    "groq-chat": ("groq", "default"),
    "huggingface-chat": ("huggingface_novita", "chat"),
    "mistral-chat": ("mistral", "default"),
    "openai-chat": ("openai", "chat"),
    "openai-responses": ("openai", "responses"),
    "openrouter-chat": ("openrouter", "chat"),
    "openrouter-responses": ("openrouter", "default"),
    "vertex-embeddings": ("google", "default"),
    "vertex-generate": ("google", "default"),
}
"""Which of their extractors reads which of the recorded answers."""

SEARCH = "the search is counted here; their extractor of this interface has no searches"
COMPACTION = "the compaction is billed and in no total; they leave iterations out"
ADVISOR = "the advisor is billed at another model's price and in no total; they leave iterations out"

DIFFERENT = {
    "anthropic-messages-1.json": (
        {"input_tokens": (55_425, 229), "cache_write_tokens": (55_096, 0), "output_tokens": (136, 5)},
        COMPACTION,
    ),
    "anthropic-messages-stream-1.sse": (
        {"input_tokens": (55_377, 181), "cache_read_tokens": (55_096, 0), "output_tokens": (91, 8)},
        COMPACTION,
    ),
    "gemini-chat-1.json": (
        {"output_tokens": (34, 6), "output_reasoning_tokens": (28, 0)},
        "the total says 28 tokens more than prompt and completion: thoughts, which this interface leaves out of both",
    ),
    "mistral-chat-2.json": (
        {"cache_read_tokens": (99, 0)},
        "num_cached_tokens is Mistral's name for it; they know prompt_tokens_details.cached_tokens alone",
    ),
    "openai-responses-stream-2.sse": ({"web_searches": (1, 0)}, SEARCH),
    "openrouter-chat-1.json": ({"web_searches": (1, 0)}, SEARCH),
    "openrouter-chat-stream-1.sse": ({"web_searches": (1, 0)}, SEARCH),
    "openrouter-chat-stream-3.sse": ({"web_searches": (1, 0)}, SEARCH),
}
"""Where the counts differ: ours, theirs, and why ours is meant."""

DIFFERENT_PRICES = {
    "anthropic-messages-1.json": COMPACTION,
    "anthropic-messages-4.json": ADVISOR,
    "anthropic-messages-stream-1.sse": COMPACTION,
    "anthropic-messages-stream-2.sse": ADVISOR,
    "gemini-chat-1.json": "as above: thoughts are billed",
    "openai-responses-stream-2.sse": SEARCH,
}
"""Where the prices differ, and why. Other differences have no price: they know none for what we count there."""


def whose(name: str) -> tuple[str, str]:
    return WHOSE[name.split(".", maxsplit=1)[0].rpartition("-")[0].removesuffix("-stream")]


def theirs(name: str) -> TheirUsage:
    provider, flavor = whose(name)
    return PROVIDERS[provider].extract_usage(final_body(name), api_flavor=flavor)[1]


def as_theirs(tokens: dict[str, int], searches: int = 0) -> dict[str, int]:
    return {
        "input_tokens": sum(tokens.get(name, 0) for name in INPUT_CLASSES),
        "cache_read_tokens": tokens.get("cache_read", 0),
        "cache_write_tokens": tokens.get("cache_write", 0),
        "input_audio_tokens": tokens.get("input_audio", 0),
        "output_tokens": sum(tokens.get(name, 0) for name in OUTPUT_CLASSES),
        "output_reasoning_tokens": tokens.get("reasoning", 0),
        "output_audio_tokens": tokens.get("output_audio", 0),
        "web_searches": searches,
    }


@pytest.mark.parametrize("name", ANSWERS)
def test_counts_are_those_of_a_maintained_library_or_the_difference_is_known(name: str) -> None:
    usage, other = usage_of(ANSWERS[name]), theirs(name)
    found = {}
    for field, ours in as_theirs(usage.tokens, usage.meters.get("web_searches", 0)).items():
        if ours != other.reported_value(field):
            found[field] = (ours, other.reported_value(field))
    assert found == DIFFERENT.get(name, ({}, ""))[0]


def price(tokens: dict[str, int], model: str, provider: str, searches: int = 0) -> Decimal:
    counts = {field: count for field, count in as_theirs(tokens, searches).items() if count}
    return priced(TheirUsage(**counts), model, provider)


def priced(usage: TheirUsage, model: str, provider: str) -> Decimal:
    when = datetime(2026, 8, 1, tzinfo=UTC)
    return calc_price(usage, model, provider_id=provider, genai_request_timestamp=when).total_price


@pytest.mark.parametrize("name", ANSWERS)
def test_prices_are_those_of_a_maintained_library_or_the_difference_is_known(name: str) -> None:
    usage, other, provider = usage_of(ANSWERS[name]), theirs(name), whose(name)[0]
    if usage.model is None:
        return  # embeddings and Bedrock's answers name no model
    try:
        expected = priced(other, usage.model, provider)
    except LookupError:
        return  # they know no such model at this provider
    ours = price(usage.tokens, usage.model, provider, usage.meters.get("web_searches", 0))
    ours += sum((price(one.tokens, one.model or usage.model, provider) for one in usage.others), Decimal())
    assert (ours != expected) == (name in DIFFERENT_PRICES), (ours, expected)


def test_most_prices_can_be_compared() -> None:
    comparable = 0
    for name, answer in ANSWERS.items():
        try:
            priced(theirs(name), usage_of(answer).model or "", whose(name)[0])
        except LookupError:
            continue
        comparable += 1
    assert comparable >= 30


@pytest.mark.parametrize("name", ANSWERS)
def test_a_recorded_answer_is_understood_whole(name: str) -> None:
    usage = usage_of(ANSWERS[name])
    assert usage.usage_source is UsageSource.PROVIDER
    assert usage.outcome is Outcome.COMPLETE
    expected = ("usage has 28 tokens in its total alone: counted as reasoning",) if name == "gemini-chat-1.json" else ()
    assert usage.troubles == expected


@pytest.mark.parametrize("name", ANSWERS)
def test_classes_are_disjoint_and_sum_to_the_providers_total(name: str) -> None:
    body = final_body(name)
    said = body.get("usage") or body["usageMetadata"]
    total = said.get("total_tokens") or said.get("totalTokenCount") or said.get("totalTokens")
    usage = usage_of(ANSWERS[name])
    if total is None:
        iterations = said.get("iterations") or [said]
        names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
        total = sum(one.get(field, 0) for one in iterations for field in (*names, "promptTokenCount"))
    assert sum(usage.tokens.values()) + sum(sum(one.tokens.values()) for one in usage.others) == total


@pytest.mark.parametrize("name", ANSWERS)
def test_the_answer_is_told_apart(name: str) -> None:
    body, usage = final_body(name), usage_of(ANSWERS[name])
    assert usage.model == (body.get("model") or body.get("modelVersion"))
    assert usage.response == (body.get("id") or body.get("responseId"))
    assert not usage.batch


def test_the_table_holds_nothing_that_is_not_recorded() -> None:
    assert set(DIFFERENT) | set(DIFFERENT_PRICES) <= set(ANSWERS)
    assert len(ANSWERS) == 52


def test_a_pass_of_another_model_is_kept_apart() -> None:
    usage: Usage = usage_of(ANSWERS["anthropic-messages-4.json"])
    (advisor,) = usage.others
    assert (advisor.kind, advisor.model, advisor.tokens) == (
        "advisor_message", "claude-opus-4-8", {"input": 2_518, "output": 22},
    )  # fmt: skip
    assert usage.tokens == {"input": 2_390, "output": 93, "reasoning": 28}
