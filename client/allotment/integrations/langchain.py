"""Callbacks for LangChain: every call of a model is admitted before it is sent, and counted once, however it ends.

``model.invoke(..., config={"callbacks": [AllotmentCallback(customer="acme", feature="chat")]})``, or in the model's own
``callbacks``. A refusal is raised where the model was called: ``allotment.Throttled`` or ``allotment.Blocked``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult

from allotment.asynchronous import AsyncClient
from allotment.attribution import Attribution
from allotment.blocking import Client
from allotment.errors import AllotmentError
from allotment.integrations.langchain_runs import Begun, Run, begun
from allotment.metered import AsyncMeteredCall, MeteredCall

_log = logging.getLogger("allotment")

RUNS_MAX = 10_000
"""How many runs are known at once; of the oldest beyond, the agent ends the reservation by itself."""


class AllotmentCallback(BaseCallbackHandler):
    """For ``invoke``, ``stream``, ``batch``; in async code LangChain runs it in threads.

    Args:
        customer, feature, user, workspace, role, tags: whose calls these are, where neither the call says otherwise in
            its ``config["metadata"]`` (``allotment_customer``, ``allotment_feature``, ``allotment_user`` ...) nor a
            block of ``allotment.attributed`` around it.
        client: who asks the agent.
        ttl_ms: how long a call may take, 1000 to 86400000; a run that LangChain never ends is ended by the agent then.

    One object serves any number of runs at the same time, in any threads.
    """

    raise_error = True

    def __init__(
        self,
        *,
        customer: str | None = None,
        feature: str | None = None,
        user: str | None = None,
        workspace: str | None = None,
        role: str | None = None,
        tags: Mapping[str, str] | None = None,
        client: Client | None = None,
        ttl_ms: int = 600_000,
    ) -> None:
        self._who = Attribution(customer, feature, user, workspace, role, tags=dict(tags or {}))
        self._ttl_ms = ttl_ms
        self._client = client or Client()
        self._runs: dict[UUID, Run[MeteredCall]] = {}

    def on_chat_model_start(
        self, serialized: Any, messages: list[list[BaseMessage]], *, run_id: UUID, **told: Any
    ) -> None:
        """Reserve for one call of a chat model."""
        self._begin(run_id, begun(self._who, self._ttl_ms, messages, told))

    def on_llm_start(self, serialized: Any, prompts: list[str], *, run_id: UUID, **told: Any) -> None:
        """Reserve for one call of a completion model."""
        self._begin(run_id, begun(self._who, self._ttl_ms, prompts, told))

    def on_llm_new_token(self, token: Any, *, run_id: UUID, chunk: Any = None, **told: Any) -> None:
        """Hold more of a stream's output before it is needed; without it, the stream ends with the refusal."""
        run = self._runs.get(run_id)
        if run is not None and (step := run.heard(token, chunk)):
            with run.going_on():
                run.raise_if_used_up(run.call.extend(output_tokens=step))

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **told: Any) -> None:
        """Settle with what the provider says."""
        run = self._runs.pop(run_id, None)
        if run is not None:
            run.complete(response)
            _end(run.call)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **told: Any) -> None:
        """Settle, or give back, what a call came to that failed or was left."""
        run = self._runs.pop(run_id, None)
        if run is not None:
            run.failed(error, told.get("response"))
            _end(run.call)

    def _begin(self, run_id: UUID, run: Begun) -> None:
        if run_id in self._runs or run.parent in self._runs:
            return  # one call, told twice: by a model that is made of another model
        call = self._client.metered(raise_on_refusal=True, **run.options)
        call.__enter__()
        _known(self._runs, run_id, Run(call, run))


class AsyncAllotmentCallback(AsyncCallbackHandler):
    """The same for ``ainvoke``, ``astream``, ``abatch``, without threads; arguments as of ``AllotmentCallback``.

    Of a task that is cancelled while it waits for a whole answer, LangChain tells nobody: when the task ends, so does
    the call. Cancelled by ``asyncio.timeout`` inside a task that goes on, it is ended by the agent after ``ttl_ms``.
    """

    raise_error = True
    run_inline = True  # in the caller's own task, not in one beside it

    def __init__(
        self,
        *,
        customer: str | None = None,
        feature: str | None = None,
        user: str | None = None,
        workspace: str | None = None,
        role: str | None = None,
        tags: Mapping[str, str] | None = None,
        client: AsyncClient | None = None,
        ttl_ms: int = 600_000,
    ) -> None:
        self._who = Attribution(customer, feature, user, workspace, role, tags=dict(tags or {}))
        self._ttl_ms = ttl_ms
        self._client = client or AsyncClient()
        self._runs: dict[UUID, Run[AsyncMeteredCall]] = {}

    async def on_chat_model_start(
        self, serialized: Any, messages: list[list[BaseMessage]], *, run_id: UUID, **told: Any
    ) -> None:
        """Reserve for one call of a chat model."""
        await self._begin(run_id, begun(self._who, self._ttl_ms, messages, told))

    async def on_llm_start(self, serialized: Any, prompts: list[str], *, run_id: UUID, **told: Any) -> None:
        """Reserve for one call of a completion model."""
        await self._begin(run_id, begun(self._who, self._ttl_ms, prompts, told))

    async def on_llm_new_token(self, token: Any, *, run_id: UUID, chunk: Any = None, **told: Any) -> None:
        """Hold more of a stream's output before it is needed; without it, the stream ends with the refusal."""
        run = self._runs.get(run_id)
        if run is not None and (step := run.heard(token, chunk)):
            with run.going_on():
                run.raise_if_used_up(await run.call.extend(output_tokens=step))

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **told: Any) -> None:
        """Settle with what the provider says."""
        run = self._runs.pop(run_id, None)
        if run is not None:
            run.stop_watching()
            run.complete(response)
            await _end_later(run.call)

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **told: Any) -> None:
        """Settle, or give back, what a call came to that failed or was left."""
        run = self._runs.pop(run_id, None)
        if run is not None:
            run.stop_watching()
            run.failed(error, told.get("response"))
            await _end_later(run.call)

    async def _begin(self, run_id: UUID, run: Begun) -> None:
        if run_id in self._runs or run.parent in self._runs:
            return  # one call, told twice: by a model that is made of another model
        call = self._client.metered(raise_on_refusal=True, **run.options)
        await call.__aenter__()
        watched = Run(call, run)
        _known(self._runs, run_id, watched)
        watched.watch(lambda: self._left(run_id))

    async def _left(self, run_id: UUID) -> None:
        await self.on_llm_error(asyncio.CancelledError(), run_id=run_id)


def _known(runs: dict[UUID, Run[Any]], run_id: UUID, run: Run[Any]) -> None:
    runs[run_id] = run
    if len(runs) > RUNS_MAX:
        runs.pop(next(iter(runs)), None)


def _end(call: MeteredCall) -> None:
    """An answer that has come is not thrown away because nobody could be told what it cost: the agent ends it then."""
    try:
        call.__exit__(None, None, None)
    except AllotmentError as problem:
        _log.error("allotment: reservation %s could not be ended: %s", call.reservation, problem)


async def _end_later(call: AsyncMeteredCall) -> None:
    try:
        await call.__aexit__(None, None, None)
    except AllotmentError as problem:
        _log.error("allotment: reservation %s could not be ended: %s", call.reservation, problem)
