"""Re-ratings over HTTP: past usage by another version of its price book, looked at or applied."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter

from control_plane.api.bodies import Reason
from control_plane.api.context import Context
from control_plane.api.parameters import decode_cursor, encode_cursor
from control_plane.api.verbs import puts
from control_plane.core.rerating import NAME_MAX
from control_plane.operations.rerate_usage import Position, Rerated, Rerating, rerate_usage
from control_plane.store.database import Connection
from protocol.ids import KEY_PATTERN, KEY_WORDS, Key
from protocol.instants import from_rfc3339, rfc3339
from protocol.violations import Violation

_POSITION: msgspec.json.Decoder[Position] = msgspec.json.Decoder(Position)

Name = Annotated[str, PathParameter(pattern=KEY_PATTERN, max_length=NAME_MAX, description=KEY_WORDS)]
Instant = Annotated[str, msgspec.Meta(max_length=40, description="RFC 3339")]


class ReratingWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """Which calls to price again, by which version of their price book: those of one customer, or of all that are on a
    plan now, from ``from`` until before ``to``. Without ``apply`` it only says what would change."""

    book: Key
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    from_: Instant
    to: Instant
    reason: Reason
    customer: Key | None = None
    plan: Key | None = None
    apply: bool = False
    cursor: Annotated[str, msgspec.Meta(max_length=600)] | None = None


class Change(msgspec.Struct, frozen=True):
    """What the calls of one UTC day whose price is another came to in one meter, and come to now."""

    day: str
    meter: str
    before: int
    after: int


class ReratingItem(msgspec.Struct, frozen=True):
    """One page: ask again with ``next_cursor`` until it is null. ``calls``: looked at; ``moved``: whose price is
    another; ``corrected``: by this request; ``unpriced``: that this version has no price for; ``closed``: of those
    moved, in closed billing periods: corrected by adjustments in the next."""

    rerating: str
    calls: int
    moved: int
    corrected: int
    unpriced: int
    closed: int
    changes: tuple[Change, ...]
    next_cursor: str | None


@puts("/v1/reratings/{rerating:str}", ReratingWrite, tags=["prices"])
def rerate(rerating: Name, data: JSONBody[ReratingWrite], context: NamedDependency[Context]) -> ReratingItem:
    """Price past calls again. Applied, it adds a correction to each call whose price is another; each name corrects a
    call once."""
    from_ms, to_ms = _instant("from", data.from_), _instant("to", data.to)
    order = Rerating(data.book, data.version, from_ms, to_ms, data.customer, data.plan, data.reason)
    after = None if data.cursor is None else decode_cursor(data.cursor, _POSITION)

    def look(connection: Connection) -> Rerated:
        return rerate_usage(connection, rerating, order, context.author, apply=data.apply, after=after)

    return _item(rerating, context.change(lambda connection, _: look(connection)) if data.apply else context.read(look))


def _instant(field: str, text: str) -> int:
    try:
        return from_rfc3339(text)
    except ValueError:
        expected = "an RFC 3339 instant with its zone, as 2026-11-24T05:00:00Z, from 1970 to 2199"
        raise Violation(field, "is no instant", expected) from None


def _item(name: str, found: Rerated) -> ReratingItem:
    changes = tuple(Change(rfc3339(day), meter, *sums) for (day, meter), sums in sorted(found.sums.items()))
    return ReratingItem(
        name,
        found.calls,
        found.moved,
        found.corrected,
        found.unpriced,
        found.closed,
        changes,
        None if found.following is None else encode_cursor(found.following),
    )


RERATING_HANDLERS = [rerate]
