"""The rule of every lease, in every reachable state: truly used <= watermark on disk <= cap <= granted - and the sum of
all that is charged never passes the limit; through crashes, lost answers, repeats, recalls, stops and settles that come
late, for every kind of limit at once."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from agent.core.rates import RateShare
from agent.operations.enter_event import AfterCommit
from agent.operations.expire import expire
from agent.operations.extend import extend
from agent.operations.give_back import give_back
from agent.operations.record import record
from agent.operations.release import release
from agent.operations.reserve import reserve
from agent.operations.settle import settle
from protocol.admission import Priority
from protocol.decisions import Decision
from protocol.entitlements import InFlight, Limit, Rate
from protocol.events import Outcome
from protocol.local_messages import RESERVATION_TTL_MS, Call, Extend, Record, Release, Reserve, Settle
from protocol.windows import WindowKind

CALL = Call("acme", "chat")
TOKENS = Limit(
    "tokens", "output_tokens", 400, WindowKind.DAY, in_flight=InFlight.FINISH, overage_max=40, batch_floor=50
)
REQUESTS = Limit("requests", "requests", 14, WindowKind.MONTH)
CREDITS = Limit("credits", "credits", 190, WindowKind.LIFETIME)
SLOTS = Limit("slots", "requests", 5, WindowKind.IN_FLIGHT)
SMOOTH = Limit("smooth", "output_tokens", 600, WindowKind.MINUTE, smooth=True, burst=150)
HALF = Rate("credits", {"output_tokens": 500_000})


def credits_of(tokens: int) -> int:
    return (tokens + 1) // 2


class AgentThatCrashes(RuleBasedStateMachine):
    """One agent and its lender.

    ``in_flight`` is what the provider may bill: callers were told that they may go on. ``beyond`` is what was used
    without asking, which nobody can prevent; ``late`` what was accounted for after the lease that it was used on may
    have been charged for it already. ``bucket`` is the whole rate as one bucket of which all debts are known.
    """

    bench_type: Any

    def __init__(self) -> None:
        super().__init__()
        self.bench = self.bench_type()
        self.bench.lender.slice = 60
        self.bench.entitle(TOKENS, REQUESTS, CREDITS, SLOTS, SMOOTH, rates=(HALF,))
        self.in_flight: dict[str, int] = {}
        self.began_ms: dict[str, int] = {}
        self.said: dict[str, int] = {}
        self.told: dict[str, int] = {}
        self.beyond: list[int] = []
        self.beyond_credits = self.beyond_requests = 0
        self.late: list[int] = []
        self.serial = 0
        self.bucket, self.filled_ms = Fraction(SMOOTH.burst_max), self.bench.now_ms

    # What callers do

    @rule(amount=st.integers(0, 90), priority=st.sampled_from(Priority))
    def reserve(self, amount: int, priority: Priority) -> None:
        self.serial += 1
        name, amounts = f"r{self.serial}", {"output_tokens": amount}
        request = Reserve(reservation=name, call=CALL, amounts=amounts, priority=priority)
        reply = reserve(self.bench.books, request, self.bench.now_ms, self.bench.now_ms + 100)
        if isinstance(reply, Decision) and reply.has_access:
            self.in_flight[name] = amount
            self.began_ms[name] = self.bench.now_ms
            self._admitted(amount)

    @precondition(lambda self: self._unsaid())
    @rule(data=st.data(), more=st.integers(1, 60))
    def extend(self, data: st.DataObject, more: int) -> None:
        name = data.draw(st.sampled_from(self._unsaid()))
        total = self.in_flight[name] + more
        request = Extend(reservation=name, amounts={"output_tokens": total})
        reply = extend(self.bench.books, request, self.bench.now_ms, self.bench.now_ms)
        if isinstance(reply, Decision) and reply.has_access:
            self.in_flight[name] = total
            self.began_ms[name] = self.bench.now_ms
            self._admitted(more)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), repeat=st.booleans(), over=st.sampled_from([0, 0, 0, 25]))
    def settle(self, data: st.DataObject, repeat: bool, over: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.in_flight)))
        held = self.in_flight[name]
        if name not in self.said:
            used = self.said[name] = held + over if over else data.draw(st.integers(0, held))
            self.beyond.append(max(0, used - held))
            self.beyond_credits += max(0, credits_of(used) - credits_of(held))
            self._ended(name, held, used)
        self.in_flight[name] = used = self.said[name]  # what was not used is free for others at once
        if self.bench.books.reservations.get(name) is None and self.bench.books.ended.get(name) is None:
            self.late.append(used)
        request = Settle(reservation=name, amounts={"output_tokens": used}, call=CALL)
        for _ in range(1 + repeat):
            outcome = settle(self.bench.books, request, self.bench.now_ms, self.bench.wall_ms)
            if isinstance(outcome, AfterCommit):
                outcome.waiters.append(lambda ok: self._recorded(name, used) if ok else None)

    @rule(amount=st.integers(0, 30), past=st.booleans())
    def record(self, amount: int, past: bool) -> None:
        self.serial += 1
        name = f"e{self.serial}"
        at_ms = 1 if past else None
        request = Record(event=name, call=CALL, amounts={"output_tokens": amount}, at_ms=at_ms)
        outcome = record(self.bench.books, request, self.bench.now_ms, self.bench.wall_ms, self.bench.now_ms)
        if not isinstance(outcome, AfterCommit):
            return
        self.in_flight[name] = self.said[name] = amount
        self.began_ms[name] = -RESERVATION_TTL_MS
        self.beyond.append(amount)
        self.beyond_credits += credits_of(amount)
        self.beyond_requests += 1
        if not past and self.bench.books.customer("acme").entitlement:
            self._fill()
            self.bucket -= amount
        outcome.waiters.append(lambda ok: self._recorded(name, amount) if ok else None)

    @precondition(lambda self: self._unsaid())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self._unsaid()))
        release(self.bench.books, Release(reservation=name))
        self._ended(name, self.in_flight.pop(name), 0)  # its caller says that nothing was sent

    # What else happens

    @rule()
    def commit(self) -> None:
        self.bench.commit()

    @rule()
    def sync(self) -> None:
        self.bench.sync()

    @rule()
    def sync_and_lose_the_answer(self) -> None:
        self.bench.lender.answer(self.bench.request())

    @rule(data=st.data(), keep=st.integers(0, 60))
    def recall(self, data: st.DataObject, keep: int) -> None:
        leases = sorted(self.bench.books.leases)
        if leases:
            self.bench.lender.recalling = {data.draw(st.sampled_from(leases)): keep}
            self.bench.books.report_all = True
            self.bench.sync()
            self.bench.lender.recalling = {}

    @rule(central=st.booleans(), share=st.sampled_from([100, 10**9]))
    def lender_changes_its_ways(self, central: bool, share: int) -> None:
        self.bench.lender.central, self.bench.lender.share = central, share

    @rule(seconds=st.sampled_from([0.1, 1, 20, 50, 700]))
    def time_passes(self, seconds: float) -> None:
        self.bench.now_ms += int(seconds * 1_000)
        expire(self.bench.books, self.bench.now_ms, self.bench.wall_ms)
        for pending in self.bench.books.pending.events:
            if pending.event.outcome is Outcome.EXPIRED:
                used = pending.event.amounts["output_tokens"]
                pending.waiters.append(partial(self._expired, pending.event.event, used))
        give_back(self.bench.books, self.bench.now_ms)

    @rule()
    def crash(self) -> None:
        self.bench.crash()
        self._fill()
        self.bucket = max(self.bucket, Fraction(0))  # who owed something is not known any longer

    @rule()
    def stop(self) -> None:
        give_back(self.bench.books, self.bench.now_ms, everything=True)
        for _ in range(2):
            self.bench.commit()
            self.bench.sync()
        self.crash()

    # What is known of it here

    def _unsaid(self) -> list[str]:
        return sorted(name for name in self.in_flight if name not in self.said)

    def _recorded(self, name: str, used: int) -> None:
        self.told[name] = used
        self.in_flight.pop(name, None)

    def _expired(self, name: str, used: int, on_disk: bool) -> None:
        if on_disk and self.in_flight.pop(name, None) is not None:
            self.told[name] = used

    def _fill(self) -> None:
        passed_ms = self.bench.now_ms - self.filled_ms
        self.bucket = min(Fraction(SMOOTH.burst_max), self.bucket + Fraction(SMOOTH.amount * passed_ms, 60_000))
        self.filled_ms = self.bench.now_ms

    def _admitted(self, amount: int) -> None:
        self._fill()
        self.bucket -= amount
        assert amount == 0 or self.bucket >= 0, "more than the burst and the rate since"
        now_ms = self.bench.now_ms
        held = [name for name in self._unsaid() if now_ms - self.began_ms[name] < RESERVATION_TTL_MS]
        assert len(held) <= SLOTS.amount

    def _ended(self, name: str, held: int, used: int) -> None:
        self._fill()
        known = self.bench.books.reservations.get(name) is not None
        if used < held and known:
            self.bucket = min(Fraction(SMOOTH.burst_max), self.bucket + held - used)
        elif known:
            self.bucket -= used - held

    @invariant()
    def chain_holds_for_every_lease(self) -> None:
        on_disk = {row.lease: row for row in self.bench.journal.contents().leases}
        for lease in self.bench.books.leases.values():
            assert lease.cap <= self.bench.lender.leases[lease.id].granted
            assert lease.freeing >= 0
            assert lease.held >= 0
            if isinstance(lease, RateShare):
                assert (lease.settled, lease.held, lease.watermark) == (0, 0, 0)
                continue
            assert lease.settled + lease.held + lease.orphan <= lease.watermark or lease.closing
            assert lease.watermark <= lease.cap
            row = on_disk.get(lease.id)
            covered = row.watermark if row else 0
            unheld = lease.settled - lease.durable_settled  # journaled with its event, before anybody is told
            assert lease.watermark <= covered + unheld
            assert lease.durable_cap >= lease.cap

    @invariant()
    def nothing_passes_the_limit(self) -> None:
        lender, beyond = self.bench.lender, sum(self.beyond)
        late, late_credits = sum(self.late), sum(map(credits_of, self.late))
        assert lender.charged(("acme", TOKENS.counter, "")) <= TOKENS.ceiling + beyond + late
        assert lender.charged(("acme", REQUESTS.counter, "")) <= REQUESTS.amount + self.beyond_requests + len(self.late)
        assert lender.charged(("acme", CREDITS.counter, "")) <= CREDITS.amount + self.beyond_credits + late_credits
        assert lender.charged(("acme", SLOTS.counter, "")) <= SLOTS.amount
        rates = lender.shares(("acme", SMOOTH.counter, ""))
        assert sum(lent.cap for lent in rates) <= SMOOTH.amount
        assert sum(lent.burst_now for lent in rates) <= SMOOTH.burst_max
        used = [*self.told.values(), *self.in_flight.values()]
        assert sum(used) - beyond <= TOKENS.ceiling
        assert sum(used) - beyond <= lender.charged(("acme", TOKENS.counter, ""))
        assert sum(map(credits_of, used)) - self.beyond_credits <= lender.charged(("acme", CREDITS.counter, ""))

    def teardown(self) -> None:
        """After the faults: every call that a caller was told is recorded is in the ledger, once, with its amount; and
        all of it is charged."""
        self.bench.commit()
        for _ in range(3):
            self.bench.sync()
            self.bench.commit()
        lender = self.bench.lender
        counted = {event: fact.amounts["output_tokens"] for (_, event), fact in lender.events.items()}
        for name, used in self.told.items():
            total = sum(amount for event, amount in counted.items() if event == name or event.startswith(f"{name}~"))
            assert total == used
        assert sum(counted.values()) <= lender.charged(("acme", TOKENS.counter, ""))
        super().teardown()


@pytest.mark.parametrize("steps", [50])
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
