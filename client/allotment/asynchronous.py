"""The async client: asyncio and Trio alike; all calls of an event loop share one connection, pipelined."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self, TypeVar, Unpack

from allotment import requests
from allotment.answers import Answer, Decision, Recorded, StatusReport, UsageReport
from allotment.attempts import TIMEOUT_S, Backoff, TryAgain, outcome, time_allowed_s
from allotment.blocking import default_socket_path
from allotment.connections import REQUEST_ID_MAX
from allotment.metered import AsyncMeteredCall
from allotment.pipelines import Pipeline
from allotment.requests import CheckOptions, RecordOptions, Request, ReserveOptions, SettleOptions, UsageOptions
from allotment.runtimes import Runtime, current_runtime
from allotment.wire import RequestEncoder

A = TypeVar("A", bound=Answer)


class AsyncClient:
    """Asks the agent on this host. Arguments, answers and errors are those of ``allotment.Client``.

    Use one object in one event loop at a time; in another loop or a forked child it connects anew. A cancelled call
    disturbs no other. Close it with ``await client.aclose()`` or ``async with``.
    """

    def __init__(self, socket_path: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        self.socket_path = socket_path or default_socket_path()
        self.timeout_s = timeout_s
        self._encode = RequestEncoder()
        self._request_id = 0
        self._pipeline: Pipeline | None = None

    async def check(
        self, customer: str, feature: str, *, timeout_s: float | None = None, **options: Unpack[CheckOptions]
    ) -> Decision:
        """May this call go ahead? Holds nothing."""
        return await self.ask(requests.check(customer, feature, **options), Decision, timeout_s)

    async def reserve(
        self, customer: str, feature: str, *, timeout_s: float | None = None, **options: Unpack[ReserveOptions]
    ) -> Decision:
        """Hold ``amounts`` for a call in flight; ``decision.reservation.id`` is what to settle. See ``metered``.

        Cancelled, it may have reserved all the same: give a ``reservation`` id of your own to release it, or use
        ``metered``, which does.
        """
        wanted = requests.split_reserve(customer, feature, options)
        return await self.ask(requests.reserve(*wanted), Decision, timeout_s)

    async def extend(
        self,
        reservation: str,
        amounts: Mapping[str, int],
        *,
        ttl_ms: int | None = None,
        deadline_ms: int = 0,
        timeout_s: float | None = None,
    ) -> Decision:
        """Hold so that ``amounts`` are held in all: the total, not the step, so that repeats are harmless."""
        return await self.ask(requests.extend(reservation, amounts, ttl_ms, deadline_ms), Decision, timeout_s)

    async def settle(
        self, reservation: str, *, timeout_s: float | None = None, **used: Unpack[SettleOptions]
    ) -> Recorded:
        """What a reservation really used. Said again with other numbers it is a correction."""
        return await self.ask(requests.settle(reservation, **used), Recorded, timeout_s)

    async def release(self, reservation: str, *, timeout_s: float | None = None) -> Recorded:
        """The call did not happen: give back what is held."""
        return await self.ask(requests.release(reservation), Recorded, timeout_s)

    async def record(
        self, customer: str, feature: str, *, timeout_s: float | None = None, **options: Unpack[RecordOptions]
    ) -> Recorded:
        """Usage that nobody reserved; it is counted whether or not it fits. ``recorded.event`` is its id."""
        return await self.ask(requests.record(customer, feature, **options), Recorded, timeout_s)

    async def usage(
        self, customer: str, *, timeout_s: float | None = None, **options: Unpack[UsageOptions]
    ) -> UsageReport:
        """How the limits of a customer stand: for a widget that shows what is left."""
        return await self.ask(requests.usage(customer, **options), UsageReport, timeout_s)

    async def status(self, *, timeout_s: float | None = None) -> StatusReport:
        """How the agent itself is."""
        return await self.ask(requests.status(), StatusReport, timeout_s)

    def metered(
        self,
        customer: str,
        feature: str,
        *,
        raise_on_refusal: bool = False,
        timeout_s: float | None = None,
        **options: Unpack[ReserveOptions],
    ) -> AsyncMeteredCall:
        """Reserve on entering an ``async with`` block and end the reservation once, however the block is left.

        With ``raise_on_refusal`` a refusal raises Throttled or Blocked; without, look at ``call.allowed``.
        """
        return AsyncMeteredCall(self, *requests.split_reserve(customer, feature, options), raise_on_refusal, timeout_s)

    async def aclose(self) -> None:
        """Close the connection. Calls under way connect anew."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.break_off(ConnectionResetError("the client was closed"))

    def __del__(self) -> None:
        pipeline = self.__dict__.get("_pipeline")
        if pipeline is not None:
            pipeline.abandon()  # made after `aclose`, for what had to be ended then

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def ask(self, request: Request, kind: type[A], timeout_s: float | None = None) -> A:
        """Send a request until it is answered: what all the others do."""
        runtime = current_runtime()
        within_s = time_allowed_s(request, timeout_s, self.timeout_s)
        deadline = time.monotonic() + within_s
        self._request_id = request_id = self._request_id % REQUEST_ID_MAX + 1
        request.fields["id"] = request_id
        data = self._encode(request.fields)
        backoff = Backoff(self.socket_path, within_s)
        while True:
            try:
                reply = await self._connected(runtime).exchange(request_id, data, deadline)
                return outcome(reply, kind)
            except (OSError, TryAgain) as problem:
                pause_s = backoff.delay_s(problem, deadline - time.monotonic())
            await runtime.sleep(pause_s)

    def _connected(self, runtime: Runtime) -> Pipeline:
        pipeline = self._pipeline
        if pipeline is not None:
            if pipeline.identity == (os.getpid(), runtime.identity):
                if pipeline.usable:
                    return pipeline
            else:
                pipeline.abandon()
        self._pipeline = pipeline = Pipeline(self.socket_path, runtime)
        return pipeline
