"""Streams that end early: what was said is kept, what was not is left to an estimate, and the two are told apart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.core.tokens.read import UsageReader, usage_of
from protocol.events import Outcome, UsageSource
from tests.agent.core.recorded import STREAMS, events, read


def sse(*documents: dict[str, Any] | str) -> bytes:
    texts = [one if isinstance(one, str) else json.dumps(one) for one in documents]
    return b"".join(b"data: " + text.encode() + b"\n\n" for text in texts)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_ends_early_is_never_more_than_the_whole(name: str) -> None:
    whole = usage_of(STREAMS[name])
    reader = UsageReader()
    bytes_before = 0
    for data in events(STREAMS[name]):
        so_far = reader.so_far()
        if so_far.usage_source is UsageSource.NONE:
            assert sum(so_far.tokens.values()) <= sum(whole.tokens.values())
        else:
            assert so_far.tokens == whole.tokens or name.startswith(("gemini", "vertex"))
        reader.feed(b"data: " + data + b"\n\n")
        assert bytes_before <= reader.output_bytes <= whole.output_bytes
        bytes_before = reader.output_bytes
    assert reader.end() == whole
    assert reader.complete or name.startswith(("gemini", "vertex"))  # whose streams have no last word


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_cut_in_its_middle_is_aborted_and_has_no_final_usage(name: str) -> None:
    found = events(STREAMS[name])
    if len(found) < 3:
        return
    usage = read(*(b"data: " + data + b"\n\n" for data in found[: len(found) // 2]))
    assert (usage.usage_source, usage.outcome) == (UsageSource.NONE, Outcome.ABORTED)


def test_an_aborted_message_of_anthropic_keeps_its_input_and_the_bytes_of_its_output() -> None:
    lines = events(STREAMS["anthropic-messages-stream-4.sse"])
    until = next(at for at, line in enumerate(lines) if b'"message_delta"' in line)
    usage = read(*(b"data: " + line + b"\n\n" for line in lines[:until]))
    assert usage.usage_source is UsageSource.NONE
    assert usage.tokens["input"] == 2_694  # what the message began with; the search added the rest
    assert usage.output_bytes > 400


CHUNK = {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": {"content": "Grüße"}, "finish_reason": None}]}
LAST = {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None}
SAID = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
USAGE = {"id": "c1", "model": "m", "choices": [], "usage": SAID}


def test_a_stream_that_finishes_without_usage_is_complete_and_says_none() -> None:
    for ending in ([LAST], [LAST, "[DONE]"], [LAST | {"usage": {}}]):
        usage = read(sse(CHUNK, *ending))
        assert (usage.usage_source, usage.outcome) == (UsageSource.NONE, Outcome.COMPLETE)
        assert (usage.tokens, usage.output_bytes) == ({}, len("Grüße".encode()))


def test_usage_may_stand_on_a_chunk_of_its_own_or_with_a_choice_or_on_every_one() -> None:
    first, second = ({"prompt_tokens": 9, "completion_tokens": n, "total_tokens": 9 + n} for n in (1, 2))
    for stream in (
        (CHUNK, LAST, USAGE, "[DONE]"),
        (CHUNK, LAST, USAGE),
        (CHUNK, LAST | {"usage": SAID}, "[DONE]"),
        (CHUNK | {"usage": first}, CHUNK | {"usage": second}, LAST | {"usage": SAID}, "[DONE]"),
        (CHUNK | {"usage": first}, LAST, USAGE | {"choices": None}, "[DONE]"),
        (CHUNK, LAST | {"x_groq": {"usage": SAID}}),
        (CHUNK, {**LAST, "choices": [{**LAST["choices"][0], "usage": SAID}]}),
    ):
        usage = read(sse(*stream))
        assert usage.tokens == {"input": 9, "output": 4}
        assert (usage.usage_source, usage.outcome) == (UsageSource.PROVIDER, Outcome.COMPLETE)
        assert usage.troubles == ()


def test_what_was_cached_and_reasoned_counts_wherever_the_usage_stands() -> None:
    said = SAID | {"prompt_tokens_details": {"cached_tokens": 6}, "completion_tokens_details": {"reasoning_tokens": 3}}
    for stream in (
        (CHUNK, LAST, USAGE | {"usage": said}, "[DONE]"),
        (CHUNK, LAST | {"usage": said}, "[DONE]"),
        (CHUNK | {"usage": said}, LAST | {"usage": said}, USAGE | {"usage": said}, "[DONE]"),
        (CHUNK, LAST | {"usage": said}, USAGE | {"usage": None}, "[DONE]"),
    ):
        assert read(sse(*stream)).tokens == {"input": 3, "cache_read": 6, "output": 1, "reasoning": 3}


def test_continuous_usage_of_an_aborted_stream_is_a_lower_bound() -> None:
    usage = read(sse(CHUNK | {"usage": SAID}))
    assert (usage.tokens, usage.usage_source) == ({"input": 9, "output": 4}, UsageSource.NONE)
    assert usage.outcome is Outcome.ABORTED


def test_of_several_choices_all_must_finish() -> None:
    second = {"choices": [{"index": 1, "delta": {"content": "x"}, "finish_reason": None}]}
    assert read(sse(CHUNK, second, LAST)).outcome is Outcome.ABORTED
    assert read(sse(CHUNK, LAST, second)).outcome is Outcome.ABORTED
    assert read(sse(CHUNK, LAST, second)).output_bytes == len("Grüßex".encode())
    assert read(sse(CHUNK, second, LAST, {"choices": [{"index": 1, "finish_reason": "length"}]})).outcome is (
        Outcome.COMPLETE
    )


def test_messages_of_anthropic_overwrite_field_by_field() -> None:
    began = {"input_tokens": 25, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 7, "output_tokens": 1}
    start = {"type": "message_start", "message": {"id": "m1", "model": "claude", "usage": began}}
    stop = {"type": "message_stop"}
    for delta, tokens in (
        ({"output_tokens": 15}, {"input": 25, "cache_read": 100, "cache_write": 7, "output": 15}),
        (
            {"output_tokens": 15, "input_tokens": None, "cache_read_input_tokens": None},
            {"input": 25, "cache_read": 100, "cache_write": 7, "output": 15},
        ),
        (
            {"output_tokens": 15, "input_tokens": 30, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 7},
            {"input": 30, "cache_read": 100, "cache_write": 7, "output": 15},
        ),
    ):
        usage = read(sse(start, {"type": "message_delta", "usage": delta}, stop))
        assert usage.tokens == tokens
        assert (usage.usage_source, usage.troubles) == (UsageSource.PROVIDER, ())


def test_a_count_that_falls_back_to_nothing_is_not_believed() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 25, "output_tokens": 1}}}
    usage = read(sse(start, {"type": "message_delta", "usage": {"input_tokens": 0, "output_tokens": 15}}))
    assert usage.tokens == {"input": 25, "output": 15}
    assert usage.troubles == ("usage.input_tokens fell from 25 to 0: 25 counts",)


@pytest.mark.parametrize(
    "error",
    [
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        {"error": {"code": 503, "message": "unavailable", "status": "UNAVAILABLE"}},
        {"id": "c1", "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]},
        {"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error"}}},
    ],
)
def test_an_error_in_the_middle_of_a_stream_is_an_error(error: dict[str, Any]) -> None:
    usage = read(sse(CHUNK, error))
    assert (usage.usage_source, usage.outcome) == (UsageSource.NONE, Outcome.ERROR)
    assert usage.output_bytes == len("Grüße".encode())


def test_an_event_named_error_is_an_error_whatever_it_says() -> None:
    assert read(sse(CHUNK), b"event: error\ndata: boom\n\n").outcome is Outcome.ERROR


def test_a_failed_response_is_charged_for_what_it_used() -> None:
    failed = {"type": "response.failed", "response": {"status": "failed", "usage": {
        "input_tokens": 5, "output_tokens": 2, "total_tokens": 7}}}  # fmt: skip
    usage = read(sse(failed))
    assert (usage.tokens, usage.usage_source) == ({"input": 5, "output": 2}, UsageSource.PROVIDER)
    assert usage.outcome is Outcome.ERROR


def test_a_response_that_was_cancelled_is_aborted() -> None:
    cancelled = {"type": "response.done", "response": {"status": "cancelled", "usage": {"input_tokens": 5}}}
    assert usage_of(json.dumps(cancelled).encode()).outcome is Outcome.ABORTED


def test_a_prompt_that_gemini_blocked_is_complete() -> None:
    usage = read(sse({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 9}}))
    assert (usage.tokens, usage.usage_source) == ({"input": 9}, UsageSource.PROVIDER)
    assert usage.outcome is Outcome.COMPLETE


def test_sound_is_not_text() -> None:
    sound = {"type": "response.output_audio.delta", "delta": "A" * 1_000}
    words = {"type": "response.output_audio_transcript.delta", "delta": "hello"}
    assert read(sse(sound, words)).output_bytes == 5


def test_reasoning_and_arguments_are_output_too() -> None:
    deltas = (
        {"reasoning_content": "1234"}, {"reasoning": "12"}, {"refusal": "123"},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "12345"}]}]},
        {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": '{"a":1}'}}]},
    )  # fmt: skip
    usage = read(sse(*({"choices": [{"index": 0, "delta": delta}]} for delta in deltas)))
    assert usage.output_bytes == 4 + 2 + 3 + 5 + len("f") + len('{"a":1}')
    assert usage.meters == {"tool_calls": 1}


def test_a_whole_answer_without_usage_says_how_much_it_holds() -> None:
    usage = usage_of(json.dumps({"choices": [{"message": {"role": "assistant", "content": "Grüße"}}]}).encode())
    assert (usage.usage_source, usage.outcome) == (UsageSource.NONE, Outcome.COMPLETE)
    assert usage.output_bytes == len("Grüße".encode())


def test_a_body_that_is_cut_off_is_aborted() -> None:
    body = json.dumps({"choices": [], "usage": SAID}).encode()
    for at in range(len(body)):
        assert read(body[:at]).outcome is Outcome.ABORTED
    assert read(body).outcome is Outcome.COMPLETE
    assert usage_of(body[:-1]).troubles == ("document is not understood: no JSON",)
    assert read(body[:-3]).troubles == ()  # it broke off, which its outcome says


def test_a_page_of_an_unhappy_proxy_is_reported() -> None:
    usage = usage_of(b"<html>\n<body>502 Bad Gateway</body></html>")
    assert usage.troubles == ("stream is not understood: neither JSON nor events",)
    assert usage.usage_source is UsageSource.NONE


def test_halves_of_characters_do_not_hide_the_usage() -> None:
    half = rb'data: {"choices":[{"delta":{"content":"\ud83d"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3}}'
    assert read(half + b"\n\n").tokens == {"input": 3}
    assert usage_of(b'{"id":"\xff\xfe","usage":{"prompt_tokens":3}}').tokens == {"input": 3}
