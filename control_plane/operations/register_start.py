"""Finds out which incarnation is speaking, registers new ones, and quarantines journals that exist twice."""

from __future__ import annotations

from control_plane.core.incarnations import Standing, standing
from control_plane.core.lease_life import Status
from control_plane.operations.keep_books import Books
from control_plane.store import agents, audit_log, leases
from control_plane.store.agents import Incarnation
from control_plane.store.database import Connection
from protocol.uplink_messages import SyncRequest

SEEN_COARSE_MS = 10_000


def register_start(
    connection: Connection, agent: str, request: SyncRequest, now_ms: int
) -> tuple[Standing, dict[int, Incarnation]]:
    """What the request's incarnation is, and every known start on its journal, this one included if it is good."""
    starts = agents.starts(connection, agent, request.journal)
    if any(start.quarantined for start in starts.values()):
        return Standing.COPIED, starts
    known = {boot: start.nonce for boot, start in starts.items()}
    speaker = standing(known, request.boot, request.nonce, snapshot=request.snapshot)
    this = Incarnation(agent, request.journal, request.boot, request.nonce, 0, now_ms, now_ms)
    if speaker is Standing.NEW_JOURNAL and agents.is_journal_of_another(connection, agent, request.journal):
        why = "another agent speaks from the same journal"
        agents.add_start(connection, this._replace(quarantined=why))
        body = {"agent": agent, "why": why}
        audit_log.append(connection, now_ms, agent, "journal.quarantine", request.journal, body)
        return Standing.COPIED, starts
    match speaker:
        case Standing.COPIED:
            why = f"boot {request.boot} was started twice: the disk was copied or rolled back"
            quarantine(connection, agent, request.journal, why, now_ms)
        case Standing.NEW_JOURNAL | Standing.NEW_BOOT:
            starts[request.boot] = _introduce(connection, starts.get(request.boot), this)
        case Standing.CURRENT:
            if now_ms - starts[request.boot].last_seen_at_ms >= SEEN_COARSE_MS:
                agents.touch_start(connection, starts[request.boot], now_ms)
        case _:
            pass
    return speaker, starts


def know_boot(
    connection: Connection, agent: str, journal: str, boot: int, starts: dict[int, Incarnation], now_ms: int
) -> Incarnation:
    """The start that wrote a batch of events; one that never spoke for itself becomes known by them."""
    if boot not in starts:
        starts[boot] = Incarnation(agent, journal, boot, "", 0, now_ms, now_ms)
        agents.add_start(connection, starts[boot])
    return starts[boot]


def _introduce(connection: Connection, known: Incarnation | None, this: Incarnation) -> Incarnation:
    if known is None:
        agents.add_start(connection, this)
        return this
    named = known._replace(nonce=this.nonce, last_seen_at_ms=this.last_seen_at_ms)
    agents.name_start(connection, named)
    return named


def quarantine(connection: Connection, agent: str, journal: str, why: str, now_ms: int) -> None:
    """What the journal's leases may have paid for is unknown now: they stay charged until somebody finds out."""
    if agents.quarantine(connection, agent, journal, why):
        audit_log.append(connection, now_ms, agent, "journal.quarantine", journal, {"agent": agent, "why": why})
    books = Books(connection, now_ms)
    books.open({row.key: 0 for row in leases.alive_in_journal(connection, agent, journal)})
    for row in leases.alive_in_journal(connection, agent, journal):
        books.change(row._replace(status=Status.LIMBO.value))
    books.save()
