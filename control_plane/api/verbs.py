"""How routes are declared: reading for readers, changing for admins; handlers run in threads, because SQL waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from litestar import delete, get, post, put
from litestar.handlers import HTTPRouteHandler

from control_plane.access import ADMINS, READERS
from control_plane.api.bodies import StrictBody

Declare = Callable[[Callable[..., object]], HTTPRouteHandler]


def reads(path: str, tags: list[str]) -> Declare:
    """A route that shows something."""
    return get(path, tags=tags, opt=READERS, sync_to_thread=True)


def ends(path: str, tags: list[str]) -> Declare:
    """A route that ends something; ending it twice changes nothing."""
    return delete(path, tags=tags, opt=ADMINS, sync_to_thread=True, status_code=200)


def puts(path: str, body: type[msgspec.Struct], tags: list[str]) -> Declare:
    """A route that makes something be as the body says; saying it twice changes nothing."""
    return put(path, tags=tags, **_changing(body), status_code=200)


def posts(path: str, body: type[msgspec.Struct], tags: list[str]) -> Declare:
    """A route that makes something new each time."""
    return post(path, tags=tags, **_changing(body))


def _changing(body: type[msgspec.Struct]) -> dict[str, Any]:
    return {"opt": ADMINS, "sync_to_thread": True, "dto": StrictBody[body], "return_dto": None}  # type: ignore[valid-type]
