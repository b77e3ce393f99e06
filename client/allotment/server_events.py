"""Streams of server-sent events on their way to an SDK: whole events only, without what was only asked for by us.

Applications that read ``chunk.choices[0]`` break on the chunk that only says what an OpenAI stream used; so it is taken
out where they have not asked for it. And a stream that is cut ends between two events, with one that says why.
"""

from __future__ import annotations

import json
import re
from typing import Any

EVENT_BYTES_MAX = 16 * 1024
"""A longer event is passed on as it comes."""

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")


class ServerEvents:
    """Passes events on, each when it is whole.

    Args:
        hides_usage: take out the one that has usage and no choices.
    """

    __slots__ = ("_hides_usage", "_kept", "_passing")

    def __init__(self, *, hides_usage: bool) -> None:
        self._hides_usage = hides_usage
        self._kept = b""
        self._passing = False

    def feed(self, chunk: bytes) -> bytes:
        """What may be passed on, now that these bytes have come."""
        out: list[bytes] = []
        rest, at = self._kept + chunk, 0
        for end in _END.finditer(rest, max(0, len(self._kept) - 3)):
            event = rest[at : end.end()]
            at = end.end()
            if self._passing or not self._is_hidden(event):
                out.append(event)
            self._passing = False
        rest = rest[at:]
        if len(rest) > EVENT_BYTES_MAX or (self._passing and len(rest) > 3):
            # All but what may be the first half of its end.
            self._passing = True
            out.append(rest[:-3])
            rest = rest[-3:]
        self._kept = rest
        return b"".join(out)

    def close(self) -> bytes:
        """No more bytes come: what was kept, unless it is what is hidden."""
        rest, self._kept = self._kept, b""
        return b"" if not self._passing and self._is_hidden(rest) else rest

    def cut(self, last: bytes) -> bytes:
        """No more bytes may come: what ends the stream instead of what was kept."""
        self._kept = b""
        return b"\n\n" + last if self._passing else last

    def _is_hidden(self, event: bytes) -> bool:
        if not self._hides_usage or b'"usage"' not in event or b'"choices"' not in event:
            return False
        lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
        try:
            said = json.loads(b"\n".join(lines))
        except (ValueError, RecursionError):
            return False
        return isinstance(said, dict) and said.get("choices") == [] and isinstance(said.get("usage"), dict)


def with_usage_asked(body: bytes) -> bytes | None:
    """The request of a chat stream, asking what it used (``stream_options.include_usage``); ``None``: it does, or is no
    stream."""
    if b'"stream"' not in body:
        return None
    try:
        asked = json.loads(body)
        if not isinstance(asked, dict) or asked.get("stream") is not True:
            return None
        options = asked.get("stream_options")
        if options is not None and (not isinstance(options, dict) or options.get("include_usage") is True):
            return None
        asked["stream_options"] = {**(options or {}), "include_usage": True}
        # As the HTTP clients write it: everything else stays byte for byte.
        return json.dumps(asked, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError):
        return None


def last_words(family: str, status: int, code: str, message: str) -> bytes:
    """The event that ends a stream which may use no more, as the SDKs of this family read errors."""
    error: dict[str, Any] = {"message": message, "type": code, "code": code, "param": None}
    if family == "anthropic":
        return b"event: error\ndata: " + json.dumps({"type": "error", "error": error}).encode() + b"\n\n"
    if family == "gemini":
        error = {"code": status, "message": message, "status": code}
    return b"data: " + json.dumps({"error": error}).encode() + b"\n\n"
