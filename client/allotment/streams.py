"""Answers of providers on their way to an SDK, and how a talk about them is held with the agent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any, TypeVar

from allotment.asynchronous import AsyncClient
from allotment.blocking import Client
from allotment.errors import AllotmentError
from allotment.observed import ObservedCall, Talk
from allotment.runtimes import current_runtime

ABANDONED_S = 0.5
"""How long the garbage collector may be held up by a stream that nobody closed."""

T = TypeVar("T")


class Stream:
    """An answer on its way. An SDK may begin to read it twice: the second time it goes on where the first was left."""

    def __init__(self, inner: Any, agent: Client, observed: ObservedCall) -> None:
        self._inner = inner
        self._chunks = iter(inner)
        self._agent = agent
        self._observed = observed
        self._ended = False
        self._pid = os.getpid()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> bytes:
        while not self._ended:
            try:
                chunk = next(self._chunks, None)
                shown, self._ended = (
                    (self._observed.rest(), True) if chunk is None else talk(self._agent, self._observed.feed(chunk))
                )
            except BaseException:
                self._ended = True
                talk(self._agent, self._observed.end(whole=False, hurried=True))
                raise
            if self._ended:
                talk(self._agent, self._observed.end(whole=chunk is None))
            if shown:
                return shown
        raise StopIteration

    def close(self) -> None:
        """Whoever read it wants no more."""
        self._ended = True
        try:
            self._inner.close()
        finally:
            talk(self._agent, self._observed.end(whole=False))

    def __del__(self) -> None:
        _abandon(self._observed, self._agent.socket_path, self._pid)


class AsyncStream:
    """The same for event loops."""

    def __init__(self, inner: Any, agent: AsyncClient, observed: ObservedCall) -> None:
        self._inner = inner
        self._chunks = inner.__aiter__()
        self._agent = agent
        self._observed = observed
        self._ended = False
        self._pid = os.getpid()

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            try:
                chunk = await anext(self._chunks, None)
                shown, self._ended = (
                    (self._observed.rest(), True)
                    if chunk is None
                    else await talk_async(self._agent, self._observed.feed(chunk))
                )
            except BaseException:
                self._ended = True
                await self._end(whole=False, hurried=True)
                raise
            if self._ended:
                await self._end(whole=chunk is None)
            if shown:
                return shown
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Whoever read it wants no more."""
        self._ended = True
        try:
            with contextlib.suppress(RuntimeError, AttributeError):  # it is being read, or is no generator
                await self._chunks.aclose()
            await self._inner.aclose()
        finally:
            await self._end(whole=False)

    async def _end(self, *, whole: bool, hurried: bool = False) -> None:
        await finish(self._agent, lambda: self._observed.end(whole=whole, hurried=hurried))

    def __del__(self) -> None:
        _abandon(self._observed, self._agent.socket_path, self._pid)


def talk(agent: Client, said: Talk[T]) -> T:
    """Hold a talk with the agent, to its end."""
    try:
        wanted = next(said)
        while True:
            try:
                answer = agent.ask(*wanted)
            except AllotmentError as problem:
                wanted = said.throw(problem)
            else:
                wanted = said.send(answer)
    except StopIteration as done:
        value: T = done.value
        return value


async def talk_async(agent: AsyncClient, said: Talk[T]) -> T:
    """The same for event loops."""
    try:
        wanted = next(said)
        while True:
            try:
                answer = await agent.ask(*wanted)
            except AllotmentError as problem:
                wanted = said.throw(problem)
            else:
                wanted = said.send(answer)
    except StopIteration as done:
        value: T = done.value
        return value


async def finish(agent: AsyncClient, said: Callable[[], Talk[None]]) -> None:
    """To its end, although the caller is cancelled."""
    await current_runtime().finish(lambda: talk_async(agent, said()))


def _abandon(observed: ObservedCall, socket_path: str, pid: int) -> None:
    """Nobody reads it any more, and nobody has closed it. A forked child's copy is not the stream."""
    if not observed.over and pid == os.getpid():
        with contextlib.suppress(Exception), Client(socket_path, timeout_s=ABANDONED_S) as agent:
            talk(agent, observed.end(whole=False))
