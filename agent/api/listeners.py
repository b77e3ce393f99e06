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

import trio

from agent.api.connections import Connection, MakeDoor, heaviest, turn_away

READ_BYTES = 16_384
OUT_BYTES_MAX = 1024 * 1024
"""Unread answers kept for one connection before no more is read from it."""
TURN_NS = 2_000_000
LINGER_NS = 200_000
"""A caller that waits for one answer at a time comes back sooner than Trio can be left and entered again. So a turn may
wait this long for it, busily - as long as that has lately been worth it, and nothing else of the agent waits to run."""
LINGER_WORTH_MAX = 8
LINGER_RETRY_TURNS = 64
"""Where lingering was in vain, it is tried again so seldom."""
BUFFERED_BYTES_MAX = 256 * 1024 * 1024
"""Kept for all connections together; beyond it those that make us keep most are closed, at the next sweep."""
BACKLOG = 4_096
COMPLAIN_MS = 60_000
"""At most one line in the log in so long about descriptors that have run out."""

log = logging.getLogger("agent.listeners")


class Listeners:
    """Serves every connection of every door.

    Attributes:
        idle: set by ``main``: whether nothing but its callers waits for this process.
    """

    def __init__(self, now_ms: Callable[[], int], connections_max: int) -> None:
        self._now_ms = now_ms
        self._connections_max = connections_max
        self._epoll = select.epoll()
        self._listening: dict[int, tuple[socket.socket, MakeDoor, bytes]] = {}
        self._connections: dict[int, Connection] = {}
        self._dirty: list[Connection] = []
        self._resting = False
        self._complained_ms: int | None = None
        self.idle: Callable[[], bool] = lambda: True
        self._turns = 0
        self._worth = LINGER_WORTH_MAX

    def __len__(self) -> int:
        return len(self._connections)

    def listen(self, sock: socket.socket, make_door: MakeDoor, busy: bytes) -> None:
        """Serve connections that arrive on ``sock``, which listens already; one too many is told ``busy``."""
        sock.setblocking(False)
        self._listening[sock.fileno()] = (sock, make_door, busy)
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def stop_accepting(self) -> None:
        """No new connections; those that are open go on."""
        for fd, (sock, _, _) in self._listening.items():
            self._epoll.unregister(fd)
            sock.close()
        self._listening.clear()

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())  # lets every other task run, ready or not
                self._turn()
        finally:
            for connection in list(self._connections.values()):
                self._close(connection)
            self.stop_accepting()
            self._epoll.close()

    def _turn(self, *, lingering: bool = False) -> None:
        """Serve what is ready, for a bounded time; and linger a moment where callers tend to come straight back."""
        self._turns += 1
        now_ns = time.perf_counter_ns()
        ends_ns, lingers_until_ns = now_ns + TURN_NS, 0
        if lingering and self._worth and self.idle():
            lingers_until_ns = now_ns + LINGER_NS
        while now_ns < ends_ns:
            ready = self._epoll.poll(0, 256)
            now_ns = time.perf_counter_ns()
            if ready:
                if lingers_until_ns:
                    self._worth = min(LINGER_WORTH_MAX, self._worth + 1)
                for fd, mask in ready:
                    self._attend(fd, mask)
                worth = self._worth > 0 or self._turns % LINGER_RETRY_TURNS == 0
                lingers_until_ns = now_ns + LINGER_NS if worth and self.idle() else 0
            elif now_ns >= lingers_until_ns:
                if lingers_until_ns and self._worth:
                    self._worth -= 1
                return

    def _attend(self, fd: int, mask: int) -> None:
        if fd in self._listening:
            self._accept(*self._listening[fd])
            return
        connection = self._connections.get(fd)
        if connection is not None:
            self._serve(connection, mask)

    def _accept(self, listening: socket.socket, make_door: MakeDoor, busy: bytes) -> None:
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
                turn_away(sock, busy)
                continue
            connection = Connection(sock)
            connection.door = make_door(self._later(connection))
            self._connections[sock.fileno()] = connection
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _rest(self, error: OSError) -> None:
        """Out of descriptors: accept again when one has been given back, or at the next sweep, instead of spinning."""
        now_ms = self._now_ms()
        if self._complained_ms is None or now_ms - self._complained_ms > COMPLAIN_MS:
            self._complained_ms = now_ms
            log.warning("cannot accept connections for now: %s (%d are open)", error.strerror, len(self._connections))
        self._resting = True
        for fd in self._listening:
            self._epoll.modify(fd, 0)

    def _resume(self) -> None:
        self._resting = False
        for fd in self._listening:
            self._epoll.modify(fd, select.EPOLLIN)

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
        if connection.ended_ms is not None:
            return  # its last answer has been sent; what still comes is not read any more, only taken off the line
        answer = door.feed(chunk)
        if not door.partial:
            connection.partial_since_ms = None
        elif connection.partial_since_ms is None or connection.heard != door.heard:
            connection.partial_since_ms, connection.heard = self._now_ms(), door.heard
        if answer or connection.out:
            if not connection.out and not door.finished:
                answer = self._send_at_once(connection, answer)
            if answer:
                connection.out += answer
                self._push(connection)
        elif door.finished:
            self._finish(connection)

    def _send_at_once(self, connection: Connection, answer: bytes) -> bytes:
        """The common case: the peer takes everything. What it does not take is given back."""
        try:
            sent = connection.socket.send(answer)
        except OSError:
            return answer
        return answer[sent:] if sent < len(answer) else b""

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
        """Send the late answers that have gathered, one write for each connection; serve whoever comes straight back.

        For other tasks of the agent; never from inside a turn.
        """
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.dirty = False
            if not connection.closed:
                self._push(connection)
        if dirty:
            self._turn(lingering=True)

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
            if sent == len(out):
                out.clear()
                connection.unread_since_ms = None
            else:
                del out[:sent]
                if sent or connection.unread_since_ms is None:
                    connection.unread_since_ms = self._now_ms()
        finished = connection.door is not None and connection.door.finished
        if finished and not out:
            self._finish(connection)
            return
        listens = len(out) < OUT_BYTES_MAX and not finished
        if connection.partial_since_ms is not None and not (listens and connection.watching & select.EPOLLIN):
            connection.partial_since_ms = self._now_ms()  # nobody can end a message that is not being read
        self._watch(connection, (select.EPOLLOUT if out else 0) | (select.EPOLLIN if listens else 0))

    def _watch(self, connection: Connection, watching: int) -> None:
        if watching != connection.watching:
            connection.watching = watching
            self._epoll.modify(connection.socket.fileno(), watching)

    def _finish(self, connection: Connection) -> None:
        """Nothing more will be said; listen a moment longer, because closing on unread bytes may destroy the answer."""
        if connection.ended_ms is not None:
            return
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        connection.ended_ms, connection.partial_since_ms = self._now_ms(), None
        self._watch(connection, select.EPOLLIN)

    def sweep(self) -> None:
        """Close what has stalled, and accept again after having run out of descriptors."""
        now_ms = self._now_ms()
        for connection in list(self._connections.values()):
            if connection.is_stalled(now_ms):
                self._close(connection)
        for connection in heaviest(self._connections.values(), BUFFERED_BYTES_MAX):
            log.warning("closing a connection for which %d bytes are kept", connection.kept_bytes)
            self._close(connection)
        if self._resting:
            self._resume()

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
        if self._resting:
            self._resume()
