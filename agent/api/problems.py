"""What a reply is in HTTP: status, headers, and a body that readers of RFC 9457 and of OpenAI's errors understand."""

from __future__ import annotations

from typing import Any

import msgspec

from protocol.codec import encode_json
from protocol.decisions import Code, Decision, Verdict
from protocol.local_messages import ErrorReply, Reply

JSON = b"application/json"
PROBLEM_JSON = b"application/problem+json"

ERROR_STATUSES = {
    "reservation_not_found": 404,
    "customer_not_found": 404,
    "route_not_found": 404,
    "method_not_allowed": 405,
    "reservation_conflict": 409,
    "reservation_ended": 409,
    "body_too_large": 413,
    "head_too_large": 413,
    "content_type_unsupported": 415,
    "host_unknown": 421,
    "overloaded": 503,
    "not_recorded": 503,
    "lease_unavailable": 503,
    "draining": 503,
}

REFUSAL_STATUSES = {
    Code.USAGE_LIMIT_REACHED: 402,
    Code.REQUESTED_USAGE_EXCEEDS_LIMIT: 402,
    Code.LEASE_UNAVAILABLE: 503,
}

REASONS = {
    200: b"OK", 400: b"Bad Request", 402: b"Payment Required", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 409: b"Conflict", 413: b"Content Too Large", 415: b"Unsupported Media Type",
    421: b"Misdirected Request", 429: b"Too Many Requests", 503: b"Service Unavailable",
}  # fmt: skip


def response(reply: Reply, *, close: bool = False, allow: bytes | None = None) -> bytes:
    """The whole HTTP response for a reply; ``allow`` names the methods that would have been right."""
    if isinstance(reply, ErrorReply):
        status = ERROR_STATUSES.get(reply.error.code, 400)
        body = problem(status, reply.error.code, reply.error.message, reply.error.field)
        return render(
            status, body, PROBLEM_JSON, retry_after_ms=1_000 if reply.retry else None, close=close, allow=allow
        )
    if isinstance(reply, Decision) and reply.decision is not Verdict.ALLOW:
        status = 429 if reply.decision is Verdict.THROTTLE else REFUSAL_STATUSES.get(reply.code, 403)
        body = problem(status, reply.code.value, reply.message, None)
        body |= {name: value for name, value in msgspec.to_builtins(reply).items() if name not in ("id", "kind")}
        retry_after_ms = reply.retry_after_ms if status in (429, 503) else None
        return render(status, body, PROBLEM_JSON, retry_after_ms=retry_after_ms, limits=reply, close=close)
    body = {name: value for name, value in msgspec.to_builtins(reply).items() if name not in ("id", "kind")}
    return render(200, body, JSON, limits=reply if isinstance(reply, Decision) else None, close=close)


def problem(status: int, code: str, message: str, field: str | None) -> dict[str, Any]:
    """RFC 9457 problem details, with the ``error`` object that OpenAI-style clients look for."""
    return {
        "type": "about:blank",
        "title": REASONS[status].decode(),
        "status": status,
        "detail": message,
        "code": code,
        **({"field": field} if field else {}),
        "error": {"message": message, "type": code, "code": code, "param": field},
    }


def render(
    status: int,
    body: dict[str, Any],
    content_type: bytes,
    *,
    retry_after_ms: int | None = None,
    limits: Decision | None = None,
    close: bool = False,
    allow: bytes | None = None,
) -> bytes:
    """Bytes of one response."""
    payload = encode_json(body)
    lines = [
        b"HTTP/1.1 %d %b" % (status, REASONS[status]),
        b"content-type: " + content_type,
        b"content-length: %d" % len(payload),
        b"cache-control: no-store",
    ]
    if retry_after_ms is not None:
        lines.append(b"retry-after: %d" % max(1, -(-retry_after_ms // 1_000)))
    if status == 402:
        lines.append(b"x-should-retry: false")  # official LLM clients would otherwise ask again at once
    if limits is not None and limits.limiting is not None and limits.remaining is not None:
        reset = b";t=%d" % -(-limits.resets_in_ms // 1_000) if limits.resets_in_ms is not None else b""
        lines.append(b'ratelimit: "%b";r=%d%b' % (limits.limiting.encode(), limits.remaining, reset))
    if allow is not None:
        lines.append(b"allow: " + allow)
    if close:
        lines.append(b"connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + payload
