"""Edits that must not overwrite what somebody else has changed meanwhile: ETag, If-Match, If-None-Match (RFC 9110)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Request, Response

from control_plane.operations.refusals import Stale


@dataclass(frozen=True)
class Preconditions:
    """What a request says of the state that it wants to change; ``None``: nothing."""

    if_match: str | None = None
    if_none_match: str | None = None

    @property
    def given(self) -> bool:
        """Whether it says anything."""
        return self.if_match is not None or self.if_none_match is not None

    def check(self, shown: Any | None) -> None:
        """Compare with what would be shown now; ``None``: there is nothing.

        Raises: Stale: it is not what the request expects.
        """
        tag = None if shown is None else etag_of(shown)
        if self.if_match is not None and (tag is None or not _names(self.if_match, tag)):
            how = "is not there" if tag is None else f"has changed: it is {tag} now"
            raise Stale("stale", f"What If-Match names {how}. Read it again, and decide again.", "If-Match")
        if self.if_none_match is not None and tag is not None and _names(self.if_none_match, tag):
            raise Stale("exists", f"It is there already: {tag}.", "If-None-Match")


def preconditions_of(request: Request[Any, Any, Any]) -> Preconditions:
    """What the headers say."""
    return Preconditions(request.headers.get("if-match"), request.headers.get("if-none-match"))


def etag_of(item: Any) -> str:
    """The same for the same representation, and for no other."""
    return f'"{hashlib.sha256(msgspec.json.encode(item)).hexdigest()[:32]}"'


def tag_answer(response: Response[Any]) -> Response[Any]:
    """Name the state that an answer shows, where it shows one thing."""
    if isinstance(response.content, msgspec.Struct) and not hasattr(response.content, "next_cursor"):
        response.headers["ETag"] = etag_of(response.content)
    return response


def _names(header: str, tag: str) -> bool:
    """Weak tags are never the same as a strong one."""
    return header.strip() == "*" or tag in [one.strip() for one in header.split(",")]
