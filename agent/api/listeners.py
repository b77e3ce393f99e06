"""Sockets and their bytes: one task and one epoll for all connections, bounded in everything.

Waking a task costs Trio tens of microseconds, so one task waits for all connections; once awake it serves whatever is
ready for at most two milliseconds, then lets every other task of the agent run.
"""

from __future__ import annotations

import errno
import logging
import select
import socket
import time
from collections.abc import Callable
from typing import Protocol

import trio

READ_BYTES = 65_536
OUT_BYTES_MAX = 1024 * 1024
"""Unread answers kept for one connection before no more is read from it."""
TURN_NS = 2_000_000
STALLED_MS = 10_000
"""A frame begun and not ended, or answers not read, for so long: the connection is closed."""
BACKLOG = 4_096

log = logging.getLogger("agent.listeners")


class Door(Protocol):
    """What a connection speaks."""

    gone: bool

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

    __slots__ = ("closed", "dirty", "door", "out", "partial_since_ms", "progress_ms", "socket", "watching")

    def __init__(self, sock: socket.socket, now_ms: int) -> None:
        self.socket = sock
        self.door: Door | None = None
        self.out = bytearray()
        self.watching = select.EPOLLIN
        self.progress_ms = now_ms
        self.partial_since_ms: int | None = None
        self.dirty = False
        self.closed = False


class Listeners:
    """Serves every connection of every door."""

    def __init__(self, now_ms: Callable[[], int], connections_max: int, busy: bytes) -> None:
        self._now_ms = now_ms
        self._connections_max = connections_max
        self._busy = busy
        self._epoll = select.epoll()
        self._listening: dict[int, tuple[socket.socket, MakeDoor]] = {}
        self._connections: dict[int, Connection] = {}
        self._dirty: list[Connection] = []
        self._resting = False

    def __len__(self) -> int:
        return len(self._connections)

    def listen(self, sock: socket.socket, make_door: MakeDoor) -> None:
        """Serve connections that arrive on ``sock``, which listens already."""
        sock.setblocking(False)
        self._listening[sock.fileno()] = (sock, make_door)
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def stop_accepting(self) -> None:
        """No new connections; those that are open go on."""
        for fd, (sock, _) in self._listening.items():
            self._epoll.unregister(fd)
            sock.close()
        self._listening.clear()

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                self._turn()
                await trio.lowlevel.checkpoint()
        finally:
            for connection in list(self._connections.values()):
                self._close(connection)
            self.stop_accepting()
            self._epoll.close()

    def _turn(self) -> None:
        """Serve what is ready, for a bounded time."""
        ends_ns = time.perf_counter_ns() + TURN_NS
        while ready := self._epoll.poll(0, 256):
            for fd, mask in ready:
                if fd in self._listening:
                    self._accept(*self._listening[fd])
                    continue
                connection = self._connections.get(fd)
                if connection is not None:
                    self._serve(connection, mask)
            if time.perf_counter_ns() >= ends_ns:
                return

    def _accept(self, listening: socket.socket, make_door: MakeDoor) -> None:
        for _ in range(64):
            try:
                sock, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    self._rest(error)
                return
            sock.setblocking(False)
            if len(self._connections) >= self._connections_max:
                self._turn_away(sock)
                continue
            connection = Connection(sock, self._now_ms())
            connection.door = make_door(self._later(connection))
            self._connections[sock.fileno()] = connection
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _turn_away(self, sock: socket.socket) -> None:
        try:
            sock.send(self._busy)
        except OSError:
            pass  # it has gone already
        finally:
            sock.close()

    def _rest(self, error: OSError) -> None:
        """Out of descriptors: stop accepting until the next sweep, instead of spinning on the same refusal."""
        if not self._resting:
            log.warning("cannot accept connections for now: %s (%d are open)", error.strerror, len(self._connections))
        self._resting = True
        for fd in self._listening:
            self._epoll.modify(fd, 0)

    def _serve(self, connection: Connection, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._push(connection)
        if connection.closed:
            return
        if mask & select.EPOLLIN:
            self._read(connection)
        elif mask & (select.EPOLLHUP | select.EPOLLERR):
            self._close(connection)

    def _read(self, connection: Connection) -> None:
        try:
            chunk = connection.socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._close(connection)
            return
        door = connection.door
        assert door is not None
        answer = door.feed(chunk)
        if door.partial:
            if connection.partial_since_ms is None:
                connection.partial_since_ms = self._now_ms()
        else:
            connection.partial_since_ms = None
        if answer or connection.out:
            connection.out += answer
            self._push(connection)
        elif door.finished:
            self._close(connection)

    def _later(self, connection: Connection) -> Callable[[bytes], None]:
        def send_later(data: bytes) -> None:
            if connection.closed:
                return
            connection.out += data
            if not connection.dirty:
                connection.dirty = True
                self._dirty.append(connection)

        return send_later

    def flush(self) -> None:
        """Send the late answers that have gathered, one write for each connection."""
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.dirty = False
            if not connection.closed:
                self._push(connection)

    def _push(self, connection: Connection) -> None:
        """Send as much as the peer takes; watch for room for the rest; read no more from one that is far behind."""
        out = connection.out
        if out:
            try:
                sent = connection.socket.send(out)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self._close(connection)
                return
            if sent:
                connection.progress_ms = self._now_ms()
                if sent == len(out):
                    out.clear()
                else:
                    del out[:sent]
        if not out and connection.door is not None and connection.door.finished:
            self._close(connection)
            return
        watching = (select.EPOLLOUT if out else 0) | (select.EPOLLIN if len(out) < OUT_BYTES_MAX else 0)
        if watching != connection.watching:
            connection.watching = watching
            self._epoll.modify(connection.socket.fileno(), watching)

    def sweep(self) -> None:
        """Close what has stalled, and accept again after having run out of descriptors."""
        now_ms = self._now_ms()
        for connection in list(self._connections.values()):
            unread = connection.out and now_ms - connection.progress_ms > STALLED_MS
            since = connection.partial_since_ms
            if unread or (since is not None and now_ms - since > STALLED_MS):
                self._close(connection)
        if self._resting:
            self._resting = False
            for fd in self._listening:
                self._epoll.modify(fd, select.EPOLLIN)

    def _close(self, connection: Connection) -> None:
        if connection.closed:
            return
        connection.closed = True
        if connection.door is not None:
            connection.door.gone = True
        fd = connection.socket.fileno()
        del self._connections[fd]
        self._epoll.unregister(fd)
        connection.socket.close()
