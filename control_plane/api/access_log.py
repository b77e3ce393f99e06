"""One log line for each request of a person; those that never stop talking, and probes, are left out."""

from __future__ import annotations

import logging
from typing import Any

from litestar.types import Message, Scope

_logger = logging.getLogger("allotment.access")
_QUIET = (
    "/v1/agents/sync",
    "/v1/agents/watch",
    "/v1/events",
    "/api/v1/events",
    "/v1/traces",
    "/healthz",
    "/readyz",
    "/metrics",
    "/schema",
)


async def log_access(message: Message, scope: Scope) -> None:
    """Method, path, status, and the public half of the token; no query, no header, no body."""
    if message["type"] != "http.response.start" or scope["path"].startswith(_QUIET):
        return
    fields: dict[str, Any] = {
        "method": scope.get("method"),
        "path": scope["path"],
        "status": message["status"],
        "token": getattr(scope.get("auth"), "token", None),
    }
    _logger.info("request", extra={"fields": fields})
