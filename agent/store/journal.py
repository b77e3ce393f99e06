"""The journal: leases, watermarks, reservations, entitlements and the outbox, in one SQLite file.

One connection, used by one thread at a time, exclusive to this process. WAL with ``synchronous=FULL``: what has been
committed survives a power cut. Every method may raise ``sqlite3.Error``, after which nobody may go on with the file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import sqlite_utils

from agent.store.data_dir import DirectoryTakenError, last_start
from agent.store.journal_rows import BatchRow, ClosedRow, Contents, KeptRow, LeaseRow, Write
from agent.store.journal_schema import BOOTS_KEPT, CLOSED_KEPT, CLOSED_TOLD, migrations

__all__ = ["BatchRow", "Contents", "Journal", "LeaseRow", "Write", "open_journal", "set_aside"]  # rows come with it

FILE_NAME = "agent.db"
APPLICATION_ID = 0x414C4F54  # "ALOT"
CHECKPOINT_PAGES = 128
CONFIRMED = "confirmed_at_ms"
GENERATION = "generation"


class DiskFullError(Exception):
    """The disk has no room: nothing was written, and the same write may succeed later."""


class JournalDamagedError(Exception):
    """The file is not a journal, or no longer a sound one."""


class Journal:
    """The open file."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._inode = path.stat().st_ino
        self._start = last_start(path.parent)

    def meta(self, key: str) -> str | None:
        """One remembered fact."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put_meta(self, facts: dict[str, str]) -> None:
        """Remember facts, on disk when this returns."""
        with _full_disk_told_apart(), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts.items())

    def write(self, write: Write) -> None:
        """All of it or none; on disk when this returns.

        Raises:
            DiskFullError: nothing is known to be on disk. A failed commit is unknown, not undone: write it again.
            sqlite3.Error: the disk is broken.
            JournalDamagedError: the file has been removed or replaced under us.
            DirectoryTakenError: another agent has started on this directory.
        """
        if not self.in_place():
            raise JournalDamagedError(f"{self._path} was removed or replaced while in use")
        if last_start(self._path.parent) != self._start:
            raise DirectoryTakenError(f"another agent has started on {self._path.parent}; this one stops")
        with _full_disk_told_apart(), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            _apply(self._connection, write)

    def read_batches(self, keys: Iterable[tuple[int, int]]) -> list[BatchRow]:
        """Batches of the outbox by (boot, first)."""
        select = "SELECT boot, first, count, crc32, body, at_ms FROM outbox WHERE boot = ? AND first = ?"
        rows = (self._connection.execute(select, key).fetchone() for key in keys)
        return [BatchRow(*row) for row in rows if row is not None]

    def contents(self) -> Contents:
        """Everything, for the start."""
        select = self._connection.execute
        return Contents(
            [LeaseRow(*row) for row in select("SELECT * FROM leases")],
            [(row[0], row[1]) for row in select("SELECT reservation, body FROM reservations")],
            [(row[0], row[1]) for row in select("SELECT customer, body FROM entitlements")],
            [BatchRow(*row) for row in select(_WAITING)],
            [KeptRow(*row) for row in select(_KEPT)],
            {row[0]: (row[1], row[2]) for row in select("SELECT boot, seq, told FROM confirmed ORDER BY boot")},
        )

    def closed_leases(self, *, everything: bool) -> list[ClosedRow]:
        """Leases closed lately, the newest first: all, or the newest, and those of which more may have been used than
        events say."""
        rows = self._connection.execute(
            "SELECT lease, body, settled, orphan FROM closed_leases"
            " WHERE orphan > 0 OR rowid > (SELECT max(rowid) FROM closed_leases) - ? ORDER BY rowid DESC",
            (CLOSED_KEPT if everything else CLOSED_TOLD,),
        )
        return [ClosedRow(*row) for row in rows]

    def drop_kept(self) -> None:
        """Let go of everything that the control plane has confirmed: the room is wanted for what is new."""
        with contextlib.suppress(sqlite3.OperationalError), self._connection:  # no room even for that: try again later
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(
                "DELETE FROM outbox WHERE first + count - 1"
                " <= coalesce((SELECT seq FROM confirmed WHERE confirmed.boot = outbox.boot), 0)"
            )
            self._connection.execute("DELETE FROM closed_leases")

    def shorten(self) -> None:
        """Fold the write-ahead log into the file, so that the disk gets its room back."""
        with contextlib.suppress(sqlite3.OperationalError):  # no room even for that: the next try may find some
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def in_place(self) -> bool:
        """Whether the file that is open is still the file at its path (a deleted one takes writes and keeps none)."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def close(self) -> None:
        """Close it cleanly."""
        self._connection.close()


_WAITING = """
SELECT boot, first, count, crc32, body, at_ms FROM outbox LEFT JOIN confirmed USING (boot)
WHERE first + count - 1 > coalesce(seq, 0) ORDER BY boot, first
"""
_KEPT = """
SELECT boot, first, count, length(body), at_ms FROM outbox JOIN confirmed USING (boot)
WHERE first + count - 1 <= seq ORDER BY boot, first
"""


@contextlib.contextmanager
def _full_disk_told_apart() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise DiskFullError(str(error)) from error
        raise


def _apply(connection: sqlite3.Connection, write: Write) -> None:
    run = connection.executemany
    if write.new_leases:
        run("INSERT OR REPLACE INTO leases VALUES (?,?,?,?,?,?,?,?,?)", [_row(row) for row in write.new_leases])
    if write.leases:
        run(
            "UPDATE leases SET cap=?, watermark=?, settled=?, orphan=?, closing=?, expires_at_ms=?,"
            " window_ends_at_ms=? WHERE lease=?",
            [(*_row(row)[2:], row.lease) for row in write.leases],
        )
    if write.opened:
        run("INSERT OR REPLACE INTO reservations VALUES (?, ?)", write.opened)
    if write.ended:
        run("DELETE FROM reservations WHERE reservation = ?", [(name,) for name in write.ended])
    if write.forgotten:
        run(
            "INSERT OR REPLACE INTO closed_leases SELECT lease, body, settled, orphan, ? FROM leases"
            " WHERE lease = ? AND closing",
            [(write.at_ms, name) for name in write.forgotten],
        )
        connection.execute(
            "DELETE FROM closed_leases WHERE at_ms < ? OR rowid <= (SELECT max(rowid) FROM closed_leases) - ?",
            (write.closed_since_ms, CLOSED_KEPT),
        )
        run("DELETE FROM leases WHERE lease = ?", [(name,) for name in write.forgotten])
    if write.entitlements:
        run("INSERT OR REPLACE INTO entitlements VALUES (?, ?)", write.entitlements)
    if write.dropped:
        run("DELETE FROM entitlements WHERE customer = ?", [(name,) for name in write.dropped])
    for batch in write.batches:
        row = (batch.boot, batch.first, batch.count, batch.crc32, batch.body, batch.at_ms)
        run("INSERT OR REPLACE INTO outbox VALUES (?,?,?,?,?,?)", [row])
    if write.confirmed_at_ms:
        run("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(CONFIRMED, str(write.confirmed_at_ms))])
    if write.generation:
        run("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(GENERATION, write.generation)])
    if write.high_water:
        run(
            "INSERT INTO confirmed VALUES (?1, ?2, ?2)"
            " ON CONFLICT (boot) DO UPDATE SET seq = excluded.seq, told = max(told, excluded.told)",
            list(write.high_water.items()),
        )
    if write.outdated:
        run("DELETE FROM outbox WHERE boot = ? AND first = ?", write.outdated)


def _row(row: LeaseRow) -> tuple[object, ...]:
    return (
        row.lease, row.body, row.cap, row.watermark, row.settled, row.orphan, int(row.closing),
        row.expires_at_ms, row.window_ends_at_ms,
    )  # fmt: skip


def open_journal(data_dir: Path) -> Journal:
    """Open the journal, made if it is not there.

    Raises:
        JournalDamagedError: it is there, but it is not a sound journal.
        DiskFullError: there is no room to begin.
        sqlite3.OperationalError: it is in use, or the disk does not let us.
    """
    path = data_dir / FILE_NAME
    before = os.umask(0o077)
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
    finally:
        os.umask(before)
    try:
        with _full_disk_told_apart():
            _prepare(connection)
    except sqlite3.DatabaseError as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise JournalDamagedError(f"{path} is damaged: {error}") from error
    except (JournalDamagedError, DiskFullError):
        connection.close()
        raise
    return Journal(connection, path)


def _prepare(connection: sqlite3.Connection) -> None:
    run = connection.execute
    run("PRAGMA locking_mode=EXCLUSIVE")
    known = run("PRAGMA application_id").fetchone()[0]
    if known not in (0, APPLICATION_ID):
        raise JournalDamagedError(f"this is another application's file (application id {known:#x})")
    if not known:  # even to say again what is so already would write, and a damaged file is to be kept as it is
        run("PRAGMA auto_vacuum=INCREMENTAL")
    mode = run("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise JournalDamagedError(f"the disk does not support a write-ahead log (journal mode is {mode!r})")
    run("PRAGMA synchronous=FULL")
    run(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    run("PRAGMA journal_size_limit=1048576")
    run("PRAGMA trusted_schema=OFF")
    run("PRAGMA cell_size_check=ON")
    if not known:
        run(f"PRAGMA application_id={APPLICATION_ID}")
    verdict = run("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise JournalDamagedError(f"this file fails SQLite's quick check: {verdict}")
    migrations.apply(sqlite_utils.Database(connection, execute_plugins=False))
    run(
        "DELETE FROM confirmed"
        " WHERE boot <= (SELECT max(boot) FROM confirmed) - ? AND boot NOT IN (SELECT boot FROM outbox)",
        (BOOTS_KEPT,),
    )


def set_aside(data_dir: Path, label: str) -> Path:
    """Move the journal out of the way, never deleting it, so that a new one can begin. Returns where it went."""
    target = data_dir / f"{FILE_NAME}.{label}"
    for suffix in ("", "-wal", "-shm"):
        source = data_dir / f"{FILE_NAME}{suffix}"
        if source.exists():
            source.replace(f"{target}{suffix}")
    return target
