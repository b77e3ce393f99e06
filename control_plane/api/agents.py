"""Agents over HTTP, as people see them; what agents say themselves is in agents_uplink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec
from litestar.di import NamedDependency

from control_plane.api.context import Context
from control_plane.api.leases import LeaseStatus
from control_plane.api.parameters import Page, PageCursor, PageLimit, PathKey, key_cursor, page
from control_plane.api.verbs import ends, reads
from control_plane.operations.refusals import NotFound
from control_plane.operations.revoke_agent import revoke_agent
from control_plane.store import journals, listings, troubles
from control_plane.store.database import Connection
from control_plane.store.journals import Held, Journal
from control_plane.store.listings import AgentRow
from control_plane.store.troubles import Trouble
from protocol.instants import rfc3339

TAGS = ["agents"]


class JournalState(StrEnum):
    """``current``: the one that the agent spoke from last. ``earlier``: what its lost disks held stays charged.
    ``quarantined``: it lives twice, or went back; nothing that comes from it is believed."""

    CURRENT = "current"
    EARLIER = "earlier"
    QUARANTINED = "quarantined"


class JournalItem(msgspec.Struct, frozen=True):
    """One disk of an agent.

    Attributes:
        boot: its newest start; ``starts``: how many are known.
        why_quarantined: null if it is not.
        leases: how many are not closed; ``limbo_leases``: of which nobody knows what has become.
        limbo: units of those that may have been used without anybody having said so.
    """

    journal: str
    state: JournalState
    boot: int
    starts: int
    first_seen_at: str
    last_seen_at: str
    why_quarantined: str | None
    leases: int
    limbo_leases: int
    limbo: int


class TroubleItem(msgspec.Struct, frozen=True):
    """What was odd about an agent's syncs: how often, and what was said the last time."""

    code: str
    times: int
    first_at: str
    last_at: str
    detail: str


class AgentItem(msgspec.Struct, frozen=True):
    """An agent. ``last_seen_at`` is coarse; journals are in order of when they were last heard of, latest first."""

    agent: str
    name: str
    enrolled_at: str
    revoked_at: str | None
    last_seen_at: str | None
    journals: list[JournalItem]
    troubles: list[TroubleItem]


def _items(connection: Connection, rows: Sequence[AgentRow]) -> list[AgentItem]:
    """The agents with all that is known of them, in a handful of statements."""
    names = [row.agent for row in rows]
    disks, odd = journals.of_agents(connection, names), troubles.of_agents(connection, names)
    held: dict[tuple[str, str], list[Held]] = {}
    for part in journals.held_by(connection, names):
        held.setdefault((part.agent, part.journal), []).append(part)
    return [
        AgentItem(
            row.agent,
            row.name,
            rfc3339(row.enrolled_at_ms),
            None if row.revoked_at_ms is None else rfc3339(row.revoked_at_ms),
            None if row.last_seen_at_ms is None else rfc3339(row.last_seen_at_ms),
            _journals(disks.get(row.agent, []), held),
            [_trouble(trouble) for trouble in odd.get(row.agent, [])],
        )
        for row in rows
    ]


def _journals(disks: Sequence[Journal], held: Mapping[tuple[str, str], Sequence[Held]]) -> list[JournalItem]:
    current = next((disk.journal for disk in disks if disk.quarantined is None), None)
    return [_journal(disk, held.get((disk.agent, disk.journal), ()), disk.journal == current) for disk in disks]


def _journal(disk: Journal, held: Sequence[Held], is_current: bool) -> JournalItem:
    state = JournalState.CURRENT if is_current else JournalState.EARLIER
    limbo = [part for part in held if part.status == LeaseStatus.LIMBO]
    return JournalItem(
        journal=disk.journal,
        state=state if disk.quarantined is None else JournalState.QUARANTINED,
        boot=disk.boot,
        starts=disk.starts,
        first_seen_at=rfc3339(disk.first_seen_at_ms),
        last_seen_at=rfc3339(disk.last_seen_at_ms),
        why_quarantined=disk.quarantined,
        leases=sum(part.leases for part in held),
        limbo_leases=sum(part.leases for part in limbo),
        limbo=sum(part.unknown for part in limbo),
    )


def _trouble(row: Trouble) -> TroubleItem:
    return TroubleItem(row.code, row.times, rfc3339(row.first_at_ms), rfc3339(row.last_at_ms), row.detail)


@reads("/v1/agents", tags=TAGS)
def list_agents(
    context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None
) -> Page[AgentItem]:
    """Agents in order of id, revoked ones included."""
    after = key_cursor(cursor)
    rows = context.read(lambda connection: _items(connection, listings.agents_after(connection, after, limit + 1)))
    return page(rows, limit, lambda item: item, lambda item: item.agent)


@reads("/v1/agents/{agent:str}", tags=TAGS)
def read_agent(agent: PathKey, context: NamedDependency[Context]) -> AgentItem:
    """One agent."""

    def look(connection: Connection) -> AgentItem:
        row = listings.find_agent(connection, agent)
        if row is None:
            raise NotFound("agent_not_found", f"There is no agent {agent!r}.", "agent")
        return _items(connection, [row])[0]

    return context.read(look)


@ends("/v1/agents/{agent:str}", tags=TAGS)
def revoke(agent: PathKey, context: NamedDependency[Context]) -> AgentItem:
    """Trust an agent no longer: its tokens stop working at once here, within five seconds on other replicas."""
    item = context.change(lambda connection, author: _items(connection, [revoke_agent(connection, agent, author)])[0])
    context.doorkeeper.forget_agent(agent)
    return item


AGENT_HANDLERS = [list_agents, read_agent, revoke]
