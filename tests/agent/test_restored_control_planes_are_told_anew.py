"""What was confirmed and closed is kept for a while, bounded, and told to a control plane that has forgotten it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from agent.background.introduce import Introduction
from agent.core.books import Books
from agent.operations.adopt_sync import adopt_sync
from agent.store.journal import BatchRow, LeaseRow, Write, open_journal
from agent.store.outbox import KEPT_BYTES_MAX, KEPT_MS, Outbox
from protocol.codec import encode_msgpack
from protocol.leases import Grant, LeaseReport, Standing
from protocol.uplink_messages import HighWater, SyncReply, SyncRequest

DAY_MS = 24 * 3_600_000


def batch(first: int, count: int = 1, *, boot: int = 1, size: int = 10, at_ms: int = 0) -> BatchRow:
    return BatchRow(boot, first, count, 0, b"x" * size, at_ms)


def grant(lease: str, seal: bytes = b"seal") -> Grant:
    return Grant(
        lease, "acme", "*/requests/day/customer", "", 100, 60_000, 0, DAY_MS, DAY_MS, Standing(0, 0), seal=seal
    )


def lease_row(lease: str, *, orphan: int = 0) -> LeaseRow:
    return LeaseRow(lease, encode_msgpack(grant(lease)), 60, 60, 50, orphan, True, 0, 0)


class InPlace:
    """Runs the journal's work at once."""

    async def run(self, work):
        return work()

    def close(self) -> None:
        pass


@pytest.fixture
def journal(tmp_path: Path):
    opened = open_journal(tmp_path)
    yield opened
    opened.close()


def test_a_lower_mark_brings_back_what_was_confirmed() -> None:
    outbox = Outbox()
    for first in (1, 4, 6):
        outbox.put(batch(first, {1: 3, 4: 2, 6: 5}[first]))
    assert outbox.confirm(1, 10) == 10
    assert (outbox.events, outbox.marks(), outbox.lost()) == (0, (HighWater(1, 10),), ())
    assert outbox.confirm(1, 4) == 0
    assert outbox.next_keys(1_000, 10) == [(1, 4), (1, 6)]
    assert (outbox.events, outbox.marks(), outbox.lost()) == (7, (HighWater(1, 4),), ())
    assert outbox.confirm(1, 10) == 7


def test_what_is_wanted_again_and_gone_is_said_to_be_lost() -> None:
    outbox = Outbox()
    for first in (1, 2, 3):
        outbox.put(batch(first, at_ms=first * DAY_MS))
    outbox.confirm(1, 3)
    outbox.forget(outbox.outdated(2 * DAY_MS + KEPT_MS + 1))
    outbox.confirm(1, 0)
    assert outbox.lost() == (HighWater(1, 2),)
    assert outbox.next_keys(1_000, 10) == [(1, 3)]
    outbox.confirm(1, 2)
    assert outbox.lost() == ()


def test_everything_lost_is_said_even_when_nothing_is_left_to_send() -> None:
    outbox = Outbox()
    outbox.put(batch(1, 7))
    outbox.confirm(1, 7)
    outbox.forget_kept()
    outbox.confirm(1, 2)
    assert (outbox.lost(), outbox.events) == ((HighWater(1, 7),), 0)


@given(sizes=st.lists(st.integers(1, KEPT_BYTES_MAX // 3), max_size=30), age_ms=st.integers(0, 2 * KEPT_MS))
def test_what_is_kept_is_bounded_in_bytes_and_hours_and_the_newest_stays(sizes, age_ms) -> None:
    outbox = Outbox()
    for first, size in enumerate(sizes, start=1):
        outbox.put(BatchRow(1, first, 1, 0, _Sized(size), first))
    outbox.confirm(1, len(sizes))
    gone = outbox.outdated(age_ms)
    assert gone == [(1, first) for first in range(1, len(gone) + 1)], "the oldest first"
    rest = sizes[len(gone) :]
    assert sum(rest) <= KEPT_BYTES_MAX
    assert all(first >= age_ms - KEPT_MS for first in range(len(gone) + 1, len(sizes) + 1))
    if gone and age_ms - KEPT_MS <= 1:
        assert sum(rest) + sizes[len(gone) - 1] > KEPT_BYTES_MAX, "no more than must go"
    outbox.forget(gone)
    assert outbox.outdated(age_ms) == []


class _Sized(bytes):
    """As long as it says, without the bytes."""

    def __new__(cls, size: int):
        made = super().__new__(cls)
        made.size = size
        return made

    def __len__(self) -> int:
        return self.size


def test_marks_and_kept_batches_survive_a_restart(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.write(Write(batches=[batch(1, 3), batch(4, 2), batch(6, 1), batch(1, 1, boot=2)]))
    journal.write(Write(high_water={1: 5}))
    journal.close()
    again = open_journal(tmp_path)
    outbox = Outbox()
    outbox.fill(again.contents())
    assert outbox.next_keys(1_000, 10) == [(1, 6), (2, 1)]
    assert outbox.marks() == (HighWater(1, 5),)
    outbox.confirm(1, 3)
    again.write(Write(high_water={1: 3}))
    again.close()
    third = open_journal(tmp_path)
    once_more = Outbox()
    once_more.fill(third.contents())
    assert once_more.next_keys(1_000, 10) == outbox.next_keys(1_000, 10) == [(1, 4), (1, 6), (2, 1)]
    third.write(Write(outdated=[(1, 1)], high_water={1: 0}))
    assert [row.first for row in third.contents().outbox if row.boot == 1] == [4, 6]
    assert third.contents().marks == {1: (0, 5)}
    third.close()


def test_a_full_disk_lets_go_of_what_is_only_kept(journal) -> None:
    journal.write(Write(batches=[batch(1, 3), batch(4, 2)], new_leases=[lease_row("a")]))
    journal.write(Write(high_water={1: 3}, forgotten=["a"]))
    journal.drop_kept()
    contents = journal.contents()
    assert ([row.first for row in contents.outbox], contents.kept) == ([4], [])
    assert journal.closed_leases(everything=True) == []


def test_closed_leases_are_remembered_for_a_while_and_only_so_many(journal, monkeypatch) -> None:
    monkeypatch.setattr("agent.store.journal.CLOSED_KEPT", 2)
    monkeypatch.setattr("agent.store.journal.CLOSED_TOLD", 0)
    names = ["a", "b", "c"]
    journal.write(Write(new_leases=[lease_row(name, orphan=name == "b") for name in names]))
    for at_ms, name in enumerate(names, start=1):
        journal.write(Write(forgotten=[name], at_ms=at_ms))
    assert [row.lease for row in journal.closed_leases(everything=True)] == ["c", "b"]
    assert [row.lease for row in journal.closed_leases(everything=False)] == ["b"]
    journal.write(Write(forgotten=["nobody"], at_ms=4, closed_since_ms=3))
    assert [row.lease for row in journal.closed_leases(everything=True)] == ["c"]


def introduced(journal, books: Books, *replies: SyncReply) -> list[SyncRequest]:
    """The snapshots that follow each other when they are answered so."""

    async def story() -> list[SyncRequest]:
        introduction = Introduction(books, journal, InPlace())
        said = []
        for reply in replies:
            request = SyncRequest("journal", 1, "nonce", snapshot=introduction.due, generation=books.generation)
            said.append(await introduction.added_to(request))
            introduction.heard(reply)
        return said

    return trio.run(story)


def test_a_new_generation_hears_of_closed_leases_and_sees_grants_that_it_asks_for(journal, monkeypatch) -> None:
    monkeypatch.setattr("agent.store.journal.CLOSED_TOLD", 0)
    journal.write(Write(new_leases=[lease_row("plain"), lease_row("crashed", orphan=5)]))
    journal.write(Write(forgotten=["plain", "crashed"], at_ms=1))
    books = Books("agent-1", "journal", 1, "nonce")
    first, second, third, fourth = introduced(
        journal,
        books,
        SyncReply(generation="2-1"),
        SyncReply(generation="2-1", show=("plain", "nobody")),
        SyncReply(generation="2-1"),
        SyncReply(generation="2-1"),
    )
    assert [report.lease for report in first.leases] == ["crashed"], "of which more may be used than events say"
    assert first.leases == (LeaseReport("crashed", 55, 50, 0, 5, closed=True),)
    assert (second.generation, {report.lease for report in second.leases}) == ("2-1", {"plain", "crashed"})
    assert (third.snapshot, third.sealed) == (True, (grant("plain"),))
    assert (fourth.snapshot, fourth.leases) == (False, ())


def test_a_lease_that_somebody_else_closed_is_reported_to_its_end_before_it_is_forgotten(bench) -> None:
    bench.entitle(*[])
    books = bench.books
    adopt_sync(books, SyncRequest("j", 1, "n"), SyncReply(grants=(grant("a"),)), bench.now_ms, bench.now_ms)
    bench.commit()
    lease = books.leases["a"]
    lease.held = lease.settled = 10
    report = lease.report()
    adopt_sync(books, SyncRequest("j", 1, "n", leases=(report,)), SyncReply(closed=("a",)), bench.now_ms, bench.now_ms)
    assert (lease.closing, "a" in books.leases) == (True, True), "a call in flight still holds on it"
    lease.held = 0
    bench.commit()
    last = lease.report()
    assert (last.closed, last.settled) == (True, 10)
    adopt_sync(books, SyncRequest("j", 1, "n", leases=(last,)), SyncReply(closed=("a",)), bench.now_ms, bench.now_ms)
    assert "a" not in books.leases
