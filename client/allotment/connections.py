"""The blocking client's connections: one call at a time on each, idle ones kept for the next call of any thread."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Any

from allotment.requests import Request
from allotment.wire import RECEIVE_BYTES, FrameReader, RequestEncoder

IDLE_MAX = 32
"""How many connections are kept open while nobody uses them."""

REQUEST_ID_MAX = 2**53 - 1


class StaleConnection(OSError):  # noqa: N818
    """A connection that had answered before is dead: the agent was restarted. A new one is worth an immediate try."""


class Connection:
    """One stream to the agent, for one call at a time."""

    __slots__ = ("_encode", "_frames", "_request_id", "_socket", "_used")

    def __init__(self, path: str, timeout_s: float) -> None:
        self._encode = RequestEncoder()
        self._frames = FrameReader()
        self._request_id = 0
        self._used = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise

    def exchange(self, request: Request, deadline: float) -> dict[str, Any]:
        """Send one request and wait for its reply. After any error but RequestInvalid the connection is of no use.

        Raises:
            TimeoutError: ``deadline`` (of ``time.monotonic()``) has passed.
            OSError: the connection is gone.
            RequestInvalid: the request cannot be sent; nothing was.
        """
        self._request_id = request_id = self._request_id % REQUEST_ID_MAX + 1
        request.fields["id"] = request_id
        data = self._encode(request.fields)
        self._limit_to(deadline)
        try:
            self._socket.sendall(data)
            return self._reply_to(request_id, deadline)
        except ConnectionError as error:
            if self._used:
                raise StaleConnection(str(error)) from error
            raise

    def _reply_to(self, request_id: int, deadline: float) -> dict[str, Any]:
        while True:
            chunk = self._socket.recv(RECEIVE_BYTES)
            if not chunk:
                raise ConnectionResetError("the agent closed the connection")
            for reply in self._frames.feed(chunk):
                if reply.get("id", 0) in {request_id, 0}:  # 0: the agent could not read which request it refuses
                    self._used = True
                    return reply
            self._limit_to(deadline)

    def _limit_to(self, deadline: float) -> None:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the deadline has passed")
        self._socket.settimeout(left_s)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class Pool:
    """Idle connections, shared by threads, never by processes.

    ``list.append`` and ``list.pop`` are atomic, so there is no lock that a fork could leave held.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._idle: list[Connection] = []
        self._pid = os.getpid()
        self._closed = False

    def take(self, timeout_s: float) -> Connection:
        """An idle connection, or a new one."""
        if self._pid != os.getpid():
            self._forget_the_parents()
        if timeout_s <= 0:
            raise TimeoutError("the deadline has passed")
        with contextlib.suppress(IndexError):
            return self._idle.pop()
        return Connection(self._path, timeout_s)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose last call was answered."""
        if self._closed or len(self._idle) >= IDLE_MAX or self._pid != os.getpid():
            connection.close()
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """Close what is idle, and what comes back later."""
        self._closed = True
        self.drop_idle()

    def drop_idle(self) -> None:
        """Close what is idle: one dead connection means that the agent has restarted, so the others are dead too."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return
            connection.close()

    def _forget_the_parents(self) -> None:
        """A forked child closes its copies of the parent's connections; the parent's own stay open."""
        self.drop_idle()
        self._pid = os.getpid()  # last: no thread may take a connection of the parent's in between
