"""Refusals and failures as HTTP says them: status, headers, and problem details that OpenAI-style clients read as well.

The same that the agent's own HTTP door answers, for whoever stands between a caller and the agent.
"""

from __future__ import annotations

from dataclasses import fields
from http import HTTPStatus
from typing import Any, NamedTuple

from allotment.answers import Decision, LimitState
from allotment.errors import AgentError, AgentUnavailable, AllotmentError, Refused

CONTENT_TYPE = "application/problem+json"

_REFUSED = {"usage_limit_reached": 402, "requested_usage_exceeds_limit": 402, "lease_unavailable": 503}


class Problem(NamedTuple):
    """One answer in HTTP: ``body`` is a map for JSON, ``headers`` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]


def problem_of(error: AllotmentError) -> Problem:
    """What to answer instead of what was asked for.

    A refusal: 429 with Retry-After (throttled), 402 (used up; not to be retried), 503 with Retry-After (cannot tell)
    or 403. Without an answer from the agent: 503 with Retry-After. A request that breaks a rule of the wire: 400.
    """
    if isinstance(error, Refused):
        return _refusal(error.decision)
    if isinstance(error, AgentUnavailable):
        return problem(503, "agent_unavailable", "it cannot be told now whether this call is allowed", retry_after_s=1)
    if isinstance(error, AgentError):
        return problem(400, error.code, str(error), field=error.field)
    return problem(503, "agent_unavailable", str(error), retry_after_s=1)


def ratelimit(decision: Decision) -> dict[str, str]:
    """What is left of the limit with the least, as in draft-ietf-httpapi-ratelimit-headers; empty without limits."""
    if decision.limiting is None or decision.remaining is None:
        return {}
    reset = f";t={-(-decision.resets_in_ms // 1_000)}" if decision.resets_in_ms is not None else ""
    return {"ratelimit": f'"{decision.limiting}";r={decision.remaining}{reset}'}


def _refusal(decision: Decision) -> Problem:
    status = 429 if decision.throttled else _REFUSED.get(decision.code, 403)
    wait_ms = decision.retry_after_ms if status in (429, 503) else None
    wait_s = None if wait_ms is None else max(1, -(-wait_ms // 1_000))
    said = problem(status, decision.code, decision.message, retry_after_s=wait_s)
    if status == 402:
        said.headers["x-should-retry"] = "false"  # official clients of models would otherwise ask again at once
    said.headers.update(ratelimit(decision))
    said.headers["x-allotment-code"] = decision.code
    if decision.limiting is not None:
        said.headers["x-allotment-limit"] = decision.limiting
    said.body.update(_said(decision))
    return said


def problem(
    status: int, code: str, message: str, *, field: str | None = None, retry_after_s: int | None = None
) -> Problem:
    """Problem details (RFC 9457) with the ``error`` object that OpenAI-style clients look for."""
    headers = {"content-type": CONTENT_TYPE, "cache-control": "no-store"}
    if retry_after_s is not None:
        headers["retry-after"] = str(retry_after_s)
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": message,
        "code": code,
        **({"field": field} if field else {}),
        "error": {"message": message, "type": code, "code": code, "param": field},
    }
    return Problem(status, headers, body)


def _said(answer: Decision | LimitState) -> dict[str, Any]:
    """Its fields but those that have their default, as on the wire."""
    found = {f.name: getattr(answer, f.name) for f in fields(answer) if getattr(answer, f.name) != f.default}
    if "breakdown" in found:
        found["breakdown"] = [_said(limit) for limit in found["breakdown"]]
    return found
