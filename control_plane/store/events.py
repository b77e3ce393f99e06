"""Accepted usage events, append-only, and those that could not be accepted, kept whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, and_, insert, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from control_plane.store.spans import EVERYBODY, Span, within
from control_plane.store.tables import event_conflicts, events
from control_plane.store.wanted import CHUNK, as_rows, wanted

_INSERT_CHUNK = 1_000
_STREAMED = {"yield_per": 1_000}


class Row(NamedTuple):
    """One accepted event. ``at_ms``: when it counts; ``digest``: of what it says; ``body``: as it came. ``corrects``:
    the event that it corrects."""

    customer: str
    event: str
    journal: str
    boot: int
    seq: int
    agent: str
    feature: str
    at_ms: int
    received_at_ms: int
    digest: bytes
    body: bytes
    corrects: str | None = None


class Conflict(NamedTuple):
    """One event that was not accepted; ``customer`` and ``event`` are empty where they cannot be read."""

    customer: str
    event: str
    agent: str
    journal: str
    boot: int
    seq: int
    code: str
    body: bytes
    received_at_ms: int


def add_new(connection: Connection, rows: Sequence[Row]) -> set[tuple[str, str]]:
    """Add the events whose (customer, event) is new, and return those. One id may not occur twice in ``rows``.

    Rows go in in order of identity, so that two transactions that bring the same events never wait for each other.
    """
    ordered = sorted(rows, key=lambda row: (row.customer, row.event))
    statement = _insert(connection.dialect.name)
    added: set[tuple[str, str]] = set()
    for start in range(0, len(ordered), _INSERT_CHUNK):
        chunk = [row._asdict() for row in ordered[start : start + _INSERT_CHUNK]]
        added |= {(row[0], row[1]) for row in connection.execute(statement, chunk)}
    return added


def digests(connection: Connection, names: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    """Digests of accepted events by (customer, event)."""
    ordered = sorted(set(names))
    table = wanted(connection.dialect.name, (events.c.customer, events.c.event))
    same = and_(events.c.customer == table.c.customer, events.c.event == table.c.event)
    query = select(events.c.customer, events.c.event, events.c.digest).select_from(table.join(events, same))
    found = {}
    for start in range(0, len(ordered), CHUNK):
        for row in connection.execute(query, as_rows(ordered[start : start + CHUNK])):
            found[row.customer, row.event] = bytes(row.digest)
    return found


class Kept(NamedTuple):
    """What pricing needs of an accepted event."""

    event: str
    at_ms: int
    body: bytes
    corrects: str | None


def first_words(
    connection: Connection, customer: str, from_ms: int, to_ms: int, after: tuple[int, str] | None, count: int
) -> list[Kept]:
    """Up to ``count`` of the customer's events that correct nothing and count from ``from_ms`` until before ``to_ms``,
    in order of time and name, beginning after ``after``."""
    query = select(events.c.event, events.c.at_ms, events.c.body, events.c.corrects).where(
        events.c.customer == customer, events.c.at_ms >= from_ms, events.c.at_ms < to_ms, events.c.corrects.is_(None)
    )
    if after is not None:
        query = query.where(events.c.at_ms >= after[0], tuple_(events.c.at_ms, events.c.event) > tuple_(*after))
    rows = connection.execute(query.order_by(events.c.at_ms, events.c.event).limit(count))
    return [Kept(row.event, row.at_ms, bytes(row.body), row.corrects) for row in rows]


def between(connection: Connection, customer: str, from_ms: int, to_ms: int) -> Iterator[Kept]:
    """A customer's events that count from ``from_ms`` until before ``to_ms``, in order of time."""
    c = events.c
    query = select(c.event, c.at_ms, c.body, c.corrects).where(c.customer == customer)
    query = query.where(c.at_ms >= from_ms, c.at_ms < to_ms).order_by(c.at_ms)
    for row in connection.execute(query, execution_options=_STREAMED):
        yield Kept(row.event, row.at_ms, bytes(row.body), row.corrects)


def times(connection: Connection, names: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """When accepted events count, by (customer, event)."""
    ordered = sorted(set(names))
    table = wanted(connection.dialect.name, (events.c.customer, events.c.event))
    same = and_(events.c.customer == table.c.customer, events.c.event == table.c.event)
    query = select(events.c.customer, events.c.event, events.c.at_ms).select_from(table.join(events, same))
    found = {}
    for start in range(0, len(ordered), CHUNK):
        for row in connection.execute(query, as_rows(ordered[start : start + CHUNK])):
            found[row.customer, row.event] = row.at_ms
    return found


def find(connection: Connection, customer: str, event: str) -> Kept | None:
    """One event."""
    columns = (events.c.event, events.c.at_ms, events.c.body, events.c.corrects)
    query = select(*columns).where(events.c.customer == customer, events.c.event == event)
    row = connection.execute(query).one_or_none()
    return Kept(row.event, row.at_ms, bytes(row.body), row.corrects) if row else None


def corrections(connection: Connection, customer: str, names: Iterable[str]) -> Iterator[Kept]:
    """What corrects these events of a customer, in the order in which it came."""
    ordered = [(customer, name) for name in sorted(set(names))]
    statement = _corrections(connection.dialect.name)
    for start in range(0, len(ordered), CHUNK):
        for row in connection.execute(statement, as_rows(ordered[start : start + CHUNK])):
            yield Kept(row.event, row.at_ms, bytes(row.body), row.corrects)


def keep_conflicts(connection: Connection, rows: Sequence[Conflict]) -> None:
    """Keep what could not be accepted."""
    if rows:
        connection.execute(insert(event_conflicts), [row._asdict() for row in rows])


def at_places(connection: Connection, journal: str, boot: int, first: int, last: int) -> dict[int, bytes]:
    """Bodies of the accepted events of a boot, by sequence number, from ``first`` to ``last``."""
    here = and_(events.c.journal == journal, events.c.boot == boot, events.c.seq.between(first, last))
    return {row.seq: bytes(row.body) for row in connection.execute(select(events.c.seq, events.c.body).where(here))}


def kept_at_places(connection: Connection, journal: str, boot: int, first: int, last: int) -> set[tuple[int, bytes]]:
    """Sequence numbers and bodies of what was kept of a boot without being accepted."""
    table = event_conflicts.c
    here = and_(table.journal == journal, table.boot == boot, table.seq.between(first, last))
    return {(row.seq, bytes(row.body)) for row in connection.execute(select(table.seq, table.body).where(here))}


def kept_of_journals(connection: Connection, journals: Iterable[str]) -> set[tuple[str, bytes]]:
    """Journals and bodies of what was kept of these journals without being accepted."""
    ordered = sorted(set(journals))
    table = event_conflicts.c
    found: set[tuple[str, bytes]] = set()
    for start in range(0, len(ordered), CHUNK):
        here = table.journal.in_(ordered[start : start + CHUNK])
        found |= {
            (row.journal, bytes(row.body)) for row in connection.execute(select(table.journal, table.body).where(here))
        }
    return found


def names_of_journals(connection: Connection, journals: Iterable[str], count: int) -> dict[str, list[str]]:
    """The accepted events of these journals, by journal; of each ``CHUNK`` of journals up to ``count``."""
    ordered = sorted(set(journals))
    found: dict[str, list[str]] = {}
    for start in range(0, len(ordered), CHUNK):
        here = events.c.journal.in_(ordered[start : start + CHUNK])
        for row in connection.execute(select(events.c.journal, events.c.event).where(here).limit(count)):
            found.setdefault(row.journal, []).append(row.event)
    return found


class Told(NamedTuple):
    """An accepted event, as audits look at it."""

    customer: str
    event: str
    at_ms: int
    received_at_ms: int
    digest: bytes
    body: bytes


def told(connection: Connection, span: Span, from_ms: int, to_ms: int) -> Iterator[Told]:
    """Accepted events of ``from_ms <= t < to_ms``, for audits."""
    query = select(*(events.c[name] for name in Told._fields)).where(*within(events.c.customer, span))
    query = query.where(events.c.at_ms >= from_ms, events.c.at_ms < to_ms)
    for row in connection.execute(query, execution_options=_STREAMED):
        yield Told(row.customer, row.event, row.at_ms, row.received_at_ms, bytes(row.digest), bytes(row.body))


def by_name(connection: Connection, names: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    """Bodies of accepted events by (customer, event)."""
    ordered = sorted(set(names))
    table = wanted(connection.dialect.name, (events.c.customer, events.c.event))
    same = and_(events.c.customer == table.c.customer, events.c.event == table.c.event)
    query = select(events.c.customer, events.c.event, events.c.body).select_from(table.join(events, same))
    found = {}
    for start in range(0, len(ordered), CHUNK):
        for row in connection.execute(query, as_rows(ordered[start : start + CHUNK])):
            found[row.customer, row.event] = bytes(row.body)
    return found


def bodies(connection: Connection, span: Span = EVERYBODY) -> Iterator[tuple[str, bytes]]:
    """Customer and body of every accepted event, for audits."""
    query = select(events.c.customer, events.c.body).where(*within(events.c.customer, span))
    for row in connection.execute(query, execution_options=_STREAMED):
        yield row.customer, bytes(row.body)


def bodies_between(connection: Connection, customer: str, from_ms: int, to_ms: int, count: int) -> Iterator[bytes]:
    """Up to ``count`` of a customer's events with ``from_ms <= at < to_ms``, in order of time."""
    c = events.c
    query = select(c.body).where(c.customer == customer, c.at_ms >= from_ms, c.at_ms < to_ms).order_by(c.at_ms)
    for row in connection.execute(query.limit(count), execution_options=_STREAMED):
        yield bytes(row.body)


def kept_bodies(connection: Connection, span: Span = EVERYBODY) -> Iterator[tuple[str, bytes]]:
    """Customer and body of what was kept without being accepted, for audits."""
    table = event_conflicts.c
    query = select(table.customer, table.body)
    if span != EVERYBODY:
        query = query.where(*within(table.customer, span))
    for row in connection.execute(query.order_by(table.conflict), execution_options=_STREAMED):
        yield row.customer, bytes(row.body)


@cache
def _corrections(dialect: str) -> Select[Any]:
    """Joined, not ``IN``: a planner without statistics looks through all of a customer's events for that."""
    table = wanted(dialect, (events.c.customer, events.c.corrects))
    same = and_(events.c.customer == table.c.customer, events.c.corrects == table.c.corrects)
    query = select(events.c.event, events.c.at_ms, events.c.body, events.c.corrects)
    told = (events.c.received_at_ms, events.c.journal, events.c.boot, events.c.seq)
    return query.select_from(table.join(events, same)).order_by(*told)


@cache
def _insert(dialect: str) -> ReturningInsert[Any]:
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    identity = [events.c.customer, events.c.event]
    return make(events).on_conflict_do_nothing(index_elements=identity).returning(*identity)
