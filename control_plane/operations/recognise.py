"""Whether who speaks is who it was: starts that nobody knows, disks that lost leases, and agents that have told all."""

from __future__ import annotations

from control_plane.core.incarnations import Standing as Speaker
from control_plane.operations.exchange import Exchange
from control_plane.operations.learn_again import Trust, notice_restore
from control_plane.store import agents, changes, leases, troubles
from control_plane.store.database import Connection
from protocol.uplink_messages import LEASES_MAX, SyncRequest


def hear_stranger(connection: Connection, trust: Trust, agent: str, request: SyncRequest, now_ms: int) -> None:
    """A start that nobody knows speaks as if it had been introduced: it is asked to, and perhaps it once was."""
    detail = f"boot {request.boot} of journal {request.journal} of {agent} is not known, and did not introduce itself"
    troubles.note(connection, agent, {"snapshot_missing": (1, detail)}, now_ms)
    changes.append(connection, notice_restore(connection, trust, agent, detail, now_ms, sealed=False), now_ms)


def lost_leases(exchange: Exchange) -> str:
    """Whether a new start's disk lacks a lease that the journal held before: it was rolled back. The words, or ``""``.

    A lease that was once reported stays in its journal until the control plane has said that it is closed. One that is
    neither listed nor closed was on the disk and is not any longer. Leases from before the database was last restored
    prove nothing: they may have been closed by what was lost with it.
    """
    request = exchange.request
    if exchange.speaker is not Speaker.NEW_BOOT or len(request.leases) >= LEASES_MAX:
        return ""
    listed = {report.lease for report in request.leases}
    begun_at_ms = exchange.trust.generation.begun_at_ms
    for row in exchange.rows.values():
        held = row.journaled and row.journal == request.journal and row.boot < request.boot
        if held and row.status != leases.CLOSED and row.lease not in listed and row.granted_at_ms > begun_at_ms:
            return (
                f"boot {request.boot} does not hold lease {row.lease}, which boot {row.boot} held: a rolled-back disk"
            )
    return ""


def remember_exchange(exchange: Exchange) -> None:
    """Note what was odd, and whether the agent has now told all that it holds in this generation of the database."""
    request, trust = exchange.request, exchange.trust
    exchange.answer.generation = trust.generation.name
    if exchange.speaker is Speaker.LATE:
        exchange.note("late_start", f"boot {request.boot} of journal {request.journal} speaks after a newer one has")
    troubles.note(exchange.connection, exchange.agent, exchange.odd, exchange.now_ms)
    told_all = request.snapshot and request.generation == trust.generation.name and not exchange.answer.show
    if (
        told_all
        and exchange.speaker is not Speaker.LATE
        and len(request.leases) < LEASES_MAX
        and trust.registered != trust.generation.generation
    ):
        agents.register(exchange.connection, exchange.agent, trust.generation.generation)
