"""``with client.metered(...)``: reserves on the way in and ends the reservation on every way out, for both clients."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from allotment import requests
from allotment.answers import Decision, Recorded
from allotment.attempts import CLOSING_TIMEOUT_S
from allotment.errors import AllotmentError, RequestInvalid, ReservationNotFound
from allotment.flights import Flight
from allotment.requests import Call, Request
from allotment.runtimes import current_runtime

if TYPE_CHECKING:
    from allotment.asynchronous import AsyncClient
    from allotment.blocking import Client


class _Metered(Flight):
    def __init__(
        self,
        call: Call,
        reservation: str,
        options: dict[str, Any],
        raise_on_refusal: bool,
        timeout_s: float | None,
    ) -> None:
        super().__init__(call, reservation, options.get("amounts") or {})
        self._options = options
        self._raise_on_refusal = raise_on_refusal
        self._timeout_s = timeout_s

    def _reserve(self) -> Request:
        return requests.reserve(self.call, self.reservation, self._options)

    def _extend(self, more: Mapping[str, int]) -> tuple[Request, dict[str, int]]:
        wider = self._wider(more)
        return requests.extend(self.reservation, wider, self._options.get("ttl_ms"), 0), wider

    def _to_repeat(self) -> Request | None:
        return None if self.recorded is not None else self._unanswered

    def _time_to_end_s(self, error: BaseException | None) -> float | None:
        if error is None:
            return self._timeout_s
        return min(CLOSING_TIMEOUT_S, self._timeout_s or CLOSING_TIMEOUT_S)


class MeteredCall(_Metered):
    """A call in flight, made by ``Client.metered``; ``allotment.flights`` states how it ends."""

    def __init__(
        self,
        client: Client,
        call: Call,
        reservation: str,
        options: dict[str, Any],
        raise_on_refusal: bool,
        timeout_s: float | None,
    ) -> None:
        super().__init__(call, reservation, options, raise_on_refusal, timeout_s)
        self._client = client

    def extend(self, **more: int) -> Decision:
        """Hold ``more`` of each meter than now, for a stream's next piece: ``call.extend(output_tokens=512)``."""
        request, wider = self._extend(more)
        decision = self._client.ask(request, Decision, self._timeout_s)
        if decision.allowed:
            self.held = dict(decision.reservation.amounts) if decision.reservation else wider
        return decision

    def end_again(self, timeout_s: float | None = None) -> Recorded | None:
        """Repeat the ending that got no answer when the block was left: once more, counted once. None: nothing to do.

        Raises:
            AgentUnavailable: it still gets none. The agent's own ending, after ``ttl_ms``, counts what was held.
        """
        request = self._to_repeat()
        if request is not None:
            self.recorded = self._client.ask(request, Recorded, timeout_s)
        return self.recorded

    def __enter__(self) -> Self:
        try:
            self._decided(self._client.ask(self._reserve(), Decision, self._timeout_s))
        except AllotmentError:
            raise
        except BaseException as interruption:  # KeyboardInterrupt: it may be held although nobody will hear so
            self._give_up(interruption)
            raise
        if self._raise_on_refusal:
            self.decision.raise_for_refusal()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        request = self._unanswered = self._ending(error)
        if request is None:
            return
        try:
            self.recorded = self._end(request, self._time_to_end_s(error))
        except AllotmentError as problem:
            if error is None:
                raise
            self._not_ended(error, problem)
        except BaseException as interruption:  # in the midst of ending: once more, shortly, then on its way
            self._end_anyway(request, interruption)
            raise

    def _end(self, request: Request, timeout_s: float | None) -> Recorded:
        try:
            return self._client.ask(request, Recorded, timeout_s)
        except RequestInvalid:  # what was reported cannot be; the reservation ends all the same
            self.recorded = self._client.ask(self._estimate("complete"), Recorded, timeout_s)
            raise

    def _end_anyway(self, request: Request, interruption: BaseException) -> None:
        try:
            self.recorded = self._client.ask(request, Recorded, CLOSING_TIMEOUT_S)
        except AllotmentError as problem:
            self._not_ended(interruption, problem)

    def _give_up(self, interruption: BaseException) -> None:
        try:
            self._client.ask(requests.release(self.reservation), Recorded, CLOSING_TIMEOUT_S)
        except ReservationNotFound:
            return
        except AllotmentError as problem:
            self._not_ended(interruption, problem)


class AsyncMeteredCall(_Metered):
    """The same for ``AsyncClient.metered``. Cancellation waits for the ending, which takes two seconds at most."""

    def __init__(
        self,
        client: AsyncClient,
        call: Call,
        reservation: str,
        options: dict[str, Any],
        raise_on_refusal: bool,
        timeout_s: float | None,
    ) -> None:
        super().__init__(call, reservation, options, raise_on_refusal, timeout_s)
        self._client = client

    async def extend(self, **more: int) -> Decision:
        """Hold ``more`` of each meter than now, for a stream's next piece: ``await call.extend(output_tokens=512)``."""
        request, wider = self._extend(more)
        decision = await self._client.ask(request, Decision, self._timeout_s)
        if decision.allowed:
            self.held = dict(decision.reservation.amounts) if decision.reservation else wider
        return decision

    async def end_again(self, timeout_s: float | None = None) -> Recorded | None:
        """Repeat the ending that got no answer when the block was left: once more, counted once. None: nothing to do.

        Raises:
            AgentUnavailable: it still gets none. The agent's own ending, after ``ttl_ms``, counts what was held.
        """
        request = self._to_repeat()
        if request is not None:
            self.recorded = await self._client.ask(request, Recorded, timeout_s)
        return self.recorded

    async def __aenter__(self) -> Self:
        try:
            self._decided(await self._client.ask(self._reserve(), Decision, self._timeout_s))
        except AllotmentError:
            raise
        except BaseException as cancellation:  # it may be held, or soon be, although nobody will hear so
            await self._give_up(cancellation)
            raise
        if self._raise_on_refusal:
            self.decision.raise_for_refusal()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        request = self._unanswered = self._ending(error)
        if request is None:
            return
        timeout_s = self._time_to_end_s(error)
        try:
            await current_runtime().finish(lambda: self._end(request, timeout_s))
        except AllotmentError as problem:
            if error is None:
                raise
            self._not_ended(error, problem)

    async def _end(self, request: Request, timeout_s: float | None) -> None:
        try:
            self.recorded = await self._client.ask(request, Recorded, timeout_s)
        except RequestInvalid:  # what was reported cannot be; the reservation ends all the same
            self.recorded = await self._client.ask(self._estimate("complete"), Recorded, timeout_s)
            raise

    async def _give_up(self, cancellation: BaseException) -> None:
        try:
            await current_runtime().finish(self._release_or_wait)
        except AllotmentError as problem:
            self._not_ended(cancellation, problem)

    async def _release_or_wait(self) -> None:
        """The agent may be holding the reserve back until there is room: then its answer must come before a release."""
        release = requests.release(self.reservation)
        try:
            await self._client.ask(release, Recorded, CLOSING_TIMEOUT_S)
        except ReservationNotFound:
            if await self._client.ask(self._reserve(), Decision, CLOSING_TIMEOUT_S):
                await self._client.ask(release, Recorded, CLOSING_TIMEOUT_S)
