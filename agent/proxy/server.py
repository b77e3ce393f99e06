"""Connections of callers: HTTP/1.1 as h11 reads it, one call after the other, bounded in what is kept.

A server that others wrote would be less to keep, but none that runs under Trio can do what a proxy owes its caller: see
at once that a caller has gone, and break an answer off so that it cannot be mistaken for a whole one.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial

import h11
import trio

from agent.core.problem_details import REASONS, Headers, details
from agent.proxy.admission import Dispatch, Ending, Settler
from agent.proxy.forward import GONE, NO_HEADERS, Asked, Forwarder
from protocol.codec import encode_json
from protocol.local_messages import ErrorReply, Problem, Reply
from protocol.violations import Violation

BODY_BYTES_MAX = 64 * 1024 * 1024
"""The largest request: providers take up to 50 MB of images and documents."""

BODIES_BYTES_MAX = 256 * 1024 * 1024
"""What requests being sent on may hold together; beyond it callers are asked to come again."""

CONNECTIONS_MAX = 2_000
RECEIVE_BYTES = 64 * 1024
HEAD_BYTES_MAX = 64 * 1024
IDLE_S = 75.0
UNREAD_S = 120.0
"""How long a caller may leave its answer unread."""

REQUEST_S = 60.0
"""How long a request may take to arrive."""

LOCAL_HOSTS = (b"localhost", b"127.0.0.1", b"[::1]")

log = logging.getLogger("agent.proxy")


class Proxy:
    """Serves callers until it is cancelled.

    Args:
        make_forwarder: given how to end a reservation when its caller may have gone.
    """

    def __init__(self, dispatch: Dispatch, make_forwarder: Callable[[Finish], Forwarder]) -> None:
        self._settler = Settler(dispatch)
        self._forwarder = make_forwarder(self._settle)
        self._settling: trio.Nursery | None = None
        self._listening = trio.CancelScope()
        self._serving = trio.CancelScope()
        self._served = trio.Event()
        self._calls = 0
        self._open = 0
        self._bodies_bytes = 0
        self._idle: set[trio.CancelScope] = set()
        self._stopping = False

    async def run(self, sock: socket.socket) -> None:
        """Serve what comes in through a listening socket."""
        sock.setblocking(False)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        async with trio.open_nursery() as settling:
            self._settling = settling
            with self._serving:
                async with trio.open_nursery() as serving:
                    with self._listening:
                        await trio.serve_listeners(self._connection, [listener], handler_nursery=serving)
            self._served.set()
            # Cancelled from outside there is no time; stopped by `drain`, what is settled gets to the disk.

    async def drain(self, patience_s: float) -> None:
        """Take no more calls; let those under way end, or break them off; settle all of them."""
        self._stopping = True
        self._listening.cancel()
        for scope in self._idle:
            scope.cancel()
        with trio.move_on_after(patience_s):
            while self._calls:  # noqa: ASYNC110 - calls end by themselves, and nothing is in a hurry here
                await trio.sleep(0.02)
        self._serving.cancel()
        self._forwarder.abandon()
        with trio.move_on_after(2.0):
            await self._served.wait()  # a call that is broken off says only now what it came to
            while self._settling is not None and self._settling.child_tasks:  # noqa: ASYNC110
                await trio.sleep(0.02)

    def _settle(self, request: Ending) -> None:
        assert self._settling is not None
        self._settling.start_soon(self._settler.settle, request)

    async def _connection(self, stream: trio.SocketStream) -> None:
        caller = _Caller(stream)
        self._open += 1
        try:
            if self._open > CONNECTIONS_MAX:
                await caller.refuse(_busy("this agent serves too many connections"))
                return
            while await self._one(caller):
                pass
        except GONE:
            pass
        except Exception:
            log.exception("a caller's connection is closed")  # never what it said
        finally:
            self._open -= 1
            with trio.move_on_after(1) as closing:
                closing.shield = True
                await stream.aclose()

    async def _one(self, caller: _Caller) -> bool:
        """One request and its answer; whether another may follow."""
        with trio.move_on_after(IDLE_S) as idle:
            self._idle.add(idle)
            try:
                head = await caller.head()
            finally:
                self._idle.discard(idle)
        if idle.cancelled_caught or head is None:
            return False
        self._calls += 1
        held = 0
        try:
            _require_local(head)
            body = bytearray()
            with trio.move_on_after(REQUEST_S) as arriving:
                while (part := await caller.part()) is not None:
                    held += len(part)
                    self._bodies_bytes += len(part)
                    if held > BODY_BYTES_MAX:
                        text = f"the body is larger than {BODY_BYTES_MAX} bytes"
                        await caller.refuse(ErrorReply(error=Problem("body_too_large", text)))
                        return False
                    if self._bodies_bytes > BODIES_BYTES_MAX:
                        await caller.refuse(_busy("requests hold all the memory that they may"))
                        return False
                    body += part
            if arriving.cancelled_caught:
                return False
            asked = Asked(head.method.decode(), head.target.decode("latin-1"), list(head.headers), bytes(body))
            body.clear()
            await caller.while_there(partial(self._forwarder.forward, asked, caller))
        except Violation as wrong:
            await caller.refuse(ErrorReply(error=Problem(wrong.code, wrong.message, wrong.field or None)))
        finally:
            self._bodies_bytes -= held
            self._calls -= 1
        return not self._stopping and caller.starts_again()


class _Caller:
    """One connection's side of the conversation; see :class:`agent.proxy.forward.Caller`."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._broken = False

    async def head(self) -> h11.Request | None:
        """The next request; ``None``: there is none."""
        event = await self._next()
        return event if isinstance(event, h11.Request) else None

    async def part(self) -> bytes | None:
        """More of its body; ``None``: that was all."""
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else None

    async def while_there(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do this as long as the caller is there."""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            try:
                await work()
            except (Violation, *GONE) as error:  # raised below, as itself and not in a group
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def starts_again(self) -> bool:
        """Whether another request may follow."""
        if self._broken or self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    async def refuse(self, reply: Reply, more: Headers = NO_HEADERS) -> None:
        """Nothing was passed on, and why."""
        status, names, body = details(reply)
        payload = encode_json(body)
        await self.begin(status, [*names, *more, (b"content-length", b"%d" % len(payload))])
        await self.send(payload)
        await self.end()

    async def begin(self, status: int, names: Headers) -> None:
        """The answer begins."""
        await self._send(h11.Response(status_code=status, headers=names, reason=REASONS.get(status, b"")))

    async def send(self, chunk: bytes) -> None:
        """More of it."""
        await self._send(h11.Data(data=chunk))

    async def end(self) -> None:
        """That was all."""
        await self._send(h11.EndOfMessage())

    async def break_off(self) -> None:
        """The rest never comes."""
        self._broken = True

    async def _watch(self, scope: trio.CancelScope) -> None:
        """End the call when its caller goes. What it says meanwhile is for later: one piece of it is kept."""
        data = await self._receive()
        self._h11.receive_data(data)
        if not data:
            scope.cancel()

    async def _next(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while True:
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._h11.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._h11.receive_data(await self._receive())

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        except trio.BrokenResourceError:
            return b""

    async def _send(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            with trio.move_on_after(UNREAD_S) as waiting:
                await self._stream.send_all(data)
            if waiting.cancelled_caught:
                raise trio.BrokenResourceError("the caller does not read its answer")


Finish = Callable[[Ending], None]


def _busy(text: str) -> ErrorReply:
    return ErrorReply(error=Problem("overloaded", text), retry=True)


def _require_local(head: h11.Request) -> None:
    """A web page must not be able to use a loopback port by a name that it has rebound."""
    host = next((value for name, value in head.headers if name == b"host"), b"")
    if host.rsplit(b":", 1)[0] not in LOCAL_HOSTS and host not in LOCAL_HOSTS:
        raise Violation("host", "is not this machine", "localhost, 127.0.0.1 or [::1]", code="host_unknown")
