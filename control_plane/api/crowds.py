"""How many of one sort of requests are worked on at once, and how many may wait for it."""

from __future__ import annotations

from anyio import CapacityLimiter
from litestar.datastructures import State

from control_plane.operations.refusals import Busy


def turns(state: State, name: str, at_once: int, waiting_max: int, who: str) -> CapacityLimiter:
    """The turns of requests of this sort, for :func:`anyio.to_thread.run_sync`.

    To be called before a body is taken into memory.

    Raises: Busy: so many wait already that this one would give up before it is answered, and ask once more.
    """
    key = f"{name}_turns"
    if key not in state:
        state[key] = CapacityLimiter(at_once)
    limiter: CapacityLimiter = state[key]
    if limiter.statistics().tasks_waiting >= waiting_max:
        raise Busy("busy", f"More {who} speak at once than can be answered soon; say it again in a moment.")
    return limiter
