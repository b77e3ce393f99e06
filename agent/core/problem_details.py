"""What a reply is in HTTP: status, headers, and a body that readers of RFC 9457 and of OpenAI's errors understand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from protocol.decisions import Code, Decision, LimitState, Verdict
from protocol.local_messages import ErrorReply, Reply
from protocol.units import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS

JSON = b"application/json"
PROBLEM_JSON = b"application/problem+json"

ERROR_STATUSES = {
    "api_key_unknown": 401,
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
    "upstream_unreachable": 502,
    "overloaded": 503,
    "not_recorded": 503,
    "lease_unavailable": 503,
    "draining": 503,
    "upstream_timeout": 504,
}

REFUSAL_STATUSES = {
    Code.USAGE_LIMIT_REACHED: 402,
    Code.REQUESTED_USAGE_EXCEEDS_LIMIT: 402,
    Code.LEASE_UNAVAILABLE: 503,
}

REASONS = {
    200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 402: b"Payment Required", 403: b"Forbidden",
    404: b"Not Found", 405: b"Method Not Allowed", 409: b"Conflict", 413: b"Content Too Large",
    415: b"Unsupported Media Type", 421: b"Misdirected Request", 429: b"Too Many Requests", 502: b"Bad Gateway",
    503: b"Service Unavailable", 504: b"Gateway Timeout",
}  # fmt: skip

Headers = list[tuple[bytes, bytes]]


class Details(NamedTuple):
    """One reply in HTTP; ``headers`` without those that say how long the body is."""

    status: int
    headers: Headers
    body: dict[str, Any]


def details(reply: Reply) -> Details:
    """The reply in HTTP."""
    if isinstance(reply, ErrorReply):
        status = ERROR_STATUSES.get(reply.error.code, 400)
        body = problem(status, reply.error.code, reply.error.message, reply.error.field)
        headers = _headers(PROBLEM_JSON, status, 1_000 if reply.retry else None, None)
        return Details(status, [*headers, (b"x-allotment-code", reply.error.code.encode())], body)
    fields = {name: value for name, value in msgspec.to_builtins(reply).items() if name not in ("id", "kind")}
    if isinstance(reply, Decision) and reply.decision is not Verdict.ALLOW:
        status = 429 if reply.decision is Verdict.THROTTLE else REFUSAL_STATUSES.get(reply.code, 403)
        body = problem(status, reply.code.value, reply.message, None) | fields
        retry_after_ms = reply.retry_after_ms if status in (429, 503) else None
        return Details(status, _headers(PROBLEM_JSON, status, retry_after_ms, reply), body)
    return Details(200, _headers(JSON, 200, None, reply if isinstance(reply, Decision) else None), fields)


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


def ratelimit(decision: Decision) -> Headers:
    """What is left of the limit with the least, as in draft-ietf-httpapi-ratelimit-headers."""
    if decision.limiting is None or decision.remaining is None:
        return []
    reset = b";t=%d" % -(-decision.resets_in_ms // 1_000) if decision.resets_in_ms is not None else b""
    return [(b"ratelimit", b'"%b";r=%d%b' % (decision.limiting.encode(), decision.remaining, reset))]


def vendor_ratelimit(limits: Iterable[LimitState]) -> Headers:
    """The same as OpenAI says it, ``x-ratelimit-remaining-tokens`` and the like, of the tightest limits that the call
    met: of requests, and of tokens of either kind. Only limits that are finite are told."""
    found: Headers = []
    for word, meters in ((b"requests", (REQUESTS,)), (b"tokens", (INPUT_TOKENS, OUTPUT_TOKENS))):
        told = [one for one in limits if one.meter in meters and one.amount is not None and one.remaining is not None]
        if not told:
            continue
        tightest = min(told, key=lambda one: one.remaining or 0)
        found.append((b"x-ratelimit-limit-" + word, b"%d" % (tightest.amount or 0)))
        found.append((b"x-ratelimit-remaining-" + word, b"%d" % (tightest.remaining or 0)))
        if tightest.resets_in_ms is not None:
            found.append((b"x-ratelimit-reset-" + word, _duration(tightest.resets_in_ms)))
    return found


def _duration(ms: int) -> bytes:
    """As Go writes it, and clients of OpenAI read it: ``6m0s``, ``1h2m3s``, ``250ms``."""
    if ms < 1_000:
        return b"%dms" % ms
    minutes, seconds = divmod(-(-ms // 1_000), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return b"%dh%dm%ds" % (hours, minutes, seconds)
    return b"%dm%ds" % (minutes, seconds) if minutes else b"%ds" % seconds


def _headers(content_type: bytes, status: int, retry_after_ms: int | None, limits: Decision | None) -> Headers:
    found = [(b"content-type", content_type), (b"cache-control", b"no-store")]
    if retry_after_ms is not None:
        found.append((b"retry-after", b"%d" % max(1, -(-retry_after_ms // 1_000))))
    if status == 402:
        found.append((b"x-should-retry", b"false"))  # official LLM clients would otherwise ask again at once
    return found + (ratelimit(limits) + named(limits) if limits is not None else [])


def named(decision: Decision) -> Headers:
    """What proxies can take out of an answer whose body they do not read: the reservation, or why there is none."""
    if decision.reservation is not None:
        return [(b"x-allotment-reservation", decision.reservation.id.encode())]
    if decision.decision is Verdict.ALLOW:
        return []
    limit = [(b"x-allotment-limit", decision.limiting.encode())] if decision.limiting is not None else []
    return [(b"x-allotment-code", decision.code.value.encode()), *limit]
