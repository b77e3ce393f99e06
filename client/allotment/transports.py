"""Transports around an SDK's own: each request is asked about before it is sent, and its answer watched as it comes.

For `httpx` and for `httpx2`, which are alike but for their name; whichever the SDK uses is used, and none is imported.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

from allotment.answers import Decision
from allotment.asynchronous import AsyncClient
from allotment.attribution import Attribution, attribution
from allotment.blocking import Client
from allotment.errors import AllotmentError, Refused
from allotment.observed import BODY_BYTES_MAX, ObservedCall, Sent
from allotment.problems import Problem, problem, problem_of, ratelimit
from allotment.server_events import with_usage_asked
from allotment.streams import AsyncStream, Stream, finish, talk, talk_async

UNSENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"})
"""Errors, by name, after which no provider has seen the request."""

_FETCHED = re.compile(r"/(batches|responses|chat/completions)/[^/]")
"""What may tell usage when it is fetched; the agent knows it exactly."""

NOBODY = (
    "customer or feature: is missing; say whose this call is by allotment.meter(client, customer=..., feature=...) or"
    " with allotment.attributed(customer=..., feature=...)"
)


class Meter(NamedTuple):
    """How a client is metered.

    Attributes:
        library: `httpx` or `httpx2`.
        family: whose SDK it is: ``openai``, ``anthropic`` or ``gemini``. provider: under which calls are counted.
    """

    library: ModuleType
    family: str
    provider: str
    labels: Attribution
    estimate: str

    def observe(self, request: Any) -> tuple[Any, ObservedCall | Problem | None]:
        """The request as it is to be sent, and the call that it is; ``None``: it costs nothing."""
        path = request.url.raw_path.partition(b"?")[0].decode("latin-1")
        fetches = request.method == "GET" and _FETCHED.search(path) is not None
        if request.method != "POST" and not fetches:
            return request, None
        call = attribution().over(self.labels).call()
        if call is None:
            if fetches:
                return request, None
            return request, problem(400, "invalid_request", NOBODY, field="customer")
        headers = self.library.Headers(request.headers)
        if not headers.get("authorization", "").startswith("AWS4-"):  # what is signed must stay as it is
            headers["accept-encoding"] = "identity"  # the agent reads what comes
        kind = headers.get("content-type", "").lower()
        body, asked = _body_of(request) if kind.startswith("application/json") else None, None
        if body is not None and self.family == "openai" and path.endswith("/completions"):
            asked = with_usage_asked(body)
        if asked is not None:
            body = asked
            headers["content-length"] = str(len(body))
        said = headers.get("content-length", "")
        size = len(body) if body is not None else int(said[:15]) if said.isdecimal() else 0
        shown = body if body is not None and size <= BODY_BYTES_MAX else None
        hides = asked is not None
        sent = Sent(self.family, self.provider, path[:2048], kind[:256], shown, size, self.estimate, hides, fetches)
        content = {"stream": request.stream} if body is None else {"content": body}
        changed = self.library.Request(
            request.method, request.url, headers=headers, extensions=request.extensions, **content
        )
        return changed, ObservedCall(call, sent)

    def refuse(self, why: Problem) -> Any:
        """The answer that a call gets which was not sent: its SDK makes one of its own errors of it."""
        return self.library.Response(why.status, headers=why.headers, content=json.dumps(why.body).encode())

    def show(self, response: Any, observed: ObservedCall, decision: Decision, stream: Any) -> Any:
        """The provider's answer, as the SDK gets it."""
        response.stream = stream
        if observed.is_rewritten:
            with contextlib.suppress(KeyError):
                del response.headers["content-length"]
        response.headers.update(ratelimit(decision))
        return response


class MeteredTransport:
    """For blocking SDKs."""

    def __init__(self, inner: Any, agent: Client, meter: Meter) -> None:
        self.inner = inner
        self._agent = agent
        self._meter = meter
        self._stream = type("MeteredStream", (Stream, meter.library.SyncByteStream), {})

    def handle_request(self, request: Any) -> Any:
        """One attempt: each has a reservation of its own."""
        request, observed = self._meter.observe(request)
        if not isinstance(observed, ObservedCall):
            return self.inner.handle_request(request) if observed is None else self._meter.refuse(observed)
        try:
            decision = talk(self._agent, observed.begin())
        except AllotmentError as unasked:
            return self.inner.handle_request(request) if observed.may_fail else self._meter.refuse(problem_of(unasked))
        except BaseException:  # it may be held although nobody will hear so
            talk(self._agent, observed.end(whole=False, sent=False, hurried=True))
            raise
        if not decision.allowed:
            return self._meter.refuse(problem_of(Refused(decision)))
        if decision.reservation is None:
            return self.inner.handle_request(request)
        try:
            response = self.inner.handle_request(request)
        except BaseException as error:
            talk(self._agent, observed.end(whole=False, sent=not _is_unsent(error), hurried=True))
            raise
        observed.answered(response.status_code, _lowered(response.headers))
        stream = self._stream(response.stream, self._agent, observed)
        return self._meter.show(response, observed, decision, stream)

    def close(self) -> None:
        """Close the connections, to the provider and to the agent."""
        self.inner.close()
        self._agent.close()

    def __enter__(self) -> MeteredTransport:
        self.inner.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.inner.__exit__(*error)
        self._agent.close()

    def __del__(self) -> None:
        self._agent.close()


class AsyncMeteredTransport:
    """For SDKs of asyncio and Trio."""

    def __init__(self, inner: Any, agent: AsyncClient, meter: Meter) -> None:
        self.inner = inner
        self._agent = agent
        self._meter = meter
        self._stream = type("AsyncMeteredStream", (AsyncStream, meter.library.AsyncByteStream), {})

    async def handle_async_request(self, request: Any) -> Any:
        """One attempt: each has a reservation of its own."""
        request, observed = self._meter.observe(request)
        if not isinstance(observed, ObservedCall):
            return await self.inner.handle_async_request(request) if observed is None else self._meter.refuse(observed)
        try:
            decision = await talk_async(self._agent, observed.begin())
        except AllotmentError as unasked:
            if observed.may_fail:
                return await self.inner.handle_async_request(request)
            return self._meter.refuse(problem_of(unasked))
        except BaseException:  # it may be held, or soon be, although nobody will hear so
            await finish(self._agent, lambda: observed.end(whole=False, sent=False, hurried=True))
            raise
        if not decision.allowed:
            return self._meter.refuse(problem_of(Refused(decision)))
        if decision.reservation is None:
            return await self.inner.handle_async_request(request)
        try:
            response = await self.inner.handle_async_request(request)
        except BaseException as error:
            unsent = _is_unsent(error)
            await finish(self._agent, lambda: observed.end(whole=False, sent=not unsent, hurried=True))
            raise
        observed.answered(response.status_code, _lowered(response.headers))
        stream = self._stream(response.stream, self._agent, observed)
        return self._meter.show(response, observed, decision, stream)

    async def aclose(self) -> None:
        """Close the connections, to the provider and to the agent."""
        await self.inner.aclose()
        await self._agent.aclose()

    async def __aenter__(self) -> AsyncMeteredTransport:
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.inner.__aexit__(*error)
        await self._agent.aclose()


def _body_of(request: Any) -> bytes | None:
    try:
        body: bytes = request.content
    except RuntimeError:  # it is read while it is sent
        return None
    return body


def _lowered(headers: Any) -> Mapping[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _is_unsent(error: BaseException) -> bool:
    return any(kind.__name__ in UNSENT for kind in type(error).__mro__)
