"""Explanations over HTTP: why a call is allowed or refused, now or then; recorded decisions again; and what-if."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from control_plane.api.context import Context
from control_plane.api.instants import Instant, end_of, instant_ms, optional_ms
from control_plane.api.parameters import PathKey, QueryKey
from control_plane.api.verbs import asks, reads
from control_plane.core.combining import Source
from control_plane.core.credit_features import balances_of
from control_plane.core.entitlements import Document
from control_plane.core.explaining import Call, LimitFinding
from control_plane.core.plans import Bundle
from control_plane.core.what_if import Refusals
from control_plane.operations.explain_decision import Explained, explain_decision, replay_decision
from control_plane.operations.try_plan import Trial, try_plan
from protocol.decisions import Code, Verdict
from protocol.entitlements import Feature, FeatureKind
from protocol.events import Subject
from protocol.ids import MODEL_PATTERN, MODEL_WORDS, Key, ModelName, Tags
from protocol.instants import rfc3339
from protocol.units import Amounts, Quantity
from protocol.violations import Violation

PATH = "/v1/customers/{customer:str}/explain"
TAGS = ["explain"]
QueryModel = Annotated[str | None, QueryParameter(pattern=MODEL_PATTERN, max_length=128, description=MODEL_WORDS)]
At = Annotated[str | None, QueryParameter(max_length=40, description="an instant that has passed (RFC 3339)")]
TRIED_MAX = 1_000


class LimitItem(msgspec.Struct, frozen=True):
    """One limit on the path of the call, as it stood.

    Attributes:
        granted: whether the call has room in it. shadow: it is counted, and refuses nothing.
        used: charged; reserved: held by calls in flight; lent: what agents may still use of it; limbo: the part of that
            which lost holders may have used.
        sources: what its amount is made of: plan, add-ons, overrides.
    """

    limit: str
    meter: str
    scope: str
    scope_value: str
    window: str
    window_start: str | None
    window_end: str | None
    amount: int | None
    used: int
    reserved: int
    lent: int
    limbo: int
    remaining: int | None
    need: int
    granted: bool
    shadow: bool
    sources: tuple[Source, ...]


class ExplanationItem(msgspec.Struct, frozen=True):
    """Why: the decision, the limit that made it, and everything it follows from.

    Attributes:
        version: of the entitlement that counted, since ``since``, by ``cause``.
        feature: what the customer has of the feature; null if nothing names it. balances: of a credit feature, the
            limits whose grants its calls burn.
    """

    customer: str
    at: str
    decision: Verdict
    code: Code
    limiting: str | None
    message: str
    version: int
    since: str
    cause: str
    subscription: str
    plan: str
    add_ons: tuple[str, ...]
    feature: Feature | None
    feature_sources: tuple[Source, ...]
    balances: tuple[str, ...]
    limits: tuple[LimitItem, ...]


class RecordedWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A decision as it was recorded, and the call that it was about.

    Attributes:
        version: its ``policy_version``. usage: by limit, the ``usage`` in its breakdown.
        decision, code, limiting: what it said.
    """

    version: Annotated[int, msgspec.Meta(ge=1)]
    feature: Key
    decision: Verdict
    code: Code
    limiting: Key | None = None
    amounts: Amounts = {}
    usage: Annotated[dict[Key, Quantity], msgspec.Meta(max_length=64)] = {}
    subject: Subject = Subject()
    tags: Tags = {}
    model: ModelName | None = None


class ReplayItem(msgspec.Struct, frozen=True):
    """Whether the same is decided again; ``differences`` names what is not."""

    same: bool
    differences: tuple[str, ...]
    explanation: ExplanationItem


class WhatIfWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A plan that is not published, and whose use it is tried against: these customers, or those on a plan now."""

    terms: Bundle
    customers: Annotated[tuple[Key, ...], msgspec.Meta(max_length=TRIED_MAX)] = ()
    plan: Key | None = None
    start: Instant
    end: Instant


class RefusedItem(msgspec.Struct, frozen=True):
    """What one limit (or feature, with its code) would have refused."""

    limit: str
    calls: int
    quantity: int
    first_at: str
    last_at: str


class TrialItem(msgspec.Struct, frozen=True):
    """One customer under the other terms. ``not_replayed``: limits that events cannot tell of (rates, calls in flight);
    ``cut``: not all of its events were replayed."""

    customer: str
    plan: str
    calls: int
    allowed: int
    refused: tuple[RefusedItem, ...]
    not_replayed: tuple[str, ...]
    cut: bool


@reads(PATH, tags=TAGS)
def explain(
    customer: PathKey,
    feature: Annotated[str, QueryParameter(max_length=128, description="the feature that is asked about")],
    context: NamedDependency[Context],
    user: QueryKey = None,
    workspace: QueryKey = None,
    role: QueryKey = None,
    api_key: QueryKey = None,
    meter: Annotated[str, QueryParameter(max_length=128, description="what it uses, beside a request")] = "requests",
    amount: Annotated[int, QueryParameter(ge=0, le=2**53 - 1, description="how much of it")] = 1,
    model: QueryModel = None,
    at: At = None,
) -> ExplanationItem:
    """Why this customer is allowed or refused, now or at that instant: plan, add-ons, overrides, grants, and each limit
    on the path with what is used, reserved, lent and in limbo."""
    subject = Subject(user, workspace, role, api_key)
    call = Call(feature, model, subject, {}, {"requests": 1, meter: amount})
    at_ms = optional_ms(at, "at")
    found = context.read(lambda connection: explain_decision(connection, customer, call, at_ms, context.now_ms))
    return _item(customer, call, found)


@asks(PATH + "/replays", RecordedWrite, tags=TAGS)
def replay(customer: PathKey, data: JSONBody[RecordedWrite], context: NamedDependency[Context]) -> ReplayItem:
    """Decide a recorded decision again, under the version of the entitlement that it names: the same must come out."""
    call = Call(data.feature, data.model, data.subject, data.tags, {"requests": 1, **data.amounts})
    found = context.read(lambda connection: replay_decision(connection, customer, call, data.version, data.usage))
    said = {"decision": data.decision.value, "code": data.code.value, "limiting": data.limiting}
    outcome = found.explanation
    again = {"decision": outcome.verdict.value, "code": outcome.code.value, "limiting": outcome.limiting}
    if data.decision is Verdict.ALLOW:
        again["limiting"] = said["limiting"]  # on allow it names the limit with the least left, which decided nothing
    differences = tuple(f"{name}: {said[name]} then, {again[name]} now" for name in said if said[name] != again[name])
    return ReplayItem(not differences, differences, _item(customer, call, found))


@asks("/v1/what-if", WhatIfWrite, tags=TAGS)
def what_if(data: JSONBody[WhatIfWrite], context: NamedDependency[Context]) -> tuple[TrialItem, ...]:
    """Who would have been refused, and when, had these terms been the plan of these customers: their real past calls
    are decided again, one after the other."""
    start_ms, end_ms = instant_ms(data.start, "start"), instant_ms(data.end, "end")
    if end_ms <= start_ms:
        raise Violation("end", "is not after start", "a later instant")
    found = context.read(
        lambda connection: try_plan(connection, data.terms, data.customers, data.plan, start_ms, end_ms)
    )
    return tuple(_trial(one) for one in found)


def _item(customer: str, call: Call, found: Explained) -> ExplanationItem:
    document, outcome = found.document, found.explanation
    feature = next((feature for feature in document.features if feature.key == call.feature), None)
    return ExplanationItem(
        customer=customer,
        at=rfc3339(found.at_ms),
        decision=outcome.verdict,
        code=outcome.code,
        limiting=outcome.limiting,
        message=_message(outcome.code, outcome.limiting, outcome.limits),
        version=found.version,
        since=rfc3339(found.from_ms),
        cause=found.cause,
        subscription=document.subscription,
        plan=document.plan,
        add_ons=document.add_ons,
        feature=feature,
        feature_sources=document.sources.get(call.feature, ()),
        balances=_balances(feature, document),
        limits=tuple(_limit(one, found) for one in outcome.limits),
    )


def _balances(feature: Feature | None, document: Document) -> tuple[str, ...]:
    if feature is None or feature.kind is not FeatureKind.CREDIT:
        return ()
    return balances_of(feature.key, document.limits, document.rates)


def _limit(finding: LimitFinding, found: Explained) -> LimitItem:
    limit, window, use = finding.limit, finding.window, finding.use
    shown = window if limit.is_counted else None
    return LimitItem(
        limit=limit.key,
        meter=limit.meter,
        scope=limit.scope.value,
        scope_value=finding.scope_value,
        window=limit.window.value,
        window_start=None if shown is None else rfc3339(shown.start_ms),
        window_end=end_of(shown),
        amount=limit.amount,
        used=use.used,
        reserved=use.reserved,
        lent=use.lent,
        limbo=use.limbo,
        remaining=finding.remaining,
        need=finding.need,
        granted=finding.granted,
        shadow=finding.shadow,
        sources=found.document.sources.get(limit.key.partition("@")[0], ()),
    )


def _message(code: Code, limiting: str | None, limits: tuple[LimitFinding, ...]) -> str:
    if code is Code.OK:
        return "Allowed: every limit on the path has room."
    finding = next((one for one in limits if one.limit.key == limiting), None)
    if finding is None:
        return f"Refused: {code.value.replace('_', ' ')}."
    used = finding.use.used + finding.use.reserved
    said = f"{finding.limit.meter}: {used} of {finding.limit.amount} used, {finding.need} needed"
    verb = "Allowed beyond" if code is Code.SOFT_LIMIT_EXCEEDED else "Refused by"
    return f"{verb} limit {limiting!r} ({said})."


def _trial(one: Trial) -> TrialItem:
    outcome = one.replay
    return TrialItem(
        one.customer,
        one.plan,
        outcome.calls,
        outcome.allowed,
        tuple(_refused(name, refusals) for name, refusals in sorted(outcome.refused.items())),
        outcome.not_replayed,
        one.cut,
    )


def _refused(name: str, one: Refusals) -> RefusedItem:
    return RefusedItem(name, one.calls, one.quantity, rfc3339(one.first_at_ms), rfc3339(one.last_at_ms))


EXPLANATION_HANDLERS = [explain, replay, what_if]
