"""Billing periods over HTTP: closed, and their statements."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter

from control_plane.api.bodies import Sentence
from control_plane.api.context import Context
from control_plane.api.instants import WORDS, instant_ms
from control_plane.api.parameters import Page, PageCursor, PageLimit, PathKey, page, serial_cursor
from control_plane.api.verbs import acts, reads
from control_plane.core.statements import Statement
from control_plane.operations.change_customer import require_customer
from control_plane.operations.close_period import close_period, last_start, present_start, read_statement
from control_plane.store import periods
from control_plane.store.database import Connection
from control_plane.store.periods import PeriodRow
from protocol.instants import rfc3339

PATH = "/v1/customers/{customer:str}/periods"
TAGS = ["billing periods"]
Start = Annotated[str, PathParameter(max_length=40, description=f"where the period begins: {WORDS}")]

Named = Annotated[str, PathParameter(max_length=40, description=f"`present`, `last`, or where it begins: {WORDS}")]
_FIND = {"present": present_start, "last": last_start}


class CloseWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing has to be said; ``note`` is for the audit log."""

    note: Sentence = ""


class PeriodItem(msgspec.Struct, frozen=True):
    """A billing period and its statement; ``closed_at`` is null while it may change."""

    closed_at: str | None
    closed_by: str | None
    statement: Statement


@acts(PATH + "/{start:str}/close", CloseWrite, tags=TAGS)
def close(customer: PathKey, start: Start, data: JSONBody[CloseWrite], context: NamedDependency[Context]) -> PeriodItem:
    """Close a billing period that is over: its statement never changes any more, and what is told or corrected of it
    later becomes adjustments in the next. Closed again, it stays as it is."""
    start_ms = instant_ms(start, "start")
    row = context.change(lambda connection, author: close_period(connection, customer, start_ms, author, data.note))
    return _closed(row)


@reads(PATH + "/{start:str}", tags=TAGS)
def get_period(customer: PathKey, start: Named, context: NamedDependency[Context]) -> PeriodItem:
    """The statement of a billing period: of a closed one as it was then, of another as it is now."""
    find = _FIND.get(start)
    start_ms = 0 if find else instant_ms(start, "start")

    def look(connection: Connection) -> tuple[Statement, PeriodRow | None]:
        begins_ms = find(connection, customer, context.now_ms) if find else start_ms
        return read_statement(connection, customer, begins_ms, context.now_ms)

    statement, row = context.read(look)
    return PeriodItem(None, None, statement) if row is None else _closed(row)


@reads(PATH, tags=TAGS)
def list_periods(
    customer: PathKey, context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None
) -> Page[PeriodItem]:
    """The customer's closed billing periods with their statements, in order of time."""
    after = serial_cursor(cursor)

    def look(connection: Connection) -> list[PeriodRow]:
        require_customer(connection, customer)
        return periods.after(connection, customer, -1 if after is None else after, limit + 1)

    return page(context.read(look), limit, _closed, lambda row: row.start_ms)


def _closed(row: PeriodRow) -> PeriodItem:
    statement = msgspec.json.decode(row.statement, type=Statement)
    return PeriodItem(rfc3339(row.closed_at_ms), row.actor, statement)


PERIOD_HANDLERS = [close, get_period, list_periods]
