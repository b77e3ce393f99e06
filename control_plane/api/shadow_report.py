"""The shadow report over HTTP: what limits in shadow would have refused."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar.di import NamedDependency

from control_plane.api.context import Context
from control_plane.api.parameters import (
    OptionalKey,
    Page,
    PageCursor,
    PageLimit,
    QueryKey,
    Serial,
    decode_cursor,
    page,
)
from control_plane.api.verbs import reads
from control_plane.core.kinds import counted
from control_plane.store import shadow_refusals
from control_plane.store.allowances import Key
from control_plane.store.shadow_refusals import Refused
from protocol.instants import rfc3339

Counter = Annotated[str, msgspec.Meta(pattern=r"^[ -~]{1,300}\Z")]
_POSITION: msgspec.json.Decoder[tuple[str, str, str, int]] = msgspec.json.Decoder(
    tuple[OptionalKey, Counter, OptionalKey, Serial]
)


class ShadowItem(msgspec.Struct, frozen=True):
    """What one limit would have refused in one window, of one scope value: how many events, and how much of its meter;
    the first and the last of them."""

    customer: str
    limit: str
    meter: str
    window: str
    scope_value: str
    window_start: str
    window_end: str
    events: int
    quantity: int
    first_at: str
    last_at: str


@reads("/v1/shadow-report", tags=["limits"])
def shadow_report(
    context: NamedDependency[Context],
    customer: QueryKey = None,
    limit: PageLimit = 100,
    cursor: PageCursor = None,
) -> Page[ShadowItem]:
    """What would have been refused, had limits that are in shadow been in force: calls that found no room in their
    counter, in the order in which they were accepted. Events without a lease are all there is of such limits."""
    position = None if cursor is None else Key(*decode_cursor(cursor, _POSITION))
    rows = context.read(lambda connection: shadow_refusals.after(connection, customer, position, limit + 1))
    return page(rows, limit, _item, lambda row: tuple(row.key))


def _item(row: Refused) -> ShadowItem:
    what = counted(row.key.counter)
    return ShadowItem(
        row.key.customer,
        row.limit_key,
        what.meter,
        what.window,
        row.key.scope_value,
        rfc3339(row.key.window_start_ms),
        rfc3339(row.window_end_ms),
        row.events,
        row.quantity,
        rfc3339(row.first_at_ms),
        rfc3339(row.last_at_ms),
    )


SHADOW_HANDLERS = [shadow_report]
