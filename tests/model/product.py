"""The real agent on one lease, its disk a few dictionaries: what the model's half is compared with, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from agent.core.books import Books
from agent.core.leases import Lease
from agent.core.pending import Group, applied
from agent.operations.adopt_sync import adopt_sync
from agent.operations.commit_group import to_write
from agent.operations.enter_event import AfterCommit
from agent.operations.give_back import give_back
from agent.operations.release import release
from agent.operations.reserve import reserve
from agent.operations.restore import restore
from agent.operations.settle import settle
from agent.store.journal_rows import Contents, LeaseRow, Write
from protocol.decisions import Decision
from protocol.entitlements import CustomerStatus, Entitlement, Feature, FeatureKind, Limit
from protocol.leases import Grant, Recall, Standing
from protocol.local_messages import Call, Release, Reserve, Settle
from protocol.uplink_messages import SyncReply, SyncRequest
from protocol.windows import WindowKind

HOUR_MS = 3_600_000
CALL = Call("acme", "chat")
LIMIT = Limit("tokens", "output_tokens", 100, WindowKind.DAY)
PLAN = Entitlement(
    "acme",
    1,
    CustomerStatus.ACTIVE,
    "pro@1",
    (Feature("chat", FeatureKind.METERED),),
    (LIMIT,),
    ("requests", "output_tokens"),
)


@dataclass
class Disk:
    """What ``agent.store.journal`` would hold."""

    leases: dict[str, LeaseRow] = field(default_factory=dict)
    calls: dict[str, bytes] = field(default_factory=dict)

    def write(self, write: Write) -> None:
        for row in write.new_leases:
            self.leases[row.lease] = row
        for row in write.leases:
            if row.lease in self.leases:
                self.leases[row.lease] = replace(row, body=self.leases[row.lease].body)
        self.calls.update(write.opened)
        for name in write.ended:
            self.calls.pop(name, None)
        for name in write.forgotten:
            self.leases.pop(name, None)


class Product:
    """One agent that has been granted one lease. ``undone``: calls whose callers said that they did not happen."""

    def __init__(self, amount: int) -> None:
        self.disk = Disk()
        self.boot = 1
        self.now_ms = 1_000_000
        self.serial = 0
        self.undone: set[str] = set()
        self.group: Group | None = None
        self.write: Write | None = None
        self.books = self._books()
        self._adopt(SyncReply(entitlements=(PLAN,), grants=(_grant(amount),)))

    def _books(self) -> Books:
        return Books("agent-1", "journal", self.boot, f"nonce{self.boot}", confirmed_at_ms=self.now_ms)

    def _adopt(self, reply: SyncReply) -> None:
        request = SyncRequest("journal", self.boot, f"nonce{self.boot}")
        adopt_sync(self.books, request, reply, self.now_ms, self.now_ms)

    @property
    def lease(self) -> Lease:
        return self.books.leases["lease"]

    def usable(self) -> int:
        """What a call could take now."""
        return self.books.allowances[self.lease.key].look(self.now_ms, drain=True)

    def allow(self) -> bool:
        self.serial += 1
        self.now_ms += 1
        request = Reserve(reservation=f"r{self.serial}", call=CALL, amounts={"output_tokens": 1})
        reply = reserve(self.books, request, self.now_ms, self.now_ms)
        return isinstance(reply, Decision) and reply.has_access

    def settle(self, name: str) -> None:
        request = Settle(reservation=name, call=CALL, amounts={"output_tokens": 1})
        assert isinstance(settle(self.books, request, self.now_ms, self.now_ms), AfterCommit)

    def settle_unknown(self) -> None:
        self.serial += 1
        self.settle(f"unknown{self.serial}")

    def release(self, name: str) -> None:
        assert isinstance(release(self.books, Release(reservation=name)), AfterCommit)
        self.undone.add(name)

    def calls(self, *, filed: bool) -> list[str]:
        """Calls in flight, with or without a row in the journal or on its way there."""
        return sorted(held.id for held in self.books.reservations if held.journaled is filed)

    def lower(self, keep: int) -> None:
        self._adopt(SyncReply(recalls=(Recall("lease", keep),)))

    def give_up(self) -> None:
        give_back(self.books, self.now_ms, everything=True)

    def gather(self, opened_before_ms: int) -> None:
        self.books.pending.touch(self.lease)
        self.group = self.books.gather(opened_before_ms)
        self.write = to_write(self.group, self.boot, 1, self.now_ms)

    def land(self) -> None:
        """The group is on disk."""
        assert self.group
        assert self.write
        self.disk.write(self.write)
        applied(self.group)
        self.group = self.write = None

    def crash(self, *, written: bool) -> None:
        if written and self.write:
            self.disk.write(self.write)
        self.group = self.write = None
        self.boot += 1
        self.books = self._books()
        self.books.customer("acme").entitle(PLAN, self.now_ms)
        restore(
            self.books, Contents(list(self.disk.leases.values()), list(self.disk.calls.items()), [], []), self.now_ms, 0
        )


def _grant(amount: int) -> Grant:
    return Grant("lease", "acme", LIMIT.counter, "", amount, HOUR_MS, 0, HOUR_MS, HOUR_MS, Standing(100, 0))
