"""Usage in every shape that providers document and that no recorded answer shows, and what of it is not understood."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.core.tokens.read import usage_of, usages_of_lines
from agent.core.tokens.usage import COUNT_MAX, Pass
from protocol.events import Outcome, UsageSource
from protocol.units import TOKEN_CLASSES


def used(body: dict[str, Any], path: str = "") -> Any:
    return usage_of(json.dumps(body).encode(), path)


def chat(**usage: Any) -> dict[str, Any]:
    return {"id": "c1", "model": "m", "choices": [{"index": 0, "message": {"content": "x"}}], "usage": usage}


SHAPES: dict[str, tuple[dict[str, Any], dict[str, int], dict[str, int]]] = {
    "OpenAI, audio in and out, some of it cached": (
        chat(
            prompt_tokens=100, completion_tokens=50, total_tokens=150,
            prompt_tokens_details={"cached_tokens": 40, "audio_tokens": 30, "image_tokens": 20},
            completion_tokens_details={"reasoning_tokens": 10, "audio_tokens": 15, "rejected_prediction_tokens": 5},
        ),
        {"cache_read": 40, "input": 10, "input_audio": 30, "input_image": 20, "output": 25, "reasoning": 10,
         "output_audio": 15},
        {},
    ),
    "OpenAI, more of audio than text was left outside the cache": (
        chat(prompt_tokens=100, completion_tokens=1, total_tokens=101,
             prompt_tokens_details={"cached_tokens": 80, "audio_tokens": 60}),
        {"cache_read": 80, "input_audio": 20, "output": 1},
        {},
    ),
    "OpenAI realtime, cached by modality": (
        {"type": "response.done", "event_id": "e", "response": {
            "id": "resp_1", "status": "completed", "usage": {
                "total_tokens": 253, "input_tokens": 132, "output_tokens": 121,
                "input_token_details": {"text_tokens": 119, "audio_tokens": 13, "image_tokens": 0, "cached_tokens": 64,
                                        "cached_tokens_details": {"text_tokens": 59, "audio_tokens": 5}},
                "output_token_details": {"text_tokens": 30, "audio_tokens": 91}}}},
        {"cache_read": 64, "input": 60, "input_audio": 8, "output": 30, "output_audio": 91},
        {},
    ),
    "OpenAI transcription by tokens": (
        {"text": "hi", "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59,
                                 "input_token_details": {"text_tokens": 0, "audio_tokens": 14}}},
        {"input_audio": 14, "output": 45},
        {},
    ),
    "OpenAI transcription by time": (
        {"text": "hi", "usage": {"type": "duration", "seconds": 8.2}},
        {},
        {"audio_seconds": 9},
    ),
    "Whisper, which says its duration alone": (
        {"task": "transcribe", "language": "english", "duration": 8.47, "text": "hi"}, {}, {"audio_seconds": 9},
    ),
    "Mistral transcription": (
        {"model": "voxtral", "text": "hi", "usage": {"prompt_audio_seconds": 203, "prompt_tokens": 4,
                                                     "total_tokens": 3_264, "completion_tokens": 3_260}},
        {"input": 4, "output": 3_260},
        {"audio_seconds": 203},
    ),
    "Mistral, pages read": (
        {"pages": [], "model": "mistral-ocr", "usage_info": {"pages_processed": 3, "doc_size_bytes": 12_345}},
        {},
        {"pages": 3},
    ),
    "OpenAI images": (
        {"created": 1, "data": [{"b64_json": "aaaa"}, {"url": "https://x"}], "usage": {
            "total_tokens": 100, "input_tokens": 50, "output_tokens": 50,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 40}}},
        {"input": 10, "input_image": 40, "output_image": 50},
        {"images": 2},
    ),
    "OpenAI images, as an event": (
        {"type": "image_generation.completed", "b64_json": "aaaa", "usage": {
            "total_tokens": 60, "input_tokens": 10, "output_tokens": 50, "input_tokens_details": {"text_tokens": 10}}},
        {"input": 10, "output_image": 50},
        {"images": 1},
    ),
    "OpenAI embeddings": (
        {"object": "list", "data": [{"object": "embedding", "embedding": [0.1]}], "model": "e",
         "usage": {"prompt_tokens": 8, "total_tokens": 8}},
        {"input": 8},
        {},
    ),
    "a reranker that says a total alone": ({"results": [], "usage": {"total_tokens": 7}}, {"input": 7}, {}),
    "OpenAI responses, cache writes by how long they are kept": (
        {"object": "response", "status": "completed", "usage": {
            "input_tokens": 50, "output_tokens": 5, "total_tokens": 55, "input_tokens_details": {
                "cached_tokens": 10, "cache_write_tokens": 30,
                "cache_write_tokens_details": {"ttl_30m_tokens": 20, "ttl_12h_tokens": 10}}}},
        {"input": 10, "cache_read": 10, "cache_write": 30, "output": 5},
        {"cache_write_12h_tokens": 10},
    ),
    "OpenAI responses, tools of its own": (
        {"object": "response", "status": "completed", "output": [
            {"type": "web_search_call", "action": {"type": "search"}},
            {"type": "web_search_call", "action": {"type": "open_page"}},
            {"type": "function_call"}, {"type": "image_generation_call"}, {"type": "message"}],
         "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}},
        {"input": 1, "output": 1},
        {"web_searches": 1, "tool_calls": 4, "images": 1},
    ),
    "xAI: reasoning beside the completion": (
        chat(prompt_tokens=32, completion_tokens=9, total_tokens=135,
             completion_tokens_details={"reasoning_tokens": 94}, num_sources_used=0),
        {"input": 32, "output": 9, "reasoning": 94},
        {},
    ),
    "reasoning that is more than the completion, and no total": (
        chat(prompt_tokens=5, completion_tokens=2, reasoning_tokens=7), {"input": 5, "output": 2, "reasoning": 7}, {},
    ),
    "Perplexity": (
        chat(prompt_tokens=33, completion_tokens=7_163, total_tokens=7_196, citation_tokens=20_016,
             reasoning_tokens=95_305, num_search_queries=18),
        {"input": 33, "output": 7_163 + 20_016, "reasoning": 95_305},
        {"web_searches": 18},
    ),
    "DeepSeek, hits and misses alone": (
        chat(prompt_cache_hit_tokens=64, prompt_cache_miss_tokens=6, completion_tokens=3, total_tokens=73),
        {"cache_read": 64, "input": 6, "output": 3},
        {},
    ),
    "Groq, in the place of its own": (
        {"choices": [], "x_groq": {"usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}}},
        {"input": 4, "output": 2},
        {},
    ),
    "Moonshot, on the choice": (
        {"choices": [{"index": 0, "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6,
                                            "cached_tokens": 3}}]},
        {"input": 1, "cache_read": 3, "output": 2},
        {},
    ),
    "LiteLLM before Anthropic: cached is part of the prompt": (
        chat(prompt_tokens=100, completion_tokens=1, total_tokens=101, cache_read_input_tokens=90,
             cache_creation_input_tokens=5),
        {"input": 5, "cache_read": 90, "cache_write": 5, "output": 1},
        {},
    ),
    "Anthropic, both kinds of cache writes": (
        {"type": "message", "content": [{"type": "tool_use"}, {"type": "server_tool_use"}], "usage": {
            "input_tokens": 10, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 30, "output_tokens": 5,
            "cache_creation": {"ephemeral_5m_input_tokens": 18, "ephemeral_1h_input_tokens": 12},
            "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1}}},
        {"input": 10, "cache_read": 20, "cache_write": 30, "output": 5},
        {"cache_write_1h_tokens": 12, "web_searches": 2, "web_fetches": 1, "tool_calls": 2},
    ),
    "Gemini, modalities in and out, cached audio, the provider's tools": (
        {"candidates": [{"index": 0, "finishReason": "STOP", "content": {"parts": [
            {"functionCall": {"name": "f"}}, {"functionCall": {"name": "f"}},
            {"inlineData": {"mimeType": "image/png", "data": "aa"}}]},
            "groundingMetadata": {"webSearchQueries": ["a", "b"]}}],
         "usageMetadata": {
            "promptTokenCount": 100, "candidatesTokenCount": 60, "thoughtsTokenCount": 7, "toolUsePromptTokenCount": 11,
            "cachedContentTokenCount": 30, "totalTokenCount": 178,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 40}, {"modality": "AUDIO", "tokenCount": 25},
                                    {"modality": "VIDEO", "tokenCount": 20}, {"modality": "IMAGE", "tokenCount": 15}],
            "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 10}, {"modality": "TEXT", "tokenCount": 20}],
            "toolUsePromptTokensDetails": [{"modality": "IMAGE", "tokenCount": 1},
                                           {"modality": "AUDIO", "tokenCount": 2}],
            "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 50}, {"modality": "AUDIO"}]}},
        {"input": 48, "input_audio": 17, "input_image": 16, "cache_read": 30, "output": 10, "output_image": 50,
         "reasoning": 7},
        {"tool_calls": 2, "images": 1, "web_searches": 2},
    ),
    "Gemini, live": (
        {"usageMetadata": {"promptTokenCount": 5, "responseTokenCount": 4, "totalTokenCount": 9}},
        {"input": 5, "output": 4},
        {},
    ),
    "Vertex embeddings": (
        {"predictions": [{"embeddings": {"statistics": {"token_count": 4, "truncated": False}, "values": [0.5]}},
                         {"embeddings": {"statistics": {"token_count": 3.0, "truncated": False}, "values": [0.5]}}],
         "metadata": {"billableCharacterCount": 21}},
        {"input": 7},
        {"characters": 21},
    ),
    "Vertex images": (
        {"predictions": [{"mimeType": "image/png", "bytesBase64Encoded": "aa"}, {"mimeType": "image/png"}]},
        {},
        {"images": 2},
    ),
    "Bedrock converse, kept for an hour": (
        {"output": {"message": {"content": [{"toolUse": {}}, {"text": "x"}]}}, "usage": {
            "inputTokens": 3, "outputTokens": 4, "totalTokens": 17, "cacheReadInputTokens": 2,
            "cacheWriteInputTokens": 8, "cacheDetails": [{"ttl": "1h", "inputTokens": 5}]}},
        {"input": 3, "cache_read": 2, "cache_write": 8, "output": 4},
        {"cache_write_1h_tokens": 5, "tool_calls": 1},
    ),
    "Bedrock invoke, Titan": (
        {"inputTextTokenCount": 5, "results": [{"tokenCount": 6, "outputText": "x"}, {"tokenCount": 1}]},
        {"input": 5, "output": 7},
        {},
    ),
    "Bedrock invoke, Llama": (
        {"generation": "x", "prompt_token_count": 5, "generation_token_count": 6}, {"input": 5, "output": 6}, {},
    ),
    "Cohere": (
        {"id": "c", "usage": {"billed_units": {"input_tokens": 5, "output_tokens": 418},
                              "tokens": {"input_tokens": 71, "output_tokens": 418}}},
        {"input": 5, "output": 418},
        {},
    ),
    "Cohere, reranking": ({"meta": {"billed_units": {"search_units": 2}}}, {}, {"search_units": 2}),
    "Ollama": ({"done": True, "prompt_eval_count": 26, "eval_count": 298}, {"input": 26, "output": 298}, {}),
    "Cloudflare": (
        {"success": True, "result": {"response": "x", "usage": {"prompt_tokens": 1, "completion_tokens": 2,
                                                                "total_tokens": 3}}},
        {"input": 1, "output": 2},
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_documented_shape_is_understood_whole(shape: str) -> None:
    body, tokens, meters = SHAPES[shape]
    usage = used(body)
    assert (usage.tokens, usage.meters) == (tokens, meters)
    assert usage.troubles == ()
    assert set(usage.tokens) <= TOKEN_CLASSES
    assert usage.outcome is Outcome.COMPLETE
    assert usage.usage_source is (UsageSource.NONE if shape == "Vertex images" else UsageSource.PROVIDER)


def test_what_nobody_knows_and_holds_no_number_is_no_trouble() -> None:
    assert used(chat(prompt_tokens=1, more={"a": [{"b": "x", "c": 0}], "d": True}, tier="fast")).troubles == ()
    assert used(chat(prompt_tokens=1, more=[[[[[["deep"]]]]]])).troubles == ("usage.more is not understood",)


def test_so_many_calls_of_tools_are_told_apart_and_the_rest_is_reported() -> None:
    calls = [{"index": at} for at in range(5_000)]
    usage = used({"choices": [{"message": {"tool_calls": calls}}], "usage": {"prompt_tokens": 1}})
    assert usage.meters == {"tool_calls": 4_096}
    assert usage.troubles == ("tool_calls are more than 4096: the rest is not counted",)


def test_what_a_provider_wrote_is_shown_without_harm() -> None:
    usage = used(chat(prompt_tokens=1, **{"a\nb\ud83d": 2}))
    assert usage.troubles == (r"'usage.a\nb\ud83d is not understood'",)


def test_of_iterations_whose_whole_names_no_model_the_turns_are_the_answers() -> None:
    turn = ITERATION | {"type": "message", "model": "m"}
    usage = used({"usage": {"input_tokens": 10, "output_tokens": 2, "iterations": [turn]}})
    assert (usage.tokens, usage.others, usage.troubles) == ({"input": 10, "output": 2}, (), ())


def test_headers_count_where_a_body_says_nothing() -> None:
    headers = {"x-amzn-bedrock-input-token-count": "12", "x-amzn-bedrock-output-token-count": "3"}
    usage = usage_of(b'{"embeddings":[]}', "/model/cohere.embed-english-v3/invoke", headers)
    assert (usage.tokens, usage.model) == ({"input": 12, "output": 3}, "cohere.embed-english-v3")
    assert usage.usage_source is UsageSource.PROVIDER
    assert usage_of(json.dumps(chat(prompt_tokens=1)).encode(), "", headers).tokens == {"input": 1}


BATCHED = chat(prompt_tokens=3, completion_tokens=4, total_tokens=7)
LINES: dict[str, tuple[dict[str, Any], dict[str, int], Outcome]] = {
    "OpenAI": (
        {"id": "batch_req_1", "custom_id": "a", "response": {"status_code": 200, "body": BATCHED}, "error": None},
        {"input": 3, "output": 4}, Outcome.COMPLETE,
    ),
    "OpenAI, failed": (
        {"id": "batch_req_2", "custom_id": "b", "response": {"status_code": 400, "body": {"error": {}}}, "error": None},
        {}, Outcome.ERROR,
    ),
    "Anthropic": (
        {"custom_id": "a", "result": {"type": "succeeded", "message": {
            "id": "c1", "model": "m", "usage": {"input_tokens": 3, "output_tokens": 4, "service_tier": "batch"}}}},
        {"input": 3, "output": 4}, Outcome.COMPLETE,
    ),
    "Anthropic, expired": ({"custom_id": "a", "result": {"type": "expired"}}, {}, Outcome.ERROR),
    "Anthropic, cancelled": ({"custom_id": "a", "result": {"type": "canceled"}}, {}, Outcome.ABORTED),
    "Bedrock": (
        {"recordId": "r", "modelInput": {"usage": {"prompt_tokens": 9}}, "modelOutput": BATCHED},
        {"input": 3, "output": 4}, Outcome.COMPLETE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("whose", LINES)
def test_a_line_of_a_batch_is_an_answer_of_its_own(whose: str) -> None:
    line, tokens, outcome = LINES[whose]
    (usage, again) = usages_of_lines(json.dumps(line).encode() + b"\n\r\n" + json.dumps(line).encode())
    assert usage == again
    assert (usage.tokens, usage.outcome, usage.batch) == (tokens, outcome, True)
    if tokens:
        assert (usage.model, usage.response) == ("m", "c1")


def test_a_batch_says_what_all_of_it_used() -> None:
    body = {"id": "batch_1", "object": "batch", "model": "m", "status": "completed",
            "request_counts": {"total": 3, "completed": 2, "failed": 1},
            "usage": {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 2}, "output_tokens": 4,
                      "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 13}}  # fmt: skip
    usage = used(body)
    assert usage.tokens == {"input": 7, "cache_read": 2, "output": 3, "reasoning": 1}
    assert (usage.meters, usage.batch, usage.outcome) == ({"requests": 2}, True, Outcome.COMPLETE)
    assert used(body | {"status": "in_progress", "usage": None}).outcome is Outcome.ABORTED


ITERATION = {"input_tokens": 10, "output_tokens": 2, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}


def anthropic(*iterations: dict[str, Any], **usage: int) -> Any:
    return used({"type": "message", "model": "m", "usage": {**usage, "iterations": list(iterations)}})


def test_a_model_that_declined_is_kept_apart_whether_or_not_the_total_holds_it() -> None:
    declined = ITERATION | {"type": "message", "model": "first", "input_tokens": 7, "output_tokens": 1}
    served = ITERATION | {"type": "fallback_message", "model": "m"}
    expected = (Pass("message", "first", {"input": 7, "output": 1}),)
    for usage in (
        anthropic(declined, served, input_tokens=17, output_tokens=3),
        anthropic(declined, served, input_tokens=10, output_tokens=2),
    ):
        assert usage.tokens == {"input": 10, "output": 2}
        assert usage.others == expected
        assert usage.troubles == ()


def test_iterations_that_do_not_add_up_are_reported_and_the_whole_counts() -> None:
    usage = anthropic(ITERATION | {"type": "message"}, input_tokens=11, output_tokens=2)
    assert usage.tokens == {"input": 11, "output": 2}
    assert usage.troubles == ("usage.iterations do not come to the usage of the whole: the whole counts",)


def test_images_that_a_tool_made_are_another_models() -> None:
    usage = used({"object": "response", "model": "m", "usage": {"input_tokens": 1, "output_tokens": 1},
                  "tool_usage": {"image_gen": {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8,
                                               "output_tokens_details": {"image_tokens": 5}},
                                 "web_search": {"num_requests": 2}}})  # fmt: skip
    assert usage.tokens == {"input": 1, "output": 1}
    assert usage.others == (Pass("image_gen", None, {"input": 3, "output_image": 5}),)
    assert usage.meters == {"web_searches": 2}


STRANGE: dict[str, tuple[dict[str, Any], dict[str, int], str]] = {
    "a negative count": (chat(prompt_tokens=-1, completion_tokens=2), {"output": 2}, "usage.prompt_tokens is -1"),
    "half a token": (chat(prompt_tokens=1.5, completion_tokens=2), {"output": 2}, "usage.prompt_tokens is 1.5"),
    "a text": (chat(prompt_tokens="7", completion_tokens=2), {"output": 2}, "usage.prompt_tokens is 7"),
    "yes": (chat(prompt_tokens=True, completion_tokens=2), {"output": 2}, "usage.prompt_tokens is True"),
    "an absurd count": (chat(prompt_tokens=COUNT_MAX + 1, completion_tokens=2), {"output": 2}, "not counted"),
    "a count that is refused, and a total that tells it": (
        chat(prompt_tokens=-1, completion_tokens=2, total_tokens=9), {"input": 7, "output": 2}, "usage.prompt_tokens",
    ),
    "a field that nobody knows": (
        chat(prompt_tokens=1, completion_tokens=2, telepathy_tokens=3), {"input": 1, "output": 2},
        "usage.telepathy_tokens is not understood",
    ),
    "an object that nobody knows": (
        chat(prompt_tokens=1, completion_tokens=2, more={"a": [{"b": 3}]}), {"input": 1, "output": 2},
        "usage.more is not understood",
    ),
    "a detail that nobody knows": (
        chat(prompt_tokens=1, completion_tokens=2, prompt_tokens_details={"smell_tokens": 1}),
        {"input": 1, "output": 2}, "usage.prompt_tokens_details.smell_tokens is not understood",
    ),
    "details that are no object": (
        chat(prompt_tokens=1, completion_tokens=2, prompt_tokens_details=[3]), {"input": 1, "output": 2},
        "usage.prompt_tokens_details is not understood: no object",
    ),
    "a family that nobody knows": (
        {"usage": {"tokens_of_input": 4, "generated_token_count": 2, "tokens": 1, "weight": 3}},
        {"input": 4, "output": 2}, "usage.generated_token_count is guessed to be output tokens",
    ),
    "a usage that is no object": ({"usage": [1]}, {}, "usage is not understood: no object"),
    "a modality that nobody knows": (
        {"usageMetadata": {"promptTokenCount": 3, "promptTokensDetails": [{"modality": "SCENT", "tokenCount": 3}]}},
        {"input": 3}, "usage.promptTokensDetails has 3 tokens of the unknown modality SCENT",
    ),
    "more cached than there was": (
        chat(prompt_tokens=5, completion_tokens=1, prompt_tokens_details={"cached_tokens": 20}),
        {"input": 5, "cache_read": 20, "output": 1}, "usage has 20 cached of 5 input tokens: counted beside them",
    ),
    "a total of less than its parts": (
        chat(prompt_tokens=5, completion_tokens=1, total_tokens=1), {"input": 5, "output": 1},
        "usage has a total of 1, less than its parts: the parts count",
    ),
    "parts of more than the whole": (
        chat(prompt_tokens=5, completion_tokens=1, completion_tokens_details={"audio_tokens": 4}),
        {"input": 5, "output_audio": 1}, "usage has parts of 4 in 1 output tokens: the parts were cut",
    ),
    "the same said twice, differently": (
        chat(prompt_tokens=5, completion_tokens=1, num_cached_tokens=2, prompt_tokens_details={"cached_tokens": 3}),
        {"input": 2, "cache_read": 3, "output": 1}, "the larger counts",
    ),
    "a model with a name that no wire carries": (
        {"model": "@cf/llama", "usage": {"prompt_tokens": 1}}, {"input": 1}, "model is '@cf/llama': not taken",
    ),
    "another type than expected beside the usage": (
        {"choices": 7, "usage": {"prompt_tokens": 1}}, {"input": 1}, "choices is not understood",
    ),
}  # fmt: skip


@pytest.mark.parametrize("strange", STRANGE)
def test_what_is_not_understood_is_reported_and_the_rest_counts(strange: str) -> None:
    body, tokens, trouble = STRANGE[strange]
    usage = used(body)
    assert usage.tokens == tokens
    assert any(trouble in one for one in usage.troubles), usage.troubles


def test_troubles_are_bounded_and_the_rest_of_them_counted() -> None:
    usage = used(chat(**{f"strange_{at}" + "x" * 500: 1 for at in range(40)}))
    assert len(usage.troubles) == 16
    assert usage.troubles_more == 24
    assert max(len(one) for one in usage.troubles) < 200


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1beta/models/gemini-2.5-flash:generateContent?key=x", "gemini-2.5-flash"),
        ("/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:streamGenerateContent", "gemini-2.5-pro"),
        ("/model/anthropic.claude-3-5-sonnet-20241022-v2%3A0/invoke", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
        ("/model/anthropic.claude-v2:1/converse", "anthropic.claude-v2:1"),
        ("/openai/deployments/my-gpt/chat/completions?api-version=1", "my-gpt"),
        ("/v1/chat/completions", None),
        ("/v1/models", None),
    ],
)
def test_the_path_names_the_model_where_the_answer_does_not(path: str, model: str | None) -> None:
    assert used({"usage": {"prompt_tokens": 1}}, path).model == model
    assert used({"model": "said", "usage": {"prompt_tokens": 1}}, path).model == "said"
