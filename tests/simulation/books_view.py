"""The control plane's books as an auditor reads them: straight from the database file, in a connection of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.simulation.contracts import Key


class LeaseRow(NamedTuple):
    """One lease. While it is not closed ``cap`` is charged; once closed, ``cap`` is what was posted."""

    lease: str
    key: Key
    agent: str
    journal: str
    boot: int
    granted: int
    cap: int
    settled: int
    in_flight: int
    status: str


class AllowanceRow(NamedTuple):
    """One counter in one window."""

    key: Key
    window_end_ms: int
    posted: int
    direct: int
    outstanding: int


class BooksView:
    """Reads; never writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)

    def alive_in(self, journal: str) -> set[str]:
        """Leases of a journal that are not closed."""
        query = "SELECT lease FROM leases WHERE journal = ? AND status != 'closed'"
        return {row[0] for row in self._connection.execute(query, (journal,))}

    def lease_names(self) -> set[str]:
        """Every lease that is known."""
        return {row[0] for row in self._connection.execute("SELECT lease FROM leases")}

    def reopen(self) -> None:
        """The file has been replaced, after :meth:`close`."""
        self._connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, isolation_level=None)

    def close(self) -> None:
        """Done."""
        self._connection.close()

    def leases(self, closed_since_ms: int) -> Iterator[LeaseRow]:
        """Every lease that lives, and those that were closed lately."""
        query = (
            "SELECT lease, customer, counter, scope_value, window_start_ms, agent, journal, boot, granted, cap,"
            " settled, in_flight, status FROM leases WHERE status != 'closed' OR closed_at_ms >= ?"
        )
        for row in self._connection.execute(query, (closed_since_ms,)):
            yield LeaseRow(row[0], (row[1], row[2], row[3], row[4]), *row[5:])

    def allowances(self, customer: str | None = None) -> Iterator[AllowanceRow]:
        """Every allowance, or one customer's."""
        query = (
            "SELECT customer, counter, scope_value, window_start_ms, window_end_ms, posted, direct, outstanding"
            " FROM allowances" + (" WHERE customer = ?" if customer else "")
        )
        for row in self._connection.execute(query, (customer,) if customer else ()):
            yield AllowanceRow((row[0], row[1], row[2], row[3]), *row[4:])

    def granted_to(self, journal: str) -> dict[Key, int]:
        """Everything that was ever lent to a journal, by allowance."""
        query = (
            "SELECT customer, counter, scope_value, window_start_ms, sum(granted) FROM leases WHERE journal = ?"
            " GROUP BY 1, 2, 3, 4"
        )
        return {(row[0], row[1], row[2], row[3]): row[4] for row in self._connection.execute(query, (journal,))}

    def totals(self) -> tuple[object, ...]:
        """Sums over everything that a message may move, for telling whether it moved anything."""
        run = self._connection.execute
        return (
            *run("SELECT sum(posted), sum(direct), sum(outstanding) FROM allowances").fetchone(),
            *run("SELECT count(*), sum(granted), sum(cap), sum(settled) FROM leases").fetchone(),
            *run("SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM event_conflicts)").fetchone(),
            *run("SELECT sum(high_water) FROM incarnations").fetchone(),
        )

    def events(self) -> Iterator[tuple[str, str, bytes]]:
        """Every accepted event: customer, event, body."""
        yield from self._connection.execute("SELECT customer, event, body FROM events")

    def conflicts(self) -> Iterator[tuple[str, str, str, bytes]]:
        """Everything that was kept aside: customer, event, code, body."""
        yield from self._connection.execute("SELECT customer, event, code, body FROM event_conflicts")

    def marks(self) -> dict[tuple[str, str, int], int]:
        """High-water marks by agent, journal and boot."""
        query = "SELECT agent, journal, boot, high_water FROM incarnations"
        return {(row[0], row[1], row[2]): row[3] for row in self._connection.execute(query)}

    def given_back(self) -> dict[Key, int]:
        """What corrections and duplicates gave back without a lease, by allowance; negative."""
        query = (
            "SELECT customer, counter, scope_value, window_start_ms, sum(amount) FROM entries"
            " WHERE kind = 'direct' AND amount < 0 GROUP BY 1, 2, 3, 4"
        )
        return {(row[0], row[1], row[2], row[3]): row[4] for row in self._connection.execute(query)}
