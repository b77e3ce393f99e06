"""What LangChain tells of a run of a model: whose it is, how much it may use, what it used. Asks nobody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult

from allotment.answers import Decision
from allotment.attribution import Attribution, attribution
from allotment.errors import AgentUnavailable, Refused
from allotment.integrations.amounts import (
    LONG_ANSWER_TOKENS,
    Prompt,
    as_key,
    disjoint,
    likely_output,
    next_step,
    text_bytes,
    whole,
)
from allotment.metered import AsyncMeteredCall, MeteredCall

M = TypeVar("M", MeteredCall, AsyncMeteredCall)

NAMED = ("customer", "feature", "user", "workspace", "role")
"""What the metadata of a run may say, each after ``allotment_``."""

CAUSES_MAX = 16
"""How far an exception is followed to what caused it."""

_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "max_tokens_to_sample")


class Begun(NamedTuple):
    """A run that begins: the arguments of ``metered``, its prompt, the run around it, and who provides the model."""

    options: dict[str, Any]
    prompt: Prompt
    parent: UUID | None
    provider: str | None


def begun(usual: Attribution, ttl_ms: int, prompts: list[Any], told: Mapping[str, Any]) -> Begun:
    """What must be held for a run before it is sent. Whose it is says its metadata, else the block, else the callback.

    Raises:
        ValueError: neither the callback nor the run says whose call it is.
    """
    metadata = told.get("metadata") or {}
    params = told.get("invocation_params") or {}
    said = {name: metadata[f"allotment_{name}"] for name in NAMED if metadata.get(f"allotment_{name}")}
    who = Attribution(**said).over(attribution()).over(usual)
    for name, value in (("customer", who.customer), ("feature", who.feature)):
        if not value:
            raise ValueError(
                f"{name}: nobody says it; give the callback {name}=..., or the call metadata allotment_{name}"
            )
    prompt = Prompt([_said(one) for one in prompts], params.get("tools"), params.get("functions"))
    limit = max(whole(params.get(name)) for name in _LIMITS) or LONG_ANSWER_TOKENS
    model = metadata.get("ls_model_name") or params.get("model") or params.get("model_name")
    options = {
        "customer": who.customer,
        "feature": who.feature,
        "user": who.user,
        "workspace": who.workspace,
        "role": who.role,
        "api_key": who.api_key,
        "tags": who.tags,
        "model": model if isinstance(model, str) else None,
        "amounts": {"input_tokens": prompt.tokens_max, "output_tokens": limit * max(1, whole(params.get("n")))},
        "ttl_ms": ttl_ms,
    }
    return Begun(options, prompt, told.get("parent_run_id"), as_key(metadata.get("ls_provider")))


class Run(Generic[M]):
    """A run on its way, and the call that is in flight for it."""

    def __init__(self, call: M, begin: Begun) -> None:
        self.call: M = call
        self._prompt = begin.prompt
        self._provider = begin.provider
        self._output_bytes = 0
        self.stop_watching: Callable[[], object] = bool

    def watch(self, left: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Call ``left`` when the task that runs it ends first."""
        task = asyncio.current_task()
        if task is None:
            return
        ending: set[asyncio.Task[None]] = set()

        def ended(_: asyncio.Task[Any]) -> None:
            ending.add(task.get_loop().create_task(left()))  # kept, or nobody would keep it from being collected

        task.add_done_callback(ended)
        self.stop_watching = lambda: task.remove_done_callback(ended)

    def heard(self, token: Any, chunk: Any) -> int:
        """A piece of its answer came: how much more output to hold."""
        message = getattr(chunk, "message", None)
        calls: Any = getattr(message, "tool_call_chunks", None) or ()
        texts = [*_texts(token), *(call.get("args") for call in calls), *(call.get("name") for call in calls)]
        extra = getattr(message, "additional_kwargs", None) or {}
        texts.append(extra.get("reasoning_content"))
        self._output_bytes += sum(text_bytes(text) for text in texts if isinstance(text, str))
        return next_step(self._held, self._output_bytes)

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Without an answer from the agent, a stream goes on with what is held."""
        try:
            yield
        except AgentUnavailable:
            if self._output_bytes > self._held:
                raise

    def raise_if_used_up(self, decision: Decision) -> None:
        """A refusal ends the stream once what is held is used up.

        Raises:
            Throttled, Blocked: it is.
        """
        if self._output_bytes > self._held:
            decision.raise_for_refusal()

    def complete(self, response: LLMResult) -> None:
        """It ended as it should; an answer from LangChain's cache has used nothing."""
        said = _message(response)
        usage = getattr(said, "usage_metadata", None) or {}
        if usage.get("total_cost") == 0:
            self.call.not_sent()
            return
        self._report(_tokens(usage, response), _model(said, response), "complete")

    def failed(self, error: BaseException, response: Any) -> None:
        """It ended in another way; what the provider refused, or what never reached it, has used nothing."""
        said = _message(response)
        tokens = _tokens(getattr(said, "usage_metadata", None) or {}, response)
        if not tokens and not self._output_bytes and _never_billed(error):
            self.call.not_sent()
            return
        left = isinstance(error, Refused) or not isinstance(error, Exception)
        self._report(tokens, _model(said, response), "aborted" if left else "error")

    @property
    def _held(self) -> int:
        held: dict[str, int] = self.call.held
        return held.get("output_tokens", 0)

    def _report(self, tokens: dict[str, int], model: str | None, outcome: str) -> None:
        estimate = {"input": self._prompt.tokens_likely, "output": likely_output(self._output_bytes)}
        self.call.report(
            tokens=tokens or estimate, usage_source="provider" if tokens else "estimated", outcome=outcome,
            model=model or self.call.call.model, provider=self._provider,
        )  # fmt: skip


def _said(prompt: Any) -> Any:
    """The parts of messages that are sent."""
    if isinstance(prompt, list):
        return [_said(one) for one in prompt]
    if isinstance(prompt, BaseMessage):
        return [prompt.type, prompt.name, prompt.content, getattr(prompt, "tool_calls", None), prompt.additional_kwargs]
    return prompt


def _texts(token: Any) -> list[Any]:
    """A piece of text, or of content in blocks."""
    blocks = token if isinstance(token, list) else [token]
    return [one for block in blocks for one in (block.values() if isinstance(block, dict) else (block,))]


def _message(response: Any) -> Any:
    for generation in (one for some in getattr(response, "generations", None) or () for one in some):
        return getattr(generation, "message", None)
    return None


def _model(message: Any, response: Any) -> str | None:
    found = getattr(message, "response_metadata", None) or {}
    output = getattr(response, "llm_output", None) or {}
    model = found.get("model_name") or found.get("model") or output.get("model_name") or output.get("model")
    return model if isinstance(model, str) else None


def _tokens(usage: Mapping[str, Any], response: Any) -> dict[str, int]:
    """LangChain's sums include their parts, whatever the provider's do."""
    if not usage:
        said = (getattr(response, "llm_output", None) or {}).get("token_usage") or {}
        return disjoint(said.get("prompt_tokens"), said.get("completion_tokens"))
    read = usage.get("input_token_details") or {}
    written = usage.get("output_token_details") or {}
    return disjoint(
        usage.get("input_tokens"),
        usage.get("output_tokens"),
        cache_read=read.get("cache_read"),
        cache_write=read.get("cache_creation"),
        input_audio=read.get("audio"),
        reasoning=written.get("reasoning"),
        output_audio=written.get("audio"),
    )


def _never_billed(error: BaseException) -> bool:
    """The provider answered with an error, or was not reached: then nothing was generated."""
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    if isinstance(status, int) and status >= 400:
        return True
    cause: BaseException | None = error
    for _ in range(CAUSES_MAX):
        if cause is None:
            return False
        if type(cause).__name__ in ("ConnectError", "ConnectTimeout"):  # of httpx and httpx2 alike
            return True
        cause = cause.__cause__ or cause.__context__
    return False
