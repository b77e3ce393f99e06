"""One seed decides everything: Trio's scheduler, random numbers, ids, and when work runs that is given to threads.

Two names of Trio are private; they are what its own pytest plugin sets. A test runs one seed in two processes whose
hashes differ and compares their traces to the byte.
"""

from __future__ import annotations

import contextlib
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import anyio._backends._trio
import trio
from trio._core import _run as scheduler
from trio.testing import MockClock

import control_plane.clock
from control_plane.api import agents_uplink
from tests.simulation.planes import UnhurriedDesk
from tests.simulation.standstill import Queue


@contextlib.contextmanager
def decided_by(seed: int) -> Iterator[None]:
    """Everything in the block that draws at random draws from this seed, and "threads" run inline."""
    dice = random.Random(f"secrets-{seed}")
    drawn = SimpleNamespace(token_hex=partial(_hex, dice), token_urlsafe=lambda _: _hex(dice, 32)[:43])
    before = random.getstate()
    silent_before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # a storm makes the programs complain all the time, and rightly so
    random.seed(seed)
    scheduler._r.seed(seed)
    with (
        mock.patch.object(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", new=True),
        mock.patch.object(trio.to_thread, "run_sync", inline),
        mock.patch.object(anyio._backends._trio, "run_sync", inline),  # it has imported the name
        mock.patch.object(agents_uplink, "SyncDesk", UnhurriedDesk),
        mock.patch.object(control_plane.clock, "secrets", drawn),
        mock.patch.object(secrets, "token_bytes", lambda size: bytes.fromhex(_hex(dice, size))),  # migrations draw, too
    ):
        try:
            yield
        finally:
            random.setstate(before)
            logging.disable(silent_before)


def run(seed: int, main: Callable[[MockClock], Awaitable[Any]]) -> Any:
    """Run ``main`` on a clock that jumps to the next moment at which anything happens."""
    clock = MockClock(autojump_threshold=0)
    with decided_by(seed):
        return trio.run(_with_a_queue_that_can_hold_back, partial(main, clock), clock=clock)


async def _with_a_queue_that_can_hold_back(main: Callable[[], Awaitable[Any]]) -> Any:
    runner = scheduler.GLOBAL_RUN_CONTEXT.runner
    runner.runq = Queue(runner.runq)
    return await main()


def queue() -> Queue:
    """The tasks that can run, in the present run."""
    found = scheduler.GLOBAL_RUN_CONTEXT.runner.runq
    assert isinstance(found, Queue)
    return found


async def inline(function: Callable[..., Any], *arguments: Any, **_options: Any) -> Any:
    """What a worker thread would do, done here and now, with a moment before and after for others."""
    await trio.lowlevel.checkpoint()
    result = function(*arguments)
    await trio.lowlevel.checkpoint()
    return result


def _hex(dice: random.Random, size: int) -> str:
    return f"{dice.getrandbits(8 * size):0{2 * size}x}"
