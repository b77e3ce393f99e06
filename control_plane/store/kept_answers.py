"""Answers that are kept for a while by the key that their request said, so that a repeat gets them again."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select, text

from control_plane.store.trust_tables import kept_answers


class Kept(NamedTuple):
    """One answer; ``digest``: of what was asked. ``answer``: JSON, without any secret."""

    token: str
    idempotency_key: str
    digest: bytes
    answer: str
    at_ms: int


def take_turn(connection: Connection, token: str, key: str) -> bool:
    """Whether nobody else is doing what this key stands for. The turn ends with the transaction. On SQLite there is one
    writer, so whoever comes second waits for the first, and finds its answer."""
    if connection.dialect.name != "postgresql":
        return True
    name = hashlib.sha256(f"{token} {key}".encode()).digest()[:8]
    asked = text("SELECT pg_try_advisory_xact_lock(:name)")
    return bool(connection.execute(asked, {"name": int.from_bytes(name, "big", signed=True)}).scalar())


def find(connection: Connection, token: str, key: str) -> Kept | None:
    """The answer to what this token asked under this key."""
    same = (kept_answers.c.token == token) & (kept_answers.c.idempotency_key == key)
    row = connection.execute(select(kept_answers).where(same)).one_or_none()
    return Kept(*row) if row else None


def add(connection: Connection, row: Kept) -> None:
    """Keep an answer."""
    connection.execute(insert(kept_answers).values(**row._asdict()))


def drop(connection: Connection, before_ms: int) -> None:
    """Forget those kept before the instant."""
    connection.execute(delete(kept_answers).where(kept_answers.c.at_ms < before_ms))
