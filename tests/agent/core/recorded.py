"""The recorded answers of real providers, and what the tests do to them: cut, reframed, and read by another library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent.core.tokens.read import UsageReader
from agent.core.tokens.usage import Usage

FOLDER = Path(__file__).resolve().parents[2] / "data" / "recorded"
WHOLE = {path.name: path.read_bytes() for path in sorted(FOLDER.glob("*.json"))}
STREAMS = {path.name: path.read_bytes() for path in sorted(FOLDER.glob("*.sse"))}
ANSWERS = WHOLE | STREAMS


def read(*chunks: bytes, path: str = "", bytes_max: int | None = None) -> Usage:
    """What a stream of these chunks comes to."""
    reader = UsageReader(path) if bytes_max is None else UsageReader(path, document_bytes_max=bytes_max)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.end()


def events(stream: bytes) -> list[bytes]:
    """The data of its events, found by the plainest means."""
    lines = stream.replace(b"\r", b"").split(b"\n")
    return [line[len(b"data: ") :] for line in lines if line.startswith(b"data: ")]


def documents(stream: bytes) -> list[dict[str, Any]]:
    """Its events as JSON."""
    return [json.loads(data) for data in events(stream) if data != b"[DONE]"]


def final_body(name: str) -> dict[str, Any]:
    """The body that the usage of an answer stands in; of a stream, as the provider's own library puts it together."""
    if name in WHOLE:
        return json.loads(WHOLE[name])
    found = documents(STREAMS[name])
    if found[0].get("type") == "message_start":
        message = found[0]["message"]
        for event in found:
            if event["type"] == "message_delta":
                message["usage"] |= {field: value for field, value in event["usage"].items() if value is not None}
        return message
    for event in reversed(found):
        if event.get("response", {}).get("usage"):
            return event["response"]
        if event.get("usage") or event.get("usageMetadata"):
            return event
    raise AssertionError(name)
