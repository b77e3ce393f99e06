"""The door for programs: length-prefixed msgpack, pipelined, replies as they are ready.

Every complete frame of one read is decoded, decided and answered in one joined write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import msgspec

from agent.api.dispatch import Dispatch
from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.framing import HEAD_BYTES, FrameReader, frame
from protocol.local_messages import ErrorReply, Problem, Reply, Request
from protocol.violations import Violation

UNANSWERED_MAX = 4_096
"""Requests of one connection that may wait for their answers at the same time."""

_decode: MsgpackDecoder[Request] = MsgpackDecoder(Request)  # type: ignore[arg-type]  # a union is a type to msgspec


class _Identified(msgspec.Struct):
    """Just the id of a message that could not be understood otherwise."""

    id: int = 0


OPERATIONS = ", ".join(str(kind.__struct_config__.tag) for kind in get_args(Request))

_decode_id = msgspec.msgpack.Decoder(_Identified).decode


class FramesDoor:
    """One connection's side of the conversation. Bytes in, bytes out; no socket in sight."""

    def __init__(self, dispatch: Dispatch, send_later: Callable[[bytes], None]) -> None:
        self._dispatch = dispatch
        self._send_later = send_later
        self._reader = FrameReader()
        self._unanswered = 0
        self.heard = 0
        self.finished = False
        self.gone = False

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and not ended."""
        return self._reader.held_bytes > 0

    @property
    def held_bytes(self) -> int:
        """How much of an unfinished frame is kept."""
        return self._reader.held_bytes

    def feed(self, chunk: bytes) -> bytes:
        """Take what arrived; give back the replies that are ready, joined."""
        try:
            bodies = self._reader.feed(chunk)
        except Violation as wrong:
            self.finished = True
            return _reply_frame(0, ErrorReply(error=Problem(wrong.code, wrong.message, wrong.field)))
        self.heard += len(bodies)
        ready = [reply for body in bodies if (reply := self._one(body)) is not None]
        return b"".join(ready)

    def _one(self, body: bytes) -> bytes | None:
        try:
            request = _decode(body)
        except Violation as wrong:
            return _reply_frame(_id_of(body), understood_wrongly(wrong))
        if self._unanswered >= UNANSWERED_MAX:
            text = f"{UNANSWERED_MAX} requests of this connection wait for answers already; read some first"
            return _reply_frame(request.id, ErrorReply(error=Problem("overloaded", text), retry=True))
        reply = self._dispatch(request, self)
        if reply is None:
            self._unanswered += 1
            return None
        return _reply_frame(request.id, reply)

    def late(self, request_id: int, reply: Reply) -> None:
        """An answer that had to wait."""
        self._unanswered -= 1
        self._send_later(_reply_frame(request_id, reply))


def understood_wrongly(wrong: Violation) -> ErrorReply:
    """The reply to a request that is not one."""
    if wrong.field == "op" or (wrong.problem == "is missing" and wrong.field == "op"):
        text = f"op: {wrong.problem}; expected one of {OPERATIONS}"
        return ErrorReply(error=Problem("unknown_operation", text, "op"))
    return ErrorReply(error=Problem(wrong.code, wrong.message, wrong.field or None))


def _reply_frame(request_id: int, reply: Reply) -> bytes:
    # The reply was made for this request alone, or is a constant that is encoded at once: giving it the id is safe.
    msgspec.structs.force_setattr(reply, "id", request_id)
    body = encode_msgpack(reply)
    return len(body).to_bytes(HEAD_BYTES, "big") + body


def _id_of(body: bytes) -> int:
    try:
        found = _decode_id(body).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
        return 0
    return found if 0 <= found < 2**53 else 0


BUSY = frame(
    encode_msgpack(ErrorReply(error=Problem("overloaded", "this agent serves too many connections"), retry=True))
)
"""What a connection beyond the bound is told before it is closed."""
