"""What the database knows of itself: its generation, whether it is learning, and the keys that seal its grants."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy import Connection, func, insert, select, update

from control_plane.store.tables import agents
from control_plane.store.trust_tables import generations, seal_keys

GRACE_MS = 34 * 86_400_000
"""How old an event may be to count, unless settings say otherwise."""

MADE = "made"
TOLD = "told"
NOTICED = "noticed"


class Generation(NamedTuple):
    """One row. Columns in the table's order."""

    generation: int
    name: str
    begun_at_ms: int
    cause: str
    agent: str | None
    detail: str
    expected_since_ms: int
    until_ms: int
    at_most_until_ms: int
    ended_at_ms: int | None
    learning_max_ms: int
    grace_ms: int = GRACE_MS

    def is_learning(self, now_ms: int) -> bool:
        """Whether nothing finite may be lent for now."""
        return self.ended_at_ms is None and now_ms < self.at_most_until_ms


class Custody(NamedTuple):
    """The present generation, and the key to seal with (``None``: nothing is sealed)."""

    generation: Generation
    key: bytes | None


NOBODYS = Generation(0, "", 0, MADE, None, "", 0, 0, 0, 0, 600_000)
"""Of a database that was never told to be anything: nothing is sealed there, and nothing was restored."""


_NEWEST_KEY = select(seal_keys.c.secret).order_by(seal_keys.c.seal_key.desc()).limit(1).scalar_subquery()
_PRESENT = select(*generations.c, _NEWEST_KEY).order_by(generations.c.generation.desc()).limit(1)


def present(connection: Connection) -> Custody:
    """As of now, in one statement."""
    row = connection.execute(_PRESENT).one_or_none()
    if row is None:
        return Custody(NOBODYS, None)
    return Custody(Generation(*row[:-1]), None if row[-1] is None else bytes(row[-1]))


def keys(connection: Connection) -> list[bytes]:
    """Every key that seals are believed by, the newest first."""
    query = select(seal_keys.c.secret).order_by(seal_keys.c.seal_key.desc())
    return [bytes(secret) for secret in connection.execute(query).scalars()]


def add_key(connection: Connection, secret: bytes, now_ms: int) -> None:
    """From now on grants are sealed with this one."""
    newest = connection.execute(select(func.max(seal_keys.c.seal_key))).scalar_one() or 0
    connection.execute(insert(seal_keys).values(seal_key=newest + 1, secret=secret, made_at_ms=now_ms))


def establish(connection: Connection, secret: bytes, learning_max_ms: int, now_ms: int) -> None:
    """Give a database that has none its first key and its first generation; all others are left as they are.

    The first generation is learning nothing, and is named by its key, so that no other database's is named alike.
    """
    if not keys(connection):
        add_key(connection, secret, now_ms)
    if present(connection).generation.generation == 0:
        name = f"1-{sha256(keys(connection)[0]).hexdigest()[:12]}"
        row = NOBODYS._replace(generation=1, name=name, ended_at_ms=now_ms, learning_max_ms=learning_max_ms)
        begin(connection, row)


def begin(connection: Connection, row: Generation) -> None:
    """The next generation. One that another transaction has begun meanwhile makes this one start again."""
    connection.execute(insert(generations).values(row._asdict()))


def end_learning(connection: Connection, generation: int, now_ms: int) -> bool:
    """Lending may begin; false if that had been said before."""
    learning = (generations.c.generation == generation) & generations.c.ended_at_ms.is_(None)
    return connection.execute(update(generations).where(learning).values(ended_at_ms=now_ms)).rowcount > 0


def set_learning_max(connection: Connection, generation: int, learning_max_ms: int) -> None:
    """For how long the next learning may last at most."""
    same = generations.c.generation == generation
    connection.execute(update(generations).where(same).values(learning_max_ms=learning_max_ms))


def set_grace(connection: Connection, generation: int, grace_ms: int) -> None:
    """How old an event may be to count."""
    same = generations.c.generation == generation
    connection.execute(update(generations).where(same).values(grace_ms=grace_ms))


def newest_before(connection: Connection, before_ms: int) -> int | None:
    """When any agent was last heard of before the instant."""
    query = select(func.max(agents.c.last_seen_at_ms)).where(agents.c.last_seen_at_ms < before_ms)
    newest: int | None = connection.execute(query).scalar_one()
    return newest


def missing(connection: Connection, row: Generation) -> int:
    """How many agents that are expected have not yet said, in this generation, what they hold."""
    expected = agents.c.revoked_at_ms.is_(None) & (agents.c.last_seen_at_ms >= row.expected_since_ms)
    query = select(func.count()).select_from(agents).where(expected, agents.c.generation < row.generation)
    return int(connection.execute(query).scalar_one())


def before(connection: Connection, generation: int | None, count: int) -> Iterator[Generation]:
    """Up to ``count`` generations, newest first, older than ``generation``."""
    query = select(generations).order_by(generations.c.generation.desc()).limit(count)
    if generation is not None:
        query = query.where(generations.c.generation < generation)
    for row in connection.execute(query):
        yield Generation(*row)
