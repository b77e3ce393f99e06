"""What a message was about: so that a fault counts only where it hit something."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from protocol.uplink_messages import ENROLL_PATH, SYNC_PATH, WATCH_PATH, SyncReply, SyncRequest, WatchReply
from tests.simulation.planes import Answer

_request = msgspec.msgpack.Decoder(SyncRequest).decode
_reply = msgspec.msgpack.Decoder(SyncReply).decode
_watched = msgspec.msgpack.Decoder(WatchReply).decode
_OPERATIONS = {ENROLL_PATH: "enroll", SYNC_PATH: "sync", WATCH_PATH: "watch"}


def operation_of(path: str) -> str:
    """What a path is for."""
    return _OPERATIONS.get(path, "admin")


def in_words(operation: str, body: bytes, answer: Answer) -> str:
    """A sync for people who read a trace."""
    if operation != "sync" or answer.status != 200:
        return ""
    said, reply = _request(body), _reply(answer.body)
    asked = [ask.lease for named in said.customers for ask in named.asks]
    asked += [call.leases for named in said.customers for call in named.first_calls]
    parts = {
        "boot": said.boot,
        "snapshot": said.snapshot,
        "asked": asked,
        "reported": [tuple(msgspec.structs.astuple(report)) for report in said.leases],
        "batches": [(batch.boot, batch.first, batch.count) for batch in said.batches],
        "granted": [(grant.lease, grant.amount) for grant in reply.grants],
        "denied": [denial.lease for denial in reply.denials],
        "recalled": [(recall.lease, recall.keep) for recall in reply.recalls],
        "closed": reply.closed,
        "unknown": reply.unknown_leases,
    }
    return " ".join(f"{name}={value}" for name, value in parts.items() if value)


def carried(operation: str, body: bytes) -> Iterator[str]:
    """What a request asks for or reports."""
    if operation != "sync":
        yield f"{operation}"
        return
    said = _request(body)
    if any(named.asks or named.first_calls for named in said.customers):
        yield "sync that asks"
    if said.batches:
        yield "sync with events"
    if any(report.closed for report in said.leases):
        yield "sync that closes leases"
    if said.snapshot:
        yield "sync that introduces a start"
    if said.stopping:
        yield "sync of a stopping agent"


def achieved(operation: str, body: bytes, answer: Answer) -> Iterator[str]:
    """What an answer says has been done."""
    if answer.status >= 300:
        return
    if operation == "watch":
        told = _watched(answer.body)
        if told.customers or told.recall or told.returned or told.reset:
            yield "watch that told something"
        if told.entitlements:
            yield "watch that told an entitlement"
        return
    if operation != "sync":
        yield f"{operation} that succeeded"
        return
    said, reply = _request(body), _reply(answer.body)
    if reply.grants:
        yield "sync that granted"
    if reply.denials:
        yield "sync that denied"
    if reply.recalls:
        yield "sync that recalled"
    if said.batches and reply.high_water:
        yield "sync that accepted events"
    if reply.closed:
        yield "sync that closed leases"
    if said.snapshot:
        yield "sync that introduced a start"
    if reply.entitlements:
        yield "sync that told an entitlement"
