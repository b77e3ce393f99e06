"""Usage from elsewhere over HTTP: CloudEvents, one or many, each answered by itself; at OpenMeter's path as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from anyio import to_thread
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.openapi import ResponseSpec

from control_plane.access import SENDERS
from control_plane.api.cloud_events import CloudEvent, Told, from_binary, names_of, read_event
from control_plane.api.context import Context
from control_plane.api.crowds import turns
from control_plane.api.errors import PROBLEM_JSON, Problem
from control_plane.api.media import described
from control_plane.api.pieces import Done, in_pieces
from control_plane.api.unpacking import check_encoding, unpacked
from control_plane.api.verbs import PROBLEMS
from control_plane.operations.accept_elsewhere import accept_elsewhere
from control_plane.operations.author import Author
from control_plane.operations.correct_usage import Item, ItemResult
from control_plane.operations.refusals import Conflict, NotFound, Refusal, Unprocessable
from control_plane.store.database import Connection
from protocol.violations import Violation

TAGS = ["usage from elsewhere"]
SINGLE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
JSON = "application/json"
BINARY = "ce-specversion"
"""The header by which an event in binary mode is known. Its data is JSON, unless a content type says otherwise."""
SORT = "cloudevents"

Anything = dict[str, Any]

EVENTS_MAX = 1_000
EVENTS_BYTES_MAX = 2 * 1024 * 1024
AT_ONCE_MAX = 4
"""Of the database's connections, so that people and agents are served meanwhile."""
WAITING_MAX = 32

COUNTED = {ItemResult.ACCEPTED, ItemResult.DUPLICATE}
_REFUSALS: dict[ItemResult, type[Refusal]] = {
    ItemResult.UNKNOWN_CUSTOMER: NotFound,
    ItemResult.CONFLICT: Conflict,
}
_MORE = {
    413: "The body is too large.",
    415: "The content type is none that is taken here.",
    422: "The event cannot be counted; one that is too old is kept for review.",
}
ANSWERS = PROBLEMS | {
    status: ResponseSpec(Problem, description=said, generate_examples=False, media_type=PROBLEM_JSON)
    for status, said in _MORE.items()
}
_array = msgspec.json.Decoder(list[msgspec.Raw])


class EventAnswer(msgspec.Struct, frozen=True):
    """What became of one event.

    Attributes:
        at: its place in the batch, from 0. source, id: as it says, where that can be read.
        event: what it is called in the ledger (``GET /v1/customers/{customer}/events``). detail: why, if not accepted.
    """

    at: int
    source: str | None
    id: str | None
    customer: str | None
    event: str | None
    result: ItemResult
    detail: str


class EventsAnswer(msgspec.Struct, frozen=True):
    """What became of the events, in their order. ``results``: how many had which result."""

    results: dict[str, int]
    items: list[EventAnswer]


@dataclass(frozen=True)
class Entry:
    """One event as it came, and the call that it tells of or what is wrong with it."""

    source: str | None
    id: str | None
    told: Told | Violation


async def _take(request: Request[Any, Any, Any], context: Context, *, foreign: bool) -> tuple[EventsAnswer, bool]:
    """Take the events in. Returns the answers, and whether it was a batch."""
    state = request.app.state
    limiter = turns(state, "ingest", AT_ONCE_MAX, WAITING_MAX, "senders of usage")
    headers = {name.lower(): value for name, value in request.headers.items()}
    kind = headers.get("content-type", JSON if BINARY in headers else "").partition(";")[0].strip().lower()
    if kind not in {SINGLE, BATCH, JSON}:
        raise HTTPException(status_code=415, detail=f"This path takes CloudEvents: {SINGLE}, {BATCH} or {JSON}.")
    encoding = headers.get("content-encoding", "")
    check_encoding(encoding)
    body = await request.body()

    def work() -> tuple[EventsAnswer, bool]:
        bodies, many = _bodies(kind, headers, unpacked(body, encoding, EVENTS_BYTES_MAX))
        entries = [_read(one, context.now_ms, foreign=foreign) for one in bodies]
        if not many and isinstance(entries[0].told, Violation):
            raise entries[0].told
        items, entered = in_pieces(context, [one.told for one in entries], _accept)
        answers = [_answer(at, entry, item) for at, (entry, item) in enumerate(zip(entries, items, strict=True))]
        counts: dict[str, int] = {}
        for one in answers:
            counts[one.result.value] = counts.get(one.result.value, 0) + 1
        state.metrics.count(SORT, counts, entered)
        return EventsAnswer(counts, answers), many

    return await to_thread.run_sync(work, limiter=limiter)


@post("/v1/events", opt=SENDERS, tags=TAGS, status_code=200, responses=ANSWERS, request_max_body_size=EVENTS_BYTES_MAX,
      operation_class=described({SINGLE: CloudEvent, BATCH: list[CloudEvent], JSON: CloudEvent}))  # fmt: skip
async def post_events(request: Request[Any, Any, Any], context: NamedDependency[Context]) -> EventsAnswer:
    """Take in usage that no agent saw, as CloudEvents 1.0: one (structured, or in binary mode), or a batch of up to
    1,000. Each is counted once by its source and id, however often it is sent, and has its own result: ``accepted``,
    ``duplicate``, ``conflict``, ``late``, ``unknown_customer`` or ``rejected``. One that is sent alone and is not
    counted is answered by a problem."""
    answer, many = await _take(request, context, foreign=False)
    only = answer.items[0]
    if not many and only.result not in COUNTED:
        refuse = _REFUSALS.get(only.result, Unprocessable)
        raise refuse(f"event_{only.result.value}", only.detail)
    return answer


@post("/api/v1/events", opt=SENDERS, tags=TAGS, status_code=204, responses=ANSWERS,
      request_max_body_size=EVENTS_BYTES_MAX,
      operation_class=described({SINGLE: Anything, BATCH: list[Anything], JSON: Anything}))  # fmt: skip
async def post_openmeter_events(request: Request[Any, Any, Any], context: NamedDependency[Context]) -> None:
    """The same for clients of OpenMeter, whose events have data of any sort: 204 if all are counted, now or before;
    else a problem that says which are not. The others are."""
    answer, _ = await _take(request, context, foreign=True)
    refused = [one for one in answer.items if one.result not in COUNTED]
    if refused:
        first = refused[0]
        text = f"{len(refused)} of {len(answer.items)} events are not counted, the others are. Event {first.at}"
        text = f"{text} ({first.id}) is {first.result.value}: {first.detail}"
        raise Violation("", text, code="events_not_counted")


def _accept(connection: Connection, told: Sequence[Told], author: Author) -> Done:
    found = accept_elsewhere(connection, SORT, [(one.customer, one.call) for one in told], author)
    return found.items, found.entered.events


def _bodies(kind: str, headers: dict[str, str], body: bytes) -> tuple[list[bytes], bool]:
    """The events of a request, and whether it is a batch. Raises: Violation: it is not JSON, or too many."""
    if kind == JSON and BINARY in headers:
        return [from_binary(headers, body)], False
    if kind == SINGLE or (kind == JSON and not body.lstrip().startswith(b"[")):
        return [body], False
    try:
        events = _array.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Violation("", "is not a JSON array", "an array of CloudEvents") from None
    if not 1 <= len(events) <= EVENTS_MAX:
        raise Violation("", f"has {len(events)} events", f"1 to {EVENTS_MAX}")
    return [bytes(one) for one in events], True


def _read(body: bytes, now_ms: int, *, foreign: bool) -> Entry:
    source, id_ = names_of(body)
    try:
        return Entry(source, id_, read_event(body, now_ms, foreign=foreign))
    except Violation as wrong:
        return Entry(source, id_, wrong)


def _answer(at: int, entry: Entry, item: Item | Violation) -> EventAnswer:
    if isinstance(item, Violation):
        return EventAnswer(at, entry.source, entry.id, None, None, ItemResult.REJECTED, item.message)
    assert isinstance(entry.told, Told)
    return EventAnswer(at, entry.source, entry.id, entry.told.customer, item.event, item.result, item.detail)


INGEST_HANDLERS = [post_events, post_openmeter_events]
