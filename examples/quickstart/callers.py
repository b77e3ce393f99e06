"""The applications: threads that reserve, use for as long as the model would have taken, extend, and settle.

What they were told is kept: the audit holds the ledger to it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import allotment
from examples.quickstart.workload import Call

THREADS_AN_AGENT = 24
FIRST_SLICE = 256
OUTPUT_TOKEN_S = 0.02
TIMEOUT_S = 20.0


@dataclass(slots=True)
class Told:
    """What one caller was told, and when.

    Attributes:
        verdict: of the reserve. settled: what was acknowledged as recorded, by meter.
        asked_at_ms, decided_at_ms: wall clock; ``asked_at``, ``ended_at``, ``decided_s``: seconds on this process's.
        unanswered: why there is no answer, where the agent could not be reached in time.
    """

    call: Call
    reservation: str
    asked_at: float
    ended_at: float = 0.0
    asked_at_ms: int = 0
    decided_at_ms: int = 0
    verdict: str = ""
    limiting: str = ""
    decided_s: float = 0.0
    settled: dict[str, int] | None = None
    duplicate: bool = False
    cut: bool = False
    unanswered: str = ""


@dataclass
class Callers:
    """All threads of all applications, each speaking to the agent on its own host."""

    sockets: list[str]
    speed: float
    tally: Counter[str] = field(default_factory=Counter)
    told: list[Told] = field(default_factory=list)
    in_flight: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._counting = threading.Lock()
        self._queues: list[queue.SimpleQueue[Call | None]] = [queue.SimpleQueue() for _ in self.sockets]
        self._threads = [
            threading.Thread(target=self._work, args=(number,), daemon=True)
            for number in range(len(self.sockets))
            for _ in range(THREADS_AN_AGENT)
        ]
        for thread in self._threads:
            thread.start()

    def offer(self, call: Call) -> None:
        """A call has arrived at its host."""
        self._queues[call.agent].put(call)

    def finish(self) -> None:
        """Wait until every call that was offered has ended."""
        for number in range(len(self.sockets)):
            for _ in range(THREADS_AN_AGENT):
                self._queues[number].put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        with allotment.Client(self.sockets[number], timeout_s=TIMEOUT_S) as client:
            while (call := self._queues[number].get()) is not None:
                told = Told(call, f"call-{call.number}", time.perf_counter())
                try:
                    self._one(client, told)
                except allotment.AllotmentError as problem:
                    told.unanswered = str(problem)
                told.ended_at = time.perf_counter()
                self.told.append(told)
                self.tally[told.verdict or "unanswered"] += 1

    def _one(self, client: allotment.Client, told: Told) -> None:
        call = told.call
        held = min(call.output_tokens, FIRST_SLICE)
        told.asked_at_ms = time.time_ns() // 1_000_000
        decision = client.reserve(
            call.customer,
            "chat",
            reservation=told.reservation,
            user=call.user,
            model="example-1",
            amounts={"input_tokens": call.input_tokens, "output_tokens": held},
        )
        told.decided_s = time.perf_counter() - told.asked_at
        told.decided_at_ms = time.time_ns() // 1_000_000
        told.verdict, told.limiting = decision.decision, decision.limiting or ""
        if not decision.allowed:
            return
        with self._in_flight(call.agent):
            self._use_and_settle(client, told, held)

    @contextmanager
    def _in_flight(self, agent: int) -> Iterator[None]:
        with self._counting:
            self.in_flight[agent] += 1
        try:
            yield
        finally:
            with self._counting:
                self.in_flight[agent] -= 1

    def _use_and_settle(self, client: allotment.Client, told: Told, held: int) -> None:
        call = told.call
        written = self._write(client, told, held)
        recorded = client.settle(
            told.reservation,
            tokens={"input": call.input_tokens, "output": written},
            outcome="aborted" if told.cut else "complete",
            provider="example",
            call=allotment.Call(call.customer, "chat", user=call.user, model="example-1"),
        )
        told.settled, told.duplicate = dict(recorded.amounts), recorded.duplicate

    def _write(self, client: allotment.Client, told: Told, held: int) -> int:
        """The model writes: a stream that asks for its next slice before it goes on, and is cut where there is none."""
        written = 0
        while True:
            time.sleep((held - written) * OUTPUT_TOKEN_S / self.speed)
            written = held
            if written == told.call.output_tokens:
                return written
            held = min(told.call.output_tokens, held + FIRST_SLICE)
            try:
                more = client.extend(told.reservation, {"output_tokens": held})
            except allotment.ReservationNotFound:
                told.cut = (
                    True  # the agent crashed before its journal knew of this call: end it, and settle what was used
                )
                return written
            if not more.allowed:
                told.cut = True
                return written
