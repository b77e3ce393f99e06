"""How the agent is: who it is, what it holds, and whether the control plane hears it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from agent.core.books import Books
from protocol.local_messages import StatusReport


def report_status(
    books: Books,
    now_ms: int,
    *,
    version: str,
    state: str,
    uptime_ms: int,
    control_plane: Mapping[str, bool | int | str | None],
    outbox_events: int,
    oldest_unsent_ms: int,
    connections: int,
) -> StatusReport:
    """Everything an operator asks first."""
    return StatusReport(
        agent=books.agent,
        version=version,
        journal=books.journal,
        boot=books.boot,
        state=state,
        uptime_ms=uptime_ms,
        control_plane={**control_plane, "confirmed_ms_ago": max(0, now_ms - books.confirmed_at_ms)},
        customers=len(books.customers),
        leases=len(books.leases),
        reservations=len(books.reservations),
        outbox_events=outbox_events,
        oldest_unsent_ms=oldest_unsent_ms,
        connections=connections,
        counters={**dataclasses.asdict(books.counters), "waiting": books.parked},
    )
