"""Pages of leases, events, event conflicts and agents, for people to read."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, select, tuple_, update

from control_plane.store.tables import agents, event_conflicts, events, leases


class LeaseRow(NamedTuple):
    """What people want to know of a lease."""

    lease: str
    counter: str
    scope_value: str
    window_start_ms: int
    agent: str
    status: str
    granted: int
    cap: int
    settled: int
    in_flight: int
    unreported: int
    overage: int
    central: bool
    granted_at_ms: int
    renewed_at_ms: int
    closed_at_ms: int | None
    customer: str
    journal: str


class EventRow(NamedTuple):
    """An accepted event; ``body`` is msgpack of a ``UsageEvent``."""

    event: str
    at_ms: int
    received_at_ms: int
    agent: str
    body: bytes


class ConflictRow(NamedTuple):
    """An event that was not accepted; ``body`` as it came."""

    conflict: int
    customer: str
    event: str
    agent: str
    code: str
    received_at_ms: int
    body: bytes


class AgentRow(NamedTuple):
    """An agent."""

    agent: str
    name: str
    enrolled_at_ms: int
    revoked_at_ms: int | None
    last_seen_at_ms: int | None
    generation: int = 0


def leases_after(connection: Connection, customer: str, lease: str, count: int, status: str | None) -> list[LeaseRow]:
    """Up to ``count`` leases of a customer in order of id, beginning after ``lease``."""
    columns = [leases.c[name] for name in LeaseRow._fields]
    query = select(*columns).where(leases.c.customer == customer, leases.c.lease > lease)
    if status is not None:
        query = query.where(leases.c.status == status)
    return [LeaseRow(*row) for row in connection.execute(query.order_by(leases.c.lease).limit(count))]


def leases_silent_since(
    connection: Connection, after: tuple[int, str, str] | None, count: int, *, agent: str | None, status: str | None
) -> list[LeaseRow]:
    """Up to ``count`` leases of all customers, longest silence first.

    Args:
        after: continue after this (last heard of, customer, lease).
        agent, status: only of this agent, only with this status; one of the two must be given.
    """
    order = (leases.c.renewed_at_ms, leases.c.customer, leases.c.lease)
    query = select(*[leases.c[name] for name in LeaseRow._fields]).order_by(*order).limit(count)
    if agent is not None:
        query = query.where(leases.c.agent == agent)
    if status is not None:
        query = query.where(leases.c.status == status)
    if after is not None:
        query = query.where(tuple_(*order) > after)
    return [LeaseRow(*row) for row in connection.execute(query)]


def find_lease(connection: Connection, customer: str, lease: str) -> LeaseRow | None:
    """One lease."""
    columns = [leases.c[name] for name in LeaseRow._fields]
    query = select(*columns).where(leases.c.customer == customer, leases.c.lease == lease)
    row = connection.execute(query).one_or_none()
    return LeaseRow(*row) if row else None


def events_before(connection: Connection, customer: str, before: tuple[int, str] | None, count: int) -> list[EventRow]:
    """Up to ``count`` events of a customer, newest first, that come before this (instant, event)."""
    columns = [events.c[name] for name in EventRow._fields]
    query = select(*columns).where(events.c.customer == customer)
    if before is not None:
        query = query.where(tuple_(events.c.at_ms, events.c.event) < before)
    return [
        EventRow(*row)
        for row in connection.execute(query.order_by(events.c.at_ms.desc(), events.c.event.desc()).limit(count))
    ]


def conflicts_before(
    connection: Connection, conflict: int | None, count: int, customer: str | None
) -> list[ConflictRow]:
    """Up to ``count`` events that were not accepted, newest first, older than ``conflict``."""
    columns = [event_conflicts.c[name] for name in ConflictRow._fields]
    query = select(*columns).order_by(event_conflicts.c.conflict.desc()).limit(count)
    if conflict is not None:
        query = query.where(event_conflicts.c.conflict < conflict)
    if customer is not None:
        query = query.where(event_conflicts.c.customer == customer)
    return [ConflictRow(*row) for row in connection.execute(query)]


def agents_after(connection: Connection, agent: str, count: int) -> list[AgentRow]:
    """Up to ``count`` agents in order of id, beginning after ``agent``."""
    query = select(agents).where(agents.c.agent > agent).order_by(agents.c.agent).limit(count)
    return [AgentRow(*row) for row in connection.execute(query)]


def find_agent(connection: Connection, agent: str) -> AgentRow | None:
    """One agent."""
    row = connection.execute(select(agents).where(agents.c.agent == agent)).one_or_none()
    return AgentRow(*row) if row else None


def revoke_agent(connection: Connection, agent: str, now_ms: int) -> bool:
    """Trust an agent no longer; false if that was so before."""
    trusted = (agents.c.agent == agent) & agents.c.revoked_at_ms.is_(None)
    return connection.execute(update(agents).where(trusted).values(revoked_at_ms=now_ms)).rowcount > 0
