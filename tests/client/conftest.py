"""A small agent that speaks the wire through `protocol/` and misbehaves as a script says."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

import allotment
from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.decisions import Code, Decision, LimitState, Reservation, Verdict
from protocol.framing import FrameReader, frame
from protocol.local_messages import (
    Check,
    ErrorReply,
    Extend,
    Problem,
    Record,
    Recorded,
    Release,
    Reply,
    Request,
    Reserve,
    Settle,
    Status,
    StatusReport,
    Usage,
    UsageReport,
)
from protocol.units import normalise
from protocol.violations import Violation

# Properties are judged by what they find, not by how busy the machine is.

decode = MsgpackDecoder(Request)


class Ledger:
    """What this agent remembers: enough to tell whether something happened once, twice or never."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, int]] = {}
        self.events: dict[str, Settle | Record] = {}
        self.released: set[str] = set()
        self.duplicates = 0

    def reply(self, request: Request) -> Reply:
        match request:
            case Check(call=call):
                return decision(call.customer, call.feature)
            case Reserve():
                return self._reserve(request)
            case Extend(reservation=name) if name in self.held:
                self.held[name] = dict(request.amounts)
                return decision("acme", "chat", Reservation(name, request.ttl_ms, self.held[name]))
            case Settle():
                return self._settle(request)
            case Release(reservation=name) if name in self.held or name in self.released:
                self.held.pop(name, None)
                self.released.add(name)
                return Recorded()
            case Record(event=event):
                return self._enter(event, request)
            case Usage():
                return UsageReport(
                    customer=request.customer, plan="pro@3", status="active", policy_version=7, staleness_ms=12,
                    features={"chat": True, "seats": 5}, limits=(LimitState("tokens", "input_tokens", "day", True),),
                )  # fmt: skip
            case Status():
                return StatusReport(
                    agent="a1", version="0.1.0", journal="j1", boot=1, state="ready", uptime_ms=5, control_plane={},
                    customers=1, leases=0, reservations=len(self.held), outbox_events=0, oldest_unsent_ms=0,
                    connections=1, counters={},
                )  # fmt: skip
        return ErrorReply(error=Problem("reservation_not_found", "no such reservation is held here", "reservation"))

    def _reserve(self, request: Reserve) -> Reply:
        if request.reservation in self.events or request.reservation in self.released:
            return ErrorReply(error=Problem("reservation_ended", "it has ended", "reservation"))
        answer = decision(request.call.customer, request.call.feature)
        if answer.has_access:
            self.held[request.reservation] = dict(request.amounts)
            return replace(answer, reservation=Reservation(request.reservation, request.ttl_ms, dict(request.amounts)))
        return answer

    def _settle(self, request: Settle) -> Reply:
        if request.reservation not in self.held and request.reservation not in self.events and request.call is None:
            return ErrorReply(error=Problem("reservation_not_found", "no such reservation", "reservation"))
        return self._enter(request.reservation, request)

    def _enter(self, event: str, request: Settle | Record) -> Reply:
        amounts = normalise(request.amounts, request.tokens)
        self.held.pop(event, None)
        duplicate = event in self.events
        self.duplicates += duplicate
        self.events.setdefault(event, request)
        return Recorded(event=event, amounts=amounts, duplicate=duplicate)


def decision(customer: str, feature: str, reservation: Reservation | None = None) -> Decision:
    verdict, code = {
        "broke": (Verdict.BLOCK, Code.USAGE_LIMIT_REACHED),
        "busy": (Verdict.THROTTLE, Code.RATE_LIMITED),
    }.get(customer, (Verdict.ALLOW, Code.OK))
    return Decision(
        decision=verdict, has_access=verdict is Verdict.ALLOW, code=code, message=f"{customer}: {code}",
        feature=feature, retry_after_ms=250 if verdict is Verdict.THROTTLE else None, reservation=reservation,
        breakdown=(LimitState("tokens", "input_tokens", "day", verdict is Verdict.ALLOW, amount=9, remaining=4),),
    )  # fmt: skip


class StandIn:
    """Accepts connections in threads. ``script`` holds one word for each coming request; without one it answers.

    ``drop``: hang up without doing anything. ``deaf``: do it, hang up without an answer. ``cut``: do it, answer half,
    hang up. ``drip``: answer byte by byte. ``hold``: do it, answer after ``let_go()``. ``park``: do and answer it
    after ``let_go()``. ``silent``: do it, never answer. ``retry``: ask for it once more. ``garbage``: answer nonsense.
    ``newer``: answer with fields of tomorrow. ``zero``: refuse it without knowing its id.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = Ledger()
        self.script: deque[str] = deque()
        self.seen: list[Request] = []
        self.accepted = 0
        self._changed = threading.Condition()
        self._later: list[Callable[[], None]] = []
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        self._accepting = self._run(self._accept, self._listener)

    def stop(self) -> None:
        """Like a killed agent: the socket file stays, all connections die."""
        _hang_up(self._listener)
        self._accepting.join(5)  # from here on nobody is let in any more
        for door in self._open:
            _hang_up(door)
        for thread in self._threads:
            thread.join(5)
        for door in (self._listener, *self._open):
            door.close()
        self._threads.clear()
        self._open.clear()

    def restart(self) -> None:
        self.stop()
        self.start()

    def let_go(self) -> None:
        with self._changed:
            later, self._later = self._later, []
        for act in later:
            act()

    @contextlib.contextmanager
    def asleep(self) -> Iterator[None]:
        """Read nothing for a while, like a stopped process."""
        with self._changed:
            yield

    def wait_until(self, happened: Callable[[], bool], within_s: float = 5.0) -> None:
        with self._changed:
            assert self._changed.wait_for(happened, within_s), f"did not happen; seen: {self.seen}"

    @property
    def ops(self) -> list[str]:
        return [type(request).__name__.lower() for request in self.seen]

    def _run(self, act: Callable[[socket.socket], None], door: socket.socket) -> threading.Thread:
        thread = threading.Thread(target=act, args=(door,), daemon=True)
        thread.start()
        return thread

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                door, _ = listener.accept()
            except OSError:
                return
            with self._changed:
                self.accepted += 1
                self._open.append(door)
                self._changed.notify_all()
            self._threads.append(self._run(self._serve, door))

    def _serve(self, door: socket.socket) -> None:
        reader = FrameReader()
        with contextlib.suppress(OSError):
            while chunk := door.recv(65536):
                for body in reader.feed(chunk):
                    if not self._one(door, body):
                        door.shutdown(socket.SHUT_RDWR)
                        return

    def _one(self, door: socket.socket, body: bytes) -> bool:
        try:
            request = decode(body)
        except Violation as wrong:
            problem = Problem(wrong.code, wrong.message, wrong.field or None)
            return _say(door, ErrorReply(id=_id_of(body), error=problem))
        with self._changed:
            word = self.script.popleft() if self.script else "answer"
            if word == "park":
                self._later.append(lambda: _say(door, self._done(request)))
            reply = None if word in {"drop", "park", "retry", "zero"} else self._done(request)
            if word == "hold":
                self._later.append(lambda: _say(door, reply))
            self.seen.append(request)
            self._changed.notify_all()
        return self._act(door, request, reply, word)

    def _done(self, request: Request) -> Reply:
        try:
            return replace(self.ledger.reply(request), id=request.id)
        except Violation as wrong:
            return ErrorReply(id=request.id, error=Problem(wrong.code, wrong.message, wrong.field))

    def _act(self, door: socket.socket, request: Request, reply: Reply | None, word: str) -> bool:
        data = frame(encode_msgpack(reply))
        match word:
            case "drop" | "deaf":
                return False
            case "cut":
                door.sendall(data[: len(data) // 2])
                return False
            case "drip":
                for at in range(len(data)):
                    door.sendall(data[at : at + 1])
            case "garbage":
                door.sendall(frame(b"\xc1\xc1\xc1"))
            case "huge":
                door.sendall(b"\xff\xff\xff\xff")
            case "newer":
                fields = {"tomorrow": [1]} | _as_map(reply)
                door.sendall(frame(encode_msgpack(fields)))
            case "retry":
                again = ErrorReply(id=request.id, error=Problem("not_recorded", "the disk is full"), retry=True)
                return _say(door, again)
            case "zero":
                return _say(door, ErrorReply(error=Problem("frame_invalid", "unreadable", "frame")))
            case "answer":
                door.sendall(data)
        return True


def _hang_up(door: socket.socket) -> None:
    with contextlib.suppress(OSError):
        door.shutdown(socket.SHUT_RDWR)


def _say(door: socket.socket, reply: Reply) -> bool:
    with contextlib.suppress(OSError):
        door.sendall(frame(encode_msgpack(reply)))
    return True


def _as_map(reply: Reply | None) -> dict[str, object]:
    return MsgpackDecoder(dict)(encode_msgpack(reply))


def _id_of(body: bytes) -> int:
    with contextlib.suppress(Violation):
        return int(MsgpackDecoder(dict)(body).get("id", 0))
    return 0


@pytest.fixture
def agent() -> Iterator[StandIn]:
    with tempfile.TemporaryDirectory(prefix="allotment-") as folder:  # short: the path of a socket has 107 bytes
        running = StandIn(Path(folder) / "agent.sock")
        running.start()
        yield running
        running.let_go()
        running.stop()


@pytest.fixture
def client(agent: StandIn) -> Iterator[allotment.Client]:
    with allotment.Client(str(agent.path)) as made:
        yield made
