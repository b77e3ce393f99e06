"""One peer of the agent, and what may be spoken with it."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Protocol


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


def turn_away(sock: socket.socket, busy: bytes) -> None:
    """Tell a peer that there is no room for it, and close."""
    try:
        sock.send(busy)
    except OSError:
        pass  # it has gone already
    finally:
        sock.close()
