"""Tokens, by their public half; of the secret only its hash is known here."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, insert, select, update

from control_plane.store.tables import tokens
from control_plane.store.wanted import CHUNK, as_rows, wanted


class TokenRow(NamedTuple):
    """A token as it is kept.

    Attributes:
        agent: whose it is, of an agent's token.
        uses_left: how many agents may still join with it; ``None`` is any number.
    """

    token: str
    secret_sha256: bytes
    role: str
    name: str
    agent: str | None
    created_at_ms: int
    expires_at_ms: int | None = None
    revoked_at_ms: int | None = None
    last_used_at_ms: int | None = None
    uses_left: int | None = None


def find(connection: Connection, token: str) -> TokenRow | None:
    """One token."""
    row = connection.execute(select(tokens).where(tokens.c.token == token)).one_or_none()
    return TokenRow(*row) if row else None


def not_revoked(connection: Connection, names: Iterable[str]) -> set[str]:
    """Which of these tokens were not revoked."""
    ordered = sorted(names)
    found: set[str] = set()
    for start in range(0, len(ordered), CHUNK):
        rows = as_rows([(name,) for name in ordered[start : start + CHUNK]])
        found |= set(connection.execute(_not_revoked(connection.dialect.name), rows).scalars())
    return found


@cache
def _not_revoked(dialect: str) -> Select[Any]:
    table = wanted(dialect, (tokens.c.token,))
    joined = table.join(tokens, tokens.c.token == table.c.token)
    return select(tokens.c.token).select_from(joined).where(tokens.c.revoked_at_ms.is_(None))


def after(connection: Connection, token: str, count: int) -> list[TokenRow]:
    """Up to ``count`` tokens in order of id, beginning after ``token``."""
    query = select(tokens).where(tokens.c.token > token).order_by(tokens.c.token).limit(count)
    return [TokenRow(*row) for row in connection.execute(query)]


def add(connection: Connection, row: TokenRow) -> None:
    """A new token."""
    connection.execute(insert(tokens).values(**row._asdict()))


def revoke(connection: Connection, token: str, now_ms: int) -> bool:
    """End a token for good; false if it had ended before."""
    still_good = (tokens.c.token == token) & tokens.c.revoked_at_ms.is_(None)
    return connection.execute(update(tokens).where(still_good).values(revoked_at_ms=now_ms)).rowcount > 0


def revoke_of_agent(connection: Connection, agent: str, now_ms: int) -> None:
    """End every token of an agent."""
    of_agent = (tokens.c.agent == agent) & tokens.c.revoked_at_ms.is_(None)
    connection.execute(update(tokens).where(of_agent).values(revoked_at_ms=now_ms))


def touch(connection: Connection, token: str, now_ms: int) -> None:
    """It was used; kept coarsely, for finding tokens that nobody uses."""
    connection.execute(update(tokens).where(tokens.c.token == token).values(last_used_at_ms=now_ms))


def take_use(connection: Connection, token: str) -> bool:
    """Take one of a join token's uses; false if none is left. Two takers at once never share the last one."""
    counted = (tokens.c.token == token) & (tokens.c.uses_left > 0)
    taken = connection.execute(update(tokens).where(counted).values(uses_left=tokens.c.uses_left - 1)).rowcount > 0
    return (
        taken
        or connection.execute(
            select(tokens.c.token).where((tokens.c.token == token) & tokens.c.uses_left.is_(None))
        ).first()
        is not None
    )
