"""What it comes to that a limit has no room for a call just now: asking, waiting, or no. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.core.budget import Allowance, Purpose
from agent.core.rates import RateAllowance
from agent.core.slots import SlotAllowance
from protocol.decisions import Code
from protocol.entitlements import InFlight, Limit, LimitEnd, WhenOffline
from protocol.windows import WindowKind

RETRY_MS = 1_000
"""When to come back to what may be free again at any moment."""


@dataclass(frozen=True, slots=True)
class Step:
    """One finite limit on the path of a call, and the counter that leases are cut from.

    Attributes:
        drain: leases may be used to their end although their term has passed; never where clocks rule.
        size: the whole that ``used_now`` of the allowance is a part of.
        counted: it sums up use in windows; rates, and what is held at once, do not.
    """

    limit: Limit
    allowance: Allowance
    meter: str
    drain: bool
    size: int
    counted: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """No: ``code`` says why, ``limit`` which limit decided, ``step`` how it stands (``None``: not counted).

    Attributes:
        retry_ms: when it makes sense to come back, where that is known better than by the window's end.
        kept: there is something left, but it is kept for calls of higher priority.
    """

    code: Code
    limit: Limit
    step: Step | None = None
    retry_ms: int | None = None
    kept: bool = False


@dataclass(slots=True)
class Wait:
    """Not yet.

    Attributes:
        short: so much is lacking, and more may be asked for.
        uncovered: only the journal must cover what is leased here.
        filling: rates that will have filled in time, and what is taken from them then.
        local: what may help comes from here: a bucket that fills, calls that end.
        hoped: what to say when nothing has helped in time, where that is known.
    """

    short: list[tuple[Step, Allowance, int]] = field(default_factory=list)
    uncovered: list[Step] = field(default_factory=list)
    filling: list[tuple[RateAllowance, int]] = field(default_factory=list)
    local: bool = False
    hoped: Refused | None = None

    def __bool__(self) -> bool:
        """Whether there is anything to wait for."""
        return bool(self.short or self.uncovered or self.filling or self.hoped)


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which a call is judged.

    Attributes:
        version: of the entitlement.
        until_ms: how long its caller waits.
        batch: it is of low priority.
        going_on: it is in flight already and wants more.
    """

    version: int
    now_ms: int
    until_ms: int
    batch: bool = False
    going_on: bool = False


def step_of(limit: Limit, allowance: Allowance) -> Step:
    """How a limit is looked at on the path of a call."""
    if isinstance(allowance, RateAllowance):
        allowance.burst_max = limit.burst_max
    size = limit.burst_max if limit.smooth else limit.amount or 0
    drain = limit.is_counted and limit.when_offline is WhenOffline.DRAIN
    return Step(limit, allowance, limit.meter, drain, size, limit.is_counted)


def lacking(step: Step, amount: int, wait: Wait, terms: Terms) -> Refused | None:
    """Note in ``wait`` what could help, or say no.

    The allowance has just been looked at.
    """
    allowance = step.allowance
    if isinstance(allowance, RateAllowance):
        return _rate(step, allowance, amount, wait, terms)
    if isinstance(allowance, SlotAllowance):
        return _slots(step, allowance, amount, wait, terms)
    return _quota(step, amount, wait, terms)


def _quota(step: Step, amount: int, wait: Wait, terms: Terms) -> Refused | None:
    allowance, now_ms = step.allowance, terms.now_ms
    if allowance.begin_window(now_ms):
        allowance.look(now_ms, drain=step.drain)
    free = allowance.free_now
    finishes = terms.going_on and step.limit.in_flight is InFlight.FINISH
    if finishes and allowance.finishing is not None:
        beyond = allowance.finishing.look(now_ms, drain=step.drain)
        if allowance.look(now_ms, drain=step.drain) + beyond >= amount:
            return None
        free += allowance.finishing.free_now
    lack = amount - free
    seeks = allowance
    if lack > 0 and finishes and is_dry(allowance, lack, terms):
        seeks = allowance.beside(Purpose.FINISHING, now_ms)
    if lack <= 0:
        wait.uncovered.append(step)
    elif not is_dry(seeks, lack, terms):
        wait.short.append((step, seeks, lack))
    else:
        no = Refused(refusal_code(step.limit), step.limit, step)
        if now_ms >= terms.until_ms or allowance.hope(now_ms, drain=step.drain) < lack:
            return no
        wait.hoped, wait.local = wait.hoped or no, True
    return None


def _slots(step: Step, allowance: SlotAllowance, amount: int, wait: Wait, terms: Terms) -> Refused | None:
    """What is held at once comes back by itself: wait for it as long as the caller does."""
    lack = amount - allowance.free_now
    if lack <= 0:
        wait.uncovered.append(step)
        return None
    resting = rests(allowance, lack, terms.now_ms, batch=terms.batch)
    wait.local = wait.local or allowance.held_here(terms.now_ms) >= lack
    if resting or wait.local:
        wait.hoped = wait.hoped or Refused(Code.RATE_LIMITED, step.limit, step, RETRY_MS)
    if not resting:
        wait.short.append((step, allowance, lack))
    return None


def _rate(step: Step, allowance: RateAllowance, amount: int, wait: Wait, terms: Terms) -> Refused | None:
    """Wait if the bucket fills in time; else for a larger share, if there may be one; else say when to come back."""
    now_ms = terms.now_ms
    fills_in_ms = allowance.fills_in_ms(amount, now_ms)
    resting = rests(allowance, amount, now_ms, batch=terms.batch)
    again_ms = allowance.denied_until_ms - now_ms if resting else RETRY_MS
    no = Refused(Code.RATE_LIMITED, step.limit, step, again_ms if fills_in_ms is None else max(1, fills_in_ms))
    if not resting:
        wait.short.append((step, allowance, amount))
    if fills_in_ms is not None and now_ms + fills_in_ms <= terms.until_ms:
        wait.filling.append((allowance, amount))
        wait.hoped, wait.local = wait.hoped or no, True
    elif resting and allowance.denied_until_ms > terms.until_ms:
        return no
    elif resting or allowance.live(now_ms, drain=False):
        wait.hoped = wait.hoped or no
    return None


def kept_for_others(steps: tuple[Step, ...], meters: dict[str, int]) -> Refused | None:
    """Whether a call of low priority would take what a limit keeps for the others, as far as its room is known here.

    A courtesy, not a safety rule: what others use meanwhile is heard of later. The allowances have just been looked at.
    """
    for step in steps:
        floor = step.limit.batch_floor
        if floor and meters[step.meter] and step.size - step.allowance.used_now - meters[step.meter] < floor:
            return Refused(refusal_code(step.limit), step.limit, step, kept=True)
    return None


def refusal_code(limit: Limit) -> Code:
    """How a limit that has no room is called: what comes back by itself is a rate, everything else a quota."""
    by_itself = limit.smooth or limit.window is WindowKind.IN_FLIGHT or limit.at_end is LimitEnd.THROTTLE
    return Code.RATE_LIMITED if by_itself else Code.USAGE_LIMIT_REACHED


def is_dry(allowance: Allowance, lack: int, terms: Terms) -> bool:
    """Whether asking again is known to be useless: used up, under this version of the entitlement, a moment ago."""
    denial, now_ms = allowance.denial, terms.now_ms
    if denial is None or not denial.exhausted or denial.version < terms.version or now_ms >= allowance.denied_until_ms:
        return False
    if allowance.denied_batch and not terms.batch:
        return False  # there is more for those who matter more
    return now_ms < allowance.window_ends_at_ms and lack >= allowance.ask_need


def rests(allowance: Allowance, need: int, now_ms: int, *, batch: bool) -> bool:
    """Whether an ask for as little was just refused.

    What was refused to a large call may still be there for a small one, and what was refused to one of low priority for
    the others.
    """
    if now_ms >= allowance.denied_until_ms or (allowance.denied_batch and not batch):
        return False
    return allowance.rests_for(need)
