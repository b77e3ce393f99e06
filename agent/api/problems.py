"""Bytes of one HTTP response."""

from __future__ import annotations

from typing import Any

from agent.core.problem_details import JSON, REASONS, Headers, details
from protocol.codec import encode_json
from protocol.local_messages import Reply


def response(reply: Reply, *, close: bool = False, allow: bytes | None = None) -> bytes:
    """The whole HTTP response for a reply; ``allow`` names the methods that would have been right."""
    status, headers, body = details(reply)
    return _bytes(status, headers + ([(b"allow", allow)] if allow is not None else []), body, close=close)


def probe(status: int, text: str, *, close: bool) -> bytes:
    """The answer to a question of health."""
    return _bytes(status, [(b"content-type", JSON), (b"cache-control", b"no-store")], {"status": text}, close=close)


def text(payload: bytes, content_type: bytes, *, close: bool) -> bytes:
    """A text, whole."""
    return _whole(200, [(b"content-type", content_type), (b"cache-control", b"no-store")], payload, close=close)


def _bytes(status: int, headers: Headers, body: dict[str, Any], *, close: bool) -> bytes:
    return _whole(status, headers, encode_json(body), close=close)


def _whole(status: int, headers: Headers, payload: bytes, *, close: bool) -> bytes:
    lines = [b"HTTP/1.1 %d %b" % (status, REASONS[status]), *(b"%b: %b" % header for header in headers)]
    lines.append(b"content-length: %d" % len(payload))
    if close:
        lines.append(b"connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + payload
