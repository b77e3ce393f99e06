"""Agents, and their incarnations: each start on a journal, with how far its events have been accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, and_, bindparam, insert, select, update

from control_plane.store.tables import agents, incarnations
from control_plane.store.tables import customers as customers_table
from control_plane.store.wanted import CHUNK, as_rows, wanted


class Incarnation(NamedTuple):
    """One start of an agent on one journal. ``nonce`` is empty for a start known only from its events; ``serial`` is of
    the newest of its syncs that asked for something."""

    agent: str
    journal: str
    boot: int
    nonce: str
    high_water: int
    first_seen_at_ms: int
    last_seen_at_ms: int
    quarantined: str | None = None
    serial: int = 0


# Built once: every sync needs them, and building a statement costs more than running it.
_LOCK = (
    select(agents.c.last_seen_at_ms, agents.c.revoked_at_ms, agents.c.generation)
    .where(agents.c.agent == bindparam("agent"))
    .with_for_update()
)
_STARTS = select(incarnations).where(
    incarnations.c.agent == bindparam("agent"), incarnations.c.journal == bindparam("journal")
)
_HEARD_OF = update(agents).where(agents.c.agent == bindparam("whom")).values(last_seen_at_ms=bindparam("now_ms"))
_OF_START = and_(
    incarnations.c.agent == bindparam("of_agent"),
    incarnations.c.journal == bindparam("of_journal"),
    incarnations.c.boot == bindparam("of_boot"),
)
_NOTE_SERIAL = update(incarnations).where(_OF_START).values(serial=bindparam("to"))
_TOUCH_START = update(incarnations).where(_OF_START).values(last_seen_at_ms=bindparam("now_ms"))


def add(connection: Connection, agent: str, name: str, now_ms: int) -> None:
    """Enrol."""
    connection.execute(insert(agents).values(agent=agent, name=name, enrolled_at_ms=now_ms))


def lock(connection: Connection, agent: str, now_ms: int, coarse_ms: int) -> int | None:
    """Hold the agent's row, so that its syncs happen one by one, and note that it was heard of.

    Args:
        coarse_ms: not noted again when it was noted less than so long ago.

    Returns:
        The newest generation in which it has said all that it holds, 0 for none; ``None`` if it does not exist or is
        revoked.
    """
    row = connection.execute(_LOCK, {"agent": agent}).one_or_none()
    if row is None or row.revoked_at_ms is not None:
        return None
    if row.last_seen_at_ms is None or now_ms - row.last_seen_at_ms >= coarse_ms:
        connection.execute(_HEARD_OF, {"whom": agent, "now_ms": now_ms})
    return int(row.generation)


def register(connection: Connection, agent: str, generation: int) -> None:
    """It has said, in this generation, all that it holds."""
    connection.execute(update(agents).where(agents.c.agent == agent).values(generation=generation))


def to_be_waited_for(connection: Connection, since_ms: int) -> list[str]:
    """Agents that are trusted and were heard of since then."""
    trusted = agents.c.revoked_at_ms.is_(None) & (agents.c.last_seen_at_ms >= since_ms)
    return list(connection.execute(select(agents.c.agent).where(trusted).order_by(agents.c.agent)).scalars())


def hold_customers(connection: Connection, names: set[str]) -> None:
    """Keep the entitlements of these customers as they are until the transaction ends (PostgreSQL; SQLite does)."""
    if connection.dialect.name != "postgresql":
        return
    ordered = sorted(names)
    query = _hold(connection.dialect.name)
    for start in range(0, len(ordered), CHUNK):
        connection.execute(query, as_rows([(name,) for name in ordered[start : start + CHUNK]])).all()


@cache
def _hold(dialect: str) -> Select[Any]:
    table = wanted(dialect, (customers_table.c.customer,))
    return (
        select(customers_table.c.customer)
        .select_from(table.join(customers_table, customers_table.c.customer == table.c.customer))
        .order_by(customers_table.c.customer)
        .with_for_update(read=True, of=customers_table)
    )


def starts(connection: Connection, agent: str, journal: str) -> dict[int, Incarnation]:
    """Every known start of an agent on a journal, by boot."""
    rows = connection.execute(_STARTS, {"agent": agent, "journal": journal})
    return {row.boot: Incarnation(*row) for row in rows}


def is_journal_of_another(connection: Connection, agent: str, journal: str) -> bool:
    """Whether another agent has spoken from this journal: a copied disk."""
    others = (incarnations.c.journal == journal) & (incarnations.c.agent != agent)
    return connection.execute(select(incarnations.c.agent).where(others).limit(1)).first() is not None


def add_start(connection: Connection, row: Incarnation) -> None:
    """A start that was not known."""
    connection.execute(insert(incarnations).values(row._asdict()))


def name_start(connection: Connection, row: Incarnation) -> None:
    """A start that was known only from its events has introduced itself."""
    named = update(incarnations).where(_OF_START).values(nonce=row.nonce, last_seen_at_ms=row.last_seen_at_ms)
    connection.execute(named, _whose(row))


def touch_start(connection: Connection, row: Incarnation, now_ms: int) -> None:
    """It was heard of."""
    connection.execute(_TOUCH_START, {**_whose(row), "now_ms": now_ms})


def note_serials(connection: Connection, rows: Sequence[tuple[Incarnation, int]]) -> None:
    """Syncs with these numbers have asked for something."""
    if rows:
        connection.execute(_NOTE_SERIAL, [{**_whose(row), "to": serial} for row, serial in rows])


def raise_high_water(connection: Connection, agent: str, journal: str, marks: Mapping[int, int]) -> None:
    """Events of these boots are accepted up to and including these numbers."""
    if not marks:
        return
    same = and_(
        incarnations.c.agent == agent, incarnations.c.journal == journal, incarnations.c.boot == bindparam("k_boot")
    )
    statement = update(incarnations).where(same).values(high_water=bindparam("v_high_water"))
    connection.execute(statement, [{"k_boot": boot, "v_high_water": seq} for boot, seq in sorted(marks.items())])


def quarantine(connection: Connection, agent: str, journal: str, why: str) -> bool:
    """Nothing that comes from this journal is believed any longer; false if that was so before."""
    same = (incarnations.c.agent == agent) & (incarnations.c.journal == journal)
    believed = update(incarnations).where(same, incarnations.c.quarantined.is_(None))
    return connection.execute(believed.values(quarantined=why)).rowcount > 0


def release(connection: Connection, agent: str, journal: str) -> bool:
    """This journal is believed again; false if it was not in quarantine."""
    same = (incarnations.c.agent == agent) & (incarnations.c.journal == journal)
    shut_out = update(incarnations).where(same, incarnations.c.quarantined.is_not(None))
    return connection.execute(shut_out.values(quarantined=None)).rowcount > 0


def _whose(row: Incarnation) -> dict[str, str | int]:
    return {"of_agent": row.agent, "of_journal": row.journal, "of_boot": row.boot}
