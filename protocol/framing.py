"""Frames: four bytes of big-endian length, then that many bytes of message. Sans I/O, bounded, fed in any chunks."""

from __future__ import annotations

from protocol.violations import Violation

FRAME_BYTES_MAX = 256 * 1024
HEAD_BYTES = 4


def frame(body: bytes) -> bytes:
    """One frame around ``body``."""
    return len(body).to_bytes(HEAD_BYTES, "big") + body


class FrameReader:
    """Collects bytes as they arrive and gives back whole frames.

    The bytes held are never more than one frame and one chunk: a length beyond the bound is refused before anything is
    kept for it.
    """

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._held = b""
        self._frame_bytes_max = frame_bytes_max

    @property
    def held_bytes(self) -> int:
        """How many bytes of an unfinished frame are kept."""
        return len(self._held)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take ``chunk`` and return the bodies of the frames that are now complete, in order.

        Raises:
            Violation: a length of zero or beyond the bound. The stream cannot be resynchronised; close it. Frames
                that came before the bad one in the same chunk are lost with it: their sender broke the rules.
        """
        data = self._held + chunk if self._held else chunk
        at, end, bodies = 0, len(data), []
        while end - at >= HEAD_BYTES:
            length = int.from_bytes(data[at : at + HEAD_BYTES], "big")
            if not 0 < length <= self._frame_bytes_max:
                raise Violation(
                    "frame", f"says it is {length} bytes long", f"1 to {self._frame_bytes_max}", code="frame_invalid"
                )
            if end - at - HEAD_BYTES < length:
                break
            at += HEAD_BYTES
            bodies.append(data[at : at + length])
            at += length
        self._held = data[at:]
        return bodies
