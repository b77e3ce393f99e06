"""Bytes of a model call's answer: watched, and more is held for a stream before it needs it."""

from __future__ import annotations

from functools import partial

from agent.core.books import Books
from agent.core.metered_call import Extending
from agent.operations.begin import unknown
from agent.operations.extend import extend
from protocol.local_messages import RESERVATION_TTL_MS, End, ErrorReply, Extend, Feed, Taken


def feed(books: Books, request: Feed, now_ms: int) -> Taken | ErrorReply:
    """How much of the answer may come until more of it must be seen, or why it gets no more."""
    call = books.calls.get(request.reservation)
    if call is None or not take(books, request, partial(_extend, books, now_ms)):
        return unknown(request.reservation)
    held = books.reservations.get(request.reservation)
    if held is not None and held.expires_at_ms < now_ms + RESERVATION_TTL_MS // 2:
        books.reservations.prolong(held, now_ms + RESERVATION_TTL_MS)
    if isinstance(call.cut, ErrorReply):
        return ErrorReply(error=call.cut.error)
    return Taken(bytes=call.feed_within(), cut=call.cut)


def take(books: Books, request: Feed | End, extending: Extending) -> bool:
    """Take the bytes that a request brings; ``False``: some before them are missing."""
    call = books.calls.get(request.reservation)
    assert call is not None
    kept = call.kept_bytes
    taken = call.take(request.offset, request.body, request.headers, extending)
    books.calls.fed(call, kept)
    return taken


def _extend(books: Books, now_ms: int, request: Extend) -> object:
    return extend(books, request, now_ms, now_ms)
