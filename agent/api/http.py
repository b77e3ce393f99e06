"""The door for curl and proxies: the same operations as JSON over HTTP/1.1, kept alive and pipelined, bounded.

Replies leave in the order of their requests, as HTTP/1.1 wants it, however long one of them waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from urllib.parse import parse_qsl

import httptools
import msgspec

from agent.api.dispatch import Dispatch
from agent.api.problems import JSON, render, response
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
_GETS = (b"/v1/usage", b"/v1/status", b"/healthz", b"/readyz")
ROUTES = b", ".join([*_POSTS, *_GETS]).decode()


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
        self._serial = 0
        self._begin()
        self.partial = False
        self._ending = False
        self.gone = False

    def _begin(self) -> None:
        self._url = b""
        self._host = b""
        self._content_type = b""
        self._head_bytes = 0
        self._body = bytearray()

    @property
    def finished(self) -> bool:
        """Whether the connection ends once what is ready has been sent."""
        return self._ending and not self._answers

    def feed(self, chunk: bytes) -> bytes:
        """Take what arrived; give back the responses that are ready, in order."""
        try:
            self._parser.feed_data(chunk)
        except httptools.HttpParserUpgrade:
            self._fail("invalid_request", "this door speaks HTTP/1.1 and nothing else")
        except httptools.HttpParserError as error:
            if not self._ending:
                self._fail("invalid_request", f"this is not HTTP/1.1: {error}")
        return self._ready_answers()

    # What httptools calls while it reads.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._begin()
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

    def on_body(self, data: bytes) -> None:
        """Part of the body."""
        if len(self._body) + len(data) > BODY_BYTES_MAX:
            self._fail("body_too_large", f"the body is larger than {BODY_BYTES_MAX} bytes")
            raise ValueError("body too large")
        self._body += data

    def on_message_complete(self) -> None:
        """The request is whole."""
        self.partial = False
        if self._ending:
            return
        self._serial += 1
        close = not self._parser.should_keep_alive()
        if len(self._answers) >= PIPELINED_MAX:
            self._fail("overloaded", f"{PIPELINED_MAX} requests of this connection wait for answers already")
            return
        try:
            answer = self._answer()
        except Violation as wrong:
            answer = response(ErrorReply(error=Problem(wrong.code, wrong.message, wrong.field or None)), close=close)
        self._answers.append(self._serial if answer is None else answer)
        if close:
            self._ending = True

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX:
            self._fail("body_too_large", f"the request line and headers are larger than {HEAD_BYTES_MAX} bytes")
            raise ValueError("head too large")

    def _fail(self, code: str, text: str) -> None:
        """Answer and close: the stream cannot be followed any further."""
        self._answers.append(response(ErrorReply(error=Problem(code, text)), close=True))
        self._ending = True
        self.partial = False

    def _answer(self) -> bytes | None:
        target = httptools.parse_url(self._url)
        path, method = target.path or b"", self._parser.get_method()
        if self._guarded:
            self._require_local(method)
        if path in (b"/healthz", b"/readyz"):
            well = path == b"/healthz" or self._ready()
            return render(200 if well else 503, {"status": "ok" if well else "starting"}, JSON)
        request = self._request(path, method, target.query or b"")
        msgspec.structs.force_setattr(
            request, "id", self._serial
        )  # our own number, so that a late answer finds its place
        reply = self._dispatch(request, self)
        return None if reply is None else response(reply)

    def _request(self, path: bytes, method: bytes, query: bytes) -> Request:
        post = _POSTS.get(path)
        if post is None and path not in _GETS:
            raise Violation("", f"there is no {path.decode(errors='replace')!r} here", ROUTES, code="route_not_found")
        if method != (b"GET" if post is None else b"POST"):
            expected = "GET" if post is None else "POST"
            raise Violation("", f"{method.decode()} is not for this path", expected, code="method_not_allowed")
        if post is not None:
            return post(bytes(self._body))
        fields = dict(parse_qsl(query.decode("ascii", "replace"), keep_blank_values=True))
        if path == b"/v1/status":
            return Status()
        try:
            return msgspec.convert(fields, Usage, strict=False)
        except msgspec.ValidationError as error:
            raise as_violation(error) from None

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
            self._answers[self._answers.index(request_id)] = response(reply)
        except ValueError:
            return
        ready = self._ready_answers()
        if ready:
            self._send_later(ready)

    def _ready_answers(self) -> bytes:
        ready = []
        while self._answers and isinstance(self._answers[0], bytes):
            ready.append(self._answers.popleft())
        return b"".join(ready)  # type: ignore[arg-type]  # only bytes were taken
