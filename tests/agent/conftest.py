"""A bench for the agent's rules: real books, a real journal, a settable clock, and a lender that counts its loans."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
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
from protocol.entitlements import (
    CustomerStatus,
    Entitlement,
    Feature,
    FeatureKind,
    Limit,
    limits_on_path,
    scope_value,
)
from protocol.events import EventBatch, UsageEvent
from protocol.leases import Denial, Grant, LeaseReport, Renewal, Standing
from protocol.local_messages import Reply
from protocol.uplink_messages import HighWater, SyncReply, SyncRequest
from protocol.windows import WindowKind

HOUR_MS = 3_600_000
_events = MsgpackDecoder(list[UsageEvent])
_request = MsgpackDecoder(SyncRequest)


@dataclass
class Lent:
    """One lease as the lender sees it."""

    key: tuple[str, str, str]
    granted: int
    cap: int
    boot: int
    settled: int = 0
    unreported: int = 0
    closed: bool = False

    @property
    def charge(self) -> int:
        return min(self.settled + self.unreported, self.granted) if self.closed else self.cap


@dataclass
class Lender:
    """The other side of a sync, by the contract's rules: never lends more than is left, only the holder gives back."""

    entitlements: dict[str, Entitlement] = field(default_factory=dict)
    leases: dict[str, Lent] = field(default_factory=dict)
    events: dict[tuple[str, str], UsageEvent] = field(default_factory=dict)
    high_water: dict[int, int] = field(default_factory=dict)
    direct: dict[tuple[str, str, str], int] = field(default_factory=dict)
    slice: int = 100
    boot: int = 0
    window_left_ms: int = HOUR_MS
    ttl_ms: int = 60_000

    def limit_of(self, key: tuple[str, str, str]) -> Limit:
        return next(limit for limit in self.entitlements[key[0]].limits if limit.counter == key[1])

    def charged(self, key: tuple[str, str, str]) -> int:
        return sum(lent.charge for lent in self.leases.values() if lent.key == key) + self.direct.get(key, 0)

    def answer(self, request: SyncRequest) -> SyncReply:
        grants: list[Grant] = []
        denials: list[Denial] = []
        self.boot = request.boot
        for report in request.leases:
            self._merge(report)
        if request.snapshot:
            listed = {report.lease for report in request.leases}
            for name, lent in self.leases.items():
                if name not in listed and not lent.closed and lent.boot < request.boot:
                    lent.closed, lent.settled, lent.unreported = True, 0, 0
        for batch in request.batches:
            self._accept(batch)
        entitlements, unknown = [], []
        for named in request.customers:
            entitlement = self.entitlements.get(named.customer)
            if entitlement is None:
                unknown.append(named.customer)
                continue
            if entitlement.version > named.version:
                entitlements.append(entitlement)
            for first in named.first_calls:
                for index, limit in enumerate(entitlement.limits):
                    on_path = limit in list(limits_on_path(entitlement.limits, first.feature, first.amounts))
                    if on_path and limit.amount is not None and limit.window is not WindowKind.REQUEST:
                        key = (named.customer, limit.counter, scope_value(limit, first.subject, first.tags))
                        need = first.amounts[limit.meter]
                        self._lend(f"{first.leases}.{index}", key, need, grants, denials)
            for ask in named.asks:
                self._lend(ask.lease, (named.customer, ask.counter, ask.scope_value), ask.need, grants, denials)
        open_now = [r for r in request.leases if not self.leases[r.lease].closed]
        return SyncReply(
            high_water=tuple(HighWater(boot, seq) for boot, seq in self.high_water.items()),
            entitlements=tuple(entitlements),
            unknown_customers=tuple(unknown),
            grants=tuple(grants),
            denials=tuple(denials),
            renewed=tuple(Renewal(r.lease, self.ttl_ms, self._standing(self.leases[r.lease].key)) for r in open_now),
            closed=tuple(r.lease for r in request.leases if self.leases[r.lease].closed),
        )

    def _merge(self, report: LeaseReport) -> None:
        lent = self.leases[report.lease]
        if lent.closed:
            return
        lent.cap = min(lent.cap, report.cap)
        lent.settled = max(lent.settled, report.settled)
        lent.unreported = report.unreported
        lent.closed = report.closed

    def _accept(self, batch: EventBatch) -> None:
        events = _events(batch.body)
        assert len(events) == batch.count
        mark = self.high_water.get(batch.boot, 0)
        assert batch.first <= mark + 1, "a gap"
        for seq, event in enumerate(events, batch.first):
            if seq <= mark:
                continue
            assert (event.customer, event.event) not in self.events, "the same event twice"
            self.events[event.customer, event.event] = event
            self._debit(event)
        self.high_water[batch.boot] = max(mark, batch.first + batch.count - 1)

    def _debit(self, event: UsageEvent) -> None:
        for limit in limits_on_path(self.entitlements[event.customer].limits, event.feature, event.amounts):
            key = (event.customer, limit.counter, scope_value(limit, event.subject, event.tags))
            paid = sum(charge.amount for charge in event.charges if self.leases[charge.lease].key == key)
            if rest := event.amounts[limit.meter] - paid:
                self.direct[key] = self.direct.get(key, 0) + rest

    def _standing(self, key: tuple[str, str, str]) -> Standing:
        amount = self.limit_of(key).amount
        assert amount is not None
        return Standing(amount, 0)

    def _lend(
        self, name: str, key: tuple[str, str, str], need: int, grants: list[Grant], denials: list[Denial]
    ) -> None:
        ceiling = self.limit_of(key).ceiling
        assert ceiling is not None
        left = ceiling - self.charged(key)
        known = self.leases.get(name)
        amount = known.granted if known else min(left, max(need, self.slice))
        if known is None and (amount < need or amount <= 0):
            version = self.entitlements[key[0]].version
            denials.append(
                Denial(name, *key, left < need, version, 1_000, 0, HOUR_MS, self.window_left_ms, self._standing(key))
            )
            return
        self.leases.setdefault(name, Lent(key, amount, amount, self.boot))
        grants.append(Grant(name, *key, amount, self.ttl_ms, 0, HOUR_MS, self.window_left_ms, self._standing(key)))


class Bench:
    """One agent without its sockets: books, journal, lender, and time that moves when told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_ms = 1_000_000
        self.wall_ms = 1_700_000_000_000
        self.lender = Lender()
        self.journal = journal_store.open_journal(folder)
        self.snapshot = True
        self.next_seq = 1
        self.boot = 1
        self.outbox = Outbox()
        self.books = self._books()

    def _books(self) -> Books:
        return Books("agent-1", "journal", self.boot, f"nonce{self.boot}", confirmed_at_ms=self.now_ms)

    def entitle(self, *limits: Limit, customer: str = "acme", version: int = 1) -> Entitlement:
        """Give the customer these limits, and the feature ``chat``."""
        entitlement = Entitlement(
            customer,
            version,
            CustomerStatus.ACTIVE,
            "pro@1",
            (Feature("chat", FeatureKind.METERED),),
            limits,
            ("requests", "input_tokens", "output_tokens"),
        )
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
