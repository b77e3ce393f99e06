"""Model calls of the official SDKs, metered by one line: admitted before, untouched for the application, and counted
once. The provider plays recorded answers."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import json
import secrets
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pydantic
import pytest
import trio
from google import genai

import allotment
from tests.faults.programs import Agent
from tests.faults.provider import RECORDED, Provider
from tests.faults.stories import MESSAGES, Stage, Told, create

STREAM = "openai-chat-stream-1.sse"
USED_BY_STREAM = (53, 15, "provider", "complete")
USED_BY_ANSWER = (64, 9, "provider", "complete")
STORIES: dict[str, Callable[[Stage], Any]] = {}
COUNTS = {"tools": 2, "anthropic-stream": 2, "retried": 1, "costs-nothing": 0, "twice": 1, "copies": 2, "who": 0}


def story(tell: Callable[[Stage], Any]) -> Callable[[Stage], Any]:
    STORIES[tell.__name__.replace("_", "-")] = tell
    return tell


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def agent(run: Any, plane: Any) -> Iterator[Agent]:
    number = secrets.token_hex(3)
    one = Agent(run.root / number, plane, f"agent-{number}")
    run.agents.append(one)
    yield one.start()
    one.kill()


@pytest.fixture(scope="module")
def told(agent: Agent, plane: Any, provider: Provider, wait_until: Any) -> dict[str, Told]:
    stage = Stage(agent, plane, provider, plane.customer())
    found = {name: stage.tell(name, tell) for name, tell in STORIES.items()}
    stage.read_ledger(found, wait_until, COUNTS)
    return found


# -- OpenAI


@story
def whole(stage: Stage) -> Any:
    with stage.metered(stage.sdk(http_client=None)) as client:  # the SDK makes its own, and closes it
        return create(client, max_tokens=100)


@story
def stream(stage: Stage) -> Any:
    with stage.client(file=STREAM, step=7) as client:
        return list(create(client, stream=True))


@story
def stream_asked(stage: Stage) -> Any:
    with stage.client(file=STREAM) as client:
        return list(create(client, stream=True, stream_options={"include_usage": True}))


def _async(run: Callable[[Callable[[], Any]], Any]) -> Callable[[Stage], Any]:
    def tell(stage: Stage) -> Any:
        async def calls() -> list[Any]:
            async with stage.client(openai.AsyncOpenAI, file=STREAM) as client:
                return [chunk async for chunk in await create(client, stream=True)]

        return run(calls)

    return tell


STORIES["asyncio"] = _async(lambda calls: asyncio.run(calls()))


def _trio(calls: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():  # this SDK leaves generators of its own to the collector, of which Trio warns
        warnings.filterwarnings("ignore", "Async generator 'openai", ResourceWarning)
        return trio.run(calls)


STORIES["trio"] = _async(_trio)


@story
def responses(stage: Stage) -> Any:
    with stage.client(file="openai-responses-stream-2.sse") as client:
        return list(client.responses.create(model="gpt-4o", input="Hello", stream=True))


class City(pydantic.BaseModel):
    name: str


def _answer(message: dict[str, Any], finish: str) -> str:
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}
    return json.dumps({
        "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": [choice], "usage": usage,
    })  # fmt: skip


@story
def structured(stage: Stage) -> Any:
    with stage.client(text=_answer({"content": '{"name": "London"}'}, "stop")) as client:
        return client.chat.completions.parse(model="gpt-4o", messages=MESSAGES, response_format=City)


@story
def tools(stage: Stage) -> Any:
    call = {"id": "t", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    asks = stage.play(text=_answer({"content": None, "tool_calls": [call]}, "tool_calls"))
    says = stage.play(text=_answer({"content": "London"}, "stop"))
    with stage.client() as client:
        first = create(client, extra_headers=asks).choices[0].message
        answer = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "London"}
        messages = [*MESSAGES, first, answer]
        return client.chat.completions.create(model="gpt-4o", messages=messages, extra_headers=says)


@story
def legacy(stage: Stage) -> Any:
    with httpx.Client() as http, stage.metered(stage.sdk(play={"file": STREAM}, http_client=http)) as client:
        return list(create(client, stream=True))


# -- Anthropic, Google, and whoever takes an HTTP client


@story
def anthropic_stream(stage: Stage) -> Any:
    play = {"file": "anthropic-messages-stream-2.sse", "step": 50}
    with (
        stage.client(anthropic.Anthropic, **play) as client,
        client.messages.stream(model="claude-test", max_tokens=500, messages=MESSAGES) as answer,
    ):
        return answer.get_final_message()


@story
def anthropic_async(stage: Stage) -> Any:
    async def calls() -> Any:
        async with stage.client(anthropic.AsyncAnthropic, file="anthropic-messages-2.json") as client:
            return await client.messages.create(model="claude-test", max_tokens=500, messages=MESSAGES)

    return asyncio.run(calls())


@story
def gemini_stream(stage: Stage) -> Any:
    with stage.client(genai.Client, file="gemini-generate-stream-1.sse") as client:
        return list(client.models.generate_content_stream(model="gemini-2.5-flash", contents="Hello"))


@story
def gemini_async(stage: Stage) -> Any:
    async def calls() -> Any:
        async with stage.client(genai.Client, file="gemini-generate-1.json").aio as client:
            return await client.models.generate_content(model="gemini-2.5-flash", contents="Hello")

    return asyncio.run(calls())


@story
def http_client(stage: Stage) -> Any:
    with stage.metered(httpx.Client(), provider="mistral") as client:
        body = {"model": "m", "messages": MESSAGES}
        headers = stage.play(file="mistral-chat-2.json")
        return client.post(stage.provider.url + "/v1/chat/completions", json=body, headers=headers)


# -- whose it is


@story
def who(stage: Stage) -> Any:
    client = stage.client(labels={"user": "nobody", "tags": {"team": "red", "app": "a"}})
    with (
        client,
        allotment.attributed(user="whose", workspace="w", tags={"team": "blue"}),
        allotment.attributed(role="r"),
    ):
        create(client)
        alone = threading.Thread(target=create, args=(client,))
        alone.start()
        alone.join()
        context = contextvars.copy_context()
        along = threading.Thread(target=context.run, args=(create, client))
        along.start()
        along.join()


def whose(_: Stage) -> None:
    """The calls of the story before that went where its block said."""


def nobody(_: Stage) -> None:
    """The call of the story before whose thread knew of no block."""


STORIES |= {"whose": whose, "nobody": nobody}
COUNTS |= {"whose": 2, "nobody": 1}


@story
def threads(stage: Stage) -> Any:
    with stage.client(file=STREAM, step=300) as client, ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(lambda: list(create(client, stream=True))) for _ in range(16)]
        return [call.result() for call in calls]


@story
def tasks(stage: Stage) -> Any:
    async def calls() -> Any:
        async with stage.client(openai.AsyncOpenAI, file=STREAM, step=300) as client:

            async def one() -> list[Any]:
                return [chunk async for chunk in await create(client, stream=True)]

            return await asyncio.gather(*[one() for _ in range(16)])

    return asyncio.run(calls())


COUNTS |= {"threads": 16, "tasks": 16}


@story
def twice(stage: Stage) -> Any:
    with stage.metered(stage.client(labels={"user": "nobody-else"})) as client:
        return create(client)


@story
def copies(stage: Stage) -> Any:
    with stage.client() as client:
        create(client.with_options(timeout=20))
        create(client.with_raw_response)


@story
def costs_nothing(stage: Stage) -> Any:
    with stage.client(anthropic.Anthropic, text='{"input_tokens": 7}') as client:
        return client.messages.count_tokens(model="claude-test", messages=MESSAGES)


@story
def large(stage: Stage) -> Any:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBOR" * 160_000}}
    text = {"type": "text", "text": "What is this? " * 20_000}
    with stage.client() as client:
        return client.chat.completions.create(model="m", messages=[{"role": "user", "content": [image, text]}])


@story
def retried(stage: Stage) -> Any:
    attempts: list[int] = []

    def fails_once(request: Any) -> None:
        attempts.append(1)
        request.headers["x-play"] = json.dumps({"status": 500, "text": "{}"} if len(attempts) == 1 else {})

    sdk = stage.sdk(max_retries=2)
    sdk._client.event_hooks = {"request": [fails_once]}
    with stage.metered(sdk) as client:
        return create(client)


# -- how they end

SLOW = {"file": STREAM, "step": 400, "pause": 0.02}
ABORTED = ("estimated", "aborted")


@story
def closed(stage: Stage) -> None:
    with stage.client(**SLOW) as client, create(client, stream=True) as answer:
        next(iter(answer))


@story
def left(stage: Stage) -> None:
    with stage.client(**SLOW) as client:
        for _ in create(client, stream=True):
            break
        gc.collect()


@story
def left_async(stage: Stage) -> None:
    async def calls() -> None:
        async with stage.client(openai.AsyncOpenAI, **SLOW) as client:
            async for _ in await create(client, stream=True):
                break

    asyncio.run(calls())


@story
def broken_off(stage: Stage) -> None:
    with stage.client(file=STREAM, step=300, cut=900) as client:
        list(create(client, stream=True))


@story
def timed_out(stage: Stage) -> None:
    with stage.client(hang=10) as client:
        create(client, timeout=0.3)


@story
def cancelled(stage: Stage) -> None:
    async def calls() -> None:
        async with stage.client(openai.AsyncOpenAI, hang=10) as client:
            with contextlib.suppress(asyncio.CancelledError):
                task = asyncio.create_task(create(client))
                before = len(stage.provider.seen)
                while len(stage.provider.seen) == before:  # noqa: ASYNC110 - it is another thread that sees
                    await asyncio.sleep(0.01)
                task.cancel()
                await task

    asyncio.run(calls())


@story
def cancelled_stream(stage: Stage) -> None:
    async def calls() -> None:
        async with stage.client(openai.AsyncOpenAI, **SLOW) as client:
            with trio.CancelScope() as scope:
                async for _ in await create(client, stream=True):
                    scope.cancel()
            assert scope.cancelled_caught

    _trio(calls)


@story
def fetched(stage: Stage) -> None:
    queued = {"id": "resp_9", "object": "response", "created_at": 1, "status": "queued", "model": "gpt-4o",
              "output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}  # fmt: skip
    usage = {"input_tokens": 8, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 5,
             "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 13}  # fmt: skip
    with stage.client(text=json.dumps(queued)) as client:
        client.responses.create(model="gpt-4o", input="Hello", background=True)
        done = stage.play(text=json.dumps(queued | {"status": "completed", "usage": usage}))
        for _ in range(2):
            client.responses.retrieve("resp_9", extra_headers=done)


def _fails(status: int) -> Callable[[Stage], Any]:
    def tell(stage: Stage) -> None:
        error = {"error": {"message": "not today", "type": "x", "code": "y", "param": None}}
        with stage.client(text=json.dumps(error), status=status, headers={"retry-after": "7"}) as client:
            create(client)

    return tell


STORIES |= {f"fails-{status}": _fails(status) for status in (400, 429, 500)}
COUNTS |= {f"fails-{status}": 0 for status in (400, 429, 500)}


@story
def unreachable(stage: Stage) -> None:
    with stage.metered(stage.sdk(base_url="http://127.0.0.1:9/v1")) as client:
        create(client)


COUNTS["unreachable"] = 0


# -- what came back, and what was counted


def test_a_whole_answer_is_untouched_and_counted(told: dict[str, Told]) -> None:
    recorded = json.loads((RECORDED / "openai-chat-1.json").read_bytes())
    one = told["whole"]
    assert one.result.choices[0].message.content == recorded["choices"][0]["message"]["content"]
    assert one.counted() == USED_BY_ANSWER
    assert (one.event["provider"], one.event["model"]) == ("openai", recorded["model"])
    (seen,) = one.seen
    assert json.loads(seen.body) == {"messages": MESSAGES, "model": "gpt-4o", "max_tokens": 100}


@pytest.mark.parametrize("name", ["stream", "asyncio", "trio", "legacy"])
def test_a_stream_says_what_it_used_although_nobody_asked(told: dict[str, Told], name: str) -> None:
    one = told[name]
    assert one.error is None
    assert one.result
    assert all(chunk.choices for chunk in one.result), "the chunk that only says the usage was not asked for"
    assert json.loads(one.seen[0].body)["stream_options"] == {"include_usage": True}
    assert one.counted() == USED_BY_STREAM


def test_who_asks_for_the_usage_gets_it(told: dict[str, Told]) -> None:
    assert told["stream-asked"].result[-1].usage is not None
    assert told["stream-asked"].counted() == USED_BY_STREAM


def test_responses_are_streamed_and_counted(told: dict[str, Told]) -> None:
    usage = told["responses"].result[-1].response.usage
    assert told["responses"].counted() == (usage.input_tokens, usage.output_tokens, "provider", "complete")


def test_structured_output_and_loops_of_tools_stay_as_they_are(told: dict[str, Told]) -> None:
    assert told["structured"].result.choices[0].message.parsed == City(name="London")
    assert told["structured"].counted() == (11, 7, "provider", "complete")
    assert told["tools"].result.choices[0].message.content == "London"
    assert len({event["event"] for event in told["tools"].events}) == 2, "each round of the loop is a call of its own"


def test_anthropics_sdk_is_metered(told: dict[str, Told]) -> None:
    for name in ("anthropic-stream", "anthropic-async"):
        one = told[name]
        assert one.error is None
        usage = one.result.usage
        cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
        first, *others = sorted(one.events, key=lambda event: -event["amounts"]["requests"])
        assert first["amounts"]["input_tokens"] == usage.input_tokens + cached
        assert first["amounts"]["output_tokens"] == usage.output_tokens
        assert (first["provider"], first["model"]) == ("anthropic", one.result.model)
        assert len(others) == (name == "anthropic-stream"), "what its advisor used is an event of the advisor's model"


def test_googles_sdk_is_metered(told: dict[str, Told]) -> None:
    for name in ("gemini-stream", "gemini-async"):
        one = told[name]
        assert one.error is None
        last = one.result[-1] if isinstance(one.result, list) else one.result
        usage = last.usage_metadata
        prompt = usage.prompt_token_count + (usage.tool_use_prompt_token_count or 0)
        assert one.counted() == (prompt, usage.total_token_count - prompt, "provider", "complete")
        assert one.event["provider"] == "gemini"


def test_an_http_client_is_metered_for_whoever_uses_it(told: dict[str, Told]) -> None:
    usage = told["http-client"].result.json()["usage"]
    expected = (usage["prompt_tokens"], usage["completion_tokens"], "provider", "complete")
    assert told["http-client"].counted() == expected
    assert told["http-client"].event["provider"] == "mistral"


def test_a_block_says_whose_calls_are_and_threads_know_it_where_context_goes(told: dict[str, Told]) -> None:
    for event in told["whose"].events:
        assert event["subject"] == {"user": "whose", "workspace": "w", "role": "r"}
        assert event["tags"] == {"team": "blue", "app": "a"}
    assert told["nobody"].event["tags"] == {"team": "red", "app": "a"}


@pytest.mark.parametrize("name", ["threads", "tasks"])
def test_many_at_once_share_a_client_and_are_counted_each(told: dict[str, Told], name: str) -> None:
    one = told[name]
    assert one.error is None
    assert len({str(chunks) for chunks in one.result}) == 1
    used = {(event["amounts"]["input_tokens"], event["amounts"]["output_tokens"]) for event in one.events}
    assert used == {USED_BY_STREAM[:2]}
    assert len({event["event"] for event in one.events}) == 16


def test_metered_twice_is_counted_once_and_copies_are_metered_too(told: dict[str, Told]) -> None:
    assert told["twice"].counted() == USED_BY_ANSWER
    assert len(told["copies"].events) == 2


def test_calls_that_cost_nothing_are_not_counted(told: dict[str, Told]) -> None:
    assert told["costs-nothing"].result.input_tokens == 7


def test_a_request_of_many_frames_is_seen_as_it_is(told: dict[str, Told]) -> None:
    assert told["large"].error is None
    assert told["large"].counted() == USED_BY_ANSWER


def test_each_attempt_of_a_retry_that_is_billed_is_counted_once(told: dict[str, Told]) -> None:
    assert told["retried"].error is None
    assert len(told["retried"].seen) == 2
    assert told["retried"].counted() == USED_BY_ANSWER


@pytest.mark.parametrize("name", ["closed", "left", "left-async", "broken-off", "cancelled-stream"])
def test_a_stream_that_is_not_read_to_its_end_costs_what_came_of_it(told: dict[str, Told], name: str) -> None:
    inputs, _, *how = told[name].counted()
    assert tuple(how) == ABORTED
    assert inputs > 0
    assert bool(told[name].error) is (name == "broken-off")


@pytest.mark.parametrize("name", ["timed-out", "cancelled"])
def test_a_call_that_is_given_up_before_its_answer_costs_its_prompt(told: dict[str, Told], name: str) -> None:
    inputs, outputs, *how = told[name].counted()
    assert (outputs, *how) == (0, "estimated", "error")
    assert inputs > 0
    assert isinstance(told[name].error, openai.APITimeoutError) is (name == "timed-out")


@pytest.mark.parametrize("status", [400, 429, 500])
def test_a_providers_error_is_the_sdks_own_and_costs_nothing(told: dict[str, Told], status: int) -> None:
    error = told[f"fails-{status}"].error
    assert isinstance(error, openai.APIStatusError)
    assert (error.status_code, error.body["message"]) == (status, "not today")
    assert error.response.headers["retry-after"] == "7"


def test_a_provider_that_is_not_there_costs_nothing(told: dict[str, Told]) -> None:
    assert isinstance(told["unreachable"].error, openai.APIConnectionError)


def test_an_answer_that_was_made_in_the_background_is_counted_when_it_is_fetched(told: dict[str, Told]) -> None:
    assert told["fetched"].error is None
    assert told["fetched"].counted() == (8, 5, "provider", "complete")


# -- refusals


@pytest.fixture
def stage(agent: Agent, plane: Any, provider: Provider) -> Stage:
    provider.seen.clear()
    return Stage(agent, plane, provider, plane.customer(), "ann")


def on_plan(stage: Stage, name: str, *limits: tuple[Any, ...]) -> Stage:
    stage.plane.plan(name, *limits)
    stage.customer = stage.plane.customer(name)
    return stage


def test_what_is_used_up_is_refused_before_it_is_sent_and_not_retried(stage: Stage) -> None:
    on_plan(stage, "sdk-one-call", ("calls", "requests", 1, "month"))
    with stage.metered(stage.sdk(max_retries=2)) as client:
        create(client)
        with pytest.raises(openai.APIStatusError) as refused:
            create(client)
    assert refused.value.status_code == 402
    assert refused.value.body["code"] == "usage_limit_reached"
    assert refused.value.response.headers["ratelimit"].startswith('"calls";r=0;t=')
    assert len(stage.provider.seen) == 1


def test_what_is_too_fast_is_a_rate_limit_that_says_when(stage: Stage, wait_until: Any) -> None:
    on_plan(stage, "sdk-one-a-minute", ("pace", "requests", 1, "minute", {"at_end": "throttle"}))
    with stage.client() as client:
        create(client)

        def refused() -> openai.RateLimitError | None:
            """Until the control plane has said that the pace is used up, nobody can tell: 503, try again."""
            with pytest.raises((openai.RateLimitError, openai.InternalServerError)) as error:
                create(client)
            return error.value if isinstance(error.value, openai.RateLimitError) else None

        limited = wait_until("it is told that this is too fast", refused)
    assert 1 <= int(limited.response.headers["retry-after"]) <= 60
    with stage.client(anthropic.Anthropic) as other, pytest.raises(anthropic.RateLimitError):
        other.messages.create(model="m", max_tokens=5, messages=MESSAGES)
    with stage.client(genai.Client) as google, pytest.raises(genai.errors.ClientError) as error:
        google.models.generate_content(model="m", contents="Hello")
    assert error.value.code == 429
    assert len(stage.provider.seen) == 1


def test_what_the_plan_does_not_have_is_forbidden(stage: Stage) -> None:
    with stage.client(labels={"feature": "pictures"}) as client, pytest.raises(openai.PermissionDeniedError) as refused:
        create(client)
    assert refused.value.body["code"] == "feature_not_found"


def test_a_call_of_nobody_is_a_bad_request_that_says_what_to_do(stage: Stage) -> None:
    with stage.client(labels={"customer": None}) as client:
        with pytest.raises(openai.BadRequestError, match=r"allotment\.attributed"):
            create(client)
        with allotment.attributed(customer="a b"), pytest.raises(openai.BadRequestError, match=r"call\.customer"):
            create(client)
    assert not stage.provider.seen


def test_without_an_agent_nothing_is_sent(stage: Stage) -> None:
    client = allotment.meter(stage.sdk(), customer="c", feature="chat", socket_path="/nowhere/a.sock", timeout_s=0.1)
    with client, pytest.raises(openai.InternalServerError) as refused:
        create(client)
    assert (refused.value.status_code, refused.value.body["code"]) == (503, "agent_unavailable")
    assert refused.value.response.headers["retry-after"] == "1"
    assert not stage.provider.seen


WORDS = "lorem ipsum " * 20
LONG = {
    openai.OpenAI: {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
                    "choices": [{"index": 0, "delta": {"content": WORDS}, "finish_reason": None}]},
    anthropic.Anthropic: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": WORDS}},
    genai.Client: {"candidates": [{"content": {"parts": [{"text": WORDS}], "role": "model"}, "index": 0}]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "error"),
    [(openai.OpenAI, openai.APIError), (anthropic.Anthropic, anthropic.APIStatusError),
     (genai.Client, genai.errors.APIError)],
)  # fmt: skip
def test_a_stream_is_cut_when_its_limit_is_reached_and_its_sdk_says_why(
    stage: Stage, kind: Any, error: type[Exception]
) -> None:
    on_plan(stage, "sdk-short", ("out", "output_tokens", 900, "month"))
    event = f"event: {LONG[kind]['type']}\n" if kind is anthropic.Anthropic else ""
    text = (event + "data: " + json.dumps(LONG[kind]) + "\n\n") * 200
    got: list[Any] = []
    with stage.client(kind, file="x.sse", text=text, step=200, pause=0.005) as client:
        if kind is openai.OpenAI:
            # Of a model that nobody here has called: a byte of it counts as a token.
            answer = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        elif kind is anthropic.Anthropic:
            answer = client.messages.create(model="m", max_tokens=9_000, messages=MESSAGES, stream=True)
        else:
            answer = client.models.generate_content_stream(model="m", contents="Hello")
        with pytest.raises(error, match="gets no more"):
            got.extend(answer)
    assert 240 <= len(got) * len(WORDS) <= 900


# -- the agent goes meanwhile


@pytest.fixture(scope="module")
def mortal(run: Any, plane: Any) -> Iterator[Agent]:
    number = secrets.token_hex(3)
    one = Agent(run.root / number, plane, f"agent-{number}")
    run.agents.append(one)
    yield one
    one.kill()


def test_a_stream_whose_agent_is_killed_and_started_again_is_counted_exactly(
    mortal: Agent, plane: Any, provider: Provider, wait_until: Any
) -> None:
    agent = mortal.start()
    stage = Stage(agent, plane, provider, plane.customer(), "ann")
    with stage.client(file=STREAM, step=400, pause=0.01) as client:
        answer = iter(create(client, stream=True))
        next(answer)
        agent.kill()
        agent.start()
        rest = list(answer)
    assert all(chunk.choices for chunk in rest)
    told = {"ann": Told()}
    stage.read_ledger(told, wait_until, {})
    assert told["ann"].counted() == USED_BY_STREAM


def test_a_stream_whose_agent_stays_away_gets_no_more_than_was_held(
    mortal: Agent, plane: Any, provider: Provider
) -> None:
    agent = mortal if mortal.program is not None and mortal.program.alive else mortal.start()
    stage = Stage(agent, plane, provider, plane.customer())
    text = ("data: " + json.dumps(LONG[openai.OpenAI]) + "\n\n") * 200
    sdk = stage.sdk(play={"file": "x.sse", "text": text, "step": 700})
    client = allotment.meter(sdk, customer=stage.customer, feature="chat", socket_path=str(agent.frames), timeout_s=1)
    got: list[Any] = []
    with client:
        answer = create(client, stream=True)
        got.append(next(answer))
        agent.kill()
        with pytest.raises(openai.APIError) as cut:
            got.extend(answer)
    assert cut.value.body["code"] == "agent_unavailable"
    assert len(got) * len(WORDS) < 2_000


# -- the SDK's older self, and this page


@pytest.mark.frameworks
def test_openais_sdk_2_on_httpx_is_metered_as_well(stage: Stage, wait_until: Any) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [root / ".venv-litellm" / "bin" / "python", "-W", "error::ResourceWarning",
         root / "tests" / "environments" / "openai_2.py", stage.provider.url, stage.agent.frames, stage.customer],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3_000:]
    said = json.loads(done.stdout)
    assert said["version"].startswith("2.")
    assert (said["chunks"] < 100, said["whole"], said["refused"]) == (True, True, 403)
    told = {"blocking": Told(), "waiting": Told()}
    stage.read_ledger(told, wait_until, {})
    assert [one.counted() for one in told.values()] == [USED_BY_STREAM] * 2


def test_the_pages_example_runs_as_it_stands(stage: Stage, wait_until: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sdks.md").read_text()
    example = page.split("```python\n", 1)[1].split("```", 1)[0].replace('"acme"', json.dumps(stage.customer))
    monkeypatch.setenv("ALLOTMENT_SOCKET", str(stage.agent.frames))
    monkeypatch.setenv("OPENAI_BASE_URL", stage.provider.url + "/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setattr(stage.provider, "plays", STREAM)
    names: dict[str, Any] = {}
    exec(example, names)
    names["client"].close()
    told = {"u7": Told()}
    stage.read_ledger(told, wait_until, {})
    assert told["u7"].counted() == USED_BY_STREAM
    assert told["u7"].event["tags"] == {"team": "search"}
