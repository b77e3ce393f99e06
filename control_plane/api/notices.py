"""Notices over HTTP: a numbered feed of what people are told without asking, and the list of its kinds."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from control_plane.api.context import Context
from control_plane.api.parameters import Page, PageCursor, PageLimit, QueryKey, page, serial_cursor
from control_plane.api.verbs import reads
from control_plane.core.notices import MEANINGS, NoticeKind
from control_plane.store import notices
from control_plane.store.notices import Numbered
from protocol.instants import rfc3339

TAGS = ["notices"]
After = Annotated[
    int | None,
    QueryParameter(ge=0, le=2**62, description="only those after this number; for readers that come again"),
]


class NoticeItem(msgspec.Struct, frozen=True):
    """One notice. ``notice``: its number, larger than that of every one before; ``body``: as its kind has it."""

    notice: int
    at: str
    customer: str
    kind: NoticeKind
    body: dict[str, Any]


class KindItem(msgspec.Struct, frozen=True):
    """One kind of notice, and what it means."""

    kind: NoticeKind
    meaning: str


@reads("/v1/notices", tags=TAGS)
def list_notices(
    context: NamedDependency[Context],
    customer: QueryKey = None,
    kind: Annotated[NoticeKind | None, QueryParameter(description="only of this kind")] = None,
    after: After = None,
    limit: PageLimit = 100,
    cursor: PageCursor = None,
) -> Page[NoticeItem]:
    """Notices, oldest first. A reader keeps the number of the last one that it has seen, and asks for those after it:
    it misses none, and is told none twice."""
    begin = max(after or 0, serial_cursor(cursor) or 0)
    only = None if kind is None else kind.value
    rows = context.read(lambda connection: notices.after(connection, begin, limit + 1, customer=customer, kind=only))
    return page(rows, limit, _item, lambda row: row.notice)


@reads("/v1/notice-kinds", tags=TAGS)
def list_notice_kinds() -> list[KindItem]:
    """Every kind of notice; what webhooks will be sent."""
    return [KindItem(kind, meaning) for kind, meaning in MEANINGS.items()]


def _item(row: Numbered) -> NoticeItem:
    return NoticeItem(row.notice, rfc3339(row.at_ms), row.customer, NoticeKind(row.kind), row.body)


NOTICE_HANDLERS = [list_notices, list_notice_kinds]
