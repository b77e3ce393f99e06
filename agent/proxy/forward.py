"""Passes one call on: admitted before it is sent, streamed as it comes, settled however it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import httpx
import trio

from agent.core.attribution import Owners, call_of
from agent.core.estimate import Bound, Estimates
from agent.core.metered_call import MeteredCall, is_allowed
from agent.core.paths import is_metered
from agent.core.problem_details import Headers, ratelimit
from agent.proxy import admission, headers
from agent.proxy.admission import Dispatch
from agent.proxy.bodies import Prepared, prepare
from agent.proxy.cutting import last_words
from agent.proxy.hiding import UsageHider
from agent.proxy.lines import Lines
from agent.proxy.upstreams import Target, target_of
from protocol.decisions import Decision
from protocol.local_messages import ErrorReply, Problem, Release, Reply, Settle

CONNECT_S = 10.0
SILENCE_S = 600.0
"""So long a provider may think before the first byte, and between two: as the official clients wait."""


class Asked:
    """One request of a caller, whole. ``headers``: names in lower case."""

    __slots__ = ("body", "headers", "method", "path")

    def __init__(self, method: str, path: str, names: Headers, body: bytes) -> None:
        self.method = method
        self.path = path
        self.headers = names
        self.body = body


class Caller(Protocol):
    """Whom an answer goes to. All of it waits until the caller takes what was sent."""

    async def refuse(self, reply: Reply) -> None:
        """Nothing was passed on, and why."""

    async def begin(self, status: int, names: Headers) -> None:
        """The answer begins."""

    async def send(self, chunk: bytes) -> None:
        """More of it."""

    async def end(self) -> None:
        """That was all."""

    async def break_off(self) -> None:
        """The rest never comes: so that the caller sees an answer that is cut short, not one that ended."""


class Forwarder:
    """Passes calls on.

    Args:
        dispatch: the agent's operations. finish: runs what must go on when a caller has gone.
        estimates: what the agent has learned, whoever brings the calls.
        urls: providers by name. owners, feature: see :func:`agent.core.attribution.call_of`.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        finish: Callable[[Settle | Release], None],
        random_id: Callable[[], str],
        urls: dict[str, str],
        owners: Owners | None,
        feature: str | None,
        bound: Bound,
        lines: Lines,
        estimates: Estimates,
    ) -> None:
        self._dispatch = dispatch
        self._extend = admission.ask_at_once(dispatch)
        self._finish = finish
        self._random_id = random_id
        self._urls = urls
        self._owners = owners
        self._feature = feature
        self._bound = bound
        self._lines = lines
        self._estimates = estimates

    async def forward(self, asked: Asked, caller: Caller) -> None:
        """One call, to its end. Raises: protocol.violations.Violation: nowhere to go, or nobody's call."""
        target = target_of(asked.path, self._urls)
        named = dict(asked.headers)
        prepared = prepare(target, named.get(b"content-type", b""), asked.body)
        if not is_metered(asked.method, target.path):
            await self._pass_on(asked, target, prepared, caller, None, [])
            return
        call = call_of(named, prepared.told.model, self._owners, self._feature)
        name = f"proxy-{self._random_id()}"
        provider, path, told = target.provider, target.path, prepared.told
        metered = MeteredCall(self._estimates, name, call, provider, path, told, self._bound)
        reply = await admission.ask(self._dispatch, metered.reserve())
        if not is_allowed(reply):
            await caller.refuse(reply)
            return
        assert isinstance(reply, Decision)
        await self._pass_on(asked, target, prepared, caller, metered, ratelimit(reply))

    async def _pass_on(
        self,
        asked: Asked,
        target: Target,
        prepared: Prepared,
        caller: Caller,
        metered: MeteredCall | None,
        ours: Headers,
    ) -> None:
        """Send it, and bring back the answer. Whatever happens, what is held is settled: last of all."""
        status, whole, sent = None, False, False
        try:
            request = _request(asked, target, prepared)
            sent = True
            # A transport alone: a client would remember one caller's cookies for the next, and follow redirects.
            async with self._lines.line(target.provider) as line:
                response = await line.handle_async_request(request)
                status = response.status_code
                try:
                    whole = await self._bring_back(response, target, prepared, caller, metered, ours)
                finally:
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                        await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.PoolTimeout) as error:
            sent = False
            await caller.refuse(_unreachable(target, error))
        except httpx.HTTPError as error:
            if status is None:
                await caller.refuse(_broke(target, error))
            else:
                await caller.break_off()
        finally:
            if metered is not None:
                self._finish(metered.ended(status, whole=whole, sent=sent))

    async def _bring_back(
        self,
        response: httpx.Response,
        target: Target,
        prepared: Prepared,
        caller: Caller,
        metered: MeteredCall | None,
        ours: Headers,
    ) -> bool:
        """Pass the answer on as it comes; whether all of it came."""
        events = response.headers.get("content-type", "").startswith("text/event-stream")
        hider = UsageHider() if prepared.hides_usage and events else None
        if metered is not None:
            metered.answered({name.lower(): value for name, value in response.headers.items()})
        await caller.begin(
            response.status_code, headers.of_answer(response.headers.raw, ours, shortened=hider is not None or events)
        )
        assert isinstance(response.stream, httpx.AsyncByteStream)
        async for chunk in response.stream:
            if metered is not None:
                metered.feed(chunk, self._extend)
                if metered.cut is not None:
                    await caller.send(last_words(target.provider, metered.cut))
                    await caller.end()
                    return False
            shown = chunk if hider is None else hider.feed(chunk)
            if shown:
                await caller.send(shown)
        if hider is not None and (rest := hider.close()):
            await caller.send(rest)
        await caller.end()
        return True


def _request(asked: Asked, target: Target, prepared: Prepared) -> httpx.Request:
    url = httpx.URL(target.url)
    host = url.netloc
    says_length = bool(prepared.body) or asked.method in ("POST", "PUT", "PATCH")
    names = headers.of_request(asked.headers, host, len(prepared.body) if says_length else None)
    timeout = {"connect": CONNECT_S, "read": SILENCE_S, "write": SILENCE_S, "pool": CONNECT_S}
    stream = httpx.ByteStream(prepared.body)
    return httpx.Request(asked.method, url, headers=names, stream=stream, extensions={"timeout": timeout})


def _unreachable(target: Target, error: Exception) -> ErrorReply:
    text = f"{target.provider} cannot be reached from this host ({type(error).__name__}); nothing was counted"
    return ErrorReply(error=Problem("upstream_unreachable", text), retry=True)


def _broke(target: Target, error: Exception) -> ErrorReply:
    if isinstance(error, httpx.TimeoutException):
        return ErrorReply(error=Problem("upstream_timeout", f"{target.provider} has not answered in time"), retry=True)
    text = f"{target.provider} broke off before it answered ({type(error).__name__})"
    return ErrorReply(error=Problem("upstream_unreachable", text), retry=True)
