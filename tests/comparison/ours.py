"""Our policy: the product's agents, one a host, and a lender that sizes and recalls with the product's functions.

The agents are the real thing - books, dispatch, reserve, extend, settle, the composing and adopting of syncs - without
doors, disk and sockets: a commit takes ``DISK_MS``, an exchange a round trip.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.api.dispatch import Dispatch
from agent.background.sync import GAP_S
from agent.background.tick import SHORT_S
from agent.background.watch import take_note
from agent.background.write_events import JOURNALED_AGE_MS, LINGER_S
from agent.core.books import Books
from agent.core.demand import brings_back
from agent.core.pace import Pace
from agent.core.pending import applied
from agent.operations.adopt_sync import adopt_sync
from agent.operations.compose_sync import compose_sync
from agent.operations.give_back import give_back
from agent.operations.park import try_again, try_due, try_next
from protocol import local_messages as local
from protocol.decisions import Decision, Verdict
from protocol.local_messages import Reply, StatusReport
from protocol.uplink_messages import WATCH_WAIT_MS_MAX, SyncReply, SyncRequest, WatchReply
from tests.comparison.callers import MORE_PATIENCE_MS, PATIENCE_MS, SLICE, Answer
from tests.comparison.clock import Clock
from tests.comparison.lender import CUSTOMER, METER, Lender
from tests.comparison.workload import Call

DISK_MS = 2
LINGER_MS = round(LINGER_S * 1_000)
GAP_MS = round(GAP_S * 1_000)
SHORT_MS = round(SHORT_S * 1_000)
SECOND_MS = 1_000
FEED_MS = 5
"""From a commit in the control plane to the answer of the watches that it concerns."""

_CALL = local.Call(CUSTOMER, "chat")


class Ours:
    """The fleet."""

    slice: int | None = SLICE
    idle_a_minute = 60_000 / WATCH_WAIT_MS_MAX

    def __init__(self, clock: Clock, _hosts: int, allowance: int, round_trip_ms: int) -> None:
        self.clock = clock
        self.up_ms = round_trip_ms // 2
        self.down_ms = round_trip_ms - self.up_ms
        self.messages = 0
        self.lender = Lender(allowance, self._news)
        self._hosts: dict[int, Host] = {}

    def host(self, number: int) -> Host:
        """The agent of a host; it starts with its first call."""
        found = self._hosts.get(number)
        if found is None:
            found = self._hosts[number] = Host(self, number)
        return found

    def reserve(self, call: Call, amount: int, answer: Answer) -> None:
        """See :class:`tests.comparison.callers.Policy`."""
        request = local.Reserve(
            id=call.number, reservation=str(call.number), call=_CALL, amounts={METER: amount}, deadline_ms=PATIENCE_MS
        )
        self.host(call.host).ask(request, answer)

    def extend(self, call: Call, more: int, answer: Answer) -> None:
        """See :class:`tests.comparison.callers.Policy`."""
        total = call.input + call.held + more
        request = local.Extend(
            id=call.number, reservation=str(call.number), amounts={METER: total}, deadline_ms=MORE_PATIENCE_MS
        )
        self.host(call.host).ask(request, answer)

    def settle(self, call: Call, _held: int) -> None:
        """See :class:`tests.comparison.callers.Policy`."""
        request = local.Settle(id=call.number, reservation=str(call.number), amounts={METER: call.cost})
        self.host(call.host).ask(request, _heed_not)

    def stop(self, host: int, done: Callable[[], None]) -> None:
        """See :class:`tests.comparison.callers.Policy`."""
        self.host(host).stop(done)

    def kill(self, host: int) -> None:
        """See :class:`tests.comparison.callers.Policy`."""
        if host in self._hosts:
            self._hosts[host].gone = True

    def stranded(self, host: int) -> int:
        """See :class:`tests.comparison.callers.Policy`."""
        held = self._hosts.get(host)
        return sum(lease.free for lease in held.books.leases.values()) if held else 0

    def _news(self, agent: str | None, *, recall: bool = False) -> None:
        """The control plane has committed a change: for one agent, or for all."""
        hosts = [self._hosts[int(agent)]] if agent is not None else list(self._hosts.values())
        for host in hosts:
            host.hear_of(recall)


def _heed_not(_: bool) -> None:
    """Nobody waits for this answer."""


class Host:
    """One agent with its journal's writer, its exchange with the control plane, its hanging watch and its tick."""

    def __init__(self, fleet: Ours, number: int) -> None:
        self.fleet = fleet
        self.clock = fleet.clock
        self.name = str(number)
        self.gone = False
        self.books = Books(self.name, f"j{number}", 1, f"n{number}")
        self.books.wake_sync, self.books.wake_writer = self._wake_sync, self._wake_writer
        self._dispatch = Dispatch(self.books, self.clock, _no_status)
        self._answers: dict[int, Answer] = {}
        self._writing = self._watching = self._ticking = self._due = False
        self._snapshot = True
        self._missed: set[bool] = set()
        self._speaks_at_ms: int | None = None
        self._pace = Pace()
        self._stopped: Callable[[], None] | None = None

    def ask(self, request: local.Request, answer: Answer) -> None:
        """A caller's request, through the agent's dispatch."""
        reply = self._dispatch(request, self)
        if reply is not None:
            self._answer(reply, answer)
        elif not isinstance(request, local.Settle):
            self._answers[request.id] = answer
            self._look_soon()

    def late(self, request_id: int, reply: Reply) -> None:
        """As a door: the answer to a request that waited."""
        answer = self._answers.pop(request_id, None)
        if answer is not None and not self.gone:
            self._answer(reply, answer)

    @staticmethod
    def _answer(reply: Reply, answer: Answer) -> None:
        if isinstance(reply, local.ErrorReply):
            assert reply.error.code == "draining", reply
            return  # it settles with the next start, which is not shown here
        answer(isinstance(reply, Decision) and reply.decision is Verdict.ALLOW)

    def stop(self, done: Callable[[], None]) -> None:
        """As on SIGTERM: everything that no call holds goes home."""
        self._stopped = done
        self.books.draining = True
        give_back(self.books, self.clock.now_ms, everything=True)
        self._wake_writer()
        self._wake_sync()

    # The journal.

    def _wake_writer(self) -> None:
        if not self._writing:
            self._writing = True
            self.clock.after(DISK_MS if self.books.pending.urgent else LINGER_MS, self._commit)

    def _commit(self) -> None:
        self._writing = False
        books = self.books
        if self.gone:
            return
        waiting, books.waiting_for_disk = books.waiting_for_disk, set()
        group = books.gather(self.clock.now_ms - JOURNALED_AGE_MS)
        applied(group)
        for pending in group.events:
            for tell in pending.waiters:
                tell(True)
            pending.waiters = []
        for tell in group.waiters:
            tell(True)
        books.unreported = books.unreported or bool(group.events)
        books.news = books.news or any(brings_back(row.lease) for row in group.rows)
        try_again(books, waiting)
        try_next(books, group.freed - waiting)
        if books.pending.urgent:
            self._wake_writer()
        self._speak_soon()

    # The exchange.

    def _wake_sync(self) -> None:
        if not self.books.exchanging:
            self.books.exchanging = True
            self.clock.after(0, self._say)

    def _speak_soon(self) -> None:
        """What returns something is said soon, mere news at its pace; an exchange under way is waited for."""
        if self.books.exchanging:
            return
        now_ms = self.clock.now_ms
        if self.books.news:
            due_ms = now_ms + GAP_MS
        elif self.books.unreported:
            due_ms = self._pace.due_at_ms(now_ms)
        else:
            return
        if self._speaks_at_ms is None or due_ms < self._speaks_at_ms:
            self._speaks_at_ms = due_ms
            self.clock.after(due_ms - now_ms, self._speak, due_ms)

    def _speak(self, due_ms: int) -> None:
        if due_ms == self._speaks_at_ms:
            self._wake_sync()

    def _say(self) -> None:
        if self.gone:
            return
        books = self.books
        books.news = books.unreported = False
        self._speaks_at_ms = None
        self._pace.said(self.clock.now_ms)
        asked_at_ms = self.clock.now_ms
        request = compose_sync(books, (), asked_at_ms, snapshot=self._snapshot, stopping=books.draining)
        books.look_again -= {named.customer for named in request.customers}
        books.report_all = False
        self.fleet.messages += 1
        self.clock.after(self.fleet.up_ms, self._heard, request, asked_at_ms)

    def _heard(self, request: SyncRequest, asked_at_ms: int) -> None:
        reply = self.fleet.lender.answer(self.name, request, self.clock.now_ms)
        if self._stopped is not None and not books_hold_free(self.books):
            self._stopped()
            self._stopped = None
        self.clock.after(self.fleet.down_ms, self._adopt, request, reply, asked_at_ms)

    def _adopt(self, request: SyncRequest, reply: SyncReply, asked_at_ms: int) -> None:
        if self.gone:
            return
        books = self.books
        if self._snapshot:
            self._snapshot = False
            self._watch()
        books.exchanging = False
        adopt_sync(books, request, reply, asked_at_ms, self.clock.now_ms)
        if books.asking or books.look_again or books.report_all:
            self._wake_sync()
        else:
            self._speak_soon()
        self._tick_on()

    # The watch.

    def _watch(self) -> None:
        """The hanging request has reached the control plane."""
        if self.gone:
            return
        self._watching = True
        if self._missed:
            self._tell_watch()

    def hear_of(self, recall: bool) -> None:
        """A change that concerns this agent was committed."""
        self._missed.add(recall)
        if self._watching:
            self._watching = False
            self.clock.after(FEED_MS, self._tell_watch)

    def _tell_watch(self) -> None:
        self._watching = False
        missed, self._missed = self._missed, set()
        self.fleet.messages += 1
        self.clock.after(
            self.fleet.down_ms, self._notice, WatchReply(1, (), True in missed, (CUSTOMER,) * (False in missed))
        )

    def _notice(self, reply: WatchReply) -> None:
        if self.gone:
            return
        if take_note(self.books, reply, self.clock.now_ms, self.clock.now_ms):
            self._wake_sync()
        self.clock.after(self.fleet.up_ms, self._watch)

    # The tick.

    def _look_soon(self) -> None:
        if not self._due:
            self._due = True
            self.clock.after(SHORT_MS, self._look)

    def _look(self) -> None:
        self._due = False
        if self.gone or not self.books.parked:
            return
        try_due(self.books, self.clock.now_ms)
        if self.books.parked:
            self._look_soon()

    def _tick_on(self) -> None:
        if not self._ticking and self.books.leases:
            self._ticking = True
            self.clock.after(SECOND_MS, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        if self.gone:
            return
        give_back(self.books, self.clock.now_ms, everything=self.books.draining)
        self._speak_soon()
        self._tick_on()


def books_hold_free(books: Books) -> bool:
    """Whether something lies here that no call needs."""
    return any(lease.durable_cap > lease.used for lease in books.leases.values())


def _no_status() -> StatusReport:
    raise AssertionError("nobody asks")
