"""The applications of one host: they ask as its doors would, in bursts, and do everything that callers do to an agent -
stream, settle, release, record, repeat themselves, speak late or elsewhere, and die."""

from __future__ import annotations

import random
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import trio

from protocol.decisions import Decision, Verdict
from protocol.events import Subject
from protocol.local_messages import (
    Call,
    Check,
    ErrorReply,
    Extend,
    Record,
    Recorded,
    Release,
    Reply,
    Request,
    Reserve,
    Settle,
)
from tests.simulation.calls import Course, InFlight
from tests.simulation.contracts import FEATURES, TOKENS
from tests.simulation.hosts import Host

if TYPE_CHECKING:
    from tests.simulation.world import World

SIZES = [{TOKENS: size} for size in (1, 1, 2, 2, 3, 4, 5, 8, 12, 40)]
COURSES = (
    [Course.SETTLE] * 74 + [Course.STREAM] * 8 + [Course.RELEASE] * 6 + [Course.DIE] * 3 + [Course.LATE] * 3
    + [Course.OVER] * 1 + [Course.ELSEWHERE] * 2 + [Course.REWORD] * 3
)  # fmt: skip
OVERDUE_MS = 3_000
"""A parked call may be answered so much later than its deadline, and no more."""

Due = tuple[int, int, InFlight]


class Callers:
    """All applications on one host."""

    def __init__(self, world: World, host: Host, dice: random.Random) -> None:
        self._world = world
        self.host = host
        self._dice = dice
        self._asks = [
            (Call(customer, feature, Subject(user=f"user-{user}")), customer)
            for customer in world.contracts.of
            for feature in FEATURES
            for user in range(world.rates.users)
        ]
        self._serial = 0
        self._due: list[Due] = []
        self._parked: dict[int, tuple[Request, int, InFlight | None]] = {}
        self._waiting: dict[int, tuple[InFlight | None, Settle | Record | Release]] = {}
        self.asking = True
        host.answered = self.answered
        host.cut_off = self._cut_off

    def state(self) -> str:
        """What has not come to its end, in words."""
        return f"due {self._due[:3]}, told {list(self._waiting.values())[:3]}, parked {list(self._parked.values())[:3]}"

    @property
    def busy(self) -> int:
        """How many calls have not come to their end."""
        return len(self._due) + len(self._waiting) + len(self._parked)

    async def run(self) -> None:
        """Burst after burst."""
        every_s = self._world.rates.every_s
        await trio.sleep(self._dice.random() * every_s)
        while True:
            await trio.sleep(every_s)
            if self.host.serves:
                with self._world.time.one_moment():
                    self.burst()

    def burst(self) -> None:
        """Everything that is due, and new calls."""
        now_ms = self._world.time.now_ms()
        decisions = self._world.chronicle.decisions
        before = decisions.total() if self._world.tracing else 0
        while self._due and self._due[0][0] <= now_ms and self.host.serves:
            self._conclude(heappop(self._due)[2])
        if self.asking:
            for _ in range(self._world.rates.asks):
                self._ask(now_ms)
        if self._world.tracing:
            self._world.chronicle.note(f"{self.host.name} callers {decisions.total() - before} {len(self._due)}")

    def overdue(self, now_ms: int) -> list[str]:
        """Parked calls that should have been answered long ago."""
        if not self.host.serves:
            return []
        return [f"{request}" for request, until_ms, _ in self._parked.values() if now_ms > until_ms + OVERDUE_MS]

    # Asking.

    def _ask(self, now_ms: int) -> None:
        random_ = self._dice.random
        self._serial = serial = self._serial + 1
        ask, _ = self._asks[int(random_() * len(self._asks))]
        amounts = SIZES[int(random_() * 10)]
        kind = random_()
        if kind < 0.03:
            self._send(Check(id=serial, call=ask, amounts=amounts, deadline_ms=0), None)
            return
        if kind < 0.035:
            record = Record(id=serial, event=f"{self.host.name}-r{serial}", call=ask, amounts=amounts)
            self._tell(None, record)
            return
        course = COURSES[int(random_() * 100)]
        patient = random_() < self._world.rates.patience
        request = Reserve(
            id=serial,
            reservation=f"{self.host.name}-{serial}",
            call=ask,
            amounts=amounts,
            ttl_ms=6_000 if course in (Course.DIE, Course.LATE) else 120_000,
            deadline_ms=int(random_() * 2_000) if patient else 0,
        )
        reply = self._dispatch(request)
        if type(reply) is Decision and reply.decision is not Verdict.ALLOW:
            self._world.chronicle.decisions[reply.code] += 1
            return
        size = amounts[TOKENS]
        really = 0 if course is Course.RELEASE else size if random_() < 0.6 else int(random_() * (size + 1))
        call = InFlight(request.reservation, ask, size, really, course)
        if reply is None:
            self._parked[serial] = (request, now_ms + request.deadline_ms, call)
        else:
            self._decided(request, reply, call)

    def _dispatch(self, request: Request) -> Reply | None:
        agent = self.host.agent
        assert agent is not None
        return agent.dispatch(request, self.host.door)

    def _send(self, request: Request, call: InFlight | None) -> None:
        reply = self._dispatch(request)
        if reply is None:
            until_ms = self._world.time.now_ms() + getattr(request, "deadline_ms", 0)
            self._parked[request.id] = (request, until_ms, call)
        else:
            self._decided(request, reply, call)

    def answered(self, request_id: int, reply: Reply) -> None:
        """A late answer has come."""
        parked = self._parked.pop(request_id, None)
        if parked is not None:
            self._decided(parked[0], reply, parked[2])
            return
        call, told = self._waiting.pop(request_id)
        self._heard(call, told, reply)

    def _decided(self, request: Request, reply: Reply, call: InFlight | None) -> None:
        chronicle = self._world.chronicle
        if not isinstance(reply, Decision):
            assert isinstance(reply, ErrorReply), reply
            chronicle.numbers[f"error {reply.error.code}"] += 1
            if isinstance(request, Extend) and call is not None:
                self._later(call, 0.5)
            return
        chronicle.decisions[reply.code] += 1
        if call is None:
            return
        if reply.decision is Verdict.ALLOW:
            self._allowed(request, call)
        elif isinstance(request, Extend):
            self._later(call, self._dice.random())  # the stream is cut; what it has used is settled
            call.slices = 99

    def _allowed(self, request: Request, call: InFlight) -> None:
        agent = self.host.agent
        assert agent is not None
        held = agent.books.reservations.get(call.id)
        assert held is not None
        if isinstance(request, Extend):
            call.held = call.really = request.amounts[TOKENS]
            call.says = [call.really]
        call.admit(self._world.provider, held)
        self._world.checkers.at_admission(self.host, held)
        if call.course is Course.STREAM:
            call.really = call.held
        self._prepare(call)
        self._later(call, self._dice.expovariate(0.5))

    def _prepare(self, call: InFlight) -> None:
        if call.course is Course.OVER and len(call.says) == 1:
            call.says = [call.held + 3]
        elif call.course is Course.REWORD:
            call.says = [call.held, call.really]
        else:
            call.says = [call.really]

    def _later(self, call: InFlight, delay_s: float) -> None:
        if call.course is Course.LATE and not call.attempts:
            delay_s += 9.0
        self._serial += 1
        heappush(self._due, (self._world.time.now_ms() + int(delay_s * 1_000), self._serial, call))

    # Ending.

    def _conclude(self, call: InFlight) -> None:
        self._serial += 1
        call.attempts += 1
        match call.course:
            case Course.DIE:
                self._world.chronicle.numbers["callers died"] += 1
            case Course.RELEASE:
                self._tell(call, Release(id=self._serial, reservation=call.id))
            case Course.STREAM if call.slices < 3:
                call.slices += 1
                total = call.held + 1 + int(self._dice.random() * 8)
                self._send(Extend(id=self._serial, reservation=call.id, amounts={TOKENS: total}), call)
            case Course.ELSEWHERE if call.attempts == 1 and (other := self._world.another(self.host)) is not None:
                other.take_over(call)
            case _:
                self._say(call)

    def take_over(self, call: InFlight) -> None:
        """A call of another host settles here; its caller may say the same to both."""
        self._later(call, 0.0)

    def _say(self, call: InFlight) -> None:
        with_call = call.attempts > 1 or self._dice.random() < 0.7
        said = {TOKENS: call.says[0]}
        self._tell(
            call, Settle(id=self._serial, reservation=call.id, amounts=said, call=call.ask if with_call else None)
        )

    def _tell(self, call: InFlight | None, told: Settle | Record | Release) -> None:
        reply = self._dispatch(told)
        if reply is None:
            self._waiting[told.id] = (call, told)
            if isinstance(told, Record):
                self._world.checkers.recorded(self.host, told)
        else:
            self._heard(call, told, reply)

    def _heard(self, call: InFlight | None, told: Settle | Record | Release, reply: Reply) -> None:
        if isinstance(reply, Recorded):
            self._acknowledged(call, told, reply)
            return
        assert isinstance(reply, ErrorReply), reply
        self._world.chronicle.numbers[f"error {reply.error.code}"] += 1
        if isinstance(told, Release):
            return  # nothing is held any more: a crash forgot the call, or its life was over
        if isinstance(told, Record):
            if reply.retry:
                self._serial += 1
                self._again(Record(id=self._serial, event=told.event, call=told.call, amounts=told.amounts))
            return
        assert call is not None
        if reply.error.code in ("reservation_ended", "reservation_conflict"):
            self._world.chronicle.breach("every call can be settled", f"{told}: {reply.error}")
            return
        self._later(call, 0.5 + self._dice.random())

    def _again(self, record: Record) -> None:
        """Said again when the host can be asked again; the same words under the same id."""
        self._world.nursery.start_soon(self._again_later, record)

    async def _again_later(self, record: Record) -> None:
        while True:
            await trio.sleep(0.5 + self._dice.random())
            if self.host.serves:
                self._tell(None, record)
                return

    def _acknowledged(self, call: InFlight | None, told: Settle | Record | Release, reply: Recorded) -> None:
        checkers = self._world.checkers
        if isinstance(told, Release):
            return
        if reply.amounts.get(TOKENS) != told.amounts[TOKENS]:
            self._world.chronicle.breach("what is acknowledged is what was said", f"{told}: {reply}")
        customer = told.call.customer if isinstance(told, Record) else call.ask.customer if call else ""
        checkers.acknowledged(customer, told)
        if call is None:
            return
        if call.course is Course.OVER:
            self._world.provider.afterwards[customer, TOKENS] += max(0, call.says[0] - call.held)
        if len(call.says) > 1:
            call.says.pop(0)
            self._later(call, self._dice.random() * 3)
        elif call.attempts < 4 and self._dice.random() < 0.06:
            self._world.chronicle.numbers["callers repeated themselves"] += 1
            self._later(call, self._dice.random() * 20)  # says it again, in the same words

    def _cut_off(self) -> None:
        """The agent has died: whoever waited for a decision goes away, whoever had something to say says it again."""
        for request, _, call in self._parked.values():
            if isinstance(request, Extend) and call is not None:
                self._later(call, 1.0)  # the stream goes on at the provider, and will be settled
        self._parked.clear()
        for call, told in self._waiting.values():
            if call is not None and not isinstance(told, Release):
                self._later(call, 1.0 + self._dice.random())
            elif isinstance(told, Record):
                self._serial += 1
                self._again(Record(id=self._serial, event=told.event, call=told.call, amounts=told.amounts))
        self._waiting.clear()
