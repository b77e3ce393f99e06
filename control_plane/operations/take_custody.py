"""Gives the database what an operator's settings say of it: the key that seals grants, how long to listen, and how late
events may come."""

from __future__ import annotations

from control_plane.store import custody
from control_plane.store.database import Connection

MINUTE_MS = 60_000
DAY_MS = 86_400_000


def take_custody(
    connection: Connection,
    given_key: bytes | None,
    fresh_key: bytes,
    learning_minutes: int,
    now_ms: int,
    grace_days: int = custody.GRACE_MS // DAY_MS,
) -> None:
    """Once at each start; the same said twice changes nothing.

    Args:
        given_key: seals from now on; what others have sealed is believed all the same. ``None``: the database's own.
        fresh_key: for a database that has none; drawn at random by the caller.
        learning_minutes: how long agents that are missing are waited for after a restore.
        grace_days: how old an event may be to count.
    """
    learning_max_ms = learning_minutes * MINUTE_MS
    custody.establish(connection, given_key or fresh_key, learning_max_ms, now_ms)
    if given_key is not None and given_key not in custody.keys(connection)[:1]:
        custody.add_key(connection, given_key, now_ms)
    generation = custody.present(connection).generation
    if generation.learning_max_ms != learning_max_ms:
        custody.set_learning_max(connection, generation.generation, learning_max_ms)
    if generation.grace_ms != grace_days * DAY_MS:
        custody.set_grace(connection, generation.generation, grace_days * DAY_MS)
