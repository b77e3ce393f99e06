"""The async client, each test on asyncio and on Trio: pipelined, order-free, cancelled anywhere without harm."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

import allotment


class OnAsyncio:
    """The few words of asyncio that the tests need."""

    run = staticmethod(lambda main: asyncio.run(main()))
    sleep = staticmethod(asyncio.sleep)
    cancelled = asyncio.CancelledError

    @staticmethod
    async def gather(*functions: Callable[[], Awaitable[object]]) -> list[object]:
        return list(await asyncio.gather(*(function() for function in functions)))

    @staticmethod
    @asynccontextmanager
    async def running(function: Callable[[], Awaitable[object]]):
        task = asyncio.ensure_future(function())
        await asyncio.sleep(0)
        yield task.cancel
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


class OnTrio:
    """The same words for Trio."""

    run = staticmethod(trio.run)
    sleep = staticmethod(trio.sleep)
    cancelled = trio.Cancelled

    @staticmethod
    async def gather(*functions: Callable[[], Awaitable[object]]) -> list[object]:
        results: list[object] = [None] * len(functions)

        async def keep(at: int, function: Callable[[], Awaitable[object]]) -> None:
            results[at] = await function()

        async with trio.open_nursery() as nursery:
            for at, function in enumerate(functions):
                nursery.start_soon(keep, at, function)
        return results

    @staticmethod
    @asynccontextmanager
    async def running(function: Callable[[], Awaitable[object]]):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(function)
            await trio.lowlevel.checkpoint()
            yield nursery.cancel_scope.cancel


@pytest.fixture(params=[OnAsyncio, OnTrio], ids=["asyncio", "trio"])
def on(request):
    return request.param


async def until(on, happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not happened():
        assert time.monotonic() < deadline, "did not happen"
        await on.sleep(0.002)


def test_every_operation_has_a_typed_answer(on, agent):
    async def main() -> None:
        async with allotment.AsyncClient(str(agent.path)) as client:
            assert (await client.check("acme", "chat", user="u7")).allowed
            await client.reserve("acme", "chat", amounts={"input_tokens": 3}, reservation="r1")
            assert (await client.extend("r1", {"input_tokens": 5})).reservation.amounts == {"input_tokens": 5}
            assert (await client.settle("r1", amounts={"input_tokens": 4})).event == "r1"
            await client.reserve("acme", "chat", reservation="r2")
            assert (await client.release("r2")).event is None
            assert (await client.record("acme", "chat", event="e1")).event == "e1"
            assert (await client.usage("acme")).plan == "pro@3"
            assert (await client.status()).agent == "a1"
        assert agent.accepted == 1

    on.run(main)


def test_hundreds_of_calls_share_one_connection_and_each_gets_its_own_answer(on, agent):
    async def main() -> None:
        async with allotment.AsyncClient(str(agent.path)) as client:
            asked = [f"f{n}" for n in range(300)]
            answers = await on.gather(*(partial(client.check, "acme", name) for name in asked))
            assert [answer.feature for answer in answers] == asked
        assert agent.accepted == 1

    on.run(main)


def test_answers_may_come_in_any_order(on, agent):
    agent.script.extend(["hold", "answer", "hold", "answer"])

    async def main() -> None:
        answered = []

        async def ask(name: str) -> None:
            answered.append((await client.check("acme", name)).feature)

        async def let_go() -> None:
            await until(on, lambda: len(answered) == 2)
            agent.let_go()

        async with allotment.AsyncClient(str(agent.path)) as client:
            await on.gather(*(partial(ask, f"f{n}") for n in range(4)), let_go)
        assert sorted(answered) == ["f0", "f1", "f2", "f3"]
        assert {answered[0], answered[1]} == {request.call.feature for request in agent.seen[1::2]}

    on.run(main)


@pytest.mark.parametrize("fault", ["drop", "deaf", "cut", "garbage", "huge", "zero"])
def test_a_dead_connection_fails_over_everybody_who_waits_and_nothing_counts_twice(on, agent, fault):
    agent.script.extend(["hold"] * 10 + [fault])

    async def main() -> None:
        async with allotment.AsyncClient(str(agent.path)) as client:
            names = [f"e{n}" for n in range(11)]
            answers = await on.gather(*(partial(client.record, "acme", "chat", event=name) for name in names))
            assert [answer.event for answer in answers] == names
        assert sorted(agent.ledger.events) == sorted(names)

    on.run(main)


def test_a_restarted_agent_is_found_again(on, agent):
    async def main() -> None:
        async with allotment.AsyncClient(str(agent.path)) as client:
            assert (await client.check("acme", "chat")).allowed
            agent.restart()
            assert (await client.check("acme", "chat")).allowed

    on.run(main)


def test_wrong_input_is_refused_by_name_without_disturbing_the_others(on, agent):
    async def main() -> None:
        async def wrong() -> str | None:
            with pytest.raises(allotment.RequestInvalid) as raised:
                await client.check("acme", "chat", amounts={"input_tokens": -1})
            return raised.value.field

        async with allotment.AsyncClient(str(agent.path)) as client:
            answers = await on.gather(wrong, *(partial(client.check, "acme", "chat") for _ in range(9)))
        assert answers[0] == "amounts.input_tokens"
        assert all(answers[1:])
        assert agent.accepted == 1

    on.run(main)


@pytest.mark.parametrize("fault", ["silent", "retry"])
def test_every_call_ends_by_its_deadline_and_the_others_go_on(on, agent, fault):
    agent.script.extend([fault] * 200)

    async def main() -> None:
        async with allotment.AsyncClient(str(agent.path)) as client:
            with pytest.raises(allotment.AgentUnavailable) as raised:
                await client.check("acme", "chat", timeout_s=0.2)
            assert raised.value.code == {"silent": "no_answer", "retry": "not_recorded"}[fault]
            agent.script.clear()
            assert (await client.check("acme", "chat")).allowed
        assert agent.accepted == 1

    on.run(main)


def test_no_agent_at_all_is_said_by_the_deadline(on):
    async def main() -> None:
        with pytest.raises(allotment.AgentUnavailable):
            await allotment.AsyncClient("/nowhere/agent.sock", timeout_s=0.2).status()

    on.run(main)


def test_a_cancelled_reader_hands_its_role_to_another_call(on, agent):
    agent.script.extend(["hold", "hold"])

    async def main() -> None:
        async with allotment.AsyncClient(str(agent.path)) as client:
            async with on.running(partial(client.check, "acme", "reader")) as cancel_reader:
                await until(on, lambda: len(agent.seen) == 1)
                answers = []

                async def second() -> None:
                    answers.append(await client.check("acme", "second"))

                async def meddle() -> None:
                    await until(on, lambda: len(agent.seen) == 2)
                    cancel_reader()
                    await on.sleep(0)
                    agent.let_go()

                if on is OnTrio:  # the nursery that is cancelled must not be the one that the second call runs in
                    with trio.CancelScope(shield=True):
                        await on.gather(second, meddle)
                else:
                    await on.gather(second, meddle)
            assert answers[0].feature == "second"
        assert agent.accepted == 1

    on.run(main)


def test_an_agent_that_does_not_read_costs_a_deadline_and_not_more(on, agent):
    async def main() -> None:
        async def ask(n: int) -> str:
            try:
                await client.check("acme", "chat", tags={"t": "x" * 60_000}, timeout_s=0.3)
            except (allotment.AgentUnavailable, allotment.RequestInvalid) as error:
                return type(error).__name__
            return "answered"

        async with allotment.AsyncClient(str(agent.path)) as client:
            with agent.asleep():
                outcomes = await on.gather(*(partial(ask, n) for n in range(60)))
            assert set(outcomes) == {"AgentUnavailable"}
            assert (await client.check("acme", "chat")).allowed

    on.run(main)


def test_more_waiting_calls_than_the_bound_are_told_so(on, agent, monkeypatch):
    monkeypatch.setattr("allotment.pipelines.WAITING_MAX", 3)
    agent.script.extend(["hold"] * 3)

    async def main() -> None:
        async def one_too_many() -> None:
            await until(on, lambda: len(agent.seen) == 3)
            with pytest.raises(allotment.AgentUnavailable, match="too many calls"):
                await client.check("acme", "chat", timeout_s=0.05)
            agent.let_go()

        async with allotment.AsyncClient(str(agent.path)) as client:
            await on.gather(*(partial(client.check, "acme", f"f{n}") for n in range(3)), one_too_many)

    on.run(main)


def test_one_client_may_serve_one_event_loop_after_another(on, agent):
    client = allotment.AsyncClient(str(agent.path))

    async def once() -> None:
        assert (await client.check("acme", "chat")).allowed

    on.run(once)
    asyncio.run(once())
    trio.run(once)

    async def close() -> None:
        await client.aclose()

    on.run(close)


def test_asyncio_alone_never_imports_trio(agent):
    program = (
        "import asyncio, sys, allotment\n"
        "async def main():\n"
        f"    async with allotment.AsyncClient({str(agent.path)!r}) as client:\n"
        "        assert await client.check('acme', 'chat')\n"
        "asyncio.run(main())\n"
        "assert 'trio' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=30, env=dict(os.environ))
