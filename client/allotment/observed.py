"""A model call as its agent is told of it: what is asked before, fed meanwhile, and said at the end. No I/O.

A talk is a generator: it gives what is to be asked, and is sent the answers; so threads and event loops share it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple, TypeVar

from allotment import requests
from allotment.answers import Answer, Decision, Recorded, Taken
from allotment.attempts import CLOSING_TIMEOUT_S
from allotment.errors import AgentError, AllotmentError, Refused, ReservationNotFound
from allotment.problems import problem_of
from allotment.requests import Call, Request
from allotment.server_events import ServerEvents, last_words

PIECE_BYTES = 192 * 1024
"""How much of a body one frame carries."""

BODY_BYTES_MAX = 64 * 1024 * 1024
"""A longer request is not shown to the agent; every byte of it then counts as text."""

KEPT_BYTES_MAX = 256 * 1024
"""How much of an answer is kept, for an agent that is started anew meanwhile."""

FIRST_BYTES = 512
WHOLE_BYTES = 64 * 1024
"""How much of a stream, and of an answer that comes whole, is gathered before the agent is fed for the first time."""

BEGINNINGS_MAX = 4
"""How often a call is begun again, when its agent has forgotten it."""

_HEADERS = (
    "content-encoding", "x-amzn-bedrock-", "cache-status", "cf-aig-cache-status", "x-portkey-cache-status",
    "helicone-cache",
)  # fmt: skip
"""Beginnings of the names of headers that say how an answer is to be read, and whether it cost anything."""

log = logging.getLogger("allotment")

A = TypeVar("A", bound=Answer)
T = TypeVar("T")


class Ask(NamedTuple):
    """One thing to be asked; ``timeout_s``: ``None`` for the usual time."""

    request: Request
    kind: type[Any]
    timeout_s: float | None = None


Talk = Generator[Ask, Any, T]


class Sent(NamedTuple):
    """What is sent to the provider.

    Attributes:
        family: whose SDK sends it: ``openai``, ``anthropic`` or ``gemini``.
        body: ``None`` if it is not shown to the agent. size: of it, in bytes.
        hides_usage: the provider was asked what a stream used, and the application did not ask.
        fetches: nothing is asked for that costs anything, but what it gives may tell what was used before.
    """

    family: str
    provider: str
    path: str
    content_type: str
    body: bytes | None
    size: int
    estimate: str
    hides_usage: bool
    fetches: bool


class ObservedCall:
    """One call, from before it is sent to its end.

    Attributes:
        over: it has ended, and that was said.
    """

    def __init__(self, call: Call, sent: Sent) -> None:
        self.reservation = requests.new_id()
        self.over = False
        self._call = call
        self._sent = sent
        self._status: int | None = None
        self._headers: dict[str, str] = {}
        self._events: ServerEvents | None = None
        self._streams = False
        self._fed = 0
        self._kept: bytearray | None = bytearray()
        self._unfed = bytearray()
        self._due = WHOLE_BYTES

    def begin(self, *, sent: bool = False) -> Talk[Decision]:
        """May it be sent? ``sent``: it is, and the agent does not know of it."""
        for _ in range(BEGINNINGS_MAX):
            try:
                *pieces, last = self._beginning(sent)
                for piece in pieces:
                    yield Ask(piece, Taken)
                decision: Decision = yield Ask(last, Decision)
                return decision
            except ReservationNotFound as error:  # it had to forget the pieces that it had
                lost = error
        raise lost

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Its answer begins; names of headers in lower case."""
        self._status = status
        self._headers = {name: value for name, value in headers.items() if name.startswith(_HEADERS)}
        kind = headers.get("content-type", "")
        if kind.startswith("text/event-stream"):
            self._events = ServerEvents(hides_usage=self._sent.hides_usage)
        self._streams = self._events is not None or "eventstream" in kind
        self._due = FIRST_BYTES if self._streams else WHOLE_BYTES

    @property
    def may_fail(self) -> bool:
        """Whether the request may be sent although its agent is not there: it costs nothing."""
        return self._sent.fetches

    @property
    def is_rewritten(self) -> bool:
        """Whether the answer may become shorter on its way to the application."""
        return self._events is not None

    def feed(self, chunk: bytes) -> Talk[tuple[bytes, bool]]:
        """More of its answer; what the application may have of it, and whether that is the end.

        Raises: Refused, AllotmentError: it may use no more, and there is no way to say so in the stream.
        """
        self._unfed += chunk
        if len(self._unfed) >= self._due:
            cut = None
            try:
                cut = yield from self._feed_all()
            except AllotmentError as problem:
                if self._streams:  # without its agent nothing may be used beyond what is held
                    return self._cut(problem), True
                self._due = BODY_BYTES_MAX  # it is all there already: its end tells the rest
            if cut is not None:
                return self._cut(Refused(cut)), True
        return chunk if self._events is None else self._events.feed(chunk), False

    def rest(self) -> bytes:
        """The answer has come to its end: what the application has not had of it."""
        return b"" if self._events is None else self._events.close()

    def end(self, *, whole: bool, sent: bool = True, hurried: bool = False) -> Talk[None]:
        """It has ended. Failures are logged: the agent ends a call by itself that nobody ends.

        Args:
            whole: its answer came to its end. sent: the provider may have got it.
            hurried: an exception or a cancellation waits.
        """
        if self.over:
            return
        timeout_s = CLOSING_TIMEOUT_S if hurried else None
        try:
            while len(self._unfed) > PIECE_BYTES:
                yield from self._feed_piece(timeout_s)
            yield from self._say(lambda: self._ending(whole, sent), Recorded, timeout_s, again=sent)
        except AllotmentError as problem:
            if sent or not isinstance(problem, ReservationNotFound):
                log.warning("allotment: model call %s could not be ended: %s", self.reservation, problem)
        self.over = True

    def _beginning(self, sent: bool) -> list[Request]:
        told = self._sent
        about: dict[str, Any] = {"provider": told.provider, "path": told.path}
        if told.content_type != "application/json":
            about["content_type"] = told.content_type
        if told.size:
            about["size"] = told.size
        if told.fetches:
            about["method"] = "GET"
        if told.estimate != "slices":
            about["estimate"] = told.estimate
        if sent:
            about["sent"] = True
        body = told.body or b""
        return [
            requests.begin(self._call, self.reservation, about, body[at : at + PIECE_BYTES], at)
            for at in range(0, max(1, len(body)), PIECE_BYTES)
        ]

    def _ending(self, whole: bool, sent: bool) -> Request:
        return requests.end(self.reservation, self._status, self._bytes(self._fed, self._unfed), whole=whole, sent=sent)

    def _feed_all(self) -> Talk[Decision | None]:
        while self._unfed:
            taken = yield from self._feed_piece(None)
            if taken.cut is not None:
                return taken.cut
        return None

    def _feed_piece(self, timeout_s: float | None) -> Talk[Taken]:
        piece = bytes(self._unfed[:PIECE_BYTES])
        taken = yield from self._say(
            lambda: requests.feed(self.reservation, self._bytes(self._fed, piece)), Taken, timeout_s
        )
        self._fed += len(piece)
        self._due = taken.bytes
        del self._unfed[: len(piece)]
        if self._kept is not None:
            self._kept += piece
            if len(self._kept) > KEPT_BYTES_MAX:
                self._kept = None
        return taken

    def _bytes(self, offset: int, body: bytes | bytearray) -> dict[str, Any]:
        said: dict[str, Any] = {}
        if body:
            said["body"] = bytes(body)
        if offset:
            said["offset"] = offset
        elif self._headers:
            said["headers"] = self._headers
        return said

    def _say(
        self, make: Callable[[], Request], kind: type[A], timeout_s: float | None, *, again: bool = True
    ) -> Talk[A]:
        """Ask; of an agent that does not know the call, after it has been told."""
        for _ in range(BEGINNINGS_MAX):
            try:
                answer: A = yield Ask(make(), kind, timeout_s)
                return answer
            except ReservationNotFound as error:
                if not again:
                    raise
                lost = error
                yield from self._tell_again()
        raise lost

    def _tell_again(self) -> Talk[None]:
        try:
            yield from self.begin(sent=True)
        except ReservationNotFound:
            raise
        except AgentError:
            pass  # whatever it says of the reservation, it knows the call now
        kept = self._kept or b""
        for at in range(0, len(kept), PIECE_BYTES):
            yield Ask(requests.feed(self.reservation, self._bytes(at, kept[at : at + PIECE_BYTES])), Taken)

    def _cut(self, why: AllotmentError) -> bytes:
        if self._events is None:
            raise why
        said = problem_of(why)
        return self._events.cut(last_words(self._sent.family, said.status, said.body["code"], said.body["detail"]))
