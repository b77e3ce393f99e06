"""Bytes, cut anywhere, to documents: server-sent events, lines of JSON, arrays of JSON, or one whole body.

Which of them it is, the first byte tells. Memory is bounded: of a document that is too long, the ends are kept.
"""

from __future__ import annotations

import re
from typing import Protocol

import msgspec

from agent.core.tokens.bounded import Bounded, Overlong

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"


class Frames(Protocol):
    """Takes chunks, gives documents. ``whole``: they were one body; ``broken``: nothing more can be read."""

    whole: bool
    broken: bool

    def feed(self, chunk: bytes) -> list[bytes | Overlong]:
        """The documents that end in this chunk."""

    def close(self) -> list[bytes | Overlong]:
        """What was left when the bytes ended; it may be cut off."""


class Lines:
    """Lines that end in CR, LF or both."""

    __slots__ = ("_after_cr", "_line")

    def __init__(self, bytes_max: int) -> None:
        self._line = Bounded(bytes_max)
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[bytes | Overlong]:
        """The lines that end in this chunk, without their ends."""
        if not chunk:
            return []
        if self._after_cr and chunk[0] == 10:
            chunk = chunk[1:]
            self._after_cr = False
            if not chunk:
                return []
        self._after_cr = chunk[-1] == 13
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines: list[bytes | Overlong] = [*chunk.split(b"\n")]
        rest = lines.pop()
        assert isinstance(rest, bytes)
        if lines and self._line.size:
            first = lines[0]
            assert isinstance(first, bytes)
            self._line.add(first)
            lines[0] = self._line.take()
        if rest:
            self._line.add(rest)
        return lines

    def close(self) -> bytes | Overlong:
        """The line that had not ended."""
        return self._line.take()


class EventFrames:
    """Server-sent events: the data of each, whose lines are joined; comments and other fields are passed over.

    Attributes:
        any: there was an event, or at least a comment that keeps the connection open.
        failed: there was an event whose name says that it is an error.
    """

    __slots__ = ("_data", "_lines", "_some", "any", "broken", "failed", "whole")

    def __init__(self, bytes_max: int) -> None:
        self._lines = Lines(bytes_max)
        self._data = Bounded(bytes_max)
        self._some = False
        self.whole = self.broken = self.failed = self.any = False

    def feed(self, chunk: bytes) -> list[bytes | Overlong]:
        """The data of the events that end in this chunk."""
        found: list[bytes | Overlong] = []
        for line in self._lines.feed(chunk):
            self._take(line, found)
        return found

    def close(self) -> list[bytes | Overlong]:
        """The data of an event that had not ended: some providers leave the last empty line out."""
        found: list[bytes | Overlong] = []
        self._take(self._lines.close(), found)
        self._take(b"", found)
        return found

    def _take(self, line: bytes | Overlong, found: list[bytes | Overlong]) -> None:
        if not line:
            if self._some:
                self._some = False
                found.append(self._data.take())
            return
        head = line if isinstance(line, bytes) else line.head
        self.any = self.any or head[:1] == b":" or head[:5] == b"data:"
        if head[:5] != b"data:":
            self.failed = self.failed or head in {b"event: error", b"event:error"}
            return
        if self._some:
            self._data.add(b"\n")
        self._some = True
        start = 6 if head[5:6] == b" " else 5
        if isinstance(line, bytes):
            self._data.add(line[start:])
        else:
            self._data.absorb(Overlong(head[start:], line.tail, line.size - start))


class BodyFrames:
    """One whole body, or a line for each document: the first line tells, if it is a document by itself."""

    __slots__ = ("_body", "_by_line", "_first", "_lines", "broken", "whole")

    def __init__(self, bytes_max: int) -> None:
        self._body = Bounded(bytes_max)
        self._lines = Lines(bytes_max)
        self._by_line = False
        self._first: bytes | Overlong | None = None
        self.whole = self.broken = False

    def feed(self, chunk: bytes) -> list[bytes | Overlong]:
        """The lines that end in this chunk, once a second one shows that there are several."""
        if self._by_line:
            return self._documents(self._lines.feed(chunk))
        self._body.add(chunk)
        if b"\n" not in chunk or self._first is not None:
            return []
        so_far = self._body.take()
        if isinstance(so_far, bytes):
            self._by_line = _is_json(so_far.partition(b"\n")[0])
            if self._by_line:
                return self._documents(self._lines.feed(so_far))
        self._first = b""  # several lines, and the first is no document: one body
        self._body.absorb(so_far)
        return []

    def close(self) -> list[bytes | Overlong]:
        """The body, or the last lines."""
        if not self._by_line:
            self.whole = True
            return [self._body.take()]
        found = self._documents([self._lines.close()])
        if self._first:
            self.whole = True
            found = [self._first]
        return found

    def _documents(self, lines: list[bytes | Overlong]) -> list[bytes | Overlong]:
        found = [line for line in lines if not isinstance(line, bytes) or line.strip(_SPACE)]
        if self._first is None and found:
            self._first = found.pop(0)
        if self._first and found:
            found.insert(0, self._first)
            self._first = b""
        return found


class ArrayFrames:
    """The elements of one JSON array, each as soon as it is complete."""

    __slots__ = ("_depth", "_element", "_escaped", "_in_text", "_open", "broken", "whole")

    _STRUCTURE = re.compile(rb'["{}\[\]]')
    _IN_TEXT = re.compile(rb'["\\]')

    def __init__(self, bytes_max: int) -> None:
        self._element = Bounded(bytes_max)
        self._depth = 0
        self._open = self._in_text = self._escaped = False
        self.whole = self.broken = False

    def feed(self, chunk: bytes) -> list[bytes | Overlong]:
        """The elements that end in this chunk."""
        found: list[bytes | Overlong] = []
        at = 1 if self._escaped and chunk else 0
        start = 0
        self._escaped = self._escaped and not chunk
        while match := (self._IN_TEXT if self._in_text else self._STRUCTURE).search(chunk, at):
            at = match.end()
            mark = match.group()
            if mark == b'"':
                self._in_text = not self._in_text
            elif mark == b"\\":
                at += 1
                self._escaped = at > len(chunk)
            elif mark in b"{[":
                self._depth += 1
                if self._depth == 2:
                    self._open, start = True, match.start()
            else:
                self._depth -= 1
                if self._open and self._depth == 1:
                    self._element.add(chunk[start:at])
                    found.append(self._element.take())
                    self._open = False
        if self._open:
            self._element.add(chunk[start:])
        return found

    def close(self) -> list[bytes | Overlong]:
        """Nothing: an element that has not ended says nothing."""
        return []


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def without_start(chunk: bytes) -> bytes | None:
    """The bytes of a beginning without what may stand before all framings; ``None`` if more is needed to say."""
    if _BOM.startswith(chunk[:3]) and len(chunk) < 3:
        return None
    return chunk.removeprefix(_BOM).lstrip(_SPACE) or None
