"""The real writer and a journal that may not grow: nobody hears yes, nothing is lost, and in the end all is written."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import trio

from agent.background.one_thread import OneThread
from agent.background.write_events import FULL_RETRY_S, Writer
from agent.operations.record import record
from agent.store.ballast import Ballast
from agent.store.journal import DiskFullError, JournalDamagedError, open_journal
from agent.store.outbox import Outbox
from protocol.entitlements import Limit
from protocol.local_messages import Call, ErrorReply, Record
from protocol.windows import WindowKind

CALL = Call("acme", "chat")
ROOM_PAGES = 400


class Stage:
    """A writer on the bench's books and a journal of its own."""

    def __init__(self, bench, folder: Path) -> None:
        folder.mkdir()
        self.bench = bench
        self.folder = folder
        self.journal = open_journal(folder)
        self.outbox = Outbox()
        self.ballast = Ballast(folder)
        self.ballast.take_up()
        self.thread = OneThread("test")
        bench.entitle(Limit("tokens", "output_tokens", None, WindowKind.DAY))
        bench.books.customer("acme").entitle(bench.lender.entitlements["acme"], 0)
        self.heard: dict[str, list[bool]] = {}

    def wall_ms(self) -> int:
        return self.bench.wall_ms

    def monotonic_ms(self) -> int:
        return self.bench.now_ms

    def writer(self) -> Writer:
        """Inside Trio."""
        return Writer(self.bench.books, self.journal, self.thread, self.outbox, self.ballast, self)

    def limit_pages(self, pages: int) -> None:
        self.journal._connection.execute(f"PRAGMA max_page_count={pages}").fetchall()

    def record(self, name: str) -> None:
        tags = {f"tag-{number}": "x" * 128 for number in range(8)}
        request = Record(event=name, call=Call("acme", "chat", tags=tags))
        outcome = record(self.bench.books, request, self.bench.now_ms, self.bench.wall_ms, self.bench.now_ms)
        if not hasattr(outcome, "waiters"):
            assert outcome.duplicate, outcome
            self.heard.setdefault(name, []).append(True)
            return
        outcome.waiters.append(self.heard.setdefault(name, []).append)

    def on_disk(self) -> int:
        with sqlite3.connect(f"file:{self.folder / 'agent.db'}?mode=ro", uri=True) as other:
            return sum(row[0] for row in other.execute("SELECT count FROM outbox"))

    def close(self) -> None:
        self.journal.close()
        self.thread.close()


@pytest.fixture
def stage(bench, tmp_path):
    made = Stage(bench, tmp_path / "stage")
    yield made
    made.close()


def fill(stage: Stage) -> list[str]:
    """Record until the disk does not take any more; the names of those that were told no."""
    names = [f"e{number}" for number in range(3_000)]
    for name in names:
        stage.record(name)
    return names


def test_nobody_hears_yes_until_it_is_true_and_a_repeat_is_recorded_once(stage) -> None:
    stage.limit_pages(stage.journal._connection.execute("PRAGMA page_count").fetchone()[0] + 5)
    names = fill(stage)

    async def story() -> None:
        writer = stage.writer()
        assert not await writer.write_once()
        assert writer.disk_full
        assert not stage.ballast.aboard, "the ballast has been let go"
        assert {tuple(stage.heard[name]) for name in names} == {(False,)}
        assert stage.outbox.events == 0
        for name in names[:10]:
            stage.record(name)  # the caller says it again, as it was told to
        assert not await writer.write_once()
        stage.limit_pages(1_000_000)
        while not stage.bench.books.pending.empty:
            assert await writer.write_once()
        assert not writer.disk_full
        for name in names[:10]:
            stage.record(name)
        assert {tuple(stage.heard[name]) for name in names[:10]} == {(False, False, True)}
        assert stage.outbox.events == len(names), "those who did not repeat are recorded as well, once"

    trio.run(story)
    stage.journal.close()
    assert stage.on_disk() == len(names)


def test_running_writer_tries_again_by_itself(stage) -> None:
    stage.limit_pages(stage.journal._connection.execute("PRAGMA page_count").fetchone()[0] + 5)
    names = fill(stage)

    async def story() -> None:
        writer = stage.writer()
        stage.bench.books.wake_writer = writer.wake.set
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            writer.wake.set()
            with trio.fail_after(10):
                while not writer.disk_full:  # noqa: ASYNC110 - a plain field; no event says so
                    await trio.sleep(0.01)
                await stage.thread.run(lambda: stage.limit_pages(1_000_000))
                while stage.outbox.events < len(names):  # noqa: ASYNC110 - likewise
                    await trio.sleep(FULL_RETRY_S / 10)
            nursery.cancel_scope.cancel()
        assert not writer.disk_full

    trio.run(story)


def test_memory_is_bounded_while_the_disk_is_full(stage, monkeypatch) -> None:
    from agent.core import pending

    monkeypatch.setattr(pending, "PENDING_EVENTS_MAX", 3)
    for number in range(3):
        stage.record(f"e{number}")
    reply = record(stage.bench.books, Record(event="e3", call=CALL), 0, 0, 0)
    assert isinstance(reply, ErrorReply)
    assert (reply.error.code, reply.retry) == ("overloaded", True)


def test_full_disk_at_the_start_is_told_from_a_broken_one(tmp_path) -> None:
    journal = open_journal(tmp_path)
    journal._connection.execute(
        f"PRAGMA max_page_count={journal._connection.execute('PRAGMA page_count').fetchone()[0]}"
    )
    with pytest.raises(DiskFullError):
        journal.put_meta({f"key-{number}": "x" * 1_000 for number in range(100)})
    journal.put_meta({"small": "fits"})
    assert journal.meta("small") == "fits"
    journal.close()


def test_journal_that_was_moved_away_takes_nothing(stage) -> None:
    stage.record("e1")
    (stage.folder / "agent.db").rename(stage.folder / "elsewhere")

    async def story() -> None:
        with pytest.raises(JournalDamagedError, match="removed or replaced"):
            await stage.writer().write_once()

    trio.run(story)
    assert stage.heard["e1"] == []
