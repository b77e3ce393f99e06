"""Agents over HTTP, as people see them; what agents say themselves is in agents_uplink."""

from __future__ import annotations

import msgspec
from litestar.di import NamedDependency

from control_plane.api.context import Context
from control_plane.api.parameters import Page, PageCursor, PageLimit, PathKey, key_cursor, page
from control_plane.api.verbs import ends, reads
from control_plane.operations.revoke_agent import revoke_agent
from control_plane.store import listings
from control_plane.store.listings import AgentRow
from protocol.instants import rfc3339

TAGS = ["agents"]


class AgentItem(msgspec.Struct, frozen=True):
    """An agent. ``last_seen_at`` is coarse."""

    agent: str
    name: str
    enrolled_at: str
    revoked_at: str | None
    last_seen_at: str | None


def _item(row: AgentRow) -> AgentItem:
    revoked_at = None if row.revoked_at_ms is None else rfc3339(row.revoked_at_ms)
    last_seen_at = None if row.last_seen_at_ms is None else rfc3339(row.last_seen_at_ms)
    return AgentItem(row.agent, row.name, rfc3339(row.enrolled_at_ms), revoked_at, last_seen_at)


@reads("/v1/agents", tags=TAGS)
def list_agents(
    context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None
) -> Page[AgentItem]:
    """Agents in order of id, revoked ones included."""
    after = key_cursor(cursor)
    rows = context.read(lambda connection: listings.agents_after(connection, after, limit + 1))
    return page(rows, limit, _item, lambda row: row.agent)


@ends("/v1/agents/{agent:str}", tags=TAGS)
def revoke(agent: PathKey, context: NamedDependency[Context]) -> AgentItem:
    """Trust an agent no longer: its tokens stop working at once here, within five seconds on other replicas."""
    row = context.change(lambda connection, author: revoke_agent(connection, agent, author))
    context.doorkeeper.forget_agent(agent)
    return _item(row)


AGENT_HANDLERS = [list_agents, revoke]
