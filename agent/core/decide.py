"""May this call go ahead? A pure look at entitlement and leases; taking is a separate step in the same breath."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.core.budget import Allowance
from agent.core.lacking import Refused, Step, Terms, Wait, lacking, step_of
from agent.core.leases import AllowanceKey
from protocol.decisions import Code
from protocol.entitlements import Entitlement, Limit, limits_on_path, scope_value
from protocol.events import Subject


@dataclass(frozen=True, slots=True)
class Path:
    """All limits that calls of one shape touch: ``bounds`` hold for each call by itself, ``steps`` count.

    Attributes:
        bounds: the most that a call may ask for, its meter, and the limit that says so.
    """

    bounds: tuple[tuple[int, str, Limit], ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Room:
    """Every limit has room, and the journal covers it: take from all."""


ROOM = Room()


def path_of(
    entitlement: Entitlement,
    feature: str,
    subject: Subject,
    tags: Mapping[str, str],
    meters: Mapping[str, int],
    allowance_of: Callable[[AllowanceKey], Allowance],
) -> Path:
    """What a call of this shape touches."""
    limits = tuple(limits_on_path(entitlement.limits, feature, meters, subject.role))
    steps = [
        step_of(limit, allowance_of((entitlement.customer, limit.counter, scope_value(limit, subject, tags))))
        for limit in limits
        if limit.is_leased
    ]
    bounds = [(most, limit.meter, limit) for limit in limits if (most := limit.most_of_one_call) is not None]
    return Path(tuple(bounds), tuple(steps))


def too_big(path: Path, meters: Mapping[str, int]) -> Refused | None:
    """Refuses what could never fit, however empty the counter."""
    for most, meter, limit in path.bounds:
        if meters[meter] > most:
            return _could_never_fit(path, limit)
    return None


def grown_too_big(path: Path, more: Mapping[str, int], totals: Mapping[str, int]) -> Refused | None:
    """Refuses what could never fit of a call in flight that wants ``more``, so that it has ``totals`` in all.

    Where calls in flight may finish beyond the limit, they may grow into that; and what a rate admitted a while ago
    does not count against it.
    """
    for most, meter, limit in path.bounds:
        if more[meter] and (more if limit.smooth else totals)[meter] > max(most, limit.ceiling or 0):
            return _could_never_fit(path, limit)
    return None


def _could_never_fit(path: Path, limit: Limit) -> Refused:
    step = next((step for step in path.steps if step.limit is limit), None)
    return Refused(Code.REQUESTED_USAGE_EXCEEDS_LIMIT, limit, step)


def decide(
    path: Path,
    meters: Mapping[str, int],
    version: int,
    now_ms: int,
    until_ms: int,
    batch: bool = False,
    going_on: bool = False,
) -> Room | Wait | Refused:
    """All limits must have room: the answer takes from all or from none, and names the limit that decided.

    A limit that is known to be used up decides before one that only needs a lease: nothing is asked for in vain.

    Args:
        until_ms: how long the caller waits. batch: its priority is low. going_on: the call is in flight already.
    """
    wait, terms = None, None
    for step in path.steps:
        amount = meters[step.meter]
        if step.allowance.look(now_ms, drain=step.drain) >= amount or amount == 0:
            continue
        if wait is None or terms is None:
            wait, terms = Wait(), Terms(version, now_ms, until_ms, batch, going_on)
        no = lacking(step, amount, wait, terms)
        if no is not None:
            return no
    return wait or ROOM


def look_along(path: Path, now_ms: int) -> Path:
    """Look at every allowance on the path, as a decision does."""
    for step in path.steps:
        step.allowance.look(now_ms, drain=step.drain)
    return path
