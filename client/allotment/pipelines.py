"""The async client's connection: many calls share it, replies find their calls by id, and no background task runs.

Whoever waits for a reply does the work meanwhile: one of the waiting calls reads (and hands others their replies), one
may be writing. When a call with such a role leaves, answered or cancelled, it wakes another to take its place.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Any

from allotment.runtimes import Runtime, Signal
from allotment.wire import RECEIVE_BYTES, FrameReader

WAITING_MAX = 10_000
OUTGOING_BYTES_MAX = 8 * 1024 * 1024


class _Waiting:
    __slots__ = ("reply", "signal")

    def __init__(self) -> None:
        self.reply: dict[str, Any] | None = None
        self.signal: Signal | None = None

    def wake(self) -> None:
        if self.signal is not None:
            self.signal.set()


class Pipeline:
    """One connection, in one event loop, in one process."""

    def __init__(self, path: str, runtime: Runtime) -> None:
        self.identity = (os.getpid(), runtime.identity)
        self._runtime = runtime
        self._waiting: dict[int, _Waiting] = {}
        self._outgoing = bytearray()
        self._frames = FrameReader()
        self._reading = self._writing = False
        self._problem: OSError | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        try:
            self._socket.connect(path)  # a Unix socket connects at once or fails at once
        except BaseException:
            self._socket.close()
            raise

    @property
    def usable(self) -> bool:
        """Whether new calls may use it."""
        return self._problem is None

    async def exchange(self, request_id: int, data: bytes, deadline: float) -> dict[str, Any]:
        """Send one request and wait for its reply. Cancelled, it leaves the connection to the others intact.

        Raises:
            TimeoutError: ``deadline`` (of ``time.monotonic()``) has passed.
            OSError: the connection is gone, or has too much to do.
        """
        if len(self._waiting) >= WAITING_MAX or len(self._outgoing) + len(data) > OUTGOING_BYTES_MAX:
            raise BlockingIOError("too many calls are waiting for the agent")
        waiting = self._waiting[request_id] = _Waiting()
        self._outgoing += data
        try:
            if not self._writing:
                self._send()
            while waiting.reply is None:
                if self._problem is not None:
                    raise ConnectionResetError(str(self._problem)) from self._problem
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError("the deadline has passed")
                await self._take_part(waiting, left_s)
            return waiting.reply
        finally:
            del self._waiting[request_id]
            self._pass_on()

    async def _take_part(self, waiting: _Waiting, left_s: float) -> None:
        if self._outgoing and not self._writing:
            self._writing = True
            try:
                if await self._runtime.wait_writable(self._socket, left_s):
                    self._send()
                else:
                    self.break_off(TimeoutError("the agent takes nothing"))
            finally:
                self._writing = False
        elif not self._reading:
            self._reading = True
            try:
                if await self._runtime.wait_readable(self._socket, left_s):
                    self._receive()
            finally:
                self._reading = False
        else:
            waiting.signal = self._runtime.signal()
            try:
                await waiting.signal.wait(left_s)
            finally:
                waiting.signal = None

    def _pass_on(self) -> None:
        """Somebody leaves: see that somebody else reads and writes, or that the last one closes the door."""
        if self._problem is not None:
            if not (self._reading or self._writing):
                self._socket.close()
            return
        if self._reading and (self._writing or not self._outgoing):
            return
        for waiting in self._waiting.values():
            if waiting.signal is not None:
                waiting.signal.set()
                return

    def _send(self) -> None:
        try:
            while self._outgoing:
                del self._outgoing[: self._socket.send(self._outgoing)]
        except BlockingIOError:
            pass
        except OSError as error:
            self.break_off(error)

    def _receive(self) -> None:
        try:
            chunk = self._socket.recv(RECEIVE_BYTES)
            if not chunk:
                raise ConnectionResetError("the agent closed the connection")
            replies = self._frames.feed(chunk)
        except BlockingIOError:
            return
        except OSError as error:
            self.break_off(error)
            return
        for reply in replies:
            self._deliver(reply)

    def _deliver(self, reply: dict[str, Any]) -> None:
        request_id = reply.get("id", 0)
        if request_id == 0 and len(self._waiting) == 1:
            request_id = next(iter(self._waiting))
        waiting = self._waiting.get(request_id)
        if waiting is not None:
            waiting.reply = reply
            waiting.wake()
        elif request_id == 0:  # the agent could not read whose request it refuses: all but that one are repeated
            self.break_off(ConnectionResetError("the agent could not read a request"))

    def break_off(self, problem: OSError) -> None:
        """Wake everybody: each repeats its request on the next connection. The last one to leave closes this one."""
        if self._problem is not None:
            return
        self._problem = problem
        with contextlib.suppress(OSError):  # it may not even be connected any more
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the reader and the writer, on any event loop
        for waiting in self._waiting.values():
            waiting.wake()
        if not self._waiting:
            self._socket.close()

    def abandon(self) -> None:
        """Close this process's copy without a word to the agent: its loop is gone, or the parent still uses it."""
        self._problem = self._problem or ConnectionResetError("left behind")
        self._socket.close()
