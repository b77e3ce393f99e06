"""Balances over HTTP: how each limit of a customer stands in its present window."""

from __future__ import annotations

import msgspec
from litestar.di import NamedDependency

from control_plane.api.context import Context
from control_plane.api.instants import end_of
from control_plane.api.parameters import (
    OptionalKey,
    Page,
    PageCursor,
    PageLimit,
    PathKey,
    QueryKey,
    QueryTag,
    Serial,
    decode_cursor,
    named_subjects,
    page,
)
from control_plane.api.verbs import reads
from control_plane.operations.read_balances import Balance, BalancesQuery, read_balances
from protocol.entitlements import LimitEnd, Scope
from protocol.instants import INSTANT_MS_MAX, rfc3339
from protocol.windows import WindowKind

TAGS = ["customers"]
_POSITION: msgspec.json.Decoder[tuple[int, str]] = msgspec.json.Decoder(tuple[Serial, OptionalKey])


class BalanceItem(msgspec.Struct, frozen=True):
    """One limit, for one scope value.

    Attributes:
        ceiling: the amount and the overage that the plan allows.
        used: charged, with what open leases have settled.
        in_flight: held by calls in flight; ``lent``: lent to agents and free there.
        remaining: amount less used and in flight, never below 0; null when unlimited, like amount and ceiling.
        window_start, window_end: null for a limit that has none: on single calls, on what is held at the same time, and
            for rates. A window that never ends has no end.
        smooth, burst: a rate of ``amount`` a window, of which so much may come at once; of a rate nothing is ever used
            up: ``lent`` is what the shares of all hosts sum to, and ``remaining`` what no host holds.
        exhausts_at, exhausts_in_ms: when ``remaining`` is used up if use goes on as in the last hour (of a subject or
            tag value: as since the beginning of the hour before); null if not within the window.
        overage: what was used beyond ``amount``. overage_cost_micros: what that costs, in whole micro-units of
            ``overage_currency``, rounded up; null where the plan has no price for it.
    """

    limit: str
    meter: str
    feature: str | None
    window: WindowKind
    scope: Scope
    scope_value: str
    amount: int | None
    ceiling: int | None
    used: int
    in_flight: int
    lent: int
    limbo: int
    remaining: int | None
    window_start: str | None
    window_end: str | None
    at_end: LimitEnd
    unlimited: bool
    scope_tag: str | None
    smooth: bool
    burst: int | None
    exhausts_at: str | None
    exhausts_in_ms: int | None
    overage: int
    overage_cost_micros: int | None
    overage_currency: str | None


def _item(balance: Balance, now_ms: int) -> BalanceItem:
    limit, counted, window = balance.limit, balance.counted, balance.window
    in_ms, over = balance.exhausts_in_ms, balance.overage
    return BalanceItem(
        limit=limit.key,
        meter=limit.meter,
        feature=limit.feature,
        window=limit.window,
        scope=limit.scope,
        scope_value=counted.scope_value,
        amount=limit.amount,
        ceiling=limit.ceiling,
        used=balance.used,
        in_flight=counted.in_flight,
        lent=max(0, counted.lent - counted.settled - counted.in_flight),
        limbo=counted.limbo,
        remaining=balance.remaining,
        window_start=None if window is None else rfc3339(window.start_ms),
        window_end=end_of(window),
        at_end=limit.at_end,
        unlimited=limit.amount is None,
        scope_tag=limit.scope_tag,
        smooth=limit.smooth,
        burst=limit.burst_max if limit.smooth else None,
        exhausts_at=None if in_ms is None else rfc3339(min(now_ms + in_ms, INSTANT_MS_MAX)),
        exhausts_in_ms=in_ms,
        overage=over.quantity,
        overage_cost_micros=over.micros,
        overage_currency=over.currency,
    )


@reads("/v1/customers/{customer:str}/balances", tags=TAGS)
def list_balances(
    customer: PathKey,
    context: NamedDependency[Context],
    user: QueryKey = None,
    workspace: QueryKey = None,
    role: QueryKey = None,
    api_key: QueryKey = None,
    tag: QueryTag = None,
    limit: PageLimit = 100,
    cursor: PageCursor = None,
) -> Page[BalanceItem]:
    """How the customer's limits stand, in the order of its plan. Limits per user show users that used something;
    with ``user`` they show that user; so for the other subjects, and for tags (``NAME:VALUE``)."""
    after = None if cursor is None else decode_cursor(cursor, _POSITION)
    query = BalancesQuery(named_subjects(user, workspace, role, api_key, tag), after, limit + 1)
    rows = context.read(lambda connection: read_balances(connection, customer, query, context.now_ms))
    return page(
        rows, limit, lambda row: _item(row, context.now_ms), lambda row: (row.position, row.counted.scope_value)
    )


BALANCE_HANDLERS = [list_balances]
