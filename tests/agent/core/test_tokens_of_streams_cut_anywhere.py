"""Streams cut at every byte offset, in every framing, come to what they come to uncut."""

from __future__ import annotations

import base64
import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.tokens.framing import ArrayFrames, BodyFrames, EventFrames
from agent.core.tokens.read import UsageReader, usage_of
from protocol.events import Outcome, UsageSource
from tests.agent.core.recorded import ANSWERS, STREAMS, WHOLE, documents, events, read

SHORT = {name: data for name, data in ANSWERS.items() if len(data) <= 3_000}


@pytest.mark.parametrize("name", ANSWERS)
def test_single_bytes_come_to_the_same(name: str) -> None:
    data = ANSWERS[name]
    reader = UsageReader()
    for at in range(len(data)):
        reader.feed(data[at : at + 1])
    assert reader.end() == usage_of(data)


@pytest.mark.parametrize("name", SHORT)
def test_a_cut_at_any_offset_changes_nothing(name: str) -> None:
    data = SHORT[name]
    expected = usage_of(data)
    for at in range(len(data) + 1):
        assert read(data[:at], data[at:]) == expected, at


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(ANSWERS)), st.lists(st.integers(0, 60_000), max_size=12))
def test_any_cuts_change_nothing(name: str, cuts: list[int]) -> None:
    data = ANSWERS[name]
    ends = sorted({min(cut, len(data)) for cut in cuts})
    chunks = [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]
    assert read(*chunks) == usage_of(data)


def reframed(stream: bytes, how: str) -> bytes:
    lines = [b"data: " + data for data in events(stream)]
    match how:
        case "CRLF":
            return b"".join(line + b"\r\n\r\n" for line in lines)
        case "CR":
            return b"".join(line + b"\r\r" for line in lines)
        case "LF":
            return b"".join(line + b"\n\n" for line in lines)
        case "no space":
            return b"".join(b"data:" + data + b"\n\n" for data in events(stream))
        case "comments, names, ids and a byte order mark":
            return b"\xef\xbb\xbf" + b"".join(
                b": wait\n\nevent: x\nid: 7\nretry: 9\n" + line + b"\n\n" for line in lines
            )
        case "no empty line at the end":
            return b"\n\n".join(lines)
        case "data of several lines":
            spread = [json.dumps(document, indent=1).replace("\n", "\ndata: ") for document in documents(stream)]
            done = b"data: [DONE]\n\n" if events(stream)[-1] == b"[DONE]" else b""
            return b"".join(b"data: " + one.encode() + b"\n\n" for one in spread) + done
    raise AssertionError(how)


FRAMINGS = (
    "CRLF", "CR", "LF", "no space", "comments, names, ids and a byte order mark", "no empty line at the end",
    "data of several lines",
)  # fmt: skip


@pytest.mark.parametrize("how", FRAMINGS)
@pytest.mark.parametrize("name", STREAMS)
def test_any_server_sent_framing_comes_to_the_same(name: str, how: str) -> None:
    data = reframed(STREAMS[name], how)
    expected = usage_of(STREAMS[name])
    assert usage_of(data) == expected
    assert read(*(data[at : at + 11] for at in range(0, len(data), 11))) == expected


@pytest.mark.parametrize("ends", [b"\r\n\n", b"\n\r\n", b"\r\r\n", b"\n\r", b"\r\n\r"])
def test_line_ends_of_all_kinds_may_be_mixed_and_cut_apart(ends: bytes) -> None:
    stream = STREAMS["openai-chat-stream-1.sse"]
    data = b"".join(b"data: " + one + ends for one in events(stream))
    assert read(*(data[at : at + 1] for at in range(len(data)))) == usage_of(data) == usage_of(stream)


@pytest.mark.parametrize("name", [name for name in STREAMS if name.startswith(("gemini", "vertex"))])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_of_gemini_comes_to_the_same(name: str, indent: int | None) -> None:
    data = json.dumps(documents(STREAMS[name]), indent=indent, ensure_ascii=False).encode()
    expected = usage_of(STREAMS[name])
    assert usage_of(data) == expected
    for at in range(len(data)):
        assert read(data[:at], data[at:]) == expected, at


@pytest.mark.parametrize("name", [name for name in STREAMS if "chat" in name])
def test_a_line_for_each_document_comes_to_the_same(name: str) -> None:
    data = b"".join(json.dumps(document).encode() + b"\n" for document in documents(STREAMS[name]))
    assert usage_of(b"\n" + data) == usage_of(STREAMS[name])
    assert read(*(data[at : at + 7] for at in range(0, len(data), 7))) == usage_of(STREAMS[name])


def message(payload: bytes, **headers: str) -> bytes:
    """A message of Amazon's framing."""
    encoded = b""
    for name, value in headers.items():
        key = ":" + name.replace("_", "-")
        encoded += bytes([len(key)]) + key.encode() + b"\x07" + len(value).to_bytes(2, "big") + value.encode()
    prelude = (16 + len(encoded) + len(payload)).to_bytes(4, "big") + len(encoded).to_bytes(4, "big")
    data = prelude + zlib.crc32(prelude).to_bytes(4, "big") + encoded + payload
    return data + zlib.crc32(data).to_bytes(4, "big")


def event(kind: str, payload: object) -> bytes:
    return message(json.dumps(payload).encode(), message_type="event", event_type=kind)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_whatever_stands_in_amazons_framing_is_read(headers: bytes, payload: bytes) -> None:
    prelude = (16 + len(headers) + len(payload)).to_bytes(4, "big") + len(headers).to_bytes(4, "big")
    data = prelude + zlib.crc32(prelude).to_bytes(4, "big") + headers + payload
    usage = read(data + zlib.crc32(data).to_bytes(4, "big"), METADATA)
    assert usage.tokens == {"input": 3, "output": 9}


@pytest.mark.parametrize("name", [name for name in STREAMS if name.startswith("anthropic")])
def test_amazons_framing_of_invoke_comes_to_the_same(name: str) -> None:
    data = b"".join(
        event("chunk", {"bytes": base64.b64encode(one).decode(), "p": "abc"}) for one in events(STREAMS[name])
    )
    expected = usage_of(STREAMS[name])
    assert read(data) == expected
    assert read(*(data[at : at + 11] for at in range(0, len(data), 11))) == expected


def test_what_bedrock_says_again_at_the_end_of_an_invoke_stream_is_not_added() -> None:
    lines = events(STREAMS["anthropic-messages-stream-5.sse"])
    expected = usage_of(STREAMS["anthropic-messages-stream-5.sse"])
    tokens = expected.tokens
    output = tokens.get("output", 0) + tokens.get("reasoning", 0)
    again = {"inputTokenCount": tokens["input"], "outputTokenCount": output, "invocationLatency": 9}
    last = json.loads(lines[-1]) | {"amazon-bedrock-invocationMetrics": again}
    found = [*lines[:-1], json.dumps(last).encode()]
    usage = read(*(event("chunk", {"bytes": base64.b64encode(one).decode()}) for one in found))
    assert (usage.tokens, usage.usage_source, usage.troubles) == (tokens, UsageSource.PROVIDER, ())


CONVERSE = (
    event("messageStart", {"role": "assistant"})
    + event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Grüße"}})
    + event("contentBlockStart", {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "t1", "name": "f"}}})
    + event("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"toolUse": {"input": '{"a":1}'}}})
    + event("messageStop", {"stopReason": "tool_use"})
)
METADATA = event("metadata", {"usage": {"inputTokens": 3, "outputTokens": 9, "totalTokens": 12}, "metrics": {}})


def test_a_converse_stream_is_read_to_its_metadata() -> None:
    path = "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse-stream"
    data = CONVERSE + METADATA
    for at in range(len(data)):
        usage = read(data[:at], data[at:], path=path)
        assert usage.tokens == {"input": 3, "output": 9}
        assert usage.meters == {"tool_calls": 1}
        assert usage.model == "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
        assert (usage.usage_source, usage.outcome) == (UsageSource.PROVIDER, Outcome.COMPLETE)


def test_a_converse_stream_without_its_metadata_has_no_usage() -> None:
    usage = read(CONVERSE)
    assert (usage.usage_source, usage.outcome) == (UsageSource.NONE, Outcome.COMPLETE)
    assert usage.output_bytes == len("Grüße".encode()) + len('{"a":1}')


def test_a_message_without_a_payload_does_no_harm_in_amazons_framing() -> None:
    usage = read(message(b"", message_type="event", event_type="ping"), message(b""), METADATA)
    assert (usage.tokens, usage.troubles) == ({"input": 3, "output": 9}, ())


def test_a_message_that_is_too_long_is_passed_over_in_amazons_framing() -> None:
    data = event("contentBlockDelta", {"delta": {"text": "x" * 100_000}}) + METADATA
    for size in (1, 5_000, len(data)):
        usage = read(*(data[at : at + size] for at in range(0, len(data), size)), bytes_max=50_000)
        assert (usage.tokens, usage.usage_source) == ({"input": 3, "output": 9}, UsageSource.PROVIDER)
        assert usage.troubles


def test_names_of_a_body_that_is_too_long_are_read_at_its_end() -> None:
    data = b'{"object":"list","data":[' + b"0.1," * 30_000 + b'1],"model":"e","usage":{"prompt_tokens":8}}'
    usage = read(data, bytes_max=10_000)
    assert (usage.tokens, usage.model) == ({"input": 8}, "e")


OLLAMA = [{"model": "l", "message": {"role": "assistant", "content": text}, "done": False} for text in ("Hel", "lo")]


def test_lines_of_ollama_are_read_to_their_last() -> None:
    last = {"model": "l", "message": {"content": ""}, "done": True, "prompt_eval_count": 26, "eval_count": 3}
    lines = [json.dumps(line).encode() + b"\n" for line in [*OLLAMA, last]]
    usage = read(*lines)
    assert (usage.tokens, usage.output_bytes, usage.outcome) == ({"input": 26, "output": 3}, 5, Outcome.COMPLETE)
    broken = read(*lines[:2])
    assert (broken.usage_source, broken.output_bytes, broken.outcome) == (UsageSource.NONE, 5, Outcome.ABORTED)


def test_an_exception_in_amazons_framing_is_an_error() -> None:
    failed = message(b'{"message":"slow down"}', message_type="exception", exception_type="throttlingException")
    assert read(CONVERSE[:-20], failed).outcome is Outcome.ABORTED  # what follows a broken message cannot be read
    assert read(failed).outcome is Outcome.ERROR


@pytest.mark.parametrize("at", range(0, len(METADATA), 3))
def test_a_flipped_bit_in_amazons_framing_is_noticed(at: int) -> None:
    broken = bytearray(METADATA)
    broken[at] ^= 1
    usage = read(CONVERSE, bytes(broken), METADATA)
    assert usage.usage_source is UsageSource.NONE
    # A length that seems larger waits for the rest; all else is seen at once.
    assert usage.troubles or at < 12


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_comes_twice_counts_once(name: str) -> None:
    data = STREAMS[name]
    assert read(data, data) == usage_of(data)


@pytest.mark.parametrize("name", STREAMS)
def test_every_event_that_comes_twice_counts_once(name: str) -> None:
    lines = [b"data: " + data + b"\n\n" for data in events(STREAMS[name])]
    usage, expected = read(*(line + line for line in lines)), usage_of(STREAMS[name])
    assert (usage.tokens, usage.meters, usage.others) == (expected.tokens, expected.meters, expected.others)


@pytest.mark.parametrize("name", ANSWERS)
def test_of_a_document_that_is_too_long_the_usage_is_still_read(name: str) -> None:
    padding = b'"filler":"' + b"x" * 300_000 + b'",'
    if name in WHOLE:
        data = b"{" + padding + WHOLE[name].lstrip()[1:] if len(WHOLE[name]) < 30_000 else WHOLE[name]
    else:
        data = STREAMS[name]
        for one in events(data):
            if b'"usage' in one:
                data = data.replace(one, b"{" + padding + one[1:])
    bytes_max = 5_000 if name in WHOLE else 40_000  # bodies may be longer than events
    usage = read(*(data[at : at + 9_000] for at in range(0, len(data), 9_000)), bytes_max=bytes_max)
    expected = usage_of(ANSWERS[name])
    if name.startswith("anthropic-messages-stream"):  # where the message began was too long as well
        assert sum(usage.tokens.values()) == sum(expected.tokens.values())
    else:
        assert usage.tokens == expected.tokens
    assert usage.usage_source is UsageSource.PROVIDER
    assert any("too long" in trouble for trouble in usage.troubles)


@pytest.mark.parametrize("start", [b"data: {", b"{", b'[{"a":"', b"x", b'{"a":1}\n{'])
def test_memory_is_bounded_however_long_a_document_is(start: bytes) -> None:
    reader = UsageReader(document_bytes_max=50_000)
    reader.feed(start)
    for _ in range(400):
        reader.feed(b"x" * 10_000)
    assert held(reader._frames) < 300_000
    assert reader.end().usage_source is UsageSource.NONE


def held(frames: object) -> int:
    """Bytes in all that the frames keep."""
    found = 0
    for kind in (EventFrames, BodyFrames, ArrayFrames):
        if isinstance(frames, kind):
            for name in kind.__slots__:
                part = getattr(frames, name, None)
                bounded = getattr(part, "_line", part)
                found += sum(len(piece) for piece in getattr(bounded, "_parts", ())) + len(
                    getattr(bounded, "_head", None) or b""
                )
    return found
