"""What an HTTP request asks for: the operation of its route, from its body or its query."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from agent.core.problem_details import Headers
from protocol.codec import JsonDecoder, as_violation
from protocol.local_messages import (
    Begin,
    Check,
    End,
    Extend,
    Feed,
    Record,
    Release,
    Request,
    Reserve,
    Settle,
    Status,
    Usage,
)
from protocol.violations import Violation

AUTHZ = b"/v1/authz"
ANSWER = b"/v1/settle/"
"""Doors for proxies (see :mod:`agent.api.authz`)."""

METRICS = b"/metrics"
PROBES = (b"/healthz", b"/readyz")

_POSTS: dict[bytes, JsonDecoder[Request]] = {
    b"/v1/check": JsonDecoder(Check),
    b"/v1/reserve": JsonDecoder(Reserve),
    b"/v1/extend": JsonDecoder(Extend),
    b"/v1/settle": JsonDecoder(Settle),
    b"/v1/release": JsonDecoder(Release),
    b"/v1/begin": JsonDecoder(Begin),
    b"/v1/feed": JsonDecoder(Feed),
    b"/v1/end": JsonDecoder(End),
    b"/v1/record": JsonDecoder(Record),
}
_GETS = (b"/v1/usage", b"/v1/status")
ROUTES = b", ".join([*_POSTS, *_GETS, AUTHZ, ANSWER + b"{reservation}", METRICS, *PROBES]).decode()


class Asked(NamedTuple):
    """One HTTP request, whole. ``path`` and ``query`` as they came; names of headers in lower case."""

    method: bytes
    path: bytes
    query: bytes
    headers: Headers
    body: bytes


def request_of(asked: Asked) -> Request:
    """The operation that it names. Raises: Violation: there is none, or it is said wrongly."""
    post = _POSTS.get(asked.path)
    if post is not None:
        require_method(asked.method, b"POST")
        return post(asked.body)
    if asked.path not in _GETS:
        shown = ascii(asked.path.decode("latin-1"))[:80]
        raise Violation("", f"there is no {shown} here", ROUTES, code="route_not_found")
    require_method(asked.method, b"GET")
    return Status() if asked.path == b"/v1/status" else _usage(asked.query)


def require_method(method: bytes, *allowed: bytes) -> None:
    """Raises: Violation: the method is none of these."""
    if method not in allowed:
        expected = b", ".join(allowed).decode()
        raise Violation("", f"{method.decode()} is not for this path", expected, code="method_not_allowed")


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
