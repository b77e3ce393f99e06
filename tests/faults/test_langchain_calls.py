"""LangChain's own models with our callbacks, a real agent, and a provider that plays recorded answers."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI, OpenAI

import allotment
from allotment import AgentUnavailable, AsyncClient, Blocked, Client
from allotment.integrations.langchain import AllotmentCallback, AsyncAllotmentCallback
from tests.faults.pages import run_example
from tests.faults.programs import Agent, until
from tests.faults.provider import RECORDED, Provider

pytestmark = pytest.mark.frameworks


@dataclass
class Chain:
    """One customer's models, and what the agent was told of their calls."""

    agent: Agent
    plane: Any
    provider: Provider
    callback: AllotmentCallback
    async_callback: AsyncAllotmentCallback
    customer: str = ""

    def model(self, play: Any = None, *, asynchronous: bool = False, **more: Any) -> ChatOpenAI:
        usual: dict[str, Any] = {
            "model": "gpt-4o",
            "max_retries": 0,
            "stream_usage": True,
            "base_url": f"{self.provider.url}/v1",
        }
        usual["metadata"] = {"allotment_customer": self.customer, "allotment_user": "ann"}
        return ChatOpenAI(
            api_key="k", default_headers={"x-play": json.dumps(play or {})},
            callbacks=[self.async_callback if asynchronous else self.callback],
            **(usual | more),
        )  # fmt: skip

    def counted(self) -> dict[str, int]:
        """What the agent has counted, once nothing is held any longer."""
        until("nothing is held", lambda: self.agent.status().reservations == 0)
        with self.agent.client() as client:
            return {limit.meter: limit.usage for limit in client.usage(self.customer).limits}

    def event(self) -> dict[str, Any]:
        """The one event of this customer."""
        self.counted()
        self.agent.told(lambda: self.agent.status().outbox_events == 0 and self.plane.events(self.customer))
        (event,) = self.plane.events(self.customer)
        return {"usage_source": "provider", "outcome": "complete", **event["usage"]}


@pytest.fixture(scope="module")
def chain_of_all(run: Any, plane: Any) -> Iterator[Chain]:
    number = secrets.token_hex(3)
    agent = Agent(run.root / number, plane, f"agent-{number}")
    run.agents.append(agent)
    with Provider() as provider, Client(str(agent.frames)) as client:
        threading.Thread(target=provider.serve_forever, daemon=True).start()
        agent.start()
        later = AsyncClient(str(agent.frames))
        yield Chain(
            agent, plane, provider, AllotmentCallback(feature="chat", client=client, tags={"team": "red"}),
            AsyncAllotmentCallback(feature="chat", client=later),
        )  # fmt: skip
        asyncio.run(later.aclose())
        provider.shutdown()
    agent.kill()


@pytest.fixture
def chain(chain_of_all: Chain, plane: Any) -> Chain:
    chain_of_all.provider.seen.clear()
    chain_of_all.customer = plane.customer()
    return chain_of_all


def recorded(name: str = "openai-chat-1.json") -> dict[str, Any]:
    text = (RECORDED / name).read_text()
    if name.endswith(".json"):
        return dict(json.loads(text)["usage"])
    return next(json.loads(line[6:])["usage"] for line in text.splitlines() if '"choices":[]' in line)


def arguments_of(chunk: Any) -> bool:
    """The recorded stream calls a tool."""
    return any(call.get("args") for call in chunk.tool_call_chunks)


STREAM = {"file": "openai-chat-stream-1.sse", "step": 100}


def test_an_answer_is_counted_by_token_class_as_the_provider_says(chain: Chain) -> None:
    usage = {
        "prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140,
        "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 25},
    }  # fmt: skip
    answer = json.loads((RECORDED / "openai-chat-1.json").read_text()) | {"usage": usage}
    chain.model({"text": json.dumps(answer)}).invoke("What is the capital of the UK?")
    event = chain.event()
    assert event["tokens"] == {"input": 35, "cache_read": 60, "input_audio": 5, "output": 15, "reasoning": 25}
    assert event["amounts"] == {"requests": 1, "input_tokens": 100, "output_tokens": 40}
    assert (event["subject"]["user"], event["tags"], event["provider"]) == ("ann", {"team": "red"}, "openai")
    assert (event["usage_source"], event["outcome"]) == ("provider", "complete")
    assert event["model"].startswith("gpt-4o")


@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream"])
def test_every_way_of_calling_is_counted_once(chain: Chain, way: str) -> None:
    model = chain.model(STREAM if "stream" in way else {}, asynchronous=way.startswith("a"))

    async def later() -> None:
        if way == "ainvoke":
            await model.ainvoke("Hello")
        else:
            assert [chunk async for chunk in model.astream("Hello")]

    if way.startswith("a"):
        asyncio.run(later())
    elif way == "invoke":
        model.invoke("Hello")
    else:
        assert list(model.stream("Hello"))
    usage = recorded(STREAM["file"] if "stream" in way else "openai-chat-1.json")
    counted = chain.counted()
    assert (counted["requests"], counted["output_tokens"]) == (1, usage["completion_tokens"])
    assert len(chain.provider.seen) == 1


def test_a_completion_model_is_counted_too(chain: Chain) -> None:
    text = json.dumps({
        "id": "c", "object": "text_completion", "created": 1, "model": "gpt-3.5-turbo-instruct",
        "choices": [{"index": 0, "text": "London", "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 6, "completion_tokens": 1, "total_tokens": 7},
    })  # fmt: skip
    model = OpenAI(
        api_key="k", base_url=f"{chain.provider.url}/v1", default_headers={"x-play": json.dumps({"text": text})},
        callbacks=[chain.callback], metadata={"allotment_customer": chain.customer},
    )  # fmt: skip
    assert model.invoke("The capital of the UK is") == "London"
    event = chain.event()
    assert event["amounts"] == {"requests": 1, "input_tokens": 6, "output_tokens": 1}
    assert (event["usage_source"], event["model"]) == ("provider", "gpt-3.5-turbo-instruct")


def test_a_blocking_callback_serves_async_code_too(chain: Chain) -> None:
    asyncio.run(chain.model().ainvoke("Hello"))
    assert chain.counted()["requests"] == 1


def test_what_is_spent_is_refused_before_it_is_sent(chain: Chain) -> None:
    chain.plane.plan("one-call", ("calls", "requests", 1, "month"))
    chain.customer = chain.plane.customer("one-call")
    chain.model().invoke("Hello")

    def refused() -> Blocked | None:  # once the control plane has had its say: while it is slow, nobody can tell
        with pytest.raises(Blocked) as error:
            chain.model().invoke("Hello")
        return None if error.value.decision.code == "lease_unavailable" else error.value

    decision = until("it is decided", refused).decision
    assert (decision.code, decision.limiting) == ("usage_limit_reached", "calls")
    with pytest.raises(Blocked):
        asyncio.run(chain.model(asynchronous=True).ainvoke("Hello"))
    assert len(chain.provider.seen) == 1
    assert chain.counted()["requests"] == 1


def test_parallel_runs_are_told_apart(chain: Chain) -> None:
    chain.model().batch(["Hello"] * 6)

    async def many() -> None:
        await chain.model(asynchronous=True).abatch(["Hello"] * 6)

    asyncio.run(many())
    assert chain.counted()["requests"] == 12


def test_a_model_deep_in_chains_is_counted_once(chain: Chain) -> None:
    model = chain.model()
    inner = ChatPromptTemplate.from_messages([("human", "{question}")]) | model
    outer = RunnableLambda(lambda question: {"question": question}) | inner | RunnableLambda(lambda said: said.content)
    assert outer.invoke("What is the capital of the UK?", config={"callbacks": [chain.callback]})
    assert chain.counted()["requests"] == 1


def test_each_attempt_of_a_retry_is_a_call_of_its_own_and_errors_cost_nothing(chain: Chain) -> None:
    text = json.dumps({"error": {"message": "not today", "type": "x", "code": "y", "param": None}})
    model = chain.model({"text": text, "status": 500}).with_retry(
        stop_after_attempt=2, wait_exponential_jitter=False, retry_if_exception_type=(openai.APIStatusError,)
    )
    with pytest.raises(openai.InternalServerError):
        model.invoke("Hello")
    assert len(chain.provider.seen) == 2
    assert chain.counted()["requests"] == 0


def test_a_provider_that_is_not_there_costs_nothing(chain: Chain) -> None:
    with pytest.raises(openai.APIConnectionError):
        chain.model(base_url="http://127.0.0.1:9/v1").invoke("Hello")
    assert chain.counted()["requests"] == 0


def test_no_answer_in_time_costs_the_prompt(chain: Chain) -> None:
    with pytest.raises(openai.APITimeoutError):
        chain.model({"hang": 20}, timeout=0.4).invoke("What is the capital of the UK?")
    event = chain.event()
    assert (event["usage_source"], event["outcome"], event["amounts"]["output_tokens"]) == ("estimated", "error", 0)
    assert event["amounts"]["input_tokens"] > 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_that_is_left_is_counted_as_far_as_it_came(chain: Chain, asynchronous: bool) -> None:
    model = chain.model({**STREAM, "pause": 0.02}, asynchronous=asynchronous)

    async def leave() -> None:
        stream = model.astream("Hello")
        async for chunk in stream:
            if arguments_of(chunk):
                break
        await stream.aclose()

    if asynchronous:
        asyncio.run(leave())
    else:
        stream = model.stream("Hello")
        next(chunk for chunk in stream if arguments_of(chunk))
        stream.close()
    event = chain.event()
    assert (event["usage_source"], event["outcome"]) == ("estimated", "aborted")
    assert event["amounts"]["input_tokens"] > 0
    assert event["amounts"]["output_tokens"] > 0


def test_a_cancelled_call_is_ended_although_langchain_tells_nobody(chain: Chain) -> None:
    async def cancelled() -> None:
        task = asyncio.ensure_future(chain.model({"hang": 20}, asynchronous=True).ainvoke("Hello"))
        await asyncio.to_thread(until, "the provider is asked", lambda: chain.provider.seen)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(chain.counted)

    asyncio.run(asyncio.wait_for(cancelled(), 20))
    event = chain.event()
    assert (event["usage_source"], event["outcome"], event["amounts"]["output_tokens"]) == ("estimated", "aborted", 0)


def test_a_stream_without_a_word_of_its_usage_is_estimated_and_said_to_be(chain: Chain) -> None:
    assert list(chain.model(STREAM, stream_usage=False).stream("Hello"))
    event = chain.event()
    assert (event["usage_source"], event["outcome"]) == ("estimated", "complete")
    assert event["amounts"]["output_tokens"] > 0


def test_a_stream_ends_when_its_limit_is_reached(chain: Chain) -> None:
    chain.plane.plan("short", ("out", "output_tokens", 600, "month"))
    chain.customer = chain.plane.customer("short")
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
             "choices": [{"index": 0, "delta": {"content": "lorem ipsum " * 20}, "finish_reason": None}]}  # fmt: skip
    text = ("data: " + json.dumps(chunk) + "\n\n") * 50
    got: list[Any] = []
    with pytest.raises(Blocked):
        got.extend(chain.model({"file": "x.sse", "text": text}, max_tokens=500).stream("Hello"))
    assert 400 <= sum(len(str(one.content)) for one in got) <= 600
    event = chain.event()
    assert (event["usage_source"], event["outcome"]) == ("estimated", "aborted")


def test_an_answer_from_langchains_cache_costs_nothing(chain: Chain) -> None:
    model = chain.model(cache=InMemoryCache())
    for _ in range(3):
        model.invoke("Hello")
    assert len(chain.provider.seen) == 1
    assert chain.counted()["requests"] == 1


def test_two_callbacks_in_one_place_are_one(chain: Chain) -> None:
    chain.model().invoke("Hello", config={"callbacks": [chain.callback]})
    assert chain.counted()["requests"] == 1


def test_a_block_says_whose_calls_it_makes(chain: Chain) -> None:
    with allotment.attributed(customer=chain.customer, user="bea"):
        chain.model(metadata={}).invoke("Hello")
    assert chain.event()["subject"]["user"] == "bea"


def test_a_call_of_nobody_is_refused_by_name(chain: Chain) -> None:
    chain.customer = ""
    with pytest.raises(ValueError, match="allotment_customer"):
        chain.model().invoke("Hello")
    assert not chain.provider.seen


def test_the_example_on_the_page_runs(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOTMENT_SOCKET", str(chain.agent.frames))
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{chain.provider.url}/v1")
    names = run_example("LangChain", chain.customer)
    names["callback"]._client.close()
    assert names["answer"].content
    assert chain.counted()["requests"] == 1


def test_an_answer_is_not_thrown_away_because_the_agent_is_away_when_it_comes(chain: Chain) -> None:
    class Leaves(AllotmentCallback):
        def on_chat_model_start(self, *args: Any, **told: Any) -> None:
            super().on_chat_model_start(*args, **told)
            chain.agent.kill()

    client = Client(str(chain.agent.frames), timeout_s=1.0)
    callback = Leaves(customer=chain.customer, feature="chat", client=client)
    model = ChatOpenAI(model="gpt-4o", api_key="k", base_url=f"{chain.provider.url}/v1", callbacks=[callback])
    try:
        assert model.invoke("Hello").content
        with pytest.raises(AgentUnavailable):
            model.invoke("Hello")
    finally:
        client.close()
        chain.agent.start()
    assert len(chain.provider.seen) == 1
