"""The audit log over HTTP."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from litestar.di import NamedDependency

from control_plane.api.context import Context
from control_plane.api.parameters import Page, PageCursor, PageLimit, QueryKey, page, serial_cursor
from control_plane.api.verbs import reads
from control_plane.store import audit_log
from control_plane.store.audit_log import AuditRow
from protocol.instants import rfc3339


class AuditItem(msgspec.Struct, frozen=True):
    """One change. ``actor``: the public half of the token that made it, or what else did; ``body``: to what."""

    entry: int
    at: str
    actor: str
    action: str
    customer: str | None
    target: str
    body: dict[str, Any]


def _item(row: AuditRow) -> AuditItem:
    body = json.loads(row.body)
    return AuditItem(row.entry, rfc3339(row.at_ms), row.actor, row.action, row.customer, row.target, body)


@reads("/v1/audit-log", tags=["audit"])
def list_audit_log(
    context: NamedDependency[Context],
    customer: QueryKey = None,
    limit: PageLimit = 100,
    cursor: PageCursor = None,
) -> Page[AuditItem]:
    """What was changed, newest first; with ``customer`` only what concerns it."""
    before = serial_cursor(cursor)
    rows = context.read(lambda connection: audit_log.before(connection, before, limit + 1, customer))
    return page(rows, limit, _item, lambda row: row.entry)


AUDIT_HANDLERS = [list_audit_log]
