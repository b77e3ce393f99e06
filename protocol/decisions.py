"""Decisions: allow, throttle or block, with a reason code, the limit that decided, what remains and when it resets."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from protocol.entitlements import CustomerStatus, Feature


class Verdict(StrEnum):
    """The three answers to "may this customer do this, now?"."""

    ALLOW = "allow"
    THROTTLE = "throttle"
    BLOCK = "block"


class Code(StrEnum):
    """Why. The names are those that users of entitlement services already know."""

    OK = "ok"
    SOFT_LIMIT_EXCEEDED = "soft_limit_exceeded"  # allowed by the plan beyond the limit: overage
    USAGE_LIMIT_REACHED = "usage_limit_reached"
    RATE_LIMITED = "rate_limited"
    REQUESTED_USAGE_EXCEEDS_LIMIT = "requested_usage_exceeds_limit"  # could never fit, however empty the counter
    FEATURE_NOT_FOUND = "feature_not_found"
    FEATURE_UNAVAILABLE = "feature_unavailable"
    MODEL_UNAVAILABLE = "model_unavailable"  # the plan has prices by model, and none for this one
    CUSTOMER_NOT_FOUND = "customer_not_found"
    CUSTOMER_ARCHIVED = "customer_archived"
    NO_ACTIVE_SUBSCRIPTION = "no_active_subscription"
    SUBSCRIPTION_PAUSED = "subscription_paused"
    TRIAL_ENDED = "trial_ended"
    LEASE_UNAVAILABLE = "lease_unavailable"  # cannot decide: nothing leased here and the control plane out of reach


class LimitState(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one limit on the path of a call stands, as far as this agent knows.

    Attributes:
        limit: its name.
        amount: how much it allows in one window; absent when unlimited.
        usage, remaining: used so far and left, including what calls in flight hold.
        window: its kind; ``resets_at`` and ``resets_in_ms`` say when the present one ends.
        granted: whether this call had room in it.
        scope_value: whose counter it is, for limits that are kept per user.
    """

    limit: str
    meter: str
    window: str
    granted: bool
    amount: int | None = None
    usage: int = 0
    remaining: int | None = None
    scope: str = "customer"
    scope_value: str = ""
    resets_at: str | None = None
    resets_in_ms: int | None = None


class Reservation(msgspec.Struct, frozen=True):
    """What is held for a call in flight: settle or release it before it ends by itself."""

    id: str
    expires_in_ms: int
    amounts: dict[str, int]


class Decision(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="kind", tag="decision"):
    """The answer to ``check``, ``reserve`` and ``extend``.

    Attributes:
        id: of the request that it answers.
        has_access: the same as ``decision == "allow"``, under the name other services use.
        message: one sentence for people: what decided, how it stands, what to do next.
        limiting: the limit that decided, or on ``allow`` the one with the least left.
        amount, usage, remaining, resets_at, resets_in_ms: of that limit.
        retry_after_ms: when asking again makes sense, for ``throttle`` and for ``lease_unavailable``.
        max_output_tokens: how many output tokens, those reserved included, the leases held here could pay for now.
        policy_version: version of the entitlement that was applied; ``plan`` names its plan.
        staleness_ms: how long ago the control plane last confirmed what this decision used.
        is_fallback: decided under an offline rule, with a lease whose term has passed.
        breakdown: every limit on the path; always in a refusal, on ``allow`` when asked for.
    """

    id: int = 0
    decision: Verdict
    has_access: bool
    code: Code
    message: str
    feature: str
    limiting: str | None = None
    amount: int | None = None
    usage: int | None = None
    remaining: int | None = None
    resets_at: str | None = None
    resets_in_ms: int | None = None
    retry_after_ms: int | None = None
    reservation: Reservation | None = None
    max_output_tokens: int | None = None
    plan: str = ""
    policy_version: int = 0
    staleness_ms: int = 0
    is_fallback: bool = False
    breakdown: tuple[LimitState, ...] = ()


STATUS_CODES = {
    CustomerStatus.NO_SUBSCRIPTION: Code.NO_ACTIVE_SUBSCRIPTION,
    CustomerStatus.CANCELLED: Code.NO_ACTIVE_SUBSCRIPTION,
    CustomerStatus.EXPIRED: Code.NO_ACTIVE_SUBSCRIPTION,
    CustomerStatus.TRIAL_ENDED: Code.TRIAL_ENDED,
    CustomerStatus.PAUSED: Code.SUBSCRIPTION_PAUSED,
    CustomerStatus.ARCHIVED: Code.CUSTOMER_ARCHIVED,
}


def feature_refusal(status: CustomerStatus, feature: Feature | None, role: str | None) -> Code | None:
    """Why the customer may not use this feature at all; ``None`` if it may. Agents and explanations decide by it."""
    code = STATUS_CODES.get(status)
    if code is not None:
        return code
    if feature is None:
        return Code.FEATURE_NOT_FOUND
    terms = feature.terms(role)
    return None if terms.enabled and terms.value is not False else Code.FEATURE_UNAVAILABLE
