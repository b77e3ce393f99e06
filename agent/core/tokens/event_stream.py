"""Amazon's binary framing of streams: messages of a prelude, headers, a payload, and checksums over both.

Each message becomes one JSON document: ``{"<event type>": <payload>}``, as Amazon's own library shows it, or what the
payload wraps, for ``invoke``. Source: the public description of ``application/vnd.amazon.eventstream``.
"""

from __future__ import annotations

import binascii
import zlib
from typing import Any

import msgspec

from agent.core.tokens.bounded import Overlong

_PRELUDE_BYTES = 12
_CRC_BYTES = 4
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value, by its type; types 6 and 7 say their length."""


class _Wrapped(msgspec.Struct, gc=False):
    bytes: Any = None


_wrapped = msgspec.json.Decoder(_Wrapped)


class EventStreamFrames:
    """Takes bytes cut anywhere, gives documents.

    Attributes:
        broken: a checksum or a length was wrong; where the next message begins cannot be known, so the rest is
            not read.
    """

    __slots__ = ("_bytes_max", "_held", "_passing", "broken", "whole")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held = bytearray()
        self._passing = 0
        self.broken = self.whole = False

    def feed(self, chunk: bytes) -> list[bytes | Overlong]:
        """The documents that end in this chunk."""
        found: list[bytes | Overlong] = []
        if self.broken:
            return found
        if self._passing:
            passed = min(self._passing, len(chunk))
            self._passing -= passed
            chunk = chunk[passed:]
        held = self._held
        held += chunk
        at = 0
        while len(held) - at >= _PRELUDE_BYTES:
            size = int.from_bytes(held[at : at + 4], "big")
            headers = int.from_bytes(held[at + 4 : at + 8], "big")
            prelude_crc = int.from_bytes(held[at + 8 : at + 12], "big")
            sound = zlib.crc32(held[at : at + 8]) == prelude_crc
            if not sound or size < _PRELUDE_BYTES + headers + _CRC_BYTES:
                self.broken = True
                held.clear()
                return found
            if size > self._bytes_max:
                rest = len(held) - at
                found.append(Overlong(bytes(held[at : at + _PRELUDE_BYTES]), b"", size))
                self._passing = max(0, size - rest)
                at += min(size, rest)
                continue
            if len(held) - at < size:
                break
            message = bytes(held[at : at + size])
            at += size
            if zlib.crc32(message[:-_CRC_BYTES]) != int.from_bytes(message[-_CRC_BYTES:], "big"):
                self.broken = True
                held.clear()
                return found
            split = _PRELUDE_BYTES + headers
            found.append(_document(_headers(message[_PRELUDE_BYTES:split]), message[split:-_CRC_BYTES]))
        del held[:at]
        return found

    def close(self) -> list[bytes | Overlong]:
        """Nothing: a message that has not ended has no checksum."""
        return []


def _headers(data: bytes) -> dict[str, str]:
    """The headers that are texts, by name; as many as can be understood."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        name = data[at + 1 : at + 1 + data[at]].decode(errors="replace")
        at += 1 + data[at]
        kind = data[at] if at < len(data) else -1
        at += 1
        if kind in {6, 7}:
            size = int.from_bytes(data[at : at + 2], "big")
            found[name] = data[at + 2 : at + 2 + size].decode(errors="replace")
            at += 2 + size
        elif kind in _SIZES:
            at += _SIZES[kind]
        else:
            break
    return found


def _document(headers: dict[str, str], payload: bytes) -> bytes:
    if headers.get(":message-type", "event") != "event":
        return b'{"error":true}'
    kind = headers.get(":event-type", "")
    if kind != "chunk":
        return b"{%s:%s}" % (msgspec.json.encode(kind), payload or b"{}")
    try:
        return binascii.a2b_base64(_wrapped.decode(payload).bytes)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, TypeError):
        return payload
