"""The door for curl and proxies: the same operations as JSON over HTTP/1.1, kept alive and pipelined, bounded.

Replies leave in the order of their requests, as HTTP/1.1 wants it, however long one of them waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import httptools
import msgspec

from agent.api.dispatch import Dispatch
from agent.api.problems import probe, response
from agent.core.problem_details import JSON
from protocol.codec import JsonDecoder, as_violation
from protocol.local_messages import (
    Check,
    ErrorReply,
    Extend,
    Problem,
    Record,
    Release,
    Reply,
    Request,
    Reserve,
    Settle,
    Status,
    Usage,
)
from protocol.violations import Violation

BODY_BYTES_MAX = 256 * 1024
HEAD_BYTES_MAX = 16 * 1024
PIPELINED_MAX = 256
LOCAL_HOSTS = (b"localhost", b"127.0.0.1", b"[::1]")

_POSTS: dict[bytes, JsonDecoder[Request]] = {
    b"/v1/check": JsonDecoder(Check),
    b"/v1/reserve": JsonDecoder(Reserve),
    b"/v1/extend": JsonDecoder(Extend),
    b"/v1/settle": JsonDecoder(Settle),
    b"/v1/release": JsonDecoder(Release),
    b"/v1/record": JsonDecoder(Record),
}
_GETS = (b"/v1/usage", b"/v1/status")
_PROBES = (b"/healthz", b"/readyz")
ROUTES = b", ".join([*_POSTS, *_GETS, *_PROBES]).decode()

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
        self, dispatch: Dispatch, ready: Callable[[], bool], send_later: Callable[[bytes], None], *, guarded: bool
    ) -> None:
        self._dispatch = dispatch
        self._ready = ready
        self._send_later = send_later
        self._guarded = guarded
        self._parser = httptools.HttpRequestParser(self)
        self._answers: deque[bytes | int] = deque()  # an int is the number of a request that still waits
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
        if answer is not None and self._parser.get_method() == b"HEAD":
            answer = answer[: answer.index(b"\r\n\r\n") + 4]
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
            self._require_local(method)
        if path in _PROBES:
            _require_method(method, b"GET", b"HEAD")
            well = path == b"/healthz" or self._ready()
            return probe(200 if well else 503, "ok" if well else "starting", close=close)
        request = self._request(path, method, query)
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

    def _request(self, path: bytes, method: bytes, query: bytes) -> Request:
        post = _POSTS.get(path)
        if post is not None:
            _require_method(method, b"POST")
            return post(bytes(self._body))
        if path not in _GETS:
            shown = ascii(path.decode("latin-1"))[:80]
            raise Violation("", f"there is no {shown} here", ROUTES, code="route_not_found")
        _require_method(method, b"GET")
        if path == b"/v1/status":
            return Status()
        return _usage(query)

    def _require_local(self, method: bytes) -> None:
        """A web page must not be able to use a loopback port: neither by a plain form nor by a rebound name."""
        if self._host.rsplit(b":", 1)[0] not in LOCAL_HOSTS and self._host not in LOCAL_HOSTS:
            raise Violation("host", "is not this machine", "localhost, 127.0.0.1 or [::1]", code="host_unknown")
        if method == b"POST" and self._content_type != JSON:
            said = self._content_type.decode(errors="replace") or "missing"
            raise Violation("content-type", f"is {said}", "application/json", code="content_type_unsupported")

    def late(self, request_id: int, reply: Reply) -> None:
        """An answer that had to wait."""
        try:
            place = self._answers.index(request_id)
        except ValueError:
            return
        is_last = place == len(self._answers) - 1
        self._answers[place] = response(reply, close=self._ending and is_last)
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


def _usage(query: bytes) -> Usage:
    """The fields of the query; a tag is one of its own, as in ``tags.team=blue``."""
    fields: dict[str, Any] = {}
    tags: dict[str, str] = {}
    for name, value in parse_qsl(query.decode("ascii", "replace"), keep_blank_values=True):
        if name.startswith("tags."):
            tags[name.removeprefix("tags.")] = value
        else:
            fields[name] = value
    try:
        return msgspec.convert({**fields, "tags": tags} if tags else fields, Usage, strict=False)
    except msgspec.ValidationError as error:
        raise as_violation(error) from None


def _require_method(method: bytes, *allowed: bytes) -> None:
    if method not in allowed:
        expected = b", ".join(allowed).decode()
        raise Violation("", f"{method.decode()} is not for this path", expected, code="method_not_allowed")
