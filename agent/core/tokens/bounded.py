"""Bytes of one document, collected with a bound: of one that is too long, its head and its tail are kept.

Usage stands near the end of an answer, and its name near the beginning; what lies between may be megabytes of images
or embeddings. So the tail still tells what was used.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

HEAD_BYTES = 4 * 1024
TAIL_BYTES = 32 * 1024

_USAGE = re.compile(r'[,{]\s*"(usage|usageMetadata)"\s*:\s*(?=\{)')
"""Only a key stands so: inside a text the quotes would be escaped."""
_EVENT = re.compile(r'[,{]\s*"type"\s*:\s*"([a-z_]+\.[a-z_.]+)"')
_FINISH = re.compile(r'[,{]\s*"finishReason"\s*:\s*"(\w+)"')
_NAMED = re.compile(r'[,{]\s*"(id|model|responseId|modelVersion|object)"\s*:\s*"([^"\\]{1,256})"')


@dataclass(frozen=True, slots=True)
class Overlong:
    """What is left of a document of ``size`` bytes."""

    head: bytes
    tail: bytes
    size: int

    def fields(self) -> dict[str, Any]:
        """Who answered, as the head says; the usage, as the last that the tail holds says; and that it is the end."""
        found: dict[str, Any] = {}
        head, tail = self.head.decode(errors="replace"), self.tail.decode(errors="replace")
        for match in _NAMED.finditer(head):
            found.setdefault(match.group(1), match.group(2))
        for match in (*_EVENT.finditer(head), *_EVENT.finditer(tail)):
            found["type"] = match.group(1)  # some name it first, some last
        for match in _FINISH.finditer(tail):
            found["candidates"] = [{"finishReason": match.group(1)}]
        beside = tail
        for match in _USAGE.finditer(tail):
            try:
                found[match.group(1)], end = json.JSONDecoder().raw_decode(tail, match.end())
            except (ValueError, RecursionError):
                continue
            beside = tail[: match.start()] + tail[end:]  # an advisor's name stands in the usage
        last = {match.group(1): match.group(2) for match in _NAMED.finditer(beside)}
        for name in ("model", "modelVersion", "responseId"):  # embeddings are named after their vectors
            if name in last:
                found.setdefault(name, last[name])
        return found


class Bounded:
    """Collects the bytes of one document after the other."""

    __slots__ = ("_bytes_max", "_head", "_held", "_parts", "size")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._parts: list[bytes] = []
        self._held = self.size = 0
        self._head: bytes | None = None

    def add(self, data: bytes) -> None:
        """Some more of it."""
        self._parts.append(data)
        self._held += len(data)
        self.size += len(data)
        if self.size > self._bytes_max and (self._head is None or self._held > 2 * TAIL_BYTES):
            joined = b"".join(self._parts)
            if self._head is None:
                self._head = joined[:HEAD_BYTES]
            self._parts = [joined[-TAIL_BYTES:]]
            self._held = len(self._parts[0])

    def absorb(self, document: bytes | Overlong) -> None:
        """Some more of it, which may have been too long by itself."""
        if isinstance(document, bytes):
            self.add(document)
            return
        self.add(document.head)
        self.size += document.size - len(document.head) - len(document.tail)
        self.add(document.tail)

    def take(self) -> bytes | Overlong:
        """All of it; the next one begins."""
        joined = b"".join(self._parts)
        found: bytes | Overlong = joined
        if self._head is not None:
            found = Overlong(self._head, joined[-TAIL_BYTES:], self.size)
            self._head = None
        self._parts = []
        self._held = self.size = 0
        return found
