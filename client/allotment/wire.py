"""Frames and msgpack as ``WIRE.md`` describes them: bytes out, maps in, everything bounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack

from allotment.errors import RequestInvalid

FRAME_BYTES_MAX = 256 * 1024
HEAD_BYTES = 4
RECEIVE_BYTES = 64 * 1024


class AnswerInvalid(OSError):  # noqa: N818
    """The peer's bytes break the rules of the wire; the connection cannot be used any further."""


class RequestEncoder:
    """Makes frames of requests; keeps its packer, so one per thread or event loop."""

    __slots__ = ("_pack",)

    def __init__(self) -> None:
        self._pack = msgpack.Packer().pack

    def __call__(self, fields: Mapping[str, Any]) -> bytes:
        """One whole frame.

        Raises:
            RequestInvalid: a value that msgpack cannot carry, or a frame beyond the bound.
        """
        try:
            body: bytes = self._pack(fields)
        except (TypeError, ValueError, OverflowError) as error:
            raise _unpackable(fields, error) from None
        if len(body) > FRAME_BYTES_MAX:
            raise RequestInvalid(f"the request takes {len(body)} bytes; at most {FRAME_BYTES_MAX}", "frame_invalid")
        return len(body).to_bytes(HEAD_BYTES, "big") + body


def _unpackable(fields: Mapping[str, Any], error: Exception) -> RequestInvalid:
    """Names the field that cannot be packed: the first whose value fails alone, as deep as there are maps."""
    path, here = "", fields
    while isinstance(here, dict):
        for name, value in here.items():
            if not _packs(name) or not _packs(value):
                path, here = f"{path}.{name!s:.80}".lstrip("."), value
                break
        else:
            break
    return RequestInvalid(f"{path}: cannot be sent: {error}", "invalid_request", path or None)


def _packs(value: Any) -> bool:
    try:
        msgpack.packb(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


class FrameReader:
    """Gives back the maps of whole frames, however their bytes arrive; holds one unfinished frame at most."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        """The replies that are complete now, in order of arrival.

        Raises:
            AnswerInvalid: a length out of bounds or a body that is no reply. Close the connection.
        """
        data = self._held + chunk if self._held else chunk
        at, end, replies = 0, len(data), []
        while end - at >= HEAD_BYTES:
            length = int.from_bytes(data[at : at + HEAD_BYTES], "big")
            if not 0 < length <= FRAME_BYTES_MAX:
                raise AnswerInvalid(f"the agent announced a frame of {length} bytes")
            if end - at - HEAD_BYTES < length:
                break
            at += HEAD_BYTES
            replies.append(_decode(data[at : at + length]))
            at += length
        self._held = data[at:]
        return replies


def _decode(body: bytes) -> dict[str, Any]:
    try:
        reply = msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException) as error:
        raise AnswerInvalid(f"the agent's answer cannot be read: {error}") from None
    if not isinstance(reply, dict) or type(reply.get("id", 0)) is not int:
        raise AnswerInvalid("the agent's answer is not a map with an id")
    return reply
