"""The network between hosts and the control plane: every request is a message with a fate of its own.

Each is served in a task of its own, as a real server would: a client that gives up, or dies, does not undo what the
server does. Messages are lost, answered in vain, delivered twice, late, out of order, or held up by partitions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import httpx
import trio

from tests.simulation.chronicle import Chronicle
from tests.simulation.effects import achieved, carried, in_words, operation_of
from tests.simulation.planes import Answer, Replica
from tests.simulation.rates import Rates
from tests.simulation.standstill import OWNER

LATE_S_MAX = 200.0
"""More than three terms of a lease."""
CONNECT_S = 5.0


@dataclass(eq=False)
class Line:
    """One client's way to the control plane. ``up_cut``, ``down_cut``: partitions, one way each."""

    name: str
    up_cut: bool = False
    down_cut: bool = False
    faulty: bool = True
    is_dead: Callable[[], bool] = lambda: False


@dataclass(eq=False)
class Slot:
    """Where the client waits for its answer."""

    bell: trio.Event = field(default_factory=trio.Event)
    answer: Answer | None = None
    reset: bool = False


@dataclass(frozen=True)
class Message:
    """One request on its way."""

    number: int
    line: Line
    operation: str
    method: str
    url: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    patience_s: float

    def request(self) -> httpx.Request:
        """As the server receives it."""
        return httpx.Request(self.method, self.url, headers=self.headers, content=self.body)


@dataclass(frozen=True)
class Fate:
    """What becomes of a message."""

    there_s: float
    back_s: float
    lost: bool = False
    unanswered: bool = False
    again_s: float | None = None
    at_once: bool = False


class Network:
    """All lines.

    Attributes:
        calm: no faults any more.
        twice: called around the second of two deliveries at once, to compare the database before and after.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        replicas: Sequence[Replica],
        rates: Rates,
        dice: random.Random,
        chronicle: Chronicle,
    ) -> None:
        self._nursery = nursery
        self._replicas = replicas
        self._rates = rates
        self._dice = dice
        self._chronicle = chronicle
        self._number = 0
        self.calm = False
        self.under_way = 0
        self.state_of_books: Callable[[], object] = lambda: None
        self.foreign_commits: Callable[[str], int] = lambda _: 0

    async def send(self, line: Line, request: httpx.Request) -> httpx.Response:
        """The client's side: send, wait as long as the client is willing to, and take the answer if one comes."""
        self._number += 1
        operation = operation_of(request.url.path)
        body = await request.aread()
        patience_s = (request.extensions.get("timeout") or {}).get("read") or 30.0
        message = Message(
            self._number,
            line,
            operation,
            request.method,
            str(request.url),
            list(request.headers.raw),
            body,
            patience_s,
        )
        if line.is_dead():
            await trio.sleep_forever()
        fate = self._fate(line)
        slot = Slot()
        if line.up_cut:
            self._hit("partition: requests lost", message)
            await trio.sleep(CONNECT_S)
            raise httpx.ConnectTimeout("partitioned")
        if fate.lost:
            self._hit("request dropped", message)
        else:
            self._start(self._deliver, message, fate, slot)
        with trio.move_on_after(patience_s):
            await slot.bell.wait()
        if slot.reset:
            raise httpx.ReadError("the connection was reset")
        if slot.answer is None:
            raise httpx.ReadTimeout("no answer")
        return httpx.Response(slot.answer.status, headers=slot.answer.headers, content=slot.answer.body)

    def _start(self, run: Callable[..., object], *arguments: object) -> None:
        before = OWNER.set(None)  # the server is another machine than the one that asks
        try:
            self._nursery.start_soon(run, *arguments)  # type: ignore[arg-type]
        finally:
            OWNER.reset(before)

    async def _deliver(self, message: Message, fate: Fate, slot: Slot) -> None:
        self.under_way += 1
        try:
            await trio.sleep(fate.there_s)
            if fate.there_s > message.patience_s:
                self._hit("request delayed beyond patience", message)
            answer = await self._serve(message)
            if answer is not None and fate.at_once:
                await self._at_once_again(message, answer)
            if fate.again_s is not None:
                self._start(self._again, message, fate.again_s, answer)
            if answer is None:
                await trio.sleep(fate.back_s)
                slot.reset = True
                slot.bell.set()
                return
            await trio.sleep(fate.back_s)
            if message.line.down_cut:
                self._hit_answer("partition: answers lost", message, answer)
                return
            if fate.unanswered:
                self._hit_answer("response dropped", message, answer)
                return
            slot.answer = answer
            slot.bell.set()
        finally:
            self.under_way -= 1

    async def _again(self, message: Message, after_s: float, first: Answer | None) -> None:
        """A duplicate, perhaps long after anybody remembers the message."""
        self.under_way += 1
        try:
            await trio.sleep(after_s)
            fault = "duplicate" if after_s < 10 else "late duplicate" if after_s < 60 else "very late duplicate"
            if first is not None:
                self._hit_answer(fault, message, first)
            await self._serve(message)
        finally:
            self.under_way -= 1

    async def _at_once_again(self, message: Message, first: Answer) -> None:
        """Said twice, the second time changes nothing."""
        if message.operation != "sync" or first.status != 200:
            return
        before = self.state_of_books()
        doing = f"{message.operation} {message.number}"
        foreign = self.foreign_commits(doing)
        await self._serve(message)
        if self.foreign_commits(doing) != foreign:
            return  # somebody else changed something meanwhile
        self._hit_answer("duplicate at once", message, first)
        after = self.state_of_books()
        if before != after:
            self._chronicle.breach("idempotence", f"message {message.number} said twice: {before} became {after}")

    async def _serve(self, message: Message) -> Answer | None:
        up = [replica for replica in self._replicas if replica.up]
        if not up:
            self._chronicle.happened("control plane down", message.operation)
            return None
        replica = up[0] if len(up) == 1 else up[int(self._dice.random() * len(up))]
        answer = await replica.serve(message.request(), f"{message.operation} {message.number}")
        said = "dies" if answer is None else f"{answer.status} {len(answer.body)} {crc32(answer.body):08x}"
        self._chronicle.note(
            f"{message.line.name} {message.operation} {message.number} {crc32(message.body):08x}"
            f" -> {replica.name} {said}"
        )
        self._chronicle.numbers[f"{message.operation}s served"] += 1
        if self._chronicle.wordy and answer is not None:
            self._chronicle.aside(in_words(message.operation, message.body, answer))
        if answer is not None and answer.status >= 500 and answer.status != 503:
            self._chronicle.breach("no internal error", f"{message.operation}: {answer.status} {answer.body[:500]!r}")
        return answer

    def _fate(self, line: Line) -> Fate:
        dice, rates = self._dice, self._rates
        there_s, back_s = dice.expovariate(1 / rates.latency_s), dice.expovariate(1 / rates.latency_s)
        if self.calm or not line.faulty:
            return Fate(there_s, back_s)
        if dice.random() < rates.delayed:
            there_s += dice.uniform(0, LATE_S_MAX) if dice.random() < 0.3 else dice.uniform(0.1, 10)
        if dice.random() < rates.delayed:
            back_s += dice.uniform(0.1, 10)
        again_s = None
        if dice.random() < rates.duplicated:
            again_s = dice.uniform(0, LATE_S_MAX) if dice.random() < 0.4 else dice.expovariate(2)
        return Fate(
            there_s,
            back_s,
            lost=dice.random() < rates.lost,
            unanswered=dice.random() < rates.unanswered,
            again_s=again_s,
            at_once=dice.random() < rates.at_once,
        )

    def _hit(self, fault: str, message: Message) -> None:
        self._chronicle.note(f"{message.line.name} {message.operation} {message.number} {fault}")
        for what in carried(message.operation, message.body):
            self._chronicle.happened(fault, what)

    def _hit_answer(self, fault: str, message: Message, answer: Answer) -> None:
        self._chronicle.note(f"{message.line.name} {message.operation} {message.number} {fault}")
        for what in achieved(message.operation, message.body, answer):
            self._chronicle.happened(fault, what)


class SimNet(httpx.AsyncBaseTransport):
    """A client's transport: its line into the network."""

    def __init__(self, network: Network, line: Line) -> None:
        self._network = network
        self._line = line

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it, and wait."""
        return await self._network.send(self._line, request)
