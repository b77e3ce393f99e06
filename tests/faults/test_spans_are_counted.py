"""Spans of model calls, by the real OpenTelemetry SDK and a real instrumentation of OpenAI's client, and an agent."""

from __future__ import annotations

import contextvars
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from opentelemetry import baggage, context
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Status, StatusCode, set_span_in_context

import allotment
from allotment import Client
from allotment.integrations import opentelemetry as ours
from allotment.integrations.opentelemetry import AllotmentSpanProcessor
from tests.faults.pages import run_example
from tests.faults.programs import Agent
from tests.faults.provider import RECORDED, Provider

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}


@dataclass
class Traced:
    """A traced program of one customer."""

    agent: Agent
    plane: Any
    client: Client
    customer: str
    processor: AllotmentSpanProcessor
    provider: TracerProvider

    def __post_init__(self) -> None:
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("tests")

    def span(self, inputs: int, outputs: int, **more: Any) -> None:
        """One call of a model, as a span tells it."""
        said = CHAT | {"gen_ai.usage.input_tokens": inputs, "gen_ai.usage.output_tokens": outputs} | more
        with self.tracer.start_as_current_span("chat gpt-4o", attributes=said):
            pass

    def counted(self) -> tuple[int, int]:
        """Requests and output tokens in the ledger."""
        assert self.processor.force_flush(20_000)
        self.agent.told(lambda: self.agent.status().outbox_events == 0)
        return self.plane.used(self.customer, "requests"), self.plane.used(self.customer)

    def event(self) -> dict[str, Any]:
        """The one event of this customer."""
        assert self.processor.force_flush(20_000)
        self.agent.told(lambda: self.agent.status().outbox_events == 0 and self.plane.events(self.customer))
        (event,) = self.plane.events(self.customer)
        return {"usage_source": "provider", "outcome": "complete", **event["usage"]}


@pytest.fixture(scope="module")
def agent(run: Any, plane: Any) -> Iterator[Agent]:
    number = secrets.token_hex(3)
    made = Agent(run.root / number, plane, f"agent-{number}")
    run.agents.append(made)
    yield made.start()
    made.kill()


@pytest.fixture
def traced(agent: Agent, plane: Any) -> Iterator[Traced]:
    customer = plane.customer()
    with Client(str(agent.frames), timeout_s=0.5) as client:
        processor = AllotmentSpanProcessor(customer=customer, feature="chat", tags={"team": "red"}, client=client)
        one = Traced(agent, plane, client, customer, processor, TracerProvider(shutdown_on_exit=False))
        yield one
        one.provider.shutdown()


@pytest.fixture(scope="module")
def model_provider() -> Iterator[Provider]:
    with Provider() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_real_instrumentation_of_openais_client_is_counted(traced: Traced, model_provider: Provider) -> None:
    instrumentor = OpenAIInstrumentor()
    instrumentor.instrument(tracer_provider=traced.provider)
    try:
        client = openai.OpenAI(api_key="k", base_url=f"{model_provider.url}/v1", max_retries=0)
        messages: Any = [{"role": "user", "content": "What is the capital of the UK?"}]
        client.chat.completions.create(model="gpt-4o", messages=messages)
    finally:
        instrumentor.uninstrument()
    usage = json.loads((RECORDED / "openai-chat-1.json").read_text())["usage"]
    event = traced.event()
    assert event["amounts"] == {
        "requests": 1, "input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"],
    }  # fmt: skip
    assert (event["provider"], event["usage_source"], event["outcome"]) == ("openai", "provider", "complete")
    assert event["event"].startswith("span~")


def test_all_that_a_span_tells_is_counted_under_its_own_name(traced: Traced) -> None:
    more = {
        "gen_ai.usage.cache_read.input_tokens": 60, "gen_ai.usage.cache_creation.input_tokens": 10,
        "gen_ai.usage.reasoning.output_tokens": 25, "gen_ai.response.model": "gpt-4o-2024", "allotment.user": "ann",
    }  # fmt: skip
    traced.span(100, 40, **more)
    event = traced.event()
    assert event["tokens"] == {"input": 30, "cache_read": 60, "cache_write": 10, "output": 15, "reasoning": 25}
    assert (event["model"], event["subject"]["user"], event["tags"]) == ("gpt-4o-2024", "ann", {"team": "red"})


@pytest.mark.parametrize(
    "names",
    [
        ("gen_ai.usage.prompt_tokens", "gen_ai.usage.completion_tokens"),
        ("llm.usage.prompt_tokens", "llm.usage.completion_tokens"),
    ],
)
def test_old_names_are_read_as_well(traced: Traced, names: tuple[str, str]) -> None:
    with traced.tracer.start_as_current_span("openai.chat", attributes={names[0]: 9, names[1]: 7}):
        pass
    assert traced.counted() == (1, 7)


def test_a_call_that_a_framework_and_the_sdk_tell_of_is_counted_once(traced: Traced) -> None:
    said = CHAT | {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 40}
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.usage.output_tokens": 80}
    with traced.tracer.start_as_current_span("invoke_agent", attributes=agent):
        for _ in range(2):
            with (
                traced.tracer.start_as_current_span("framework", attributes=said),
                traced.tracer.start_as_current_span("http"),
            ):
                traced.span(100, 40)
    assert traced.counted() == (2, 80)
    assert traced.processor.described == 2


def test_a_framework_that_alone_knows_the_usage_is_counted(traced: Traced) -> None:
    said = CHAT | {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 40}
    outer = traced.tracer.start_as_current_span("framework", attributes=said)
    with outer, traced.tracer.start_as_current_span("chat gpt-4o", attributes=CHAT):
        pass
    assert traced.counted() == (1, 40)


def test_spans_beside_each_other_that_tell_of_one_answer_count_once(traced: Traced) -> None:
    with traced.tracer.start_as_current_span("request"):
        for _ in range(2):
            traced.span(100, 40, **{"gen_ai.response.id": "chatcmpl-1"})
        traced.span(100, 40, **{"gen_ai.response.id": "chatcmpl-2"})
    assert traced.counted() == (2, 80)


def test_an_inner_span_that_ends_after_the_outer_is_not_counted_again(traced: Traced) -> None:
    said = CHAT | {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 40}
    outer = traced.tracer.start_span("framework", attributes=said)
    inner = traced.tracer.start_span("chat gpt-4o", context=set_span_in_context(outer), attributes=said)
    outer.end()
    inner.end()
    assert traced.counted() == (1, 40)


def test_the_same_span_told_again_is_counted_once(traced: Traced) -> None:
    again = AllotmentSpanProcessor(customer=traced.customer, feature="chat", client=traced.client)
    traced.provider.add_span_processor(again)
    traced.span(100, 40)
    assert again.force_flush(20_000)
    assert traced.counted() == (1, 40)


def test_baggage_blocks_and_spans_around_say_whose_call_it_was(traced: Traced) -> None:
    other = traced.plane.customer()
    token = context.attach(baggage.set_baggage("allotment.customer", other))
    try:
        with (
            allotment.attributed(customer="nobody", role="writer"),
            traced.tracer.start_as_current_span("request", attributes={"allotment.user": "bea"}),
        ):
            traced.span(10, 5)
    finally:
        context.detach(token)
    assert traced.counted() == (0, 0)
    traced.customer = other
    event = traced.event()
    assert event["customer"] == other
    assert (event["subject"]["user"], event["subject"]["role"]) == ("bea", "writer")


def test_a_call_that_failed_says_so_and_one_without_usage_is_not_counted(traced: Traced) -> None:
    with traced.tracer.start_as_current_span("chat gpt-4o", attributes=CHAT):
        pass
    with traced.tracer.start_as_current_span("chat gpt-4o", attributes=CHAT | {"gen_ai.usage.input_tokens": 8}) as span:
        span.set_status(Status(StatusCode.ERROR))
    event = traced.event()
    assert (event["outcome"], event["amounts"]["input_tokens"]) == ("error", 8)


def test_what_names_nobody_is_said_and_disturbs_nothing(traced: Traced, caplog: pytest.LogCaptureFixture) -> None:
    nobody = AllotmentSpanProcessor(client=traced.client)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(nobody)
    with caplog.at_level(logging.WARNING, "allotment"):
        for usage in (5, "many", -1, 2.5):
            attributes = CHAT | {"gen_ai.usage.output_tokens": usage}
            with provider.get_tracer("t").start_as_current_span("chat", attributes=attributes):
                pass
    assert nobody.dropped == 4
    assert "names no allotment.customer" in caplog.text


def test_what_the_agent_refuses_is_said_by_name(traced: Traced, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "allotment"):
        traced.span(1, 1, **{"allotment.customer": "no such customer"})
        assert traced.processor.force_flush(20_000)
    assert "call.customer" in caplog.text
    assert traced.processor.dropped == 1


def test_an_agent_that_is_away_holds_up_nobody_and_loses_nothing(traced: Traced, monkeypatch: Any) -> None:
    monkeypatch.setattr(ours, "RETRY_S", 0.05)
    traced.agent.kill()
    try:
        began = time.monotonic()
        for _ in range(200):
            traced.span(3, 2)
        assert time.monotonic() - began < 2
        assert not traced.processor.force_flush(10)
    finally:
        traced.agent.start()
    assert traced.counted() == (200, 400)
    assert (traced.processor.recorded, traced.processor.dropped) == (200, 0)


def test_too_many_that_wait_are_dropped_and_counted_as_such(agent: Agent, monkeypatch: Any) -> None:
    monkeypatch.setattr(ours, "QUEUE_MAX", 5)
    monkeypatch.setattr(ours, "FLUSH_MS", 10)
    with Client(str(agent.folder / "nowhere.sock"), timeout_s=0.05) as client:
        processor = AllotmentSpanProcessor(customer="acme", feature="chat", client=client)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(processor)
        for _ in range(20):
            attributes = CHAT | {"gen_ai.usage.output_tokens": 1}
            with provider.get_tracer("t").start_as_current_span("chat", attributes=attributes):
                pass
        assert 14 <= processor.dropped <= 15
        processor.force_flush(10)
        processor._closed.set()


def test_a_forked_child_sends_its_own_and_not_its_parents(traced: Traced) -> None:
    traced.span(3, 2)
    traced.counted()
    child = os.fork()
    if not child:  # nothing here may reach pytest
        try:
            traced.span(3, 2)
            os._exit(0 if traced.processor.force_flush(10_000) and traced.processor.recorded == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert traced.counted() == (2, 4)


def test_many_threads_at_once_are_each_counted(traced: Traced) -> None:
    threads = [threading.Thread(target=lambda: [traced.span(2, 1) for _ in range(25)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert traced.counted() == (200, 200)
    assert not traced.processor._live


def test_the_example_on_the_page_runs(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOTMENT_SOCKET", str(traced.agent.frames))

    def program() -> None:
        names = run_example("OpenTelemetry", traced.customer)
        said = CHAT | {"gen_ai.usage.output_tokens": 4}
        with names["provider"].get_tracer("t").start_as_current_span("chat gpt-4o", attributes=said):
            pass
        names["provider"].shutdown()
        names["processor"]._client.close()

    contextvars.copy_context().run(program)
    assert traced.counted() == (1, 4)
