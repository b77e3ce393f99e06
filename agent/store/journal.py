"""The journal: leases, watermarks, reservations, entitlements and the outbox, in one SQLite file.

One connection, used by one thread at a time, exclusive to this process. WAL with ``synchronous=FULL``: what has been
committed survives a power cut. Every method may raise ``sqlite3.Error``, after which nobody may go on with the file.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import sqlite_utils
from sqlite_utils.migrations import Migrations

FILE_NAME = "agent.db"
APPLICATION_ID = 0x414C4F54  # "ALOT"
CHECKPOINT_PAGES = 128
CONFIRMED = "confirmed_at_ms"

migrations = Migrations("allotment-agent")


@migrations()
def first(db: sqlite_utils.Database) -> None:
    """Version 0.1."""
    db.table("meta").create({"key": str, "value": str}, pk="key", strict=True)
    db.table("leases").create(
        {"lease": str, "body": bytes, "cap": int, "watermark": int, "settled": int, "orphan": int, "closing": int,
         "expires_at_ms": int, "window_ends_at_ms": int},
        pk="lease", strict=True,
    )  # fmt: skip
    db.table("reservations").create({"reservation": str, "body": bytes}, pk="reservation", strict=True)
    db.table("entitlements").create({"customer": str, "body": bytes}, pk="customer", strict=True)
    db.table("outbox").create(
        {"boot": int, "first": int, "count": int, "crc32": int, "body": bytes, "at_ms": int},
        pk=("boot", "first"), strict=True,
    )  # fmt: skip


class DiskFullError(Exception):
    """The disk has no room: nothing was written, and the same write may succeed later."""


class JournalDamagedError(Exception):
    """The file is not a journal, or no longer a sound one."""


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A lease as it stands on disk; ``body`` is what it was granted with (empty in an update)."""

    lease: str
    body: bytes
    cap: int
    watermark: int
    settled: int
    orphan: int
    closing: bool
    expires_at_ms: int
    window_ends_at_ms: int


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One commit group's events: dense from ``first``, in one checksummed blob."""

    boot: int
    first: int
    count: int
    crc32: int
    body: bytes
    at_ms: int


@dataclass(slots=True)
class Write:
    """Everything that one transaction changes; ``confirmed_at_ms``: when the control plane was last heard (wall)."""

    new_leases: list[LeaseRow] = field(default_factory=list)
    leases: list[LeaseRow] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    opened: list[tuple[str, bytes]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    entitlements: list[tuple[str, bytes]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    batches: list[BatchRow] = field(default_factory=list)
    high_water: dict[int, int] = field(default_factory=dict)
    confirmed_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything that is on disk."""

    leases: list[LeaseRow]
    reservations: list[tuple[str, bytes]]
    entitlements: list[tuple[str, bytes]]
    outbox: list[BatchRow]


class Journal:
    """The open file."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._inode = path.stat().st_ino

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
        """
        if not self.in_place():
            raise JournalDamagedError(f"{self._path} was removed or replaced while in use")
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
            [
                BatchRow(*row)
                for row in select("SELECT boot, first, count, crc32, body, at_ms FROM outbox ORDER BY boot, first")
            ],
        )

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
    if write.high_water:
        run("DELETE FROM outbox WHERE boot = ? AND first + count - 1 <= ?", list(write.high_water.items()))


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


def set_aside(data_dir: Path, label: str) -> Path:
    """Move the journal out of the way, never deleting it, so that a new one can begin. Returns where it went."""
    target = data_dir / f"{FILE_NAME}.{label}"
    for suffix in ("", "-wal", "-shm"):
        source = data_dir / f"{FILE_NAME}{suffix}"
        if source.exists():
            source.replace(f"{target}{suffix}")
    return target
