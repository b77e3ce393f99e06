"""The parameters of routes: ids in paths, pages of lists; bounded, and each with a word for the documentation."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

import msgspec
from litestar.params import PathParameter, QueryParameter

from protocol.ids import KEY_PATTERN, KEY_WORDS, MODEL_PATTERN, MODEL_WORDS, Key
from protocol.violations import Violation

T = TypeVar("T")
Row = TypeVar("Row")

# What cursors hold. They come back from outside, so they are bounded like everything that does.
Serial = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
OptionalKey = Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._:@+~-]{0,127})?\Z")]

PathKey = Annotated[str, PathParameter(pattern=KEY_PATTERN, max_length=128, description=KEY_WORDS)]
QueryKey = Annotated[str | None, QueryParameter(pattern=KEY_PATTERN, max_length=128, description=KEY_WORDS)]
QueryModel = Annotated[str | None, QueryParameter(pattern=MODEL_PATTERN, max_length=128, description=MODEL_WORDS)]
QueryTag = Annotated[
    str | None,
    QueryParameter(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+~-]{0,127}:[A-Za-z0-9][A-Za-z0-9._:@+~-]{0,127}\Z",
        max_length=257,
        description="NAME:VALUE of a tag; the name up to the first colon",
    ),
]
PageLimit = Annotated[int, QueryParameter(ge=1, le=1000, description="how many items at most")]
PageCursor = Annotated[str | None, QueryParameter(max_length=600, description="`next_cursor` of the page before")]

KeyPart = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:@+~/-]{0,128}\Z")] | Serial
"""One part of a position among sums or values: a name, ``""`` for none, or an instant."""

_KEY_POSITION: msgspec.json.Decoder[str] = msgspec.json.Decoder(Key)
_SERIAL_POSITION: msgspec.json.Decoder[int] = msgspec.json.Decoder(Serial)


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some items of a list; ``next_cursor`` is null on the last page."""

    items: Sequence[T]
    next_cursor: str | None


def named_subjects(
    user: str | None, workspace: str | None, role: str | None, api_key: str | None, tag: str | None
) -> dict[str, str]:
    """The subjects and the tag that a query names, as counters and sums are kept by them: ``tag:NAME`` for a tag."""
    given = {"user": user, "workspace": workspace, "role": role, "api_key": api_key}
    if tag is not None:
        name, _, value = tag.partition(":")
        given[f"tag:{name}"] = value
    return {name: value for name, value in given.items() if value is not None}


def page(rows: Sequence[Row], limit: int, item: Callable[[Row], T], position: Callable[[Row], object]) -> Page[T]:
    """A page of ``limit`` items out of rows of which one more was asked for than is shown.

    Args:
        position: what the next page begins after, for the cursor.
    """
    shown = rows[:limit]
    more = len(rows) > limit
    return Page([item(row) for row in shown], encode_cursor(position(shown[-1])) if more else None)


def encode_cursor(position: object) -> str:
    """An opaque text for a position in a list. It gives no access: it is checked like any parameter."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def key_cursor(cursor: str | None) -> str:
    """The id that a page begins after, ``""`` for the first page. Raises: Violation: the cursor is none of ours."""
    return "" if cursor is None else decode_cursor(cursor, _KEY_POSITION)


def serial_cursor(cursor: str | None) -> int | None:
    """The number that a page begins before, ``None`` for the first. Raises: Violation: the cursor is none of ours."""
    return None if cursor is None else decode_cursor(cursor, _SERIAL_POSITION)


def decode_cursor(cursor: str, decoder: msgspec.json.Decoder[T]) -> T:
    """The position that a cursor names. Raises: Violation: it is none of ours."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return decoder.decode(text)
    except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError):
        raise Violation("cursor", "is none of ours", "`next_cursor` of the page before, unchanged") from None
