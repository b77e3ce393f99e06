"""Prices past calls again by another version of their price book: a preview, or corrections of each call, once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from control_plane.core.rerating import NAME_MAX, Moved, Repricer, correction
from control_plane.operations.author import Author
from control_plane.operations.change_customer import require_customer
from control_plane.operations.enter_corrections import enter_corrections
from control_plane.operations.pin_price_books import require_price_book
from control_plane.operations.refusals import Conflict
from control_plane.operations.resolve_entitlement import entitlements_of
from control_plane.store import events, periods, reratings
from control_plane.store.database import Connection
from control_plane.store.events import Kept
from protocol.codec import MsgpackDecoder
from protocol.events import UsageEvent
from protocol.ids import KEY_PATTERN, Key
from protocol.instants import InstantMs
from protocol.violations import Violation

PAGE = 2_000
CUSTOMERS = 500
DAY_MS = 86_400_000
SPAN_MS_MAX = 400 * DAY_MS
MAKER = "rerating"

_decode = MsgpackDecoder(UsageEvent)

Name = Annotated[str, msgspec.Meta(pattern=KEY_PATTERN, max_length=NAME_MAX)]


class Rerating(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order: the calls of one customer, or of all that are on a plan now, which happened from ``from_ms`` until
    before ``to_ms``, by ``version`` of ``book``, as far as any version of this book has priced them."""

    book: Key
    version: Annotated[int, msgspec.Meta(ge=1)]
    from_ms: InstantMs
    to_ms: InstantMs
    customer: Key | None = None
    plan: Key | None = None
    reason: str = ""


class Position(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """After which call the next page begins: customer, instant, event; the customer's end where there is no event."""

    customer: str
    at_ms: int = 0
    event: str = ""


@dataclass(slots=True)
class Rerated:
    """What one page found, and did if it was to be applied.

    Attributes:
        calls: looked at. moved: whose price is another. corrected: that were corrected now; the others were before.
        unpriced: calls that this version of the book has no price for: they stay as they are.
        closed: of those whose price is another: in billing periods that are closed: corrected by adjustments in the
            next.
        sums: by UTC day (its first instant) and meter: before, and after.
        following: where the next page begins; ``None``: that was all.
    """

    calls: int = 0
    moved: int = 0
    corrected: int = 0
    unpriced: int = 0
    closed: int = 0
    sums: dict[tuple[int, str], list[int]] = field(default_factory=dict)
    following: Position | None = None


def rerate_usage(
    connection: Connection,
    name: str,
    order: Rerating,
    author: Author,
    *,
    apply: bool = False,
    after: Position | None = None,
) -> Rerated:
    """Look at up to ``PAGE`` calls of one customer, and with ``apply`` correct those whose price is another; the same
    order again corrects nothing twice, and goes on where it was interrupted.

    Raises: Violation: neither a customer nor a plan, or no span. NotFound: no such book, version or customer.
        Conflict: another order was given under this name.
    """
    _check(order)
    version, body = require_price_book(connection, order.book, order.version)
    if order.customer is not None:
        require_customer(connection, order.customer, lock=apply)
    if apply:
        _remember(connection, name, order, author)
    found = Rerated()
    customer, position = _whose(connection, order, after, author.now_ms)
    if customer is None:
        return found
    if apply:
        require_customer(connection, customer, lock=True)
    rows = events.first_words(connection, customer, order.from_ms, order.to_ms, position, PAGE + 1)
    shown = rows[:PAGE]
    closed_ms = periods.closed_until(connection, customer)
    repricer, corrections = Repricer(order.book, version, body), []
    for row, said in _chains(connection, customer, shown):
        moved = _look(found, repricer, row, said)
        if moved:
            found.closed += row.at_ms < closed_ms
            corrections.append(correction(name, said, moved, row.at_ms))
    if apply and corrections:
        found.corrected = len(enter_corrections(connection, MAKER, corrections, author).names)
        told = {"order": msgspec.to_builtins(order), "corrected": found.corrected}
        author.write_down(connection, "usage.rerate", name, told, customer)
    if len(rows) > PAGE:
        found.following = Position(customer, shown[-1].at_ms, shown[-1].event)
    elif order.plan is not None and _next_on_plan(connection, order.plan, customer, author.now_ms):
        found.following = Position(customer)
    return found


def _check(order: Rerating) -> None:
    if (order.customer is None) == (order.plan is None):
        raise Violation("customer", "is given together with, or missing like, `plan`", "one of the two")
    if not 0 < order.to_ms - order.from_ms <= SPAN_MS_MAX:
        raise Violation("to", "is not after `from`, or too far from it", f"at most {SPAN_MS_MAX // DAY_MS} days")


def _remember(connection: Connection, name: str, order: Rerating, author: Author) -> None:
    what = msgspec.json.encode(order).decode()
    known = reratings.ordered(connection, name)
    if known is None:
        reratings.add(connection, name, what, author.now_ms)
    elif known != what:
        raise Conflict("rerating_exists", f"Re-rating {name!r} was another order; use a new name.", "rerating")


def _whose(
    connection: Connection, order: Rerating, after: Position | None, now_ms: int
) -> tuple[str | None, tuple[int, str] | None]:
    """Whose calls this page is about, and after which of them it begins."""
    if after is not None and order.customer not in (None, after.customer):
        raise Violation("cursor", "is that of another customer", "`next_cursor` of the page before, unchanged")
    if after is not None and after.event:
        return after.customer, (after.at_ms, after.event)
    if order.plan is None:
        return order.customer, None
    return _next_on_plan(connection, order.plan, after.customer if after else "", now_ms), None


def _next_on_plan(connection: Connection, plan: str, after: str, now_ms: int) -> str | None:
    """The first customer after this one that is on the plan now, whatever its version."""
    named = re.compile(rf"{re.escape(plan)}@[0-9]+")
    while names := reratings.subscribed_after(connection, after, CUSTOMERS):
        entitlements = entitlements_of(connection, names, now_ms)
        for name in names:
            if name in entitlements and named.fullmatch(entitlements[name].plan):
                return name
        after = names[-1]
    return None


def _chains(connection: Connection, customer: str, rows: Sequence[Kept]) -> Iterator[tuple[Kept, list[UsageEvent]]]:
    """Each call with everything that was said of it."""
    more: dict[str, list[UsageEvent]] = {}
    for kept in events.corrections(connection, customer, [row.event for row in rows]):
        more.setdefault(kept.corrects or "", []).append(_decode(kept.body))
    for row in rows:
        yield row, [_decode(row.body), *more.get(row.event, [])]


def _look(found: Rerated, repricer: Repricer, row: Kept, said: Sequence[UsageEvent]) -> list[Moved]:
    moved, unpriced = repricer.reprice(said)
    found.calls += 1
    found.moved += bool(moved)
    found.unpriced += bool(unpriced)
    for change in moved:
        sums = found.sums.setdefault((row.at_ms - row.at_ms % DAY_MS, change.meter), [0, 0])
        sums[0] += change.before
        sums[1] += change.after
    return moved
