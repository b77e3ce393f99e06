"""Leases: what was lent to whom, and what the holders have said of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    CompoundSelect,
    Connection,
    Select,
    Update,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal_column,
    select,
    true,
    union_all,
    update,
)

from control_plane.store.allowances import Key
from control_plane.store.spans import EVERYBODY, Span, within
from control_plane.store.tables import allowances, leases
from control_plane.store.wanted import CHUNK, apart_as_rows, as_rows, wanted, whose

CLOSED = "closed"
ALIVE = ("open", "recalled", "expired", "limbo")

_CHANGING = (
    "boot", "cap", "settled", "in_flight", "unreported", "status", "keep", "renewed_at_ms", "closed_at_ms",
    "journaled",
)  # fmt: skip
_ALLOWANCE = (leases.c.customer, leases.c.counter, leases.c.scope_value, leases.c.window_start_ms)


class Row(NamedTuple):
    """One row. Columns in the table's order."""

    customer: str
    lease: str
    counter: str
    scope_value: str
    window_start_ms: int
    agent: str
    journal: str
    boot: int
    granted: int
    cap: int
    settled: int
    in_flight: int
    unreported: int
    overage: int
    central: bool
    status: str
    keep: int
    ttl_ms: int
    granted_at_ms: int
    renewed_at_ms: int
    closed_at_ms: int | None
    journaled: bool = False
    finishing: bool = False
    burst: int = 0
    level: int = 0

    @property
    def key(self) -> Key:
        """Which allowance it is a slice of."""
        return Key(self.customer, self.counter, self.scope_value, self.window_start_ms)


class Used(NamedTuple):
    """What holders say of an allowance's leases that are not closed; ``central``: some are lent call by call."""

    settled: int
    in_flight: int
    unreported: int
    central: bool


NOTHING_USED = Used(0, 0, 0, central=False)


IS_ALIVE = leases.c.status.in_([literal_column(f"'{status}'") for status in ALIVE])
"""Spelled out: a list of parameters is unfolded into the statement each time that it is executed."""

_OF_JOURNAL = select(leases).where(
    leases.c.agent == bindparam("agent"), leases.c.journal == bindparam("journal"), IS_ALIVE
)
_INSERT = insert(leases)
_UNHEARD = _OF_JOURNAL.where(leases.c.boot == bindparam("boot"), leases.c.journaled.is_(False))


def of_agent(connection: Connection, agent: str, names: Iterable[str]) -> Iterator[Row]:
    """Leases of an agent by id, whatever their status."""
    ordered = sorted(set(names))
    # Joined by both: with the agent as a constant, SQLite would rather read all leases that the agent ever had.
    query = _joined(connection.dialect.name, "agent", "lease")
    for start in range(0, len(ordered), CHUNK):
        yield from _rows(connection, query, as_rows([(agent, name) for name in ordered[start : start + CHUNK]]))


def by_name(connection: Connection, names: Iterable[tuple[str, str]]) -> Iterator[Row]:
    """Leases by (customer, lease), whoever holds them."""
    ordered = sorted(set(names))
    query = _joined(connection.dialect.name, "customer", "lease")
    for start in range(0, len(ordered), CHUNK):
        yield from _rows(connection, query, as_rows(ordered[start : start + CHUNK]))


def wished_for(connection: Connection, agent: str, names: Iterable[tuple[str, str]]) -> Iterator[Row]:
    """Leases that stand where an agent wishes for these (customer, lease): its own of that id, whoever they are for,
    and those of other agents for that customer."""
    ordered = [(agent, *name) for name in sorted(set(names))]
    query = _wished_for(connection.dialect.name)
    for start in range(0, len(ordered), CHUNK):
        yield from _rows(connection, query, as_rows(ordered[start : start + CHUNK]))


def alive_in_journal(connection: Connection, agent: str, journal: str) -> list[Row]:
    """Every lease of a journal that is not closed."""
    return list(_rows(connection, _OF_JOURNAL, {"agent": agent, "journal": journal}))


def unheard_in_start(connection: Connection, agent: str, journal: str, boot: int) -> list[Row]:
    """Every lease that was lent to this start of a journal, is not closed, and of which its holder has never spoken."""
    return list(_rows(connection, _UNHEARD, {"agent": agent, "journal": journal, "boot": boot}))


def alive_in_other_journals(connection: Connection, agent: str, journal: str) -> list[Row]:
    """Every lease of an agent that is not closed, but for those of this journal."""
    others = (leases.c.agent == agent) & (leases.c.journal != journal)
    return list(_rows(connection, select(leases).where(others, IS_ALIVE), {}))


def alive_in_allowance(connection: Connection, key: Key) -> list[Row]:
    """Every lease of an allowance that is not closed."""
    same = and_(*(col == value for col, value in zip(_ALLOWANCE, key, strict=True)))
    return list(_rows(connection, select(leases).where(same, IS_ALIVE), {}))


def used(connection: Connection, keys: Iterable[Key], apart: Iterable[str] = ()) -> dict[Key, dict[str, Used]]:
    """What is used on the leases of allowances that are not closed: by each of the agents ``apart``, and under ``""``
    by all others together; who has no such lease is left out."""
    ordered = sorted(set(keys))
    query, agents = _used(connection.dialect.name), apart_as_rows(apart)
    found: dict[Key, dict[str, Used]] = {key: {} for key in ordered}
    for start in range(0, len(ordered), CHUNK):
        for row in connection.execute(query, {**as_rows(ordered[start : start + CHUNK]), **agents}):
            settled, in_flight, unreported = (int(number) for number in row[5:8])
            found[Key(*row[:4])][row[4]] = Used(settled, in_flight, unreported, bool(row[8]))
    return found


def silent(connection: Connection, renewed_before_ms: int, count: int) -> list[Row]:
    """Up to ``count`` open or recalled leases that were last heard of before the instant, longest silence first."""
    query = select(leases).where(leases.c.status.in_(("open", "recalled")), leases.c.renewed_at_ms < renewed_before_ms)
    return list(_rows(connection, query.order_by(leases.c.renewed_at_ms).limit(count), {}))


def silent_shares(connection: Connection, renewed_before_ms: int, count: int) -> list[Row]:
    """Up to ``count`` shares of rates that were last heard of before the instant, whatever is thought of them."""
    query = select(leases).where(IS_ALIVE, leases.c.renewed_at_ms < renewed_before_ms)
    return list(_rows(connection, query.where(leases.c.burst > 0).order_by(leases.c.renewed_at_ms).limit(count), {}))


def silent_slots(connection: Connection, renewed_before_ms: int, count: int) -> list[Row]:
    """Up to ``count`` leases of what is held at the same time that were last heard of before the instant."""
    query = select(leases).where(IS_ALIVE, leases.c.renewed_at_ms < renewed_before_ms)
    slots = query.where(leases.c.counter.like("%/in\\_flight/%", escape="\\"))
    return list(_rows(connection, slots.order_by(leases.c.renewed_at_ms).limit(count), {}))


def lost(connection: Connection, renewed_before_ms: int, count: int) -> list[Row]:
    """Up to ``count`` expired leases that were last heard of before the instant."""
    query = select(leases).where(leases.c.status == "expired", leases.c.renewed_at_ms < renewed_before_ms)
    return list(_rows(connection, query.order_by(leases.c.renewed_at_ms).limit(count), {}))


def beyond_window(connection: Connection, ended_before_ms: int, heard_before_ms: int, count: int) -> list[Row]:
    """Up to ``count`` leases that are not closed, though their window ended before the one instant and nobody has
    spoken of them since the other."""
    same = and_(*(col == allowances.c[col.name] for col in _ALLOWANCE))
    query = select(leases).select_from(leases.join(allowances, same))
    query = query.where(IS_ALIVE, leases.c.renewed_at_ms < heard_before_ms)
    return list(_rows(connection, query.where(allowances.c.window_end_ms < ended_before_ms).limit(count), {}))


def add(connection: Connection, rows: Sequence[Row]) -> None:
    """Lend. The rows' allowances must be locked."""
    if rows:
        connection.execute(_INSERT, [row._asdict() for row in rows])


def save(connection: Connection, rows: Sequence[Row]) -> None:
    """Write back what changes in a lease. The rows' allowances must be locked."""
    if not rows:
        return
    connection.execute(_update(), [_saved(row) for row in rows])


def all_rows(connection: Connection, span: Span = EVERYBODY) -> Iterator[Row]:
    """Every lease, for audits."""
    query = select(leases).where(*within(leases.c.customer, span)).order_by(leases.c.customer, leases.c.lease)
    return _rows(connection, query.execution_options(yield_per=1_000), {})


def sums(connection: Connection, span: Span = EVERYBODY) -> dict[Key, int]:
    """Sum of the caps of leases that are not closed, by allowance, for audits."""
    query = select(*_ALLOWANCE, func.sum(leases.c.cap)).where(*within(leases.c.customer, span))
    query = query.where(IS_ALIVE).group_by(*_ALLOWANCE)
    return {Key(*row[:4]): int(row[4]) for row in connection.execute(query)}


@cache
def _joined(dialect: str, *names: str) -> Select[Any]:
    columns = [leases.c[name] for name in names]
    table = wanted(dialect, columns)
    return select(leases).select_from(table.join(leases, and_(*(col == table.c[col.name] for col in columns))))


@cache
def _wished_for(dialect: str) -> CompoundSelect[Any]:
    table = wanted(dialect, (leases.c.agent, leases.c.customer, leases.c.lease))
    # Not one join with OR: PostgreSQL would read every lease of the agent, or all there are.
    agents, customers = (
        select(leases).select_from(
            table.join(leases, and_(leases.c.lease == table.c.lease, owner == table.c[owner.name]))
        )
        for owner in (leases.c.agent, leases.c.customer)
    )
    return union_all(agents, customers)


@cache
def _used(dialect: str) -> Select[Any]:
    table, who = wanted(dialect, _ALLOWANCE), whose(dialect, leases.c.agent)
    sums = [func.sum(column) for column in (leases.c.settled, leases.c.in_flight, leases.c.unreported)]
    return (
        select(*_ALLOWANCE, who, *sums, func.max(case((leases.c.central == true(), 1), else_=0)))
        .select_from(table.join(leases, and_(*(col == table.c[col.name] for col in _ALLOWANCE))))
        .where(IS_ALIVE)
        .group_by(*_ALLOWANCE, who)
    )


@cache
def _update() -> Update:
    return (
        update(leases)
        .where(leases.c.customer == bindparam("k_customer"), leases.c.lease == bindparam("k_lease"))
        .values({name: bindparam(f"v_{name}") for name in _CHANGING})
    )


def _rows(
    connection: Connection, query: Select[Any] | CompoundSelect[Any], parameters: Mapping[str, str | int]
) -> Iterator[Row]:
    for row in connection.execute(query, parameters):
        yield Row(*row)


def _saved(row: Row) -> dict[str, object]:
    keys = {"k_customer": row.customer, "k_lease": row.lease}
    return {**keys, **{f"v_{name}": value for name, value in row._asdict().items() if name in _CHANGING}}
