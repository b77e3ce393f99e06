"""Requests that may be said again: the ``Idempotency-Key`` header of routes that make something new each time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
from litestar import Response
from litestar.params import HeaderParameter

from control_plane.api.context import Context
from control_plane.operations.answer_once import Once, answer_once
from control_plane.operations.author import Author
from control_plane.store.database import Connection
from protocol.violations import Violation

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
_WORDS = "1 to 128 letters, digits or ._:@+~/=- that nobody else would draw, as a UUID; in double quotes or without"
_KEY = re.compile(r'[A-Za-z0-9._:@+~/=-]{1,128}|"[A-Za-z0-9._:@+~/=-]{1,128}"')

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name=HEADER,
        description=f"{_WORDS}. Said again with the same body within two days, the request is not done again and is"
        f" answered as before, with the header `{REPLAYED}: true`.",
    ),
]

Made = TypeVar("Made", bound=msgspec.Struct)


def once(
    context: Context,
    key: str | None,
    route: str,
    data: msgspec.Struct,
    kind: type[Made],
    make: Callable[[Connection, Author], Made],
    kept: Callable[[Made], Made] = lambda made: made,
) -> Response[Made]:
    """Make something, once for each key; the answer to the request.

    Args:
        key: what the header says; ``None``: make it in any case.
        route, data: what is asked for: under the same key it must be the same. kind: of the answer.
        kept: what a repeat is answered, where that is less than the first answer: secrets are never kept.

    Raises: Violation: it is no key. Unprocessable, Conflict: see there.
    """
    if key is None:
        return Response(context.change(make), status_code=201)
    asked = Once(_bare(key), hashlib.sha256(route.encode() + b"\n" + _canonical(data)).digest())

    def work(connection: Connection, author: Author) -> Made | str:
        def text_of(made: Made) -> str:
            return msgspec.json.encode(kept(made)).decode()

        return answer_once(connection, asked, author, lambda: make(connection, author), text_of)

    found = context.change(work)
    if isinstance(found, str):
        again = msgspec.json.decode(found, type=kind)
        return Response(again, status_code=201, headers={REPLAYED: "true"})
    return Response(found, status_code=201)


def _bare(key: str) -> str:
    if not _KEY.fullmatch(key.strip()):
        raise Violation(HEADER, "is no such key", _WORDS)
    return key.strip().strip('"')


def _canonical(data: msgspec.Struct) -> bytes:
    return msgspec.json.encode(data, order="deterministic")
