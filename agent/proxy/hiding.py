"""Server-sent events on their way to a caller: whole ones only, and without the one that only says what was used where
the caller did not ask for it. Pure.

Applications that read ``chunk.choices[0]`` break on a chunk without choices; and a stream that is cut must end between
two events, so that the last words are read.
"""

from __future__ import annotations

import re

import msgspec

EVENT_BYTES_MAX = 16 * 1024
"""A longer event is not the one that is looked for, and is passed on as it comes."""

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")


class UsageHider:
    """Passes server-sent events on, but (``hides``) for the one that has usage and no choices.

    Whole events leave at once. Of an event that has not come to its end, the beginning is kept, up to
    ``EVENT_BYTES_MAX``.
    """

    __slots__ = ("_hides", "_kept", "_passing")

    def __init__(self, *, hides: bool = True) -> None:
        self._hides = hides
        self._kept = b""
        self._passing = False

    def feed(self, chunk: bytes) -> bytes:
        """What may be passed on, now that these bytes have come."""
        out: list[bytes] = []
        rest = self._kept + chunk
        while end := _END.search(rest):
            event, rest = rest[: end.end()], rest[end.end() :]
            if self._passing or not (self._hides and _is_usage(event)):
                out.append(event)
            self._passing = False
        if len(rest) > EVENT_BYTES_MAX or self._passing:
            # All but what may be the first half of its end.
            self._passing = True
            out.append(rest[:-3])
            rest = rest[-3:]
        self._kept = rest
        return b"".join(out)

    def close(self) -> bytes:
        """No more bytes come: what was kept, unless it is what is hidden."""
        rest, self._kept = self._kept, b""
        return b"" if not self._passing and self._hides and _is_usage(rest) else rest

    def cut(self, last: bytes) -> bytes:
        """No more bytes may come: what ends the stream instead of what was kept."""
        self._kept = b""
        return b"\n\n" + last if self._passing else last


def _is_usage(event: bytes) -> bool:
    if b'"usage"' not in event or b'"choices"' not in event or len(event) > EVENT_BYTES_MAX:
        return False
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    try:
        said = msgspec.json.decode(b"\n".join(lines))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return isinstance(said, dict) and said.get("choices") == [] and isinstance(said.get("usage"), dict)
