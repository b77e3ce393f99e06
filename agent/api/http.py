"""The door for curl and proxies: the same operations as JSON over HTTP/1.1, kept alive and pipelined, bounded.

Replies leave in the order of their requests, as HTTP/1.1 wants it, however long one of them waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import httptools
import msgspec

from agent.api.authz import Authz
from agent.api.dispatch import Dispatch
from agent.api.exposition import CONTENT_TYPE
from agent.api.problems import probe, response, text
from agent.api.routes import ANSWER, AUTHZ, METRICS, PROBES, ROUTES, Asked, request_of, require_method
from agent.core.problem_details import JSON, Headers
from protocol.local_messages import ErrorReply, Problem, Reply
from protocol.violations import Violation

BODY_BYTES_MAX = 256 * 1024
HEAD_BYTES_MAX = 16 * 1024
PIPELINED_MAX = 256
LOCAL_HOSTS = (b"localhost", b"127.0.0.1", b"[::1]")

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BODY_TOO_LARGE = f"the body is larger than {BODY_BYTES_MAX} bytes"
HEAD_TOO_LARGE = f"the request line and headers are larger than {HEAD_BYTES_MAX} bytes"

BUSY = response(
    ErrorReply(error=Problem("overloaded", "this agent serves too many connections"), retry=True), close=True
)
"""What a connection beyond the bound is told before it is closed."""


class HttpDoor:
    """One connection's side of the conversation. Bytes in, bytes out; no socket in sight.

    Args:
        guarded: the door is a TCP port that web pages can reach: insist on JSON and on a local name of the host.
        ready: whether the agent can decide.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        authz: Authz,
        ready: Callable[[], bool],
        send_later: Callable[[bytes], None],
        *,
        guarded: bool,
    ) -> None:
        self._dispatch = dispatch
        self._authz = authz
        self._ready = ready
        self._send_later = send_later
        self._guarded = guarded
        self._parser = httptools.HttpRequestParser(self)
        self._answers: deque[bytes | int] = deque()  # an int is the number of a request that still waits
        self._heads: set[int] = set()  # of those, whose answers have no bodies
        self._done: list[bytes] = []
        self._begin()
        self._seen = 0
        self._silent_bytes = 0
        self.heard = 0
        self.partial = False
        self._ending = False
        self.gone = False

    def _begin(self) -> None:
        self._url = b""
        self._host = b""
        self._content_type = b""
        self._headers: Headers = []
        self._head_is_whole = False
        self._body_said = 0
        self._expects = False
        self._head_bytes = 0
        self._body = bytearray()

    @property
    def finished(self) -> bool:
        """Whether the connection ends once what is ready has been sent."""
        return self._ending and not self._answers

    @property
    def held_bytes(self) -> int:
        """How much of an unfinished request is kept, and of answers behind one that still waits."""
        ready = sum(len(answer) for answer in self._answers if isinstance(answer, bytes))
        return len(self._body) + self._silent_bytes + ready

    def feed(self, chunk: bytes) -> bytes:
        """Take what arrived; give back the responses that are ready, in order."""
        if self._ending:
            return self._ready_answers()
        seen = self._seen
        try:
            self._parser.feed_data(chunk)
        except httptools.HttpParserUpgrade:
            self._ending = True  # the request has been answered as if it had not asked for another protocol
        except httptools.HttpParserError as error:
            if not self._ending:
                self._fail("invalid_request", f"this is not HTTP/1.1: {error}")
        # The parser keeps the whole of a header or a trailer before it shows it: bound what it takes without a word.
        self._silent_bytes = self._silent_bytes + len(chunk) if self._seen == seen else 0
        if self._silent_bytes > 2 * HEAD_BYTES_MAX and not self._ending:
            self._fail("head_too_large", HEAD_TOO_LARGE)
        return self._ready_answers()

    # What httptools calls while it reads.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._begin()
        self._seen += 1
        self.partial = True

    def on_url(self, url: bytes) -> None:
        """Part of the request target."""
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._count_head(len(name) + len(value))
        name = name.lower()
        if not self._head_is_whole:  # a trailer says nothing
            self._headers.append((name, value))
        if name == b"host":
            self._host = value
        elif name == b"content-type":
            self._content_type = value.split(b";")[0].strip().lower()
        elif name == b"content-length":
            self._body_said = int(value) if value.isdigit() else 0
        elif name == b"expect":
            self._expects = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """The head is whole: a body that is too large need not even be sent, and one that waits for a word may come."""
        self._head_is_whole = True
        self._seen += 1
        if self._body_said > BODY_BYTES_MAX:
            self._fail("body_too_large", BODY_TOO_LARGE)
            raise ValueError("body too large")
        if self._expects and self._body_said and self._parser.get_http_version() == "1.1":
            self._answers.append(CONTINUE)

    def on_body(self, data: bytes) -> None:
        """Part of the body."""
        if len(self._body) + len(data) > BODY_BYTES_MAX:
            self._fail("body_too_large", BODY_TOO_LARGE)
            raise ValueError("body too large")
        self._seen += 1
        self._body += data

    def on_message_complete(self) -> None:
        """The request is whole."""
        self.partial = False
        self._seen += 1
        if self._ending:
            return
        self.heard += 1
        close = not self._parser.should_keep_alive() or self._parser.should_upgrade()
        if len(self._answers) >= PIPELINED_MAX:
            self._move_ready()
        if len(self._answers) >= PIPELINED_MAX:
            self._fail("overloaded", f"{PIPELINED_MAX} requests of this connection wait for answers already")
            return
        allow = None
        try:
            answer = self._answer(close=close)
        except Violation as wrong:
            allow = wrong.expected.encode() if wrong.code == "method_not_allowed" else None
            reply = ErrorReply(error=Problem(wrong.code, wrong.message, wrong.field or None))
            answer = response(reply, close=close, allow=allow)
        if self._parser.get_method() == b"HEAD":
            if answer is None:
                self._heads.add(self.heard)
            else:
                answer = _head_of(answer)
        self._answers.append(self.heard if answer is None else answer)
        self._ending = close

    def _count_head(self, size: int) -> None:
        self._seen += 1
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX:
            self._fail("head_too_large", HEAD_TOO_LARGE)
            raise ValueError("head too large")

    def _fail(self, code: str, text: str) -> None:
        """Answer and close: the stream cannot be followed any further."""
        self._answers.append(response(ErrorReply(error=Problem(code, text)), close=True))
        self._ending = True
        self.partial = False

    def _answer(self, *, close: bool) -> bytes | None:
        path, query = self._target()
        method = self._parser.get_method()
        if self._guarded:
            self._require_local(method, path)
        if path in PROBES:
            require_method(method, b"GET", b"HEAD")
            well = path == b"/healthz" or self._ready()
            return probe(200 if well else 503, "ok" if well else "starting", close=close)
        if path == METRICS:
            require_method(method, b"GET", b"HEAD")
            return text(self._dispatch.metrics(), CONTENT_TYPE, close=close)
        asked = Asked(method, path, query, self._headers, bytes(self._body))
        if path.startswith(ANSWER):
            reply = self._authz.settle(asked, self, self.heard)
        elif path == AUTHZ or path.startswith(AUTHZ + b"/"):
            reply = self._authz.ask(asked, self, self.heard)
        else:
            request = request_of(asked)
            # Our own number, so that a late answer finds its place.
            msgspec.structs.force_setattr(request, "id", self.heard)
            reply = self._dispatch(request, self)
        return None if reply is None else response(reply, close=close)

    def _target(self) -> tuple[bytes, bytes]:
        try:
            target = httptools.parse_url(self._url)
        except httptools.HttpParserInvalidURLError:
            shown = ascii(self._url.decode("latin-1"))[:80]
            raise Violation(
                "", f"{shown} is not a request target of this door", ROUTES, code="route_not_found"
            ) from None
        return target.path or b"", target.query or b""

    def _require_local(self, method: bytes, path: bytes) -> None:
        """A web page must not be able to use a loopback port: neither by a plain form nor by a rebound name. Doors for
        proxies do nothing without headers that no page may set."""
        if self._host.rsplit(b":", 1)[0] not in LOCAL_HOSTS and self._host not in LOCAL_HOSTS:
            raise Violation("host", "is not this machine", "localhost, 127.0.0.1 or [::1]", code="host_unknown")
        if method == b"POST" and self._content_type != JSON and not path.startswith((AUTHZ, ANSWER)):
            said = self._content_type.decode(errors="replace") or "missing"
            raise Violation("content-type", f"is {said}", "application/json", code="content_type_unsupported")

    def late(self, request_id: int, reply: Reply) -> None:
        """An answer that had to wait."""
        try:
            place = self._answers.index(request_id)
        except ValueError:
            return
        is_last = place == len(self._answers) - 1
        answer = response(reply, close=self._ending and is_last)
        self._answers[place] = _head_of(answer) if request_id in self._heads else answer
        self._heads.discard(request_id)
        ready = self._ready_answers()
        if ready:
            self._send_later(ready)

    def _ready_answers(self) -> bytes:
        self._move_ready()
        ready, self._done = b"".join(self._done), []
        return ready

    def _move_ready(self) -> None:
        while self._answers and isinstance(self._answers[0], bytes):
            self._done.append(self._answers.popleft())  # type: ignore[arg-type]  # only bytes are taken


def _head_of(answer: bytes) -> bytes:
    return answer[: answer.index(b"\r\n\r\n") + 4]
