"""The rule of every lease, in every reachable state: truly used <= watermark on disk <= cap <= granted - and the sum of
all that is charged never passes the limit; through crashes, lost answers, repeats and settles that come late."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from agent.operations.enter_event import AfterCommit
from agent.operations.expire import expire
from agent.operations.give_back import give_back
from agent.operations.release import release
from agent.operations.reserve import reserve
from agent.operations.settle import settle
from protocol.decisions import Decision
from protocol.entitlements import Limit
from protocol.events import Outcome
from protocol.local_messages import Call, Release, Reserve, Settle
from protocol.windows import WindowKind

CALL = Call("acme", "chat")
TOKENS = Limit("tokens", "output_tokens", 400, WindowKind.DAY)
REQUESTS = Limit("requests", "requests", 12, WindowKind.MONTH)


class AgentThatCrashes(RuleBasedStateMachine):
    """One agent and its lender. ``in_flight`` is what the provider may bill: callers were told that they may go on."""

    bench_type: Any

    def __init__(self) -> None:
        super().__init__()
        self.bench = self.bench_type()
        self.bench.lender.slice = 60
        self.bench.entitle(TOKENS, REQUESTS)
        self.in_flight: dict[str, int] = {}
        self.said: dict[str, int] = {}
        self.told: dict[str, int] = {}
        self.serial = 0

    @rule(amount=st.integers(0, 90))
    def reserve(self, amount: int) -> None:
        self.serial += 1
        request = Reserve(reservation=f"r{self.serial}", call=CALL, amounts={"output_tokens": amount})
        reply = reserve(self.bench.books, request, self.bench.now_ms, self.bench.now_ms + 100)
        if isinstance(reply, Decision) and reply.has_access:
            self.in_flight[request.reservation] = amount

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), repeat=st.booleans())
    def settle(self, data: st.DataObject, repeat: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.in_flight)))
        if name not in self.said:
            self.said[name] = data.draw(st.integers(0, self.in_flight[name]))
        self.in_flight[name] = used = self.said[name]  # what was not used is free for others at once
        request = Settle(reservation=name, amounts={"output_tokens": used}, call=CALL)
        for _ in range(1 + repeat):
            outcome = settle(self.bench.books, request, self.bench.now_ms, self.bench.wall_ms)
            if isinstance(outcome, AfterCommit):
                outcome.waiters.append(lambda ok: self._recorded(name, used) if ok else None)

    def _recorded(self, name: str, used: int) -> None:
        self.told[name] = used
        self.in_flight.pop(name, None)

    def _expired(self, name: str, used: int, on_disk: bool) -> None:
        if on_disk and self.in_flight.pop(name, None) is not None:
            self.told[name] = used

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.in_flight)))
        if name in self.said:
            return
        release(self.bench.books, Release(reservation=name))
        del self.in_flight[name]  # its caller says that nothing was sent

    @rule()
    def commit(self) -> None:
        self.bench.commit()

    @rule()
    def sync(self) -> None:
        self.bench.sync()

    @rule()
    def sync_and_lose_the_answer(self) -> None:
        self.bench.lender.answer(self.bench.request())

    @rule(seconds=st.sampled_from([1, 20, 50, 700]))
    def time_passes(self, seconds: int) -> None:
        self.bench.now_ms += seconds * 1_000
        expire(self.bench.books, self.bench.now_ms, self.bench.wall_ms)
        for pending in self.bench.books.pending.events:
            if pending.event.outcome is Outcome.EXPIRED:
                used = pending.event.amounts["output_tokens"]
                pending.waiters.append(partial(self._expired, pending.event.event, used))
        give_back(self.bench.books, self.bench.now_ms)

    @rule()
    def crash(self) -> None:
        self.bench.crash()

    @invariant()
    def chain_holds_for_every_lease(self) -> None:
        on_disk = {row.lease: row for row in self.bench.journal.contents().leases}
        for lease in self.bench.books.leases.values():
            assert lease.settled + lease.held + lease.orphan <= lease.watermark or lease.closing
            assert lease.watermark <= lease.cap <= self.bench.lender.leases[lease.id].granted
            row = on_disk.get(lease.id)
            covered = row.watermark if row else 0
            assert lease.watermark <= covered
            assert lease.durable_cap >= lease.cap

    @invariant()
    def nothing_passes_the_limit(self) -> None:
        for limit in (TOKENS, REQUESTS):
            key = ("acme", limit.counter, "")
            assert self.bench.lender.charged(key) <= limit.amount
        in_use = sum(self.told.values()) + sum(self.in_flight.values())
        assert in_use <= TOKENS.amount
        assert in_use <= self.bench.lender.charged(("acme", TOKENS.counter, ""))

    def teardown(self) -> None:
        """After the faults: every call that a caller was told is recorded is in the ledger, once, with its amount."""
        self.bench.commit()
        for _ in range(3):
            self.bench.sync()
            self.bench.commit()
        counted = {event: fact.amounts["output_tokens"] for (_, event), fact in self.bench.lender.events.items()}
        for name, used in self.told.items():
            total = sum(amount for event, amount in counted.items() if event == name or event.startswith(f"{name}~"))
            assert total == used
        super().teardown()


@pytest.mark.parametrize("steps", [40])
def test_no_crash_lost_answer_or_repeat_breaks_a_lease(make_bench: type, steps: int) -> None:
    AgentThatCrashes.bench_type = make_bench
    run_state_machine_as_test(
        AgentThatCrashes,
        settings=settings(
            max_examples=60,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
