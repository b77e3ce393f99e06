"""What a call gives back is used again, or reported as final, only once its end is on disk."""

from __future__ import annotations

from agent.operations.give_back import give_back
from agent.operations.release import release
from agent.operations.reserve import reserve
from agent.operations.settle import settle
from protocol.decisions import Decision
from protocol.entitlements import Limit
from protocol.local_messages import Call, Release, Reserve, Settle
from protocol.windows import WindowKind

CALL = Call("acme", "chat")
YOUNG_MS = 10_000


def ask(bench, name, amount, until_ms=1_000):
    request = Reserve(reservation=name, call=CALL, amounts={"output_tokens": amount})
    return reserve(bench.books, request, bench.now_ms, bench.now_ms + until_ms)


def lease_of(bench, amount):
    """One lease, all of it covered by the journal: calls here take a quarter of it and more."""
    bench.entitle(Limit("tokens", "output_tokens", amount, WindowKind.DAY))
    bench.lender.slice = amount
    for _ in range(4):
        if ask(bench, "first", amount) is not None:
            break
        bench.sync()
        bench.commit()
    release(bench.books, Release(reservation="first"))
    bench.commit()
    (lease,) = bench.books.leases.values()
    assert (lease.watermark, lease.held) == (amount, 0)
    return lease


def hold_with_a_row(bench, name, amount):
    assert isinstance(ask(bench, name, amount), Decision)
    bench.now_ms += YOUNG_MS
    for lease in bench.books.leases.values():
        bench.books.pending.touch(lease)
    bench.commit()


def test_a_crash_never_takes_the_use_of_a_second_call_for_the_hold_of_a_first_that_had_ended(bench):
    lease_of(bench, 100)
    hold_with_a_row(bench, "r1", 100)
    release(bench.books, Release(reservation="r1"))
    assert ask(bench, "r2", 100) is None, "the disk still says that r1 holds all of it"
    bench.commit()
    assert isinstance(ask(bench, "r2", 100), Decision)
    bench.crash()
    release(bench.books, Release(reservation="r1"))
    bench.commit()
    assert ask(bench, "r3", 100, until_ms=0) is None or not ask(bench, "r3", 100, until_ms=0).has_access


def test_what_a_settle_leaves_over_is_free_once_the_settle_is_on_disk(bench):
    lease = lease_of(bench, 100)
    hold_with_a_row(bench, "r1", 100)
    settle(bench.books, Settle(reservation="r1", amounts={"output_tokens": 30}), bench.now_ms, bench.wall_ms)
    assert lease.freeing == 70
    assert ask(bench, "r2", 1) is None
    bench.commit()
    assert lease.freeing == 0
    assert ask(bench, "r2", 70).has_access


def test_young_calls_have_no_row_and_what_they_free_is_free_at_once(bench):
    lease_of(bench, 100)
    assert ask(bench, "r1", 100).has_access
    release(bench.books, Release(reservation="r1"))
    assert ask(bench, "r2", 100).has_access


def test_a_lease_is_reported_as_closed_only_when_the_disk_says_so_too(bench):
    lease = lease_of(bench, 100)
    hold_with_a_row(bench, "r1", 100)
    give_back(bench.books, bench.now_ms, everything=True)
    release(bench.books, Release(reservation="r1"))
    assert not lease.report().closed
    bench.commit()
    assert lease.report().closed
    bench.crash()
    assert all(one.free == 0 for one in bench.books.leases.values())


def test_what_was_said_to_be_final_is_not_taken_back_by_a_crash(bench):
    lease = lease_of(bench, 100)
    assert ask(bench, "r1", 40).has_access
    give_back(bench.books, bench.now_ms, everything=True)
    bench.commit()
    release(bench.books, Release(reservation="r1"))
    said = lease.report()
    bench.crash()
    (again,) = bench.books.leases.values()
    assert not said.closed or again.report().unreported == 0


def test_an_event_paid_out_of_what_a_crash_orphaned_says_so(bench):
    lease_of(bench, 100)
    assert ask(bench, "r1", 40).has_access
    bench.crash()
    late = Settle(reservation="r1", amounts={"output_tokens": 40}, call=CALL)
    settle(bench.books, late, bench.now_ms, bench.wall_ms)
    (pending,) = bench.books.pending.events
    assert [(charge.amount, charge.orphan) for charge in pending.event.charges] == [(40, True)]
