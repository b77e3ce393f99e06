"""One peer of the agent, and what may be spoken with it."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterable
from typing import Protocol

STALLED_MS = 10_000
"""A frame begun and not ended, or answers not read, for so long: the connection is closed."""
LINGER_MS = 2_000
"""How long a peer may still send after its last answer, so that it comes to read that answer."""


class Door(Protocol):
    """What a connection speaks."""

    gone: bool
    heard: int  # how many whole messages have arrived

    @property
    def finished(self) -> bool:
        """Whether the connection ends once what is ready has been sent."""

    @property
    def partial(self) -> bool:
        """Whether a message has begun and not ended."""

    @property
    def held_bytes(self) -> int:
        """How much of unfinished messages and unsent answers is kept."""

    def feed(self, chunk: bytes) -> bytes:
        """Take what arrived; give back what is to be sent."""


MakeDoor = Callable[[Callable[[bytes], None]], Door]


class Connection:
    """One peer."""

    __slots__ = (
        "closed", "dirty", "door", "ended_ms", "heard", "out", "partial_since_ms", "socket", "unread_since_ms",
        "watching",
    )  # fmt: skip

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.door: Door | None = None
        self.out = bytearray()
        self.watching = select.EPOLLIN
        self.unread_since_ms: int | None = None
        self.partial_since_ms: int | None = None
        self.ended_ms: int | None = None
        self.heard = 0
        self.dirty = False
        self.closed = False

    @property
    def kept_bytes(self) -> int:
        """How much is kept in memory for this peer."""
        return len(self.out) + (self.door.held_bytes if self.door is not None else 0)

    def is_stalled(self, now_ms: int) -> bool:
        """Whether it has kept us waiting for too long: to be read, to end a message, or to go."""
        reads = self.watching & select.EPOLLIN
        return (
            _longer_ago(self.unread_since_ms, STALLED_MS, now_ms)
            or (bool(reads) and _longer_ago(self.partial_since_ms, STALLED_MS, now_ms))
            or _longer_ago(self.ended_ms, LINGER_MS, now_ms)
        )


def _longer_ago(since_ms: int | None, span_ms: int, now_ms: int) -> bool:
    return since_ms is not None and now_ms - since_ms > span_ms


def heaviest(connections: Iterable[Connection], bytes_max: int) -> list[Connection]:
    """Those for whom most is kept, until what is kept for all the others is within ``bytes_max``."""
    weighed = [(connection.kept_bytes, connection) for connection in connections]
    total = sum(kept for kept, _ in weighed)
    if total <= bytes_max:
        return []
    chosen = []
    for kept, connection in sorted(weighed, key=lambda pair: pair[0], reverse=True):
        if total <= bytes_max:
            break
        chosen.append(connection)
        total -= kept
    return chosen


def turn_away(sock: socket.socket, busy: bytes) -> None:
    """Tell a peer that there is no room for it, and close."""
    try:
        sock.send(busy)
    except OSError:
        pass  # it has gone already
    finally:
        sock.close()
