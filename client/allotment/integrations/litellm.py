"""Hooks for LiteLLM's proxy: its calls are admitted before they are routed, and counted once, however they end.

In the proxy's configuration ``litellm_settings: {callbacks: your_module.hooks}``, and in ``your_module.py``::

    from allotment.integrations.litellm import AllotmentHooks
    hooks = AllotmentHooks(feature="chat")

What is told of a call travels with it in its metadata, so that fallbacks and retries end the reservation that the
request began. LiteLLM looks for hooks in the class itself: do not derive from this one.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import ProxyException

from allotment.asynchronous import AsyncClient
from allotment.errors import AllotmentError
from allotment.integrations.amounts import next_step
from allotment.integrations.litellm_calls import (
    Flight,
    costs_nothing,
    first_output,
    outputs_in,
    prompt_of,
    tokens_of,
    unread,
    whose,
)
from allotment.problems import Problem, problem, problem_of, ratelimit

_log = logging.getLogger("allotment")

RESERVATION = "allotment_reservation"
RATELIMIT = "allotment_ratelimit"
GONE = "client_disconnected"
"""What LiteLLM writes into the metadata of a call whose caller has left."""

FLIGHTS_MAX = 10_000
"""How many calls are known at once; of the oldest beyond, the agent ends the reservation by itself."""

CLIENT_GONE = 499
"""The status under which LiteLLM tells its hooks that the caller has left."""


class AllotmentHooks(CustomLogger):
    """Reserves, extends, and settles with the agent on this host for one LiteLLM proxy.

    The customer of a call is what its virtual key says (``allotment_customer`` in the metadata of the key, or of its
    team), so that nobody can name another; only with the master key the header ``x-allotment-customer`` says it. The
    feature is ``allotment_feature`` of the same metadata, else the header ``x-allotment-feature``, else ``feature``.

    Args:
        feature: of calls that name none.
        client: who asks the agent.
    """

    def __init__(self, *, feature: str | None = None, client: AsyncClient | None = None) -> None:
        super().__init__()
        self._feature = feature
        self._client = client or AsyncClient()
        self._flights: OrderedDict[str, Flight] = OrderedDict()

    async def async_pre_call_hook(
        self,
        user_api_key_dict: Any,
        cache: Any,
        data: dict[str, Any],
        call_type: str,
    ) -> dict[str, Any] | None:
        """Before anything is sent: hold what the call may use, or refuse it."""
        if costs_nothing(call_type):
            return None
        call = whose(user_api_key_dict, data, self._feature)
        if isinstance(call, str):
            raise _refused(problem(403, "customer_unknown", call))
        prompt = prompt_of(data)
        amounts = {"input_tokens": prompt.tokens_max, "output_tokens": first_output(data, call_type)}
        metered = self._client.metered(
            call.customer, call.feature, user=call.user, api_key=call.api_key, model=call.model, amounts=amounts,
            raise_on_refusal=True,
        )  # fmt: skip
        try:
            await metered.__aenter__()
        except AllotmentError as error:
            raise _refused(problem_of(error)) from error
        self._flights[metered.reservation] = Flight(metered, prompt)
        if len(self._flights) > FLIGHTS_MAX:
            self._flights.popitem(last=False)
        for metadata in (data.get("metadata"), data.get("litellm_metadata")):
            if isinstance(metadata, dict):
                metadata.pop(GONE, None)  # a caller that has not left may not say so: plans charge less for it
        told = {RESERVATION: metered.reservation, RATELIMIT: ratelimit(metered.decision).get("ratelimit", "")}
        for metadata in _own(data) or [data.setdefault("litellm_metadata", {})]:
            metadata.update(told)
        return data

    async def async_post_call_streaming_iterator_hook(
        self,
        user_api_key_dict: Any,
        response: Any,
        request_data: dict[str, Any],
    ) -> AsyncIterator[Any]:
        """While an answer streams, more is held before it is needed; without it, the stream ends."""
        flight = self._flight(request_data)
        try:
            async for chunk in response:
                if flight is not None:
                    await self._stretch(flight, chunk)
                yield chunk
        except BaseException as error:
            if flight is not None and not isinstance(error, Exception) and not flight.heard:
                await self._end(request_data, "aborted")  # of a stream that said nothing, LiteLLM logs nothing
            raise

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Complete, answered from the cache, or left by its caller: LiteLLM tells all of these here, maybe twice."""
        params = kwargs.get("litellm_params") or {}
        flight = self._take(params)
        if flight is None:
            return
        logged = kwargs.get("standard_logging_object") or {}
        if kwargs.get("cache_hit") or logged.get("cache_hit"):
            flight.call.not_sent()
        else:
            gone = any((params.get(name) or {}).get(GONE) for name in ("metadata", "litellm_metadata"))
            tokens = tokens_of(logged, response_obj)
            flight.output_bytes = flight.output_bytes or outputs_in(unread(response_obj))
            flight.say(
                tokens or flight.estimated(),
                outcome="aborted" if gone else "complete",
                estimated=gone or not tokens,
                model=logged.get("model") or kwargs.get("model"),
                provider=logged.get("custom_llm_provider") or kwargs.get("custom_llm_provider"),
            )
        await _finish(flight)

    async def async_post_call_failure_deployment_hook(
        self,
        request_data: Mapping[str, Any],
        exception: Exception,
        call_type: Any,
        fallback_depth: int | None = None,
    ) -> None:
        """One attempt failed, and another may follow: one that got no answer in time may be billed all the same."""
        flight = self._flight(request_data)
        if flight is None or type(exception).__name__ != "Timeout":
            return
        flight.timeouts += 1
        call = flight.call.call
        try:
            await self._client.record(
                call.customer, call.feature, user=call.user, api_key=call.api_key, model=call.model,
                event=f"{flight.call.reservation}-{flight.timeouts}", tokens=flight.estimated(),
                usage_source="estimated", outcome="error",
            )  # fmt: skip
        except AllotmentError as error:
            _log.error(
                "allotment: an attempt of reservation %s could not be recorded: %s", flight.call.reservation, error
            )

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """No attempt succeeded, the caller left before an answer, or a stream broke off."""
        flight = self._flight(request_data)
        if flight is None:
            return
        gone = getattr(original_exception, "status_code", None) == CLIENT_GONE
        await self._end(request_data, "aborted" if gone or flight.heard else None)

    async def async_post_call_response_headers_hook(
        self,
        data: dict[str, Any],
        user_api_key_dict: Any,
        response: Any,
        request_headers: Any = None,
        litellm_call_info: Any = None,
    ) -> dict[str, str] | None:
        """What was left when the call began."""
        said = [metadata[RATELIMIT] for metadata in _own(data) if metadata.get(RATELIMIT)]
        return {"ratelimit": str(said[0])} if said and response is not None else None

    def _flight(self, told: Mapping[str, Any]) -> Flight | None:
        """The call that is told of; what a caller wrote into metadata of its own is no reservation of ours."""
        for metadata in (told.get("metadata"), told.get("litellm_metadata")):
            flight = self._flights.get(str(metadata.get(RESERVATION))) if isinstance(metadata, Mapping) else None
            if flight is not None:
                return flight
        return None

    def _take(self, told: Mapping[str, Any]) -> Flight | None:
        """The same, once: whoever ends it takes it."""
        flight = self._flight(told)
        return None if flight is None else self._flights.pop(flight.call.reservation, None)

    async def _stretch(self, flight: Flight, chunk: Any) -> None:
        """Hold more before it is needed.

        Raises:
            ProxyException: there is no more, and what is held is used up.
        """
        flight.heard = True
        flight.output_bytes += outputs_in(chunk)
        held = flight.call.held.get("output_tokens", 0)
        step = next_step(held, flight.output_bytes)
        if not step:
            return
        try:
            decision = await flight.call.extend(output_tokens=step)
            if decision or flight.output_bytes <= held:
                return
            decision.raise_for_refusal()
        except AllotmentError as error:
            if flight.output_bytes <= held:
                return
            self._flights.pop(flight.call.reservation, None)
            flight.say(flight.estimated(), outcome="aborted", estimated=True)
            await _finish(flight)
            raise _cut(problem_of(error)) from error

    async def _end(self, told: Mapping[str, Any], outcome: str | None) -> None:
        """End it with an estimate, or as what has used nothing."""
        flight = self._take(told)
        if flight is None:
            return
        if outcome is None:
            flight.call.not_sent()
        else:
            flight.say(flight.estimated(), outcome=outcome, estimated=True)
        await _finish(flight)


async def _finish(flight: Flight) -> None:
    try:
        await flight.call.__aexit__(None, None, None)
    except AllotmentError as error:
        _log.error("allotment: reservation %s could not be ended: %s", flight.call.reservation, error)


def _own(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The metadata that the proxy itself fills: which of the two is so by route, and the other is the caller's."""
    both = (data.get("metadata"), data.get("litellm_metadata"))
    return [metadata for metadata in both if isinstance(metadata, dict) and "user_api_key_auth" in metadata]


def _refused(said: Problem) -> HTTPException:
    """What LiteLLM makes an answer of before anything is sent: with status, headers, and the ``error`` object."""
    headers = {name: value for name, value in said.headers.items() if name != "content-type"}
    refusal = HTTPException(said.status, said.body, headers)
    refusal.type = said.body["code"]
    return refusal


def _cut(said: Problem) -> Exception:
    """What LiteLLM makes the last event of a stream of; of another exception it would break the connection."""
    return ProxyException(message=said.body["detail"], type=said.body["code"], param=None, code=said.status)  # type: ignore[no-any-return]
