"""The audit log: who changed what, when; rows are only ever added."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, insert, select

from control_plane.store.tables import audit_log


class AuditRow(NamedTuple):
    """One change. ``actor`` is a token's public half, or ``operator`` for what a command or a setting did."""

    entry: int
    at_ms: int
    actor: str
    action: str
    customer: str | None
    target: str
    body: str


def append(
    connection: Connection,
    now_ms: int,
    actor: str,
    action: str,
    target: str,
    body: Mapping[str, object],
    customer: str | None = None,
) -> None:
    """Write down a change, in the transaction that makes it.

    Args:
        action: noun and verb, as ``plan.publish``.
        target: what was changed.
        body: what it was changed to; never a secret.
    """
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    connection.execute(
        insert(audit_log).values(at_ms=now_ms, actor=actor, action=action, customer=customer, target=target, body=text)
    )


def before(connection: Connection, entry: int | None, count: int, customer: str | None) -> list[AuditRow]:
    """Up to ``count`` rows, newest first, older than ``entry``; with ``customer`` only those about it."""
    query = select(audit_log).order_by(audit_log.c.entry.desc()).limit(count)
    if entry is not None:
        query = query.where(audit_log.c.entry < entry)
    if customer is not None:
        query = query.where(audit_log.c.customer == customer)
    return [AuditRow(*row) for row in connection.execute(query)]
