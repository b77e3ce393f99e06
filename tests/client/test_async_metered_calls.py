"""An async metered call ends its reservation once, cancelled at whichever await, on asyncio and on Trio."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest
import trio

import allotment

AMOUNTS = {"input_tokens": 900, "output_tokens": 512}


class Interruptible:
    """Runs a coroutine and calls ``interrupt`` at the moment of its ``at``-th wait."""

    def __init__(self, work: Coroutine[Any, Any, None], at: int, interrupt: Callable[[], object]) -> None:
        self.work, self.at, self.interrupt, self.waits = work, at, interrupt, 0

    def __await__(self) -> Generator[Any, Any, None]:
        inner = self.work.__await__()
        step, value = inner.send, None
        while True:
            try:
                waits_for = step(value)
            except StopIteration:
                return
            if self.waits == self.at:
                self.interrupt()
            self.waits += 1
            try:
                value, step = (yield waits_for), inner.send
            except BaseException as error:  # noqa: BLE001 - handed on to the coroutine, whatever it is
                value, step = error, inner.throw


def on_asyncio(work: Coroutine[Any, Any, None], at: int) -> tuple[bool, int]:
    """Whether it was cancelled, and how often it waited."""

    async def main() -> tuple[bool, int]:
        task = asyncio.current_task()
        assert task is not None
        driven = Interruptible(work, at, task.cancel)
        try:
            await driven
        except asyncio.CancelledError:
            return True, driven.waits
        return False, driven.waits

    return asyncio.run(main())


def on_asyncio_again_and_again(work: Coroutine[Any, Any, None], at: int) -> tuple[bool, int]:
    """The same, by a canceller that repeats itself while it waits, as level-triggered libraries do."""

    async def main() -> tuple[bool, int]:
        task = asyncio.current_task()
        assert task is not None

        async def insist() -> None:
            while True:
                task.cancel()
                await asyncio.sleep(0)

        insisting: list[asyncio.Task[None]] = []
        driven = Interruptible(work, at, lambda: insisting.append(asyncio.ensure_future(insist())))
        cancelled = False
        try:
            await driven
        except asyncio.CancelledError:
            cancelled = True
        for other in insisting:
            other.cancel()
        return cancelled, driven.waits

    return asyncio.run(main())


def on_trio(work: Coroutine[Any, Any, None], at: int) -> tuple[bool, int]:
    """Whether it was cancelled, and how often it waited."""

    async def main() -> tuple[bool, int]:
        with trio.CancelScope() as scope:
            driven = Interruptible(work, at, scope.cancel)
            await driven
        return scope.cancelled_caught, driven.waits

    return trio.run(main)


@pytest.fixture(params=[on_asyncio, on_asyncio_again_and_again, on_trio], ids=lambda function: function.__name__)
def run(request):
    return request.param


async def one_call(client: allotment.AsyncClient, progress: list[str]) -> None:
    async with client:
        async with client.metered("acme", "chat", amounts=AMOUNTS) as call:
            progress.append("entered")
            await call.extend(output_tokens=512)
            progress.append("extended")
            call.report(tokens={"input": 880, "output": 99})
            await client.check("acme", "other")
        progress.append("left")


def test_cancelled_at_any_await_it_ends_once(run, agent):
    seen, at = set(), 0
    while True:
        progress: list[str] = []
        cancelled, waits = run(one_call(allotment.AsyncClient(str(agent.path)), progress), at)
        assert agent.ledger.held == {}, f"still held after cancellation at await {at}"
        assert len(agent.ledger.events) + len(agent.ledger.released) <= 1, f"ended twice at await {at}"
        if "extended" in progress:
            (event,) = agent.ledger.events.values()
            assert event.tokens == {"input": 880, "output": 99}
        elif "entered" in progress:
            (event,) = agent.ledger.events.values()
            assert (event.outcome, event.amounts) == ("aborted", {"input_tokens": 900})
        else:
            assert agent.ledger.events == {}
        seen.add((cancelled, *progress))
        agent.ledger.__init__()
        if waits <= at:
            break
        at += 1
    assert not cancelled
    assert at >= 4
    assert {(True,), (True, "entered"), (False, "entered", "extended", "left")} <= seen


@pytest.mark.parametrize("fault", ["silent", "deaf", "drop", "cut"])
def test_cancelled_while_the_agent_does_not_answer_the_ending_it_still_ends(run, agent, fault, monkeypatch):
    monkeypatch.setattr("allotment.metered.CLOSING_TIMEOUT_S", 0.1)

    async def work() -> None:
        async with (
            allotment.AsyncClient(str(agent.path)) as client,
            client.metered("acme", "chat", amounts=AMOUNTS),
        ):
            agent.script.extend([fault, fault])
            await client.check("acme", "chat")

    began = time.monotonic()
    run(work(), 1)
    assert time.monotonic() - began < 2
    agent.wait_until(lambda: agent.ledger.held == {})
    assert len(agent.ledger.events) == 1


def test_a_reserve_that_waits_at_the_agent_is_given_back_when_it_is_cancelled(agent):
    agent.script.append("park")

    async def main() -> None:
        client = allotment.AsyncClient(str(agent.path))
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                async with client.metered("acme", "chat", amounts=AMOUNTS):
                    pytest.fail("a cancelled call must not run")

            nursery.start_soon(call)
            while not agent.seen:  # noqa: ASYNC110 - another thread sees it
                await trio.sleep(0.002)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                while "release" not in agent.ops:  # noqa: ASYNC110
                    await trio.sleep(0.002)
            agent.let_go()
        await client.aclose()

    trio.run(main)
    assert agent.ledger.held == {}
    assert agent.ledger.events == {}


def test_a_loop_that_shuts_down_in_the_midst_of_an_ending_does_not_stop_it(agent):
    agent.script.extend(["answer", "silent"])

    async def call(client: allotment.AsyncClient) -> None:
        async with client, client.metered("acme", "chat", amounts=AMOUNTS) as call:
            call.report(tokens={"input": 5})

    background = []

    async def main() -> None:
        background.append(asyncio.ensure_future(call(allotment.AsyncClient(str(agent.path)))))
        while "settle" not in agent.ops:  # noqa: ASYNC110 - another thread sees it
            await asyncio.sleep(0.002)

    began = time.monotonic()
    asyncio.run(main())  # cancels all tasks at its end: the call and what ends it
    assert time.monotonic() - began < 3
    assert background[0].cancelled()
    assert agent.ops == ["reserve", "settle", "settle"]
    assert agent.ledger.held == {}
    assert len(agent.ledger.events) == 1


def test_a_stream_that_nobody_finishes_ends_its_reservation_when_it_is_collected(agent):
    async def stream(client: allotment.AsyncClient):
        async with client.metered("acme", "chat", amounts=AMOUNTS) as call:
            for piece in range(9):
                call.report(tokens={"input": 900, "output": piece}, usage_source="estimated")
                yield piece

    async def main() -> None:
        async with allotment.AsyncClient(str(agent.path)) as client:
            pieces = stream(client)
            assert await anext(pieces) == 0
            assert await anext(pieces) == 1
            del pieces
            gc.collect()
            deadline = time.monotonic() + 5
            while agent.ledger.held and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    asyncio.run(main())
    (event,) = agent.ledger.events.values()
    assert (event.outcome, event.tokens) == ("aborted", {"input": 900, "output": 1})


@pytest.mark.parametrize("start", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_exceptions_refusals_and_releases_end_as_in_the_blocking_client(agent, start):
    async def main() -> None:
        async with allotment.AsyncClient(str(agent.path)) as client:
            with pytest.raises(ValueError, match="mine"):
                async with client.metered("acme", "chat", amounts=AMOUNTS):
                    raise ValueError("mine")
            async with client.metered("acme", "chat", amounts=AMOUNTS) as call:
                call.not_sent()
            with pytest.raises(allotment.Throttled):
                async with client.metered("busy", "chat", raise_on_refusal=True):
                    pytest.fail("a refused call must not run")
            async with client.metered("broke", "chat") as call:
                assert not call.allowed
            with pytest.raises(allotment.RequestInvalid):
                async with client.metered("acme", "chat", amounts=AMOUNTS) as call:
                    call.report(tokens={"thoughts": 1})

    start(main() if start is asyncio.run else main)
    assert [event.outcome for event in agent.ledger.events.values()] == ["error", "complete"]
    assert len(agent.ledger.released) == 1
    assert agent.ledger.held == {}


@pytest.mark.parametrize("start", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_an_agent_that_is_gone_hides_no_exception(agent, start):
    async def main() -> None:
        async with allotment.AsyncClient(str(agent.path), timeout_s=0.25) as client:
            with pytest.raises(ValueError, match="mine") as raised:  # noqa: PT012
                async with client.metered("acme", "chat", timeout_s=0.25) as call:
                    agent.stop()
                    raise ValueError("mine")
            assert "could not be ended" in raised.value.__notes__[0]
            agent.start()
            assert (await call.end_again(5)).event == call.reservation

    start(main() if start is asyncio.run else main)
