"""Gives the database what an operator's settings say of it: the key that seals grants, and how long to listen."""

from __future__ import annotations

from control_plane.store import custody
from control_plane.store.database import Connection

MINUTE_MS = 60_000


def take_custody(
    connection: Connection, given_key: bytes | None, fresh_key: bytes, learning_minutes: int, now_ms: int
) -> None:
    """Once at each start; the same said twice changes nothing.

    Args:
        given_key: seals from now on; what others have sealed is believed all the same. ``None``: the database's own.
        fresh_key: for a database that has none; drawn at random by the caller.
        learning_minutes: how long agents that are missing are waited for after a restore.
    """
    learning_max_ms = learning_minutes * MINUTE_MS
    custody.establish(connection, given_key or fresh_key, learning_max_ms, now_ms)
    if given_key is not None and given_key not in custody.keys(connection)[:1]:
        custody.add_key(connection, given_key, now_ms)
    generation = custody.present(connection).generation
    if generation.learning_max_ms != learning_max_ms:
        custody.set_learning_max(connection, generation.generation, learning_max_ms)
