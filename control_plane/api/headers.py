"""Headers that every answer carries, errors included."""

from __future__ import annotations

from litestar.datastructures import MutableScopeHeaders
from litestar.types import Message, Scope

from control_plane.api.docs_page import content_security_policy


async def add_security_headers(message: Message, _: Scope) -> None:
    """Nothing here is to be guessed at, framed, cached by strangers or told to other sites."""
    if message["type"] != "http.response.start":
        return
    headers = MutableScopeHeaders.from_message(message)
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers["Content-Security-Policy"] = content_security_policy(headers.get("content-type", ""))
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers.setdefault("Cache-Control", "no-store")
