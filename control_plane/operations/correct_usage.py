"""Corrects one past call by hand: other amounts, or none at all; a compensating entry, never an edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from control_plane.core.corrections import correct, derived_of, latest_prices
from control_plane.core.price_books import decode_book
from control_plane.core.rerating import Repricer
from control_plane.operations.author import Author
from control_plane.operations.change_customer import require_customer
from control_plane.operations.enter_corrections import Effects, enter_corrections
from control_plane.operations.refusals import Conflict, NotFound
from control_plane.operations.resolve_entitlement import decode_document
from control_plane.store import corrections, entitlements, events, price_books
from control_plane.store.corrections import CorrectionRow
from control_plane.store.database import Connection
from protocol.codec import MsgpackDecoder
from protocol.events import Priced, UsageEvent
from protocol.ids import Key
from protocol.rates import RateCard
from protocol.units import METERS_MAX, Amounts, normalise
from protocol.violations import Violation

MAKER = "by-hand"

_decode = MsgpackDecoder(UsageEvent)


class Kind(StrEnum):
    """What is corrected: ``amend``: the call came to other amounts; ``void``: it never was."""

    AMEND = "amend"
    VOID = "void"


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be corrected.

    Attributes:
        event: which call, by its event. amounts, tokens: of ``amend``: the call as it should have been reported.
    """

    kind: Kind
    event: Key
    amounts: Amounts = {}
    tokens: Amounts = {}
    reason: str = ""


class ItemResult(StrEnum):
    """What became of one item."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REJECTED = "rejected"
    LATE = "late"
    UNKNOWN_CUSTOMER = "unknown_customer"


class Item(msgspec.Struct, frozen=True):
    """One item; ``detail``: why, where it was not accepted."""

    event: Key
    result: ItemResult
    detail: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """What came of a correction: item by item, and what it moved."""

    items: tuple[Item, ...]
    effects: Effects


def correct_usage(connection: Connection, customer: str, correction: str, order: Order, author: Author) -> Outcome:
    """Correct one call; the same said twice changes nothing, and answers the same.

    Raises: NotFound: no such customer or event. Conflict: another order was given under this id. Violation: the event
        corrects another itself, or the amounts cannot be.
    """
    require_customer(connection, customer, lock=True)
    known = remembered(connection, customer, correction, order)
    if known is not None:
        return known
    first, said = _said(connection, customer, order.event)
    event = correct(correction, said, *_wanted(connection, order, said), first.at_ms)
    entered = enter_corrections(connection, MAKER, [event] if event else [], author)
    if event is not None and (customer, event.event) not in entered.names:
        detail = f"There is an event {event.event!r} already; use another id."
        raise Conflict("event_exists", detail, "correction")
    outcome = Outcome((Item(order.event, ItemResult.ACCEPTED),), entered.effects)
    remember(connection, customer, correction, order.kind.value, order, outcome, author)
    return outcome


def remembered(connection: Connection, customer: str, correction: str, order: Order | msgspec.Struct) -> Outcome | None:
    """What came of this order when it was given before. Raises: Conflict: another was given under this id."""
    known = corrections.find(connection, customer, correction)
    if known is None:
        return None
    if known.ordered != msgspec.json.encode(order).decode():
        detail = f"Correction {correction!r} was another order; use a new id."
        raise Conflict("correction_exists", detail, "correction")
    return msgspec.json.decode(known.outcome, type=Outcome)


def remember(
    connection: Connection,
    customer: str,
    correction: str,
    kind: str,
    order: Order | msgspec.Struct,
    outcome: Outcome,
    author: Author,
) -> None:
    """Keep what was ordered and what came of it, with its reason and author; in the audit log, too."""
    ordered, told = msgspec.json.encode(order).decode(), msgspec.json.encode(outcome).decode()
    reason = str(getattr(order, "reason", ""))
    row = CorrectionRow(customer, correction, kind, ordered, told, reason, author.token, author.now_ms)
    corrections.add(connection, row)
    counts: dict[str, int] = {}
    for item in outcome.items:
        counts[item.result.value] = counts.get(item.result.value, 0) + 1
    body: dict[str, object] = {"reason": reason, "items": counts}
    if isinstance(order, Order):
        body |= {"event": order.event, "amounts": order.amounts, "tokens": order.tokens}
    author.write_down(connection, f"usage.{kind}", correction, body, customer)


def _said(connection: Connection, customer: str, name: str) -> tuple[events.Kept, list[UsageEvent]]:
    """Everything that was said of a call."""
    first = events.find(connection, customer, name)
    if first is None:
        raise NotFound("event_not_found", f"Customer {customer!r} has no event {name!r}.", "event")
    if first.corrects is not None:
        raise Violation("event", f"{name!r} corrects {first.corrects!r}", f"the event itself: {first.corrects!r}")
    more = [_decode(kept.body) for kept in events.corrections(connection, customer, [name])]
    return first, [_decode(first.body), *more]


def _wanted(
    connection: Connection, order: Order, said: Sequence[UsageEvent]
) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """What the call is to come to, derived meters priced by what has priced them last."""
    if order.kind is Kind.VOID:
        if order.amounts or order.tokens:
            raise Violation("amounts", "are given for a call that never was", "none, or kind: amend")
        return {}, {}
    reported = normalise(order.amounts, order.tokens)
    made: dict[str, int] = {}
    prices = latest_prices(said)
    for meter in derived_of(said):
        if meter in reported:
            raise Violation(f"amounts.{meter}", "is made by rates of the others", "what callers report")
        price = _price(connection, prices[meter], said, reported, order.tokens) if meter in prices else None
        if price is None:
            by = prices[meter].by if meter in prices else "anything that is known"
            raise Violation("amounts", f"cannot be priced in {meter} by {by}", "void it, and enter it anew")
        made[meter] = price
    if len(made) + len(reported) > METERS_MAX:
        raise Violation("amounts", "make too many meters", f"at most {METERS_MAX}")
    return {**reported, **made}, order.tokens


def _price(
    connection: Connection,
    priced: Priced,
    said: Sequence[UsageEvent],
    amounts: Mapping[str, int],
    tokens: Mapping[str, int],
) -> int | None:
    """What a derived meter comes to by the version of the book, or the plan's own rates, that priced it."""
    last = said[-1]
    book, _, version = priced.by.rpartition("@")
    row = price_books.find(connection, book, int(version)) if version.isdecimal() and len(version) < 10 else None
    if row is not None:
        return Repricer(book, row.version, decode_book(row.body)).price(last, priced, amounts, tokens)
    then = entitlements.version_at(connection, last.customer, said[0].at_ms)
    if then is None:
        return None
    document = decode_document(then.body)
    choice = RateCard(document.rates, document.plan).choose(last.feature, last.model)
    return choice.exact(amounts, tokens).get(priced.meter)
