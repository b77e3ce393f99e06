"""What the async client needs of an event loop, for asyncio and for Trio; neither is imported but where it runs.

Six small things: a clock is not among them, and neither are tasks: no call of this library outlives its caller.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio


ATTEMPTS_MAX = 3
"""A loop that shuts down cancels every task it knows, so also the one that was to be finished; a new one is made."""


class Signal(Protocol):
    """Something that one task waits for and another sets, once."""

    def set(self) -> None:
        """Wake whoever waits."""

    async def wait(self, timeout_s: float) -> None:
        """Return when it is set, or when ``timeout_s`` seconds have passed."""


class Runtime(Protocol):
    """An event loop. ``identity`` tells two loops apart."""

    identity: object

    def signal(self) -> Signal:
        """A new signal."""

    async def wait_readable(self, stream: socket.socket, timeout_s: float) -> bool:
        """False when ``timeout_s`` seconds passed first."""

    async def wait_writable(self, stream: socket.socket, timeout_s: float) -> bool:
        """False when ``timeout_s`` seconds passed first."""

    async def sleep(self, pause_s: float) -> None:
        """Let others run for a while."""

    async def finish(self, operation: Callable[[], Awaitable[None]]) -> None:
        """Run ``operation``, perhaps more than once, to its end although the caller is cancelled; then raise that."""


class _AsyncioSignal:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future: asyncio.Future[bool] = loop.create_future()

    def set(self, value: bool = True) -> None:
        if not self._future.done():
            self._future.set_result(value)

    async def wait(self, timeout_s: float) -> None:
        await self.outcome(timeout_s)

    async def outcome(self, timeout_s: float) -> bool:
        timer = self._future.get_loop().call_later(max(0.0, timeout_s), self.set, False)
        try:
            return await self._future
        finally:
            timer.cancel()


class _AsyncioRuntime:
    def __init__(self, asyncio: Any) -> None:
        self._asyncio = asyncio
        self._loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.identity: object = self._loop

    def signal(self) -> Signal:
        return _AsyncioSignal(self._loop)

    async def wait_readable(self, stream: socket.socket, timeout_s: float) -> bool:
        return await self._wait(self._loop.add_reader, self._loop.remove_reader, stream.fileno(), timeout_s)

    async def wait_writable(self, stream: socket.socket, timeout_s: float) -> bool:
        return await self._wait(self._loop.add_writer, self._loop.remove_writer, stream.fileno(), timeout_s)

    async def _wait(
        self, watch: Callable[..., None], unwatch: Callable[[int], bool], handle: int, timeout_s: float
    ) -> bool:
        ready = _AsyncioSignal(self._loop)
        watch(handle, ready.set)
        try:
            return await ready.outcome(timeout_s)
        finally:
            unwatch(handle)

    async def sleep(self, pause_s: float) -> None:
        await self._asyncio.sleep(pause_s)

    async def finish(self, operation: Callable[[], Awaitable[None]]) -> None:
        cancellation: BaseException | None = None
        for _ in range(ATTEMPTS_MAX):
            task = self._asyncio.ensure_future(operation())
            while not task.done():
                try:
                    await self._asyncio.shield(task)
                except self._asyncio.CancelledError as error:
                    cancellation = error
                except BaseException:  # noqa: BLE001 - looked at below, together with a cancellation
                    break
            if not task.cancelled():
                problem = task.exception()
                if cancellation is not None:
                    raise cancellation from problem
                if problem is not None:
                    raise problem
                return
        assert cancellation is not None
        raise cancellation


class _TrioRuntime:
    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self.identity: object = trio.lowlevel.current_trio_token()

    def signal(self) -> Signal:
        return _TrioSignal(self._trio)

    async def wait_readable(self, stream: socket.socket, timeout_s: float) -> bool:
        return await self._wait(self._trio.lowlevel.wait_readable, stream, timeout_s)

    async def wait_writable(self, stream: socket.socket, timeout_s: float) -> bool:
        return await self._wait(self._trio.lowlevel.wait_writable, stream, timeout_s)

    async def _wait(
        self, ready: Callable[[socket.socket], Awaitable[None]], stream: socket.socket, timeout_s: float
    ) -> bool:
        with self._trio.move_on_after(max(0.0, timeout_s)) as scope:
            await ready(stream)
        return not scope.cancelled_caught

    async def sleep(self, pause_s: float) -> None:
        await self._trio.sleep(pause_s)

    async def finish(self, operation: Callable[[], Awaitable[None]]) -> None:
        with self._trio.CancelScope(shield=True):
            await operation()


class _TrioSignal:
    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._event = trio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, timeout_s: float) -> None:
        with self._trio.move_on_after(max(0.0, timeout_s)):
            await self._event.wait()


def current_runtime() -> Runtime:
    """The event loop that runs the caller: a loop that is not even imported does not run.

    Raises:
        RuntimeError: neither Trio nor asyncio does.
    """
    if trio := sys.modules.get("trio"):
        with contextlib.suppress(RuntimeError):
            return _TrioRuntime(trio)
    if asyncio := sys.modules.get("asyncio"):
        return _AsyncioRuntime(asyncio)
    raise RuntimeError("neither asyncio nor Trio runs here; use allotment.Client")
