"""Decisions in words and numbers: what an answer says of the limits on its path. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from agent.core.decide import Path
from agent.core.lacking import RETRY_MS, Refused, Step
from protocol.decisions import Code, Decision, LimitState, Reservation, Verdict
from protocol.entitlements import Entitlement, Limit, LimitEnd
from protocol.units import OUTPUT_TOKENS, REQUESTS
from protocol.windows import WindowKind

MESSAGES = {
    Code.OK: "Allowed.",
    Code.FEATURE_NOT_FOUND: "The plan of this customer has no feature of this name; check the spelling or the plan.",
    Code.FEATURE_UNAVAILABLE: "The plan of this customer does not include this feature; upgrade the plan to use it.",
    Code.MODEL_UNAVAILABLE: "The plan of this customer has prices by model, and none for that of this call; name one"
    " that the plan offers, or add its price to the plan.",
    Code.CUSTOMER_NOT_FOUND: "There is no such customer; create it in the control plane first.",
    Code.CUSTOMER_ARCHIVED: "This customer has been archived.",
    Code.NO_ACTIVE_SUBSCRIPTION: "This customer has no active subscription; subscribe it to a plan.",
    Code.SUBSCRIPTION_PAUSED: "The subscription of this customer is paused; resume it to go on.",
}

STOP = " This call gets no more: end its stream and settle what it used."

OVERAGE = "Allowed beyond the limit, as overage that the plan permits."


def limit_state(step: Step, now_ms: int, granted: bool) -> LimitState:
    """How one limit stands, as far as this agent knows. What is left of a rate is what may be used at once; of what is
    held at the same time, what is not held."""
    limit, allowance = step.limit, step.allowance
    usage = allowance.used(now_ms)
    current = allowance.window_ends_at_ms > now_ms and allowance.resets_at is not None
    return LimitState(
        limit=limit.key,
        meter=limit.meter,
        window=limit.window.value,
        granted=granted,
        amount=limit.amount,
        usage=usage,
        remaining=max(0, step.size - usage),
        scope=limit.scope.value,
        scope_value=allowance.scope_value,
        resets_at=allowance.resets_at if current else None,
        resets_in_ms=allowance.window_ends_at_ms - now_ms if current else None,
    )


def bound_state(limit: Limit, asked: int) -> LimitState:
    """How a limit on each single call stands."""
    return LimitState(
        limit=limit.key,
        meter=limit.meter,
        window=limit.window.value,
        granted=limit.amount is None or asked <= limit.amount,
        amount=limit.amount,
        remaining=limit.amount,
    )


def allowed(
    entitlement: Entitlement,
    path: Path,
    feature: str,
    now_ms: int,
    staleness_ms: int,
    *,
    reservation: Reservation | None,
    breakdown: bool,
    meters: Mapping[str, int],
) -> Decision:
    """Allow, naming the limit with the least left (by its share of the amount).

    Every allowance on the path must have been looked at in the same breath.
    """
    tightest, least, usage = None, 2.0, 0
    soft, fallback, payable = False, False, None
    for step in path.steps:
        allowance, amount = step.allowance, step.size
        used = allowance.used_now
        share = (amount - used) / amount if amount else 0.0
        if share < least:
            tightest, least, usage = step, share, used
        if used > amount:
            soft = soft or step.limit.at_end is LimitEnd.OVERAGE
        fallback = fallback or allowance.lapsed_now
        if step.meter == OUTPUT_TOKENS:
            free = allowance.free_now + (meters[OUTPUT_TOKENS] if reservation else 0)
            payable = free if payable is None else min(payable, free)
    whole, resets_at, resets_in_ms = None, None, None
    if tightest is not None:
        whole, allowance = tightest.limit.amount, tightest.allowance
        if allowance.window_ends_at_ms > now_ms and allowance.resets_at is not None:
            resets_at, resets_in_ms = allowance.resets_at, allowance.window_ends_at_ms - now_ms
    return Decision(
        decision=Verdict.ALLOW,
        has_access=True,
        code=Code.SOFT_LIMIT_EXCEEDED if soft else Code.OK,
        message=OVERAGE if soft else MESSAGES[Code.OK],
        feature=feature,
        limiting=tightest.limit.key if tightest else None,
        amount=whole,
        usage=usage if tightest else None,
        remaining=None if tightest is None else max(0, tightest.size - usage),
        resets_at=resets_at,
        resets_in_ms=resets_in_ms,
        reservation=reservation,
        max_output_tokens=payable,
        plan=entitlement.plan,
        policy_version=entitlement.version,
        staleness_ms=staleness_ms,
        is_fallback=fallback,
        breakdown=tuple(limit_state(step, now_ms, granted=True) for step in path.steps) if breakdown else (),
    )


def not_entitled(code: Code, feature: str, entitlement: Entitlement | None, staleness_ms: int) -> Decision:
    """Block for a reason that is not a matter of limits."""
    return Decision(
        decision=Verdict.BLOCK,
        has_access=False,
        code=code,
        message=MESSAGES[code],
        feature=feature,
        plan=entitlement.plan if entitlement else "",
        policy_version=entitlement.version if entitlement else 0,
        staleness_ms=staleness_ms,
    )


def refused(
    entitlement: Entitlement,
    path: Path,
    why: Refused,
    meters: Mapping[str, int],
    feature: str,
    now_ms: int,
    staleness_ms: int,
    *,
    going_on: bool = False,
) -> Decision:
    """Throttle or block, naming the limit that decided, how it stands and when it resets.

    Args:
        going_on: the call is in flight, and was refused more than it holds.
    """
    breakdown = tuple(
        [limit_state(step, now_ms, granted=step is not why.step) for step in path.steps]
        + [bound_state(limit, meters[limit.meter]) for _, _, limit in path.bounds if limit.window.value == "request"]
    )
    limit, asked = why.limit, meters[why.limit.meter]
    state = limit_state(why.step, now_ms, granted=False) if why.step else bound_state(limit, asked)
    throttle = why.code is Code.RATE_LIMITED
    return Decision(
        decision=Verdict.THROTTLE if throttle else Verdict.BLOCK,
        has_access=False,
        code=why.code,
        message=_sentence(why, state, asked) + (STOP if going_on else ""),
        feature=feature,
        limiting=limit.key,
        amount=limit.amount,
        usage=state.usage,
        remaining=state.remaining,
        resets_at=state.resets_at,
        resets_in_ms=state.resets_in_ms,
        retry_after_ms=(why.retry_ms or state.resets_in_ms or RETRY_MS) if throttle else None,
        plan=entitlement.plan,
        policy_version=entitlement.version,
        staleness_ms=staleness_ms,
        breakdown=breakdown,
    )


def undecided(
    entitlement: Entitlement | None, feature: str, why: str, limiting: str | None, retry_ms: int, staleness_ms: int
) -> Decision:
    """Block because nobody can tell: nothing leased here, and the control plane or the disk out of reach."""
    return Decision(
        decision=Verdict.BLOCK,
        has_access=False,
        code=Code.LEASE_UNAVAILABLE,
        message=why,
        feature=feature,
        limiting=limiting,
        retry_after_ms=retry_ms,
        plan=entitlement.plan if entitlement else "",
        policy_version=entitlement.version if entitlement else 0,
        staleness_ms=staleness_ms,
    )


def _sentence(why: Refused, state: LimitState, asked: int) -> str:
    """What decided, how it stands, and what to do next."""
    limit = why.limit
    of_whom = f" of {_scope(limit)} {state.scope_value!r}" if state.scope_value else ""
    if why.code is Code.REQUESTED_USAGE_EXCEEDS_LIMIT:
        most = f"at most {limit.most_of_one_call} {_a_window(limit)}"
        return (
            f"This call asks for {asked} {limit.meter}; limit {limit.key!r}{of_whom} allows {most}."
            " Ask for less, or upgrade the plan."
        )
    if why.kept:
        return (
            f"Limit {limit.key!r}{of_whom} has {state.remaining} of {limit.amount} {limit.meter} left and keeps"
            f" {limit.batch_floor} for interactive calls; this call of priority batch needs {asked}."
        )
    if limit.window is WindowKind.IN_FLIGHT:
        things = "calls" if limit.meter == REQUESTS else limit.meter
        needs = f" and this call needs {asked}" if asked > 1 else ""
        return (
            f"{state.usage} of {limit.amount} {things} in flight{needs} (limit {limit.key!r}{of_whom});"
            " try again when one has ended."
        )
    if limit.smooth:
        return (
            f"Limit {limit.key!r}{of_whom} allows {limit.amount} {limit.meter} a {limit.window.value}, evenly, and"
            f" {limit.burst_max} at once; this call needs {asked}: try again in {_seconds(why.retry_ms or RETRY_MS)} s."
        )
    until = f"; it resets at {state.resets_at}" if state.resets_at else ""
    stand = f"has {state.remaining} of {limit.amount} {limit.meter} left, this call needs {asked}"
    return f"Limit {limit.key!r}{of_whom} {stand}{until}."


def _scope(limit: Limit) -> str:
    return limit.scope.value if limit.scope_tag is None else f"tag {limit.scope_tag}"


def _a_window(limit: Limit) -> str:
    return "at once" if limit.smooth or limit.window is WindowKind.IN_FLIGHT else f"a {limit.window.value}"


def _seconds(duration_ms: int) -> str:
    """Rounded up to tenths: who comes back then is not too early."""
    tenths = -(-duration_ms // 100)
    return f"{tenths // 10}.{tenths % 10}"
