"""Generations over HTTP: whether the database was restored, and whether we are listening before we lend."""

from __future__ import annotations

import msgspec
from litestar import Response
from litestar.di import NamedDependency
from litestar.params import JSONBody

from control_plane.api.bodies import Reason
from control_plane.api.context import Context
from control_plane.api.idempotency import IdempotencyKey, once
from control_plane.api.parameters import Page, PageCursor, PageLimit, page, serial_cursor
from control_plane.api.verbs import posts, reads
from control_plane.operations.author import Author
from control_plane.operations.learn_again import say_restored
from control_plane.store import custody
from control_plane.store.custody import Generation
from control_plane.store.database import Connection
from protocol.instants import rfc3339

PATH = "/v1/generations"
TAGS = ["audit"]


class RestoreWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The database was restored to an older state; ``reason``: what happened, for the audit log."""

    reason: Reason


class GenerationItem(msgspec.Struct, frozen=True):
    """One state that the database was put into.

    Attributes:
        cause: ``made`` at first, ``told`` by an operator, or ``noticed`` by what ``agent`` said.
        learning: nothing finite is lent for now, until ``learning_until`` at least, ``learning_at_most_until`` at most.
        agents_missing: how many agents that are expected have not yet said what they hold.
    """

    generation: int
    name: str
    begun_at: str
    cause: str
    agent: str | None
    detail: str
    learning: bool
    learning_until: str
    learning_at_most_until: str
    learning_ended_at: str | None
    agents_missing: int


def _item(row: Generation, missing: int, now_ms: int) -> GenerationItem:
    return GenerationItem(
        generation=row.generation,
        name=row.name,
        begun_at=rfc3339(row.begun_at_ms),
        cause=row.cause,
        agent=row.agent,
        detail=row.detail,
        learning=row.is_learning(now_ms),
        learning_until=rfc3339(row.until_ms),
        learning_at_most_until=rfc3339(row.at_most_until_ms),
        learning_ended_at=None if row.ended_at_ms is None else rfc3339(row.ended_at_ms),
        agents_missing=missing,
    )


@reads(PATH, tags=TAGS)
def list_generations(
    context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None
) -> Page[GenerationItem]:
    """Newest first; the first of the first page says how things stand."""
    before = serial_cursor(cursor)

    def look(connection: Connection) -> list[GenerationItem]:
        found = custody.before(connection, before, limit + 1)
        return [_item(row, custody.missing(connection, row), context.now_ms) for row in list(found)]

    return page(context.read(look), limit, lambda item: item, lambda item: item.generation)


@posts(PATH, RestoreWrite, tags=TAGS)
def tell_restored(
    data: JSONBody[RestoreWrite], context: NamedDependency[Context], idempotency_key: IdempotencyKey = None
) -> Response[GenerationItem]:
    """Say that the database was restored to an older state: nothing finite is lent until agents have said what they
    hold."""

    def make(connection: Connection, author: Author) -> GenerationItem:
        row = say_restored(connection, author.token, data.reason, author.now_ms)
        return _item(row, custody.missing(connection, row), author.now_ms)

    return once(context, idempotency_key, PATH, data, GenerationItem, make)


GENERATION_HANDLERS = [list_generations, tell_restored]
