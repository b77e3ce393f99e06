"""Events that must not be counted but never be lost: of journals in quarantine, and of numbers that were used twice.

People see them among the event conflicts (``GET /v1/event-conflicts``), by the codes ``quarantined`` and
``lost_in_restore``.
"""

from __future__ import annotations

import msgspec

from control_plane.operations.exchange import Exchange
from control_plane.operations.register_start import know_boot
from control_plane.store import audit_log, events, troubles
from control_plane.store.database import Connection
from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.events import EventBatch, UsageEvent
from protocol.uplink_messages import SyncRequest
from protocol.violations import Violation

_array = MsgpackDecoder(list[msgspec.Raw])
_event = MsgpackDecoder(UsageEvent)


def keep_for_review(connection: Connection, agent: str, request: SyncRequest, now_ms: int) -> None:
    """Keep the events of a journal in quarantine, each once; those that were accepted before are not kept again."""
    for batch in request.batches:
        last = batch.first + batch.count - 1
        accepted = events.at_places(connection, request.journal, batch.boot, batch.first, last)
        known = events.kept_at_places(connection, request.journal, batch.boot, batch.first, last)
        known |= set(accepted.items())
        rows = [
            events.Conflict(*_identity(body), agent, request.journal, batch.boot, seq, "quarantined", body, now_ms)
            for seq, body in _numbered(batch)
            if (seq, body) not in known
        ]
        events.keep_conflicts(connection, rows)
    detail = f"journal {request.journal}, boot {request.boot}"
    troubles.note(connection, agent, {"journal_quarantined": (1, detail)}, now_ms)


def contradicts(exchange: Exchange, batch: EventBatch, known: int) -> str:
    """Whether a batch says other things than were accepted under the same numbers; the words for it, or ``""``.

    Args:
        known: how many events at its head have numbers that were accepted before.
    """
    journal = exchange.request.journal
    last = batch.first + known - 1
    accepted = events.at_places(exchange.connection, journal, batch.boot, batch.first, last)
    said = dict(_numbered(batch))
    for seq, body in accepted.items():
        if said.get(seq) != body:
            exchange.note("sequence_conflict", f"boot {batch.boot}, event {seq}")
            return f"event {seq} of boot {batch.boot} was sent with two bodies: two disks, or one that went back"
    return ""


def compare_marks(exchange: Exchange, marks: dict[int, int], kept: list[events.Conflict]) -> None:
    """Where the agent was told of more events than are here: ask for them again, or pass over what it no longer has.

    Args:
        marks: up to where each boot's events are known; added to. kept: what is to be kept for people; added to.
    """
    request = exchange.request
    for mark in request.lost:
        start = know_boot(
            exchange.connection, exchange.agent, request.journal, mark.boot, exchange.starts, exchange.now_ms
        )
        if mark.seq > start.high_water:
            marks[mark.boot] = mark.seq
            kept.append(_gone(exchange, mark.boot, start.high_water + 1, mark.seq))
    for mark in request.confirmed:
        start_here = exchange.starts.get(mark.boot)
        ours = marks.get(mark.boot, start_here.high_water if start_here else 0)
        if ours < mark.seq:
            marks[mark.boot] = ours
            detail = f"{exchange.agent} was told of events up to {mark.seq} of boot {mark.boot}; here are {ours}"
            exchange.doubt_database("events_forgotten", detail, sealed=False)


def _gone(exchange: Exchange, boot: int, first: int, last: int) -> events.Conflict:
    body = {"from": first, "to": last, "boot": boot}
    detail = f"events {first} to {last} of boot {boot} were confirmed, forgotten here, and are no longer there"
    exchange.note("events_lost", detail)
    audit_log.append(
        exchange.connection, exchange.now_ms, exchange.agent, "events.lost", exchange.request.journal, body
    )
    journal, now_ms = exchange.request.journal, exchange.now_ms
    return events.Conflict(
        "", "", exchange.agent, journal, boot, first, "lost_in_restore", encode_msgpack(body), now_ms
    )


def _numbered(batch: EventBatch) -> list[tuple[int, bytes]]:
    """Its events with their numbers; the whole batch under its first number when it cannot be read."""
    try:
        bodies = [bytes(raw) for raw in _array(batch.body)]
    except Violation:
        bodies = []
    return list(enumerate(bodies, batch.first)) if len(bodies) == batch.count else [(batch.first, batch.body)]


def _identity(body: bytes) -> tuple[str, str]:
    try:
        event = _event(body)
    except Violation:
        return "", ""
    return event.customer, event.event
