"""Passes one call on: admitted before it is sent, streamed as it comes, settled however it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Protocol

import h11
import httpx
import trio

from agent.core.attribution import Owners, call_of
from agent.core.estimate import Estimates
from agent.core.fetched import Answers, FetchedAnswer, FetchedBatch, place_of
from agent.core.metered_call import Extending, MeteredCall, is_allowed
from agent.core.paths import is_metered
from agent.core.problem_details import Headers, ratelimit, vendor_ratelimit
from agent.proxy import admission, headers
from agent.proxy.admission import Dispatch, Ending
from agent.proxy.bodies import Prepared, prepare
from agent.proxy.cutting import last_words
from agent.proxy.hiding import UsageHider
from agent.proxy.lines import Lines
from agent.proxy.upstreams import Target, target_of
from protocol.admission import Estimate
from protocol.decisions import Decision
from protocol.local_messages import RESERVATION_TTL_MS, ErrorReply, Extend, Problem, Reply

NO_HEADERS: Headers = []
CONNECT_S = 10.0
SILENCE_S = 600.0
"""So long a provider may think before the first byte, and between two: as the official clients wait."""

PROLONG_S = RESERVATION_TTL_MS / 2_000
"""A stream may hold for long what it will need: it lives on for as long as something comes."""

GONE = (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError, h11.LocalProtocolError)
"""A caller that has left, or speaks something else."""


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

    async def refuse(self, reply: Reply, more: Headers = NO_HEADERS) -> None:
        """Nothing was passed on, and why."""

    async def begin(self, status: int, names: Headers) -> None:
        """The answer begins."""

    async def send(self, chunk: bytes) -> None:
        """More of it."""

    async def end(self) -> None:
        """That was all."""

    async def break_off(self) -> None:
        """The rest never comes: so that the caller sees an answer that is cut short, not one that ended."""


class _Patient:
    """A caller whose leaving changes nothing: an answer that comes whole is billed whole, whoever waits for it."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._gone = False

    async def refuse(self, reply: Reply, more: Headers = NO_HEADERS) -> None:
        await self._try(partial(self._caller.refuse, reply, more))

    async def begin(self, status: int, names: Headers) -> None:
        await self._try(partial(self._caller.begin, status, names))

    async def send(self, chunk: bytes) -> None:
        await self._try(partial(self._caller.send, chunk))

    async def end(self) -> None:
        await self._try(self._caller.end)

    async def break_off(self) -> None:
        await self._try(self._caller.break_off)

    async def _try(self, say: Callable[[], Awaitable[None]]) -> None:
        if not self._gone:
            try:
                await say()
            except GONE:
                self._gone = True


class Watched(Protocol):
    """A call, or something that is fetched, of which more than its bytes is of interest."""

    @property
    def cut(self) -> Decision | ErrorReply | None:
        """Why it gets no more."""

    def answered(self, headers: Mapping[str, str]) -> None:
        """Its answer begins; names in lower case."""

    def feed(self, chunk: bytes, extend: Extending) -> None:
        """More of its answer."""

    def endings(self, status: int | None, *, whole: bool, sent: bool) -> Iterable[Ending]:
        """What is to be said of it."""


class Forwarder:
    """Passes calls on.

    Args:
        dispatch: the agent's operations. finish: runs what must go on when a caller has gone.
        estimates, answers: what the agent has learned and remembers, whoever brings the calls.
        vendor_headers: tell limits as OpenAI does, too.
        urls: providers by name. estimate: what is held for a call at least.
        owners, feature: see :func:`agent.core.attribution.call_of`.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        finish: Callable[[Ending], None],
        random_id: Callable[[], str],
        urls: dict[str, str],
        owners: Owners | None,
        feature: str | None,
        estimate: Estimate,
        lines: Lines,
        estimates: Estimates,
        answers: Answers,
        *,
        vendor_headers: bool,
    ) -> None:
        self._dispatch = dispatch
        self._extend = admission.ask_at_once(dispatch)
        self._finish = finish
        self._random_id = random_id
        self._urls = urls
        self._owners = owners
        self._feature = feature
        self._estimate = estimate
        self._lines = lines
        self._answers = answers
        self._kept: set[trio.CancelScope] = set()
        self._vendor_headers = vendor_headers
        self._estimates = estimates

    async def forward(self, asked: Asked, caller: Caller) -> None:
        """One call, to its end. Raises: protocol.violations.Violation: nowhere to go, or nobody's call."""
        target = target_of(asked.path, self._urls)
        named = dict(asked.headers)
        prepared = prepare(target, named.get(b"content-type", b""), asked.body)
        if not is_metered(asked.method, target.path):
            await self._pass_on(asked, target, prepared, caller, self._fetched(asked, target, named), [])
            return
        call = call_of(named, prepared.told.model, self._owners, self._feature)
        name = f"proxy-{self._random_id()}"
        provider, path, told = target.provider, target.path, prepared.told
        metered = MeteredCall(self._estimates, name, call, provider, path, told, self._estimate)
        reply = await admission.ask(self._dispatch, metered.reserve(breakdown=self._vendor_headers))
        limits = reply.breakdown if isinstance(reply, Decision) and self._vendor_headers else ()
        if not is_allowed(reply):
            await caller.refuse(reply, vendor_ratelimit(limits))
            return
        assert isinstance(reply, Decision)
        if reply.reservation is not None:
            metered.holds(reply.reservation.amounts)
        ours = ratelimit(reply) + vendor_ratelimit(limits)
        if told.streams:  # left at once, the provider stops, and bills what it has put out
            await self._pass_on(asked, target, prepared, caller, metered, ours)
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SILENCE_S) as kept:
            self._kept.add(kept)
            try:
                await self._pass_on(asked, target, prepared, _Patient(caller), metered, ours)
            finally:
                self._kept.discard(kept)

    def abandon(self) -> None:
        """Wait for no answer any longer."""
        for kept in self._kept:
            kept.cancel()

    def _fetched(self, asked: Asked, target: Target, named: Mapping[bytes, bytes]) -> Watched | None:
        """What may be told now of something that was begun before. Raises: Violation: nobody's batch."""
        place = place_of(asked.method, target.path)
        if place is None:
            return None
        if place.batch:
            call = call_of(named, None, self._owners, self._feature)
            return FetchedBatch(target.provider, target.path, place, call)
        known = self._answers.find(target.provider, place.id)
        return None if known is None else FetchedAnswer(target.provider, target.path, *known)

    async def _pass_on(
        self,
        asked: Asked,
        target: Target,
        prepared: Prepared,
        caller: Caller,
        watched: Watched | None,
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
                    whole = await self._bring_back(response, target, prepared, caller, watched, ours)
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
            if watched is not None:
                for ending in watched.endings(status, whole=whole, sent=sent):
                    self._finish(ending)
            if isinstance(watched, MeteredCall):
                self._answers.remember(target.provider, watched.response, watched.name, watched.call)

    async def _bring_back(
        self,
        response: httpx.Response,
        target: Target,
        prepared: Prepared,
        caller: Caller,
        watched: Watched | None,
        ours: Headers,
    ) -> bool:
        """Pass the answer on as it comes; whether all of it came."""
        events = response.headers.get("content-type", "").startswith("text/event-stream")
        hider = UsageHider(hides=prepared.hides_usage) if events else None
        if watched is not None:
            watched.answered({name.lower(): value for name, value in response.headers.items()})
        await caller.begin(response.status_code, headers.of_answer(response.headers.raw, ours, shortened=events))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        prolong_at_s = trio.current_time() + PROLONG_S
        async for chunk in response.stream:
            if watched is not None:
                if isinstance(watched, MeteredCall) and trio.current_time() >= prolong_at_s:
                    self._extend(Extend(reservation=watched.name, amounts={}))
                    prolong_at_s += PROLONG_S
                watched.feed(chunk, self._extend)
                if watched.cut is not None:
                    last = last_words(target.provider, watched.cut)
                    await caller.send(last if hider is None else hider.cut(last))
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
    says_length = bool(prepared.body) or asked.method in ("POST", "PUT", "PATCH")
    names = headers.of_request(asked.headers, url.netloc, len(prepared.body) if says_length else None)
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
