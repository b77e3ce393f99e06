"""What was odd about the syncs of agents: counted by kind, with the last one's words, for people to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

from sqlalchemy import Connection, Insert, select
from sqlalchemy.dialects import postgresql, sqlite

from control_plane.store.trust_tables import troubles

DETAIL_LETTERS_MAX = 500


class Trouble(NamedTuple):
    """One row. Columns in the table's order."""

    agent: str
    code: str
    times: int
    first_at_ms: int
    last_at_ms: int
    detail: str


def note(connection: Connection, agent: str, odd: Mapping[str, tuple[int, str]], now_ms: int) -> None:
    """Count these once more.

    Args:
        odd: by code: how often, and what is to be said of the last time.
    """
    if odd:
        rows = [
            Trouble(agent, code, times, now_ms, now_ms, detail[:DETAIL_LETTERS_MAX])._asdict()
            for code, (times, detail) in sorted(odd.items())
        ]
        connection.execute(_upsert(connection.dialect.name), rows)


def of_agents(connection: Connection, names: Iterable[str]) -> dict[str, list[Trouble]]:
    """The troubles of these agents, the latest first."""
    found: dict[str, list[Trouble]] = {}
    query = select(troubles).where(troubles.c.agent.in_(sorted(set(names))))
    for row in connection.execute(query.order_by(troubles.c.agent, troubles.c.last_at_ms.desc(), troubles.c.code)):
        found.setdefault(row.agent, []).append(Trouble(*row))
    return found


@cache
def _upsert(dialect: str) -> Insert:
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = make(troubles)
    news = {
        "times": troubles.c.times + statement.excluded.times,
        "last_at_ms": statement.excluded.last_at_ms,
        "detail": statement.excluded.detail,
    }
    return statement.on_conflict_do_update(index_elements=[troubles.c.agent, troubles.c.code], set_=news)
