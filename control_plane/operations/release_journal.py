"""Believes a journal again that was in quarantine, because an admin has found out that only one copy of it lives."""

from __future__ import annotations

from control_plane.operations.author import Author
from control_plane.operations.refusals import NotFound
from control_plane.store import agents
from control_plane.store.database import Connection


def release_journal(connection: Connection, agent: str, journal: str, reason: str, author: Author) -> bool:
    """End a quarantine; said twice, nothing changes. Its leases stay in limbo until its agent speaks of them.

    Raises: NotFound: no such agent has such a journal.
    """
    require_journal(connection, agent, journal)
    released = agents.release(connection, agent, journal)
    if released:
        author.write_down(connection, "journal.release", journal, {"agent": agent, "reason": reason})
    return released


def require_journal(connection: Connection, agent: str, journal: str) -> None:
    """Raises: NotFound: no such agent has such a journal."""
    if not agents.starts(connection, agent, journal):
        raise NotFound("journal_not_found", f"Agent {agent!r} has no journal {journal!r}.", "journal")
