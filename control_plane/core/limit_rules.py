"""The rules that the limits of a plan must keep, each said so that its author knows what to write instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from control_plane.core.plans import PlanGrant, PlanLimit
from protocol.entitlements import LIMITS_MAX, FeatureKind, InFlight, Limit, LimitEnd, Scope
from protocol.units import QUANTITY_MAX
from protocol.violations import Violation
from protocol.windows import WindowKind

KEY_MAX = 128
COUNTER_MAX = 300
"""Counters are keys of tables: their names have a bound."""

METER = "one that is in the catalog, and not made of events"

GRANT_WINDOWS = (
    WindowKind.DAY,
    WindowKind.WEEK,
    WindowKind.MONTH,
    WindowKind.BILLING_PERIOD,
    WindowKind.LIFETIME,
)
SMOOTH_WINDOWS = (WindowKind.MINUTE, WindowKind.HOUR, WindowKind.DAY)


def limit_violations(
    limits: tuple[PlanLimit, ...], kinds: Mapping[str, FeatureKind], meters: set[str]
) -> Iterator[Violation]:
    """Every rule that these limits break as agents enforce them, one by one and together, in their order.

    Args:
        kinds: every feature of the catalog; meters: every meter that may be named.
    """
    keys: dict[str, str] = {}
    counters: dict[str, str] = {}
    variants = [(f"limits[{index}]", limit) for index, own in enumerate(limits) for limit in own.enforced()]
    if len(variants) > LIMITS_MAX:
        problem = f"are {len(variants)} with those of single roles"
        yield Violation("limits", problem, f"at most {LIMITS_MAX}")
    for path, limit in variants:
        if limit.key in keys:
            yield Violation(f"{path}.key", f"is {limit.key!r}, like that of {keys[limit.key]}", "a name of its own")
        if limit.counter in counters:
            expected = "one limit for each feature, meter, window, scope and role"
            yield Violation(path, f"counts the same as {counters[limit.counter]}", expected)
        if len(limit.key) > KEY_MAX:
            problem = f"makes the limit's name for {limit.roles[0]!r} longer than {KEY_MAX} letters"
            yield Violation(f"{path}.by_role", problem, "a shorter key, or shorter names of roles")
        if len(limit.counter) > COUNTER_MAX:
            problem = f"needs a counter's name of {len(limit.counter)} letters: feature, meter, window, scope and role"
            yield Violation(path, problem, f"names that together have at most {COUNTER_MAX}")
        keys[limit.key] = counters[limit.counter] = path
        if limit.meter not in meters:
            yield Violation(f"{path}.meter", f"names the unknown meter {limit.meter!r}", METER)
        if limit.feature is not None and limit.feature not in kinds:
            problem = f"names the unknown feature {limit.feature!r}"
            yield Violation(f"{path}.feature", problem, "one that is in the catalog")
        for rule in _RULES:
            yield from rule(path, limit)


def plan_limit_violations(limits: tuple[PlanLimit, ...]) -> Iterator[Violation]:
    """Rules about what only the control plane does with limits."""
    for index, limit in enumerate(limits):
        path = f"limits[{index}]"
        if limit.by_role and (limit.roles or limit.except_roles):
            yield Violation(f"{path}.by_role", "is given beside roles or except_roles", "one of the two")
        if limit.window is WindowKind.GRANTS and (limit.per_seat or limit.by_role):
            yield Violation(
                path, "is a balance that is multiplied or divided", "neither per_seat nor by_role: grants are"
            )
        if limit.per_seat and limit.amount is None:
            yield Violation(f"{path}.per_seat", "is true although the limit is unlimited", "false, or an amount")
        endless = limit.window in (WindowKind.LIFETIME, WindowKind.GRANTS)
        if limit.prorate and (not limit.is_counted or endless or limit.amount is None):
            expected = "false, or a limit with an amount in a window that ends"
            yield Violation(f"{path}.prorate", "is true for what has no parts of a window", expected)
        if limit.prorate and limit.by_role:
            yield Violation(f"{path}.prorate", "is true beside by_role", "one of the two")
        if limit.shadow and not limit.is_counted:
            expected = "false, or a limit that adds up in a window"
            yield Violation(f"{path}.shadow", f"is true for the window {limit.window.value!r}", expected)
        is_balance = limit.window is WindowKind.GRANTS  # grants say how much
        if limit.thresholds and not is_balance and (not limit.is_counted or not limit.amount):
            expected = "none, a limit with an amount that adds up in a window, or a balance"
            yield Violation(f"{path}.thresholds", "are given for what is never reached in parts", expected)
        if list(limit.thresholds) != sorted(set(limit.thresholds)):
            yield Violation(f"{path}.thresholds", "are not in order", "rising per cents, each once")
        if limit.overage_price is not None and limit.at_end is not LimitEnd.OVERAGE:
            yield Violation(
                f"{path}.overage_price", "is given though nothing may pass", "none, unless at_end is overage"
            )


def grant_violations(grants: tuple[PlanGrant, ...], meters: set[str]) -> Iterator[Violation]:
    """Rules about the credit that comes with a plan."""
    keys: set[str] = set()
    for index, grant in enumerate(grants):
        path = f"grants[{index}]"
        if grant.key in keys:
            yield Violation(f"{path}.key", f"is {grant.key!r} a second time", "a name of its own")
        keys.add(grant.key)
        if grant.meter not in meters:
            yield Violation(f"{path}.meter", f"names the unknown meter {grant.meter!r}", METER)
        if grant.every not in GRANT_WINDOWS:
            expected = "one of " + ", ".join(window.value for window in GRANT_WINDOWS)
            yield Violation(f"{path}.every", f"is {grant.every.value!r}", expected)
        if grant.every is WindowKind.LIFETIME and grant.rollover_max:
            yield Violation(f"{path}.rollover_max", "is given for what never ends", "0, or another window")
        if grant.rollover_min > grant.rollover_max:
            yield Violation(f"{path}.rollover_min", "is more than rollover_max", f"at most {grant.rollover_max}")


def _scope(path: str, limit: Limit) -> Iterator[Violation]:
    if limit.scope is Scope.TAG and limit.scope_tag is None:
        yield Violation(f"{path}.scope_tag", "is missing", "the tag whose values have counters of their own")
    if limit.scope is not Scope.TAG and limit.scope_tag is not None:
        yield Violation(f"{path}.scope_tag", f"is {limit.scope_tag!r}", "none, unless scope is tag")


def _end(path: str, limit: Limit) -> Iterator[Violation]:
    overage = limit.at_end is LimitEnd.OVERAGE
    if limit.window is WindowKind.REQUEST and limit.at_end is not LimitEnd.BLOCK:
        yield Violation(f"{path}.at_end", f"is {limit.at_end.value!r}", "block: a request window bounds a single call")
    if overage and limit.amount is None:
        yield Violation(f"{path}.at_end", "is 'overage' although the limit is unlimited", "block, or an amount")
    if overage and limit.overage_max == 0:
        yield Violation(f"{path}.overage_max", "is 0", "how much may pass the limit at most, from 1")
    if limit.overage_max and not overage and limit.in_flight is not InFlight.FINISH:
        expected = "0, unless at_end is overage or in_flight is finish"
        yield Violation(f"{path}.overage_max", f"is {limit.overage_max}", expected)
    if limit.amount is not None and limit.amount + limit.overage_max > QUANTITY_MAX:
        problem = "passes the largest quantity with the amount"
        yield Violation(f"{path}.overage_max", problem, f"a sum up to {QUANTITY_MAX}")


def _finish(path: str, limit: Limit) -> Iterator[Violation]:
    if limit.in_flight is not InFlight.FINISH:
        return
    if limit.amount is None:
        yield Violation(f"{path}.in_flight", "is 'finish' although the limit is unlimited", "stop, or an amount")
    if not limit.is_counted:
        expected = "stop: only what adds up in a window is reached while a call is in flight"
        yield Violation(f"{path}.in_flight", "is 'finish'", expected)
    if limit.at_end is LimitEnd.OVERAGE:
        problem = "is 'overage' although in_flight is 'finish'"
        yield Violation(f"{path}.at_end", problem, "block or throttle: the overage is for calls in flight alone")
    if limit.overage_max == 0:
        expected = "how much calls in flight may pass the limit at most, from 1"
        yield Violation(f"{path}.overage_max", "is 0 although in_flight is 'finish'", expected)


def _slots(path: str, limit: Limit) -> Iterator[Violation]:
    if limit.window is not WindowKind.IN_FLIGHT:
        return
    if limit.amount is None:
        yield Violation(f"{path}.amount", "is unlimited", "how much may be held at the same time")
    if limit.at_end is LimitEnd.OVERAGE:
        problem = "is 'overage' for what is held at the same time"
        yield Violation(f"{path}.at_end", problem, "block or throttle")


def _smooth(path: str, limit: Limit) -> Iterator[Violation]:
    if not limit.smooth:
        if limit.burst is not None:
            yield Violation(f"{path}.burst", f"is {limit.burst}", "none, unless the limit is smooth")
        return
    if limit.window not in SMOOTH_WINDOWS:
        expected = "false, or a window of " + ", ".join(window.value for window in SMOOTH_WINDOWS)
        yield Violation(f"{path}.smooth", f"is true for the window {limit.window.value!r}", expected)
    if limit.amount is None:
        yield Violation(f"{path}.amount", "is unlimited although the limit is smooth", "how much a window admits")
    elif limit.amount and limit.burst_max == 0:
        yield Violation(f"{path}.burst", "is 0", "how much may come at once, from 1")
    if limit.at_end is LimitEnd.OVERAGE:
        yield Violation(f"{path}.at_end", "is 'overage' for a smooth limit", "block or throttle: a rate has no overage")


def _grants(path: str, limit: Limit) -> Iterator[Violation]:
    """What a balance holds is said by its grants; how far it may be overdrawn, by its overage."""
    if limit.window is not WindowKind.GRANTS:
        return
    if limit.amount != 0:
        yield Violation(f"{path}.amount", "is given for a balance", "0: grants say how much")
    if limit.scope is not Scope.CUSTOMER or limit.feature is not None or limit.roles or limit.except_roles:
        yield Violation(path, "is a balance of some calls only", "all features, scope customer, and no roles")
    if limit.at_end is LimitEnd.THROTTLE:
        yield Violation(
            f"{path}.at_end", "is 'throttle' for a balance", "block, or overage with the overdraft's maximum"
        )
    if limit.in_flight is InFlight.FINISH:
        yield Violation(f"{path}.in_flight", "is 'finish' for a balance", "stop, or at_end overage")


def _floor(path: str, limit: Limit) -> Iterator[Violation]:
    if not limit.batch_floor:
        return
    if limit.window is WindowKind.REQUEST or limit.amount is None:
        expected = "0: there is nothing to be left over"
        yield Violation(f"{path}.batch_floor", f"is {limit.batch_floor}", expected)
    elif limit.batch_floor > limit.amount:
        problem = f"is {limit.batch_floor}, more than the amount"
        yield Violation(f"{path}.batch_floor", problem, f"at most {limit.amount}")


_RULES: tuple[Callable[[str, Limit], Iterator[Violation]], ...] = (
    _scope,
    _end,
    _finish,
    _slots,
    _smooth,
    _grants,
    _floor,
)
