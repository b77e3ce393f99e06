"""A model call is about to be sent: from its request, what must be held for it."""

from __future__ import annotations

from typing import Any

import msgspec

from agent.core.books import Books
from agent.core.calls import BODY_BYTES_MAX, Fetching
from agent.core.fetched import FetchedAnswer, FetchedBatch, place_of
from agent.core.metered_call import MeteredCall, is_allowed
from agent.core.paths import is_metered
from agent.core.prompts import Prompt
from agent.core.tokens.names import model_in
from agent.core.told import Told, told_by
from protocol.decisions import Code, Decision, Reservation, Verdict
from protocol.local_messages import JSON_TYPE, RESERVATION_TTL_MS, Begin, ErrorReply, Problem, Reserve, Taken

DOCUMENT_BYTES_MAX = 64 * 1024
"""How much of one event of an answer is kept; of a longer one, only its ends are read."""


def begin(books: Books, request: Begin) -> Reserve | Decision | Taken | ErrorReply:
    """What must be reserved before it is sent; or that it costs nothing, or that more of its body must come first.

    A call that was on its way before this agent knew of it (``sent``) is accounted for whatever is decided.
    """
    if not is_metered(request.method, request.path):
        return _fetch(books, request) or _free(request)
    body = b""
    if request.body or not request.size:
        arrived = books.arriving.add(request.reservation, request.offset, request.body)
        if arrived is None:
            return unknown(request.reservation)
        if arrived < request.size <= BODY_BYTES_MAX:
            return Taken(id=request.id)
        body = books.arriving.take(request.reservation)
    call = _metered(books, request, body)
    known = books.calls.get(request.reservation)
    if isinstance(known, Fetching) or (known is not None and known.call != call.call):
        text = f"reservation {request.reservation!r} is held by another call; use a new id for each call"
        return ErrorReply(error=Problem("reservation_conflict", text, "reservation"))
    call = known or call
    books.calls.put(call)
    wanted = call.reserve()
    held = books.reservations.get(request.reservation)
    if request.sent:
        call.resume(held.amounts if held else {})
    if held is not None:
        wanted = msgspec.structs.replace(wanted, amounts=held.asked)
    return msgspec.structs.replace(wanted, id=request.id, deadline_ms=request.deadline_ms)


def decided(books: Books, request: Reserve, outcome: Any) -> None:
    """What was reserved for a call has been decided: a refused one is not sent, so there is nothing to watch."""
    call = books.calls.get(request.reservation)
    if outcome is None or not isinstance(call, MeteredCall):
        return
    if is_allowed(outcome):
        call.holds(outcome.reservation.amounts)
    elif call.resumed:
        call.cut = outcome
    else:
        books.calls.pop(request.reservation)


def unknown(reservation: str) -> ErrorReply:
    """This agent does not know what the request goes on with: it was started anew, or had to forget."""
    text = f"nothing is known here of a model call {reservation!r}; begin it again"
    return ErrorReply(error=Problem("reservation_not_found", text, "reservation"))


def _metered(books: Books, request: Begin, body: bytes) -> MeteredCall:
    if request.size > len(body) and request.content_type.startswith(JSON_TYPE):
        told = Told(Prompt(request.size), model_in(request.path), streams=False)  # not shown: all of it may be text
    else:
        told = told_by(request.path, request.content_type, body or b"\0" * bool(request.size))
    call = request.call
    if told.model is not None:
        call = msgspec.structs.replace(call, model=told.model)
    name, provider = request.reservation, request.provider
    return MeteredCall(books.estimates, name, call, provider, request.path, told, request.estimate, DOCUMENT_BYTES_MAX)


def _fetch(books: Books, request: Begin) -> Decision | None:
    """What may be told now of something that was begun before."""
    place = place_of(request.method, request.path)
    if place is None:
        return None
    watched: FetchedAnswer | FetchedBatch
    if place.batch:
        watched = FetchedBatch(request.provider, request.path, place, request.call)
    else:
        known = books.answers.find(request.provider, place.id)
        if known is None:
            return None
        watched = FetchedAnswer(request.provider, request.path, *known)
    books.calls.put(Fetching(request.reservation, request.call, watched))
    nothing = Reservation(request.reservation, RESERVATION_TTL_MS, {})
    return msgspec.structs.replace(_free(request), reservation=nothing)


def _free(request: Begin) -> Decision:
    return Decision(
        id=request.id,
        decision=Verdict.ALLOW,
        has_access=True,
        code=Code.OK,
        message="This call costs nothing.",
        feature=request.call.feature,
    )
