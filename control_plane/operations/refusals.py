"""Why an operation was not done although the request was well-formed; the API maps each to one HTTP status."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818 - said of a request, not of us
    """The request cannot be granted as things stand.

    Args:
        code: a stable machine-readable name (``customer_not_found``, ``journal_quarantined``).
        detail: one sentence for people: what is so, and what would help.
        field: path of the parameter that names the trouble, or ``""``.
    """

    def __init__(self, code: str, detail: str, field: str = "") -> None:
        super().__init__(code, detail, field)
        self.code = code
        self.detail = detail
        self.field = field

    def __str__(self) -> str:
        return self.detail


class NotFound(Refusal):
    """What was named does not exist (404)."""


class Conflict(Refusal):
    """It contradicts what is already there (409)."""


class Stale(Refusal):
    """It is not, or not any longer, what the request was made for (412)."""


class Unprocessable(Refusal):
    """It says something that it may not say here and now (422)."""


class Unauthenticated(Refusal):
    """No token, or none that is known, whole and still good (401)."""


class Forbidden(Refusal):
    """The token is good, but not for this (403)."""


class Busy(Refusal):
    """More is asked at once than can be answered soon: ask again in a moment (503)."""
