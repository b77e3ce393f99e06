"""How routes are declared: reading for readers, changing for admins; handlers run in threads, because SQL waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from litestar import delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec

from control_plane.access import ADMINS, READERS
from control_plane.api.bodies import StrictBody
from control_plane.api.errors import PROBLEM_JSON, Problem
from control_plane.api.preconditions import tag_answer

_SAID = {
    400: "Something in the request is wrong; `field` says what.",
    401: "No token, or no good one.",
    403: "The token is good, but not for this.",
    404: "What was named does not exist.",
    409: "It contradicts what is already there.",
    412: "It has changed since it was read; read it again.",
    503: "The database cannot be reached; try again.",
}
_REUSED = "Its `Idempotency-Key` was said before, with something else."
PROBLEMS = {
    status: ResponseSpec(Problem, description=said, generate_examples=False, media_type=PROBLEM_JSON)
    for status, said in _SAID.items()
}
"""What every route may answer instead, for the documentation."""

_PROBLEMS_OF_MAKING = PROBLEMS | {
    422: ResponseSpec(Problem, description=_REUSED, generate_examples=False, media_type=PROBLEM_JSON)
}

Declare = Callable[[Callable[..., object]], HTTPRouteHandler]


def reads(path: str, tags: list[str]) -> Declare:
    """A route that shows something."""
    return get(path, tags=tags, opt=READERS, sync_to_thread=True, responses=PROBLEMS, after_request=tag_answer)


def ends(path: str, tags: list[str]) -> Declare:
    """A route that ends something; ending it twice changes nothing."""
    how: dict[str, Any] = {"opt": ADMINS, "sync_to_thread": True, "responses": PROBLEMS, "after_request": tag_answer}
    return delete(path, tags=tags, status_code=200, **how)


def puts(path: str, body: type[msgspec.Struct], tags: list[str]) -> Declare:
    """A route that makes something be as the body says; saying it twice changes nothing."""
    return put(path, tags=tags, **_changing(body), status_code=200)


def posts(path: str, body: type[msgspec.Struct], tags: list[str]) -> Declare:
    """A route that makes something new each time: its handler takes an Idempotency-Key (:mod:`api.idempotency`)."""
    return post(path, tags=tags, **(_changing(body) | {"responses": _PROBLEMS_OF_MAKING}))


def acts(path: str, body: type[msgspec.Struct], tags: list[str]) -> Declare:
    """A route that does something to what is there; doing it twice changes nothing."""
    return post(path, tags=tags, **_changing(body), status_code=200)


def asks(path: str, body: type[msgspec.Struct], tags: list[str]) -> Declare:
    """A route that reads, and needs a body to say what."""
    return post(path, tags=tags, **(_changing(body) | {"opt": READERS}), status_code=200)


def _changing(body: type[msgspec.Struct]) -> dict[str, Any]:
    strict = StrictBody[body]  # type: ignore[valid-type]
    return {
        "opt": ADMINS,
        "sync_to_thread": True,
        "dto": strict,
        "return_dto": None,
        "responses": PROBLEMS,
        "after_request": tag_answer,
    }
