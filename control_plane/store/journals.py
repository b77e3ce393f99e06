"""The journals of agents as people see them: their starts summed up, and what their leases still hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from control_plane.store.tables import incarnations, leases


class Journal(NamedTuple):
    """Every start of one agent on one journal, summed up.

    Attributes:
        boot: of the newest start; ``starts``: how many are known.
        quarantined: why nothing that comes from it is believed; ``None`` if it is.
    """

    agent: str
    journal: str
    boot: int
    starts: int
    first_seen_at_ms: int
    last_seen_at_ms: int
    quarantined: str | None


class Held(NamedTuple):
    """Leases of one journal and status: how many, and what may be used of them without anybody having said so."""

    agent: str
    journal: str
    status: str
    leases: int
    unknown: int


def of_agents(connection: Connection, names: Iterable[str]) -> dict[str, list[Journal]]:
    """The journals of these agents, the last heard of first."""
    table = incarnations.c
    query = (
        select(
            table.agent,
            table.journal,
            func.max(table.boot),
            func.count(),
            func.min(table.first_seen_at_ms),
            func.max(table.last_seen_at_ms),
            func.max(table.quarantined),
        )
        .where(table.agent.in_(sorted(set(names))))
        .group_by(table.agent, table.journal)
        .order_by(table.agent, func.max(table.last_seen_at_ms).desc(), table.journal)
    )
    found: dict[str, list[Journal]] = {}
    for row in connection.execute(query):
        found.setdefault(row[0], []).append(Journal(*row))
    return found


def held_by(connection: Connection, names: Iterable[str]) -> list[Held]:
    """What the leases of these agents hold that are not closed."""
    table = leases.c
    unknown = func.sum(table.cap - table.settled - table.unreported)
    query = (
        select(table.agent, table.journal, table.status, func.count(), unknown)
        .where(table.agent.in_(sorted(set(names))), table.status != "closed")
        .group_by(table.agent, table.journal, table.status)
        .order_by(table.agent, table.journal, table.status)
    )
    return [Held(row[0], row[1], row[2], int(row[3]), int(row[4])) for row in connection.execute(query)]
