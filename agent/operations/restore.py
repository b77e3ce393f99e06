"""Memory from the journal, at the start: the agent serves what it held before, with the control plane dead or alive."""

from __future__ import annotations

import logging
from zlib import crc32

import msgspec

from agent.core.books import Books
from agent.core.budget import Purpose
from agent.core.reservations import Ended, Said
from agent.operations.commit_group import StoredReservation, from_lease_row, from_reservation_row
from agent.store.journal import BatchRow, Contents, JournalDamagedError
from protocol.codec import MsgpackDecoder
from protocol.entitlements import Entitlement
from protocol.events import UsageEvent
from protocol.leases import Grant
from protocol.local_messages import RESERVATION_TTL_MS, Call
from protocol.rates import NO_RATES, RateCard
from protocol.violations import Violation

_grant = MsgpackDecoder(Grant)
_reservation = MsgpackDecoder(StoredReservation)
_entitlement = MsgpackDecoder(Entitlement)
_events = MsgpackDecoder(list[msgspec.Raw])
_event = MsgpackDecoder(UsageEvent)

log = logging.getLogger("agent.restore")


def restore(books: Books, contents: Contents, now_ms: int, shift_ms: int) -> None:
    """Fill empty books from what is on disk.

    Args:
        shift_ms: what to add to the monotonic instants of the last run so that they count on this run's clock.

    Raises:
        JournalDamagedError: something on disk cannot be what was written.
    """
    try:
        _entitlements(books, contents, now_ms)
        _leases(books, contents, now_ms, shift_ms)
        _reservations(books, contents, shift_ms)
        for batch in contents.outbox:
            _remember_ended(books, batch)
    except Violation as damage:
        raise JournalDamagedError(f"the journal holds something that cannot be read: {damage}") from damage
    for lease in books.leases.values():
        lease.orphan = lease.durable_orphan = max(0, lease.watermark - lease.settled - lease.held)
        lease.orphan_until_ms = now_ms + RESERVATION_TTL_MS if lease.orphan else 0


def _entitlements(books: Books, contents: Contents, now_ms: int) -> None:
    for name, body in contents.entitlements:
        customer = books.customer(name)
        entitlement = _entitlement(body)
        customer.entitle(entitlement, now_ms)
        customer.told_version = entitlement.version
        customer.last_used_ms = now_ms


def _leases(books: Books, contents: Contents, now_ms: int, shift_ms: int) -> None:
    for row in contents.leases:
        lease = from_lease_row(row, _grant(row.body), shift_ms, now_ms)
        books.leases[lease.id] = lease
        purpose = Purpose.FINISHING if lease.finishing else Purpose.NOW if lease.begun else Purpose.AHEAD
        books.allowance(lease.key, now_ms).beside(purpose, now_ms).take_in(lease)


def _reservations(books: Books, contents: Contents, shift_ms: int) -> None:
    for name, body in contents.reservations:
        stored = _reservation(body)
        held = from_reservation_row(name, stored, books.leases, _card_of(books, stored), shift_ms)
        for line in held.lines:
            for lease, amount in line.holds:
                lease.held += amount
        books.reservations.put(held)


def _card_of(books: Books, stored: StoredReservation) -> RateCard:
    """The whole card that it was reserved under, while that holds; else what was written down of it: the rates of the
    model that was asked for."""
    customer = books.customers.get(stored.call.customer)
    if customer is not None and customer.entitlement is not None and customer.entitlement.version == stored.version:
        return customer.card
    return RateCard(stored.rates, stored.plan) if stored.rates else NO_RATES


def _remember_ended(books: Books, batch: BatchRow) -> None:
    """What callers said before the restart, so that saying it again changes nothing."""
    if crc32(batch.body) != batch.crc32:
        raise JournalDamagedError(f"events {batch.first} ff. of boot {batch.boot} fail their checksum")
    for raw in _events(batch.body):
        try:
            event = _event(raw)
        except Violation as wrong:  # written as it is by an agent of another version: the control plane judges it
            log.warning("an event of batch %d of boot %d cannot be read here: %s", batch.first, batch.boot, wrong)
            continue
        for key in (event.event, f"{event.customer}/{event.event}"):
            if event.corrects is None:
                _first_word(books, key, event, _rates_of(books, event))
        if event.corrects is not None:
            for key in (event.corrects, f"{event.customer}/{event.corrects}"):
                _correction(books, key, event)


def _rates_of(books: Books, event: UsageEvent) -> RateCard:
    """The rates that made its derived meters, or those that hold now when they have changed since: a correction then
    brings the call to what these make of it."""
    customer = books.customers.get(event.customer)
    return customer.card if event.derived and customer else NO_RATES


def _first_word(books: Books, key: str, event: UsageEvent, card: RateCard) -> None:
    call = Call(event.customer, event.feature, event.subject, event.tags, event.model)
    said = _said(event, _without(event.amounts, event.derived), event.tokens)
    ended = Ended(event.event, said, call, event.event, durable=True, card=card, counted=dict(event.amounts))
    books.ended.put(key, ended)


def _correction(books: Books, key: str, event: UsageEvent) -> None:
    ended = books.ended.get(key)
    if ended is None or ended.said is None or ended.last_event is None:
        return
    before = ended.said
    ended.earlier = (*ended.earlier, (before, ended.last_event))
    ended.counted = _sum(ended.counted, event.amounts)
    amounts = _sum(before.amounts, _without(event.amounts, event.derived))
    ended.said = _said(event, amounts, _sum(before.tokens, event.tokens))
    ended.last_event = event.event


def _said(event: UsageEvent, amounts: dict[str, int], tokens: dict[str, int]) -> Said:
    return Said(amounts, tokens, event.usage_source, event.outcome, event.model, event.provider)


def _without(amounts: dict[str, int], derived: tuple[str, ...]) -> dict[str, int]:
    return {meter: amount for meter, amount in amounts.items() if meter not in derived}


def _sum(before: dict[str, int], difference: dict[str, int]) -> dict[str, int]:
    return {name: before.get(name, 0) + difference.get(name, 0) for name in {**before, **difference}}
