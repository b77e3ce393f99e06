"""Ends the trust in an agent: its tokens stop working; what its leases hold stays charged."""

from __future__ import annotations

from control_plane.operations.author import Author
from control_plane.operations.refusals import NotFound
from control_plane.store import changes, listings, tokens
from control_plane.store.changes import Change
from control_plane.store.database import Connection
from control_plane.store.listings import AgentRow


def revoke_agent(connection: Connection, agent: str, author: Author) -> AgentRow:
    """Revoke an agent; doing it twice changes nothing. Raises: NotFound."""
    if listings.find_agent(connection, agent) is None:
        raise NotFound("agent_not_found", f"There is no agent {agent!r}.", "agent")
    if listings.revoke_agent(connection, agent, author.now_ms):
        tokens.revoke_of_agent(connection, agent, author.now_ms)
        author.write_down(connection, "agent.revoke", agent, {})
        changes.append(connection, [Change("", changes.RECALL, agent)], author.now_ms)  # ends its hanging watch
    row = listings.find_agent(connection, agent)
    assert row is not None
    return row
