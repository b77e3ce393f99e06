"""A bench for the agent's rules: real books, a real journal, a settable clock, and a lender that counts its loans."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.core.books import Books
from agent.core.pending import applied
from agent.operations.adopt_sync import adopt_sync
from agent.operations.commit_group import to_write
from agent.operations.compose_sync import compose_sync
from agent.operations.enter_event import AfterCommit
from agent.operations.park import try_again, try_next
from agent.operations.restore import restore
from agent.store import journal as journal_store
from agent.store.outbox import Outbox
from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.entitlements import CustomerStatus, Entitlement, Feature, FeatureKind, Limit, Rate
from protocol.events import EventBatch
from protocol.local_messages import Reply
from protocol.uplink_messages import SyncReply, SyncRequest
from tests.agent.lender import Lender

METERS = ("requests", "input_tokens", "output_tokens", "credits")
_request = MsgpackDecoder(SyncRequest)


class Bench:
    """One agent without its sockets: books, journal, lender, and time that moves when told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_ms = 1_000_000
        self.wall_ms = 1_700_000_000_000
        self.lender = Lender(lambda: self.now_ms)
        self.journal = journal_store.open_journal(folder)
        self.snapshot = True
        self.next_seq = 1
        self.boot = 1
        self.outbox = Outbox()
        self.books = self._books()

    def _books(self) -> Books:
        return Books("agent-1", "journal", self.boot, f"nonce{self.boot}", confirmed_at_ms=self.now_ms)

    def entitle(
        self, *limits: Limit, customer: str = "acme", version: int = 1, rates: tuple[Rate, ...] = ()
    ) -> Entitlement:
        """Give the customer these limits, and the feature ``chat``; with rates also ``search``."""
        features = tuple(Feature(name, FeatureKind.METERED) for name in (("chat", "search") if rates else ("chat",)))
        meters = METERS if rates else METERS[:3]
        status = CustomerStatus.ACTIVE
        entitlement = Entitlement(customer, version, status, "pro@1", features, limits, meters, rates=rates)
        self.lender.entitlements[customer] = entitlement
        return entitlement

    def request(self) -> SyncRequest:
        rows = self.journal.read_batches(self.outbox.next_keys(1 << 20, 64))
        batches = [EventBatch(row.boot, row.first, row.count, row.crc32, row.body) for row in rows]
        request = compose_sync(self.books, batches, self.now_ms, snapshot=self.snapshot, stopping=False)
        return _request(encode_msgpack(request))  # as it arrives: typed, bounded

    def sync(self) -> SyncRequest:
        """One whole exchange."""
        request = self.request()
        self.adopt(request, self.lender.answer(request))
        return request

    def adopt(self, request: SyncRequest, reply: SyncReply) -> None:
        self.snapshot = False
        self.books.look_again -= {named.customer for named in request.customers}
        self.books.report_all = False
        for mark in reply.high_water:
            self.outbox.confirm(mark.boot, mark.seq)
        adopt_sync(self.books, request, reply, self.now_ms, self.now_ms)

    def commit(self) -> None:
        """Write what is pending, as the writer does, and tell whoever waits."""
        while not self.books.pending.empty:
            waiting, self.books.waiting_for_disk = self.books.waiting_for_disk, set()
            group = self.books.gather(self.now_ms - 250)
            write = to_write(group, self.books.boot, self.next_seq, self.wall_ms)
            self.journal.write(write)
            for batch in write.batches:
                self.next_seq += batch.count
                self.outbox.put(batch)
            applied(group)
            for pending in group.events:
                for tell in pending.waiters:
                    tell(True)
            for tell in group.waiters:
                tell(True)
            try_again(self.books, waiting)
            try_next(self.books, group.freed - waiting)

    def crash(self) -> None:
        """Lose the memory, keep the disk, start again."""
        self.boot += 1
        contents = self.journal.contents()
        self.books = self._books()
        restore(self.books, contents, self.now_ms, 0)
        self.snapshot, self.next_seq, self.outbox = True, 1, Outbox()
        for batch in contents.outbox:
            self.outbox.put(batch)

    def told(self, outcome: object) -> list[bool]:
        """Whether the disk has said yes to this outcome, once it has said anything."""
        assert isinstance(outcome, AfterCommit), outcome
        heard: list[bool] = []
        outcome.waiters.append(heard.append)
        return heard

    def close(self) -> None:
        self.journal.close()


class Bystander:
    """A door that remembers what came late."""

    gone = False

    def __init__(self) -> None:
        self.replies: dict[int, Reply] = {}

    def late(self, request_id: int, reply: Reply) -> None:
        self.replies[request_id] = reply


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def make_bench() -> Iterator[type[Bench]]:
    """For properties, which need a fresh bench for every example."""
    folders: list[tempfile.TemporaryDirectory[str]] = []
    benches: list[Bench] = []

    class Fresh(Bench):
        def __init__(self) -> None:
            folders.append(tempfile.TemporaryDirectory())
            super().__init__(Path(folders[-1].name))
            benches.append(self)

    yield Fresh
    for made in benches:
        made.close()
    for folder in folders:
        folder.cleanup()


@pytest.fixture
def bystander() -> Bystander:
    return Bystander()
