"""Makes the statement of a billing period from maintained sums, counters and credits."""

from __future__ import annotations

from collections.abc import Iterator

from control_plane.core.entitlements import Document, resolve
from control_plane.core.grains import AskedSpan
from control_plane.core.overage import authored_key, overage, prices_of
from control_plane.core.statements import AdjustmentLine, CreditLine, OverageLine, Statement, UsageLine, totals
from control_plane.operations.read_usage import UsageQuery, read_usage
from control_plane.operations.resolve_entitlement import facts_of
from control_plane.store import periods
from control_plane.store.database import Connection
from protocol.entitlements import LimitEnd
from protocol.instants import rfc3339
from protocol.windows import Window

LINES_MAX = 10_000
ADJUSTMENTS_MAX = 1_000
MINUTE_MS = 60_000


def make_statement(connection: Connection, customer: str, period: Window, now_ms: int) -> Statement:
    """As of now. Usage is told apart by whole minutes: the minute in which a period begins is its own."""
    facts = facts_of(connection, [customer])[customer]
    document = resolve(facts, min(period.end_ms - 1, now_ms))
    lines = tuple(_overage(connection, customer, document, period))
    adjusted = periods.adjusted(connection, customer, *period, ADJUSTMENTS_MAX)
    burned = periods.credits_burned(connection, customer, *period)
    return Statement(
        customer=customer,
        start=rfc3339(period.start_ms),
        end=rfc3339(period.end_ms),
        plan=document.plan,
        usage=_usage(connection, customer, period, now_ms),
        overage=lines,
        overage_total=totals(lines),
        credits=tuple(CreditLine(meter, amount) for meter, amount in burned.items()),
        adjustments=tuple(
            AdjustmentLine(one.event, rfc3339(one.own_ms), rfc3339(one.at_ms), dict(one.amounts)) for one in adjusted
        ),
        adjustments_count=periods.count_adjusted(connection, customer, *period),
    )


def _usage(connection: Connection, customer: str, period: Window, now_ms: int) -> tuple[UsageLine, ...]:
    from_ms, to_ms = (at_ms - at_ms % MINUTE_MS for at_ms in period)
    query = UsageQuery(AskedSpan(from_ms, to_ms), ("meter", "feature"), count=LINES_MAX)
    rows = read_usage(connection, customer, query, now_ms).rows if from_ms < to_ms else []
    return tuple(UsageLine(row["meter"], row["feature"], row["quantity"], row["events"]) for row in rows)


def _overage(connection: Connection, customer: str, document: Document, period: Window) -> Iterator[OverageLine]:
    """Windows without an end are left out: what passes them is told by balances."""
    prices = prices_of(document.authored)
    left = LINES_MAX
    for limit in document.limits:
        price = prices.get(authored_key(limit))
        if limit.amount is None or not limit.is_counted or (price is None and limit.at_end is not LimitEnd.OVERAGE):
            continue
        rows = periods.charged_over(connection, customer, limit.counter, limit.amount, period, left)
        left -= len(rows)
        for row in rows:
            over = overage(limit, price, row.charged)
            yield OverageLine(
                limit.key,
                limit.meter,
                row.key.scope_value,
                limit.window.value,
                rfc3339(row.key.window_start_ms),
                rfc3339(row.window_end_ms),
                limit.amount,
                row.charged,
                over.quantity,
                over.micros,
                over.currency,
            )
