"""Says what decision follows for a call from what a customer may use and how its limits stand. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from control_plane.core.entitlements import Document
from protocol.decisions import Code, Verdict, feature_refusal
from protocol.entitlements import Limit, LimitEnd, limits_on_path, scope_value
from protocol.events import Subject
from protocol.rates import RateCard
from protocol.windows import Window, WindowKind


@dataclass(frozen=True)
class Call:
    """A call that is asked about. ``amounts``: by meter; what rates make of them, at most, is added."""

    feature: str
    model: str | None
    subject: Subject
    tags: Mapping[str, str]
    amounts: Mapping[str, int]


@dataclass(frozen=True)
class Use:
    """How one allowance stands.

    Attributes:
        used: charged, and settled on open leases. reserved: held by calls in flight.
        lent: what agents may still use of it. limbo: the part of that which lost holders may have used.
    """

    used: int = 0
    reserved: int = 0
    lent: int = 0
    limbo: int = 0


@dataclass(frozen=True)
class LimitFinding:
    """One limit on the path of a call. ``granted``: whether the call has room in it; ``shadow``: it refuses nothing."""

    limit: Limit
    scope_value: str
    window: Window | None
    use: Use
    need: int
    granted: bool
    shadow: bool = False

    @property
    def remaining(self) -> int | None:
        """What calls may still use, all hosts together, before this one; ``None``: unlimited."""
        if self.limit.amount is None:
            return None
        return max(0, self.limit.amount - self.use.used - self.use.reserved)


@dataclass(frozen=True)
class Explanation:
    """The decision for a call, and everything that it follows from."""

    verdict: Verdict
    code: Code
    limiting: str | None
    limits: tuple[LimitFinding, ...]


Look = Callable[[Limit, str], tuple[Window | None, Use]]
"""The present window of a limit, and how its counter for one scope value stands in it."""


def explain(document: Document, call: Call, look: Look) -> Explanation:
    """What follows, for all hosts together: where one host has nothing leased it may have to wait for another's slices.

    The same rules as those of agents: the feature first; then what no empty counter could hold; then all limits on the
    path must have room, and the first that has none decides. Rates are decided where they are lent: of them only a call
    that is larger than their burst is refused here.
    """
    features = {feature.key: feature for feature in document.features}
    choice = RateCard(document.rates, document.plan).choose(call.feature, call.model)
    made = choice.most(call.amounts)
    amounts = {**call.amounts, **made}
    findings = tuple(
        _find(limit, call, amounts[limit.meter], look, shadow=shadow)
        for limits, shadow in ((document.limits, False), (document.shadow, True))
        for limit in limits_on_path(limits, call.feature, amounts, call.subject.role)
    )
    code = feature_refusal(document.status, features.get(call.feature), call.subject.role)
    if code is None and choice.unpriced(made) is not None:
        code = Code.MODEL_UNAVAILABLE
    if code is not None:
        return Explanation(Verdict.BLOCK, code, None, findings)
    enforced = [finding for finding in findings if not finding.shadow]
    for finding in enforced:
        most = finding.limit.most_of_one_call
        if most is not None and finding.need > most:
            return Explanation(Verdict.BLOCK, Code.REQUESTED_USAGE_EXCEEDS_LIMIT, finding.limit.key, findings)
    for finding in enforced:
        if not finding.granted:
            return _refused(finding, findings)
    over = next((one for one in enforced if _is_over(one)), None)
    code = Code.SOFT_LIMIT_EXCEEDED if over else Code.OK
    return Explanation(Verdict.ALLOW, code, over.limit.key if over else None, findings)


def _find(limit: Limit, call: Call, need: int, look: Look, *, shadow: bool) -> LimitFinding:
    whose = scope_value(limit, call.subject, call.tags)
    window, use = look(limit, whose)
    ceiling = limit.admission_ceiling
    if ceiling is None:
        granted = True
    elif limit.window is WindowKind.REQUEST:
        granted = need <= ceiling
    elif limit.smooth:
        granted = need <= limit.burst_max
    else:
        granted = use.used + use.reserved + need <= ceiling or need == 0
    return LimitFinding(limit, whose, window, use, need, granted, shadow)


def _refused(finding: LimitFinding, findings: tuple[LimitFinding, ...]) -> Explanation:
    limit = finding.limit
    if limit.at_end is LimitEnd.THROTTLE or limit.window is WindowKind.IN_FLIGHT:
        return Explanation(Verdict.THROTTLE, Code.RATE_LIMITED, limit.key, findings)
    return Explanation(Verdict.BLOCK, Code.USAGE_LIMIT_REACHED, limit.key, findings)


def _is_over(finding: LimitFinding) -> bool:
    limit, use = finding.limit, finding.use
    if limit.at_end is not LimitEnd.OVERAGE or limit.amount is None or not limit.is_counted:
        return False
    return use.used + use.reserved + finding.need > limit.amount
