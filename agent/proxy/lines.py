"""Lines to providers: connections that are kept for the next call.

httpx's pool looks at each connection that it has whenever a call begins or ends: at 200 streams, half of all work. So
each of its pools has one connection here, and a call takes whichever was used last.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import trio

IDLE_MAX = 500
"""How many connections to one provider are kept that nobody uses."""
KEEPALIVE_S = 60.0


class Lines:
    """Takes and keeps connections. ``open_line``: makes a transport of one connection, made when it is first used."""

    def __init__(self, open_line: Callable[[], httpx.AsyncBaseTransport]) -> None:
        self._open_line = open_line
        self._idle: dict[str, deque[tuple[float, httpx.AsyncBaseTransport]]] = {}

    @asynccontextmanager
    async def line(self, provider: str) -> AsyncIterator[httpx.AsyncBaseTransport]:
        """One for a single call; its answer is to be closed before it is given back."""
        idle = self._idle.setdefault(provider, deque())
        one = idle.pop()[1] if idle else self._open_line()
        try:
            yield one
        finally:
            now_s = trio.current_time()
            idle.append((now_s, one))
            while len(idle) > IDLE_MAX or idle[0][0] < now_s - KEEPALIVE_S:
                await _close(idle.popleft()[1])


async def _close(line: httpx.AsyncBaseTransport) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
        await line.aclose()


def one_connection(ssl_context: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
    """A line over the network."""
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEPALIVE_S)
    return httpx.AsyncHTTPTransport(verify=ssl_context, limits=limits)
