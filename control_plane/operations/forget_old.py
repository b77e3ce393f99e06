"""Forgets what is older than the time for which records are kept, so that no table grows without end.

Usage - events and their hourly sums, though not those by the minute - is never forgotten here, and nothing that is
still owed to anybody: what is not closed stays, and what a never-ending counter was charged stays in it, as one
carried entry in the ledger.
"""

from __future__ import annotations

from collections import defaultdict

from control_plane.store import kept_answers, ledger, retention
from control_plane.store.allowances import Key
from control_plane.store.database import Connection, Database
from control_plane.store.ledger import Entry

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
RETENTION_MS = 400 * DAY_MS
RETENTION_MS_MIN = 45 * DAY_MS
"""Events count up to 40 days after they happened: the windows that they may still count in are kept."""

BATCH_MAX = 500


def forget_old(database: Database, before_ms: int) -> None:
    """Forget what ended before the instant, in small transactions. Stopped in the middle, it goes on next time.

    Raises: DatabaseUnavailable.
    """
    steps = (
        lambda connection: retention.drop_closed_leases(connection, before_ms, BATCH_MAX),
        lambda connection: _drop_windows(connection, before_ms),
    )
    for step in steps:
        while database.run(step) == BATCH_MAX:
            pass
    newest = database.read(ledger.newest)  # what folding adds comes after it, and is not folded again at once
    after: int | None = 0
    while after is not None and after < newest:
        after = database.run(lambda connection, after=after: _fold_entries(connection, after, newest, before_ms))  # type: ignore[misc]
    database.run(lambda connection: retention.drop_starts(connection, before_ms))
    database.run(lambda connection: retention.drop_notices(connection, before_ms))
    database.run(lambda connection: kept_answers.drop(connection, before_ms))
    _drop_minutes(database, before_ms - before_ms % HOUR_MS)


def _drop_minutes(database: Database, since_ms: int) -> None:
    """Sums of usage by the minute; those by the hour stay."""
    database.run(lambda connection: retention.cut_minutes(connection, since_ms))
    after: str | None = ""
    while after is not None:
        after = database.run(lambda connection, after=after: retention.drop_minutes(connection, after, BATCH_MAX))  # type: ignore[misc]


def _drop_windows(connection: Connection, before_ms: int) -> int:
    """Counters of windows long over, with all that is kept by them."""
    found = retention.windows_over(connection, before_ms, BATCH_MAX)
    retention.drop_allowances(connection, found)
    return len(found)


def _fold_entries(connection: Connection, after: int, newest: int, before_ms: int) -> int | None:
    """Old movements of counters that go on become one for each kind, of the same sum."""
    numbers, following = retention.old_entries(connection, after, newest, before_ms, BATCH_MAX)
    sums: dict[tuple[Key, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for entry in retention.take_entries(connection, numbers):
        total = sums[entry.key, entry.kind]
        total[0] += entry.amount
        total[1] += entry.released
        total[2] = max(total[2], entry.at_ms)
    carried = [
        (Entry(key, kind, amount, "carried", released), at_ms)
        for (key, kind), (amount, released, at_ms) in sorted(sums.items())
    ]
    ledger.append(connection, carried)
    return following
