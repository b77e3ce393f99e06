"""Finds out whose token is shown, and lets a join token be used as often as was allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.core.tokens import Presented, Role, holds, parse
from control_plane.operations.refusals import Unauthenticated
from control_plane.store import tokens
from control_plane.store.database import Connection

LAST_USED_COARSE_MS = 60_000
"""A use is worth noting when it is so much later than the last one that was."""


@dataclass(frozen=True)
class Actor:
    """Who is asking: the token's public half, its role, and the agent whose token it is."""

    token: str
    role: Role
    agent: str | None
    expires_at_ms: int | None


def identify(connection: Connection, presented: Presented, now_ms: int) -> tuple[Actor, int]:
    """Who shows this token, and its last use that was noted (:func:`note_uses`), 0 for none.

    Raises: Unauthenticated: nobody; the answer does not say why.
    """
    kept = _kept(connection, presented, now_ms)
    return Actor(kept.token, Role(kept.role), kept.agent, kept.expires_at_ms), kept.last_used_at_ms or 0


def note_uses(connection: Connection, used: Mapping[str, int]) -> None:
    """Remember when these tokens were used, milliseconds since 1970."""
    for token, at_ms in sorted(used.items()):
        tokens.touch(connection, token, at_ms)


def use_join_token(connection: Connection, text: str, now_ms: int) -> str:
    """Take one use of a join token, in the transaction in which the agent is enrolled; returns the token's id.

    Raises: Unauthenticated: it is not a good join token, or all of its uses are taken.
    """
    presented = parse(text)
    if presented is None or presented.role is not Role.JOIN:
        raise refused()
    kept = _kept(connection, presented, now_ms)
    if not tokens.take_use(connection, kept.token):
        raise refused()
    tokens.touch(connection, kept.token, now_ms)
    return kept.token


def refused() -> Unauthenticated:
    """The one answer to every token that is not good: which part was wrong helps nobody honest."""
    return Unauthenticated("unauthenticated", "The token is missing, wrong, revoked or expired; show a good one.")


def _kept(connection: Connection, presented: Presented, now_ms: int) -> tokens.TokenRow:
    kept = tokens.find(connection, presented.token)
    if kept is None or not holds(
        presented,
        kept.secret_sha256,
        kept.role,
        expires_at_ms=kept.expires_at_ms,
        revoked=kept.revoked_at_ms is not None,
        now_ms=now_ms,
    ):
        raise refused()
    return kept
