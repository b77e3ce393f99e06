"""How the limits of a customer stand: for a widget that shows what is left, and when it resets."""

from __future__ import annotations

from agent.core.answers import limit_state
from agent.core.books import Books, Customer
from agent.core.lacking import step_of
from agent.operations.admit import CROWDED
from protocol.decisions import LimitState
from protocol.entitlements import Entitlement, Limit, scope_value
from protocol.events import Subject
from protocol.local_messages import ErrorReply, Problem, Usage, UsageReport
from protocol.windows import WindowKind


def report_usage(books: Books, request: Usage, now_ms: int, until_ms: int) -> UsageReport | ErrorReply | None:
    """What this agent knows; ``None`` while it waits for the first word on a customer."""
    if books.crowded_for(request.customer):
        return ErrorReply(error=Problem("overloaded", CROWDED), retry=True)
    customer = books.customer(request.customer)
    customer.last_used_ms = now_ms
    entitlement = customer.entitlement
    if entitlement is None:
        if customer.unknown_until_ms > now_ms:
            return ErrorReply(
                error=Problem("customer_not_found", f"there is no customer {request.customer!r}", "customer")
            )
        if now_ms >= until_ms or books.uplink_down:
            text = f"customer {request.customer!r} is new to this host, and the control plane does not answer"
            return ErrorReply(error=Problem("lease_unavailable", text, "customer"), retry=True)
        books.look_again.add(request.customer)
        books.wake_sync()
        return None
    return UsageReport(
        customer=request.customer,
        plan=entitlement.plan,
        status=entitlement.status.value,
        policy_version=entitlement.version,
        staleness_ms=max(0, now_ms - books.confirmed_at_ms),
        features={
            feature.key: terms.value if terms.enabled and terms.value is not None else terms.enabled
            for feature in entitlement.features
            for terms in (feature.terms(request.role),)
        },
        limits=tuple(_state(books, customer, limit, request, now_ms) for limit in _asked_for(entitlement, request)),
    )


def _asked_for(entitlement: Entitlement, request: Usage) -> list[Limit]:
    wanted = request.feature
    return [
        limit
        for limit in entitlement.limits
        if (wanted is None or limit.feature in (None, wanted)) and limit.is_for(request.role)
    ]


def _state(books: Books, customer: Customer, limit: Limit, request: Usage, now_ms: int) -> LimitState:
    if limit.amount is None or limit.window is WindowKind.REQUEST:
        return LimitState(
            limit=limit.key,
            meter=limit.meter,
            window=limit.window.value,
            granted=True,
            amount=limit.amount,
            remaining=limit.amount,
            scope=limit.scope.value,
        )
    subject = Subject(request.user, request.workspace, request.role, request.api_key)
    whose = scope_value(limit, subject, request.tags)
    allowance = books.allowance((customer.name, limit.counter, whose), now_ms)
    step = step_of(limit, allowance)
    return limit_state(step, now_ms, granted=allowance.used(now_ms) < step.size)
