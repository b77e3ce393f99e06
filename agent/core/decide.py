"""May this call go ahead? A pure look at entitlement and leases; taking is a separate step in the same breath."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.core.budget import Allowance, AllowanceKey
from protocol.decisions import Code
from protocol.entitlements import (
    CustomerStatus,
    Entitlement,
    Feature,
    Limit,
    LimitEnd,
    WhenOffline,
    limits_on_path,
    scope_value,
)
from protocol.events import Subject

STATUS_CODES = {
    CustomerStatus.NO_SUBSCRIPTION: Code.NO_ACTIVE_SUBSCRIPTION,
    CustomerStatus.CANCELLED: Code.NO_ACTIVE_SUBSCRIPTION,
    CustomerStatus.PAUSED: Code.SUBSCRIPTION_PAUSED,
    CustomerStatus.ARCHIVED: Code.CUSTOMER_ARCHIVED,
}


@dataclass(frozen=True, slots=True)
class Step:
    """One counted, finite limit on the path of a call, and the counter it is kept in."""

    limit: Limit
    allowance: Allowance
    meter: str
    drain: bool


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


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet: ``short`` need a lease (so much is lacking), ``uncovered`` only a higher watermark in the journal."""

    short: list[tuple[Step, int]]
    uncovered: list[Step]


@dataclass(frozen=True, slots=True)
class Refused:
    """No: ``code`` says why, ``limit`` which limit decided, ``step`` how it stands (``None``: not counted)."""

    code: Code
    limit: Limit
    step: Step | None = None


ROOM = Room()


def feature_refusal(status: CustomerStatus, feature: Feature | None) -> Code | None:
    """Why the customer may not use this feature at all; ``None`` if it may."""
    code = STATUS_CODES.get(status)
    if code is not None:
        return code
    if feature is None:
        return Code.FEATURE_NOT_FOUND
    return None if feature.enabled and feature.value is not False else Code.FEATURE_UNAVAILABLE


def path_of(
    entitlement: Entitlement,
    feature: str,
    subject: Subject,
    tags: Mapping[str, str],
    meters: Mapping[str, int],
    allowance_of: Callable[[AllowanceKey], Allowance],
) -> Path:
    """What a call of this shape touches."""
    limits = tuple(limits_on_path(entitlement.limits, feature, meters))
    steps = [
        Step(
            limit,
            allowance_of((entitlement.customer, limit.counter, scope_value(limit, subject, tags))),
            limit.meter,
            limit.when_offline is WhenOffline.DRAIN,
        )
        for limit in limits
        if limit.is_leased
    ]
    bounds = tuple((limit.ceiling, limit.meter, limit) for limit in limits if limit.ceiling is not None)
    return Path(bounds, tuple(steps))


def too_big(path: Path, meters: Mapping[str, int]) -> Refused | None:
    """Refuses what could never fit, however empty the counter."""
    for ceiling, meter, limit in path.bounds:
        if meters[meter] > ceiling:
            step = next((step for step in path.steps if step.limit is limit), None)
            return Refused(Code.REQUESTED_USAGE_EXCEEDS_LIMIT, limit, step)
    return None


def decide(path: Path, meters: Mapping[str, int], version: int, now_ms: int) -> Room | Wait | Refused:
    """All limits must have room: the answer takes from all or from none, and names the limit that decided.

    A limit that is known to be used up decides before one that only needs a lease: nothing is asked for in vain.
    """
    short: list[tuple[Step, int]] = []
    uncovered: list[Step] = []
    for step in path.steps:
        amount = meters[step.meter]
        if step.allowance.look(now_ms, drain=step.drain) >= amount or amount == 0:
            continue
        lack = amount - step.allowance.free_now
        if lack <= 0:
            uncovered.append(step)
        elif is_dry(step.allowance, version, lack, now_ms):
            return Refused(refusal_code(step.limit), step.limit, step)
        else:
            short.append((step, lack))
    return Wait(short, uncovered) if short or uncovered else ROOM


def look_along(path: Path, now_ms: int) -> Path:
    """Look at every allowance on the path, as a decision does."""
    for step in path.steps:
        step.allowance.look(now_ms, drain=step.drain)
    return path


def refusal_code(limit: Limit) -> Code:
    """How a limit that is used up is called: a throttle is a rate, everything else a quota."""
    return Code.RATE_LIMITED if limit.at_end is LimitEnd.THROTTLE else Code.USAGE_LIMIT_REACHED


def is_dry(allowance: Allowance, version: int, lack: int, now_ms: int) -> bool:
    """Whether asking again is known to be useless: used up, under this version of the entitlement, a moment ago."""
    denial = allowance.denial
    if denial is None or not denial.exhausted or denial.version < version or now_ms >= allowance.denied_until_ms:
        return False
    return now_ms < allowance.window_ends_at_ms and lack >= allowance.ask_need
