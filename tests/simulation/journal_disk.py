"""A host's disk: the journal's real SQLite file, with commits that are slow, fail or find no room, and a kill at any
statement; and the folders that stand for a disk kept, replaced, rolled back or cloned."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec
import trio

from agent.store.journal import FILE_NAME
from protocol.events import UsageEvent
from tests.simulation.faults import Blow, Fuse, Killed, disk_error

T = TypeVar("T")

_events = msgspec.msgpack.Decoder(list[UsageEvent]).decode


class Disk:
    """One host's, through all lives of its agent.

    Attributes:
        folder: the agent's data directory at present.
        fuse: what will strike next. full: nothing can be written. slow_s: how long an fsync takes.
        struck: told of a blow when it falls, before it has any effect.
        gone: the process that used it has been killed: nothing more of it reaches the disk.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._serial = 0
        self.folder = self.fresh()
        self.fuse: Fuse | None = None
        self.full = False
        self.slow_s = 0.0
        self.struck: Callable[[Blow], None] = lambda _: None
        self.met_full: Callable[[], None] = lambda: None
        self.met_slow: Callable[[], None] = lambda: None
        self.gone = False
        self._open: list[sqlite3.Connection] = []

    def fresh(self) -> Path:
        """An empty folder beside the others."""
        self._serial += 1
        folder = self._root / str(self._serial)
        folder.mkdir(parents=True)
        return folder

    def copy(self) -> Path:
        """A copy of everything as it is on the disk now, committed and no more."""
        target = self.fresh()
        for source in self.folder.iterdir():
            if source.is_file() and source.name != "ballast":
                shutil.copyfile(source, target / source.name)
        return target

    def keep_identity_only(self) -> None:
        """A new disk, but the identity is kept elsewhere (a mounted secret)."""
        before, self.folder = self.folder, self.fresh()
        if (before / "identity.json").exists():
            shutil.copyfile(before / "identity.json", self.folder / "identity.json")

    @property
    def has_journal(self) -> bool:
        """Whether there is one already."""
        return (self.folder / FILE_NAME).exists()

    def unconfirmed(self, label: str = "") -> set[tuple[str, str]]:
        """Events on the disk that the control plane may not have yet: customer, and the event or what it corrects.

        Args:
            label: of a journal that was set aside.
        """
        path = self.folder / (f"{FILE_NAME}.{label}" if label else FILE_NAME)
        if not path.exists():
            return set()
        connection = sqlite3.connect(path)
        try:
            bodies = [row[0] for row in connection.execute("SELECT body FROM outbox")]
        finally:
            connection.close()
        events = [event for body in bodies for event in _events(body)]
        return {(event.customer, event.corrects or event.event) for event in events}

    def plug_in(self, connection: sqlite3.Connection) -> Plug:
        """What the journal talks to instead of its connection."""
        self._open.append(connection)
        return Plug(connection, self)

    def unplug(self) -> None:
        """The process is gone: what was not committed never was."""
        for connection in self._open:
            with contextlib.suppress(sqlite3.ProgrammingError):  # it was closed in good order
                connection.rollback()
            connection.close()
        self._open.clear()

    def occasion(self, blow: Blow) -> None:
        """Raises: Killed, sqlite3.OperationalError: the fuse has burnt down."""
        if self.fuse is not None and self.fuse.burns_out(blow):
            self.fuse = None
            self.struck(blow)
            if blow in (Blow.IO_ERROR, Blow.IO_ERROR_WRITTEN):
                raise disk_error(sqlite3.SQLITE_IOERR_FSYNC, "disk I/O error")
            self.gone = True
            raise Killed


class Plug:
    """Stands between the journal and its connection; does what it is told, and what the disk lets it."""

    def __init__(self, connection: sqlite3.Connection, disk: Disk) -> None:
        self._connection = connection
        self._disk = disk

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        return self._run(self._connection.execute, sql, *arguments)

    def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:
        return self._run(self._connection.executemany, sql, rows)

    def _run(self, run: Callable[..., sqlite3.Cursor], sql: str, *arguments: Any) -> sqlite3.Cursor:
        if sql.startswith("SELECT"):
            return run(sql, *arguments)
        disk = self._disk
        if disk.full and not sql.startswith("PRAGMA"):
            disk.met_full()
            raise disk_error(sqlite3.SQLITE_FULL, "database or disk is full")
        disk.occasion(Blow.BEFORE_STATEMENT)
        cursor = run(sql, *arguments)
        try:
            disk.occasion(Blow.AFTER_STATEMENT)
        except BaseException:
            cursor.close()  # an open one would hold the file's lock beyond the process that it stands for
            raise
        return cursor

    def __enter__(self) -> Plug:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._connection.rollback()
            return
        try:
            self._disk.occasion(Blow.BEFORE_COMMIT)
            self._disk.occasion(Blow.IO_ERROR)
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.commit()
        self._disk.occasion(Blow.IO_ERROR_WRITTEN)
        self._disk.occasion(Blow.AFTER_COMMIT)

    def close(self) -> None:
        self._connection.close()


class Inline:
    """Does the journal's work here and now instead of in a thread; the disk takes its time all the same."""

    def __init__(self, disk: Disk, latency_s: Callable[[], float]) -> None:
        self._disk = disk
        self._latency_s = latency_s

    async def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises; nothing at all once the process has been killed."""
        await self._wait()
        result = work()
        await self._wait()
        return result

    async def _wait(self) -> None:
        if self._disk.slow_s:
            self._disk.met_slow()
        await trio.sleep(self._latency_s() + self._disk.slow_s / 2)
        if self._disk.gone:
            await trio.sleep_forever()

    def close(self) -> None:
        """There is no thread that would have to end."""
