"""Says why a customer is allowed or refused, now or at an instant, and replays decisions that were recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.core.entitlements import Document, calendar_at
from control_plane.core.explaining import Call, Explanation, Look, Use, explain
from control_plane.core.kinds import Kind, kind_of
from control_plane.operations.change_customer import require_customer
from control_plane.operations.refusals import NotFound
from control_plane.operations.resolve_entitlement import calendar_of, decode_document, document_of, facts_of
from control_plane.store import balances, entitlements, ledger
from control_plane.store.allowances import Key
from control_plane.store.database import Connection
from protocol.entitlements import Limit
from protocol.windows import Calendar, Window, WindowKind


@dataclass(frozen=True)
class Explained:
    """An explanation with what it is made of.

    Attributes:
        at_ms: as of when. version: of the entitlement that counted then, from when and by what cause.
    """

    at_ms: int
    version: int
    from_ms: int
    cause: str
    document: Document
    explanation: Explanation


def explain_decision(connection: Connection, customer: str, call: Call, at_ms: int | None, now_ms: int) -> Explained:
    """What a call is, or would have been, decided, and why.

    Args:
        at_ms: an instant that has passed; ``None``: now. Of the past, use is what the ledger had by then: what agents
            held is shown as lent, because what of it was used had not been told.

    Raises: NotFound: no such customer, or nothing is known of that instant.
    """
    known = require_customer(connection, customer)
    if at_ms is None or at_ms >= now_ms:
        document = document_of(connection, customer, now_ms)
        assert document is not None
        newest = entitlements.newest(connection, customer)
        from_ms, cause = (newest.from_ms, newest.cause) if newest else (known.created_at_ms, "")
        look = _now(connection, customer, calendar_of(connection, customer, now_ms), now_ms)
        return Explained(now_ms, known.version, from_ms, cause, document, explain(document, call, look))
    version = entitlements.version_at(connection, customer, at_ms)
    if version is None:
        detail = f"Nothing is known of what customer {customer!r} could use then."
        raise NotFound("instant_not_found", detail, "at")
    document = decode_document(version.body)
    look = _then(connection, customer, _calendar(connection, customer, at_ms), at_ms)
    return Explained(at_ms, version.version, version.from_ms, version.cause, document, explain(document, call, look))


def replay_decision(
    connection: Connection, customer: str, call: Call, version: int, states: Mapping[str, int]
) -> Explained:
    """Decide again as an agent did: under the version of the entitlement that it named, with the use that it saw.

    Args:
        states: by limit, what was used of it with what calls in flight held, as the recorded decision's breakdown says.

    Raises: NotFound: no such customer, or it never had that version.
    """
    require_customer(connection, customer)
    known = entitlements.find_version(connection, customer, version)
    if known is None:
        detail = f"Customer {customer!r} never had version {version} of its entitlement."
        raise NotFound("version_not_found", detail, "version")
    document = decode_document(known.body)
    calendar = _calendar(connection, customer, known.from_ms)

    def look(limit: Limit, whose: str) -> tuple[Window | None, Use]:
        del whose
        return _window(limit, calendar, known.from_ms), Use(used=states.get(limit.key, 0))

    return Explained(known.from_ms, version, known.from_ms, known.cause, document, explain(document, call, look))


def _calendar(connection: Connection, customer: str, at_ms: int) -> Calendar:
    return calendar_at(facts_of(connection, [customer])[customer], at_ms) or Calendar()


def _window(limit: Limit, calendar: Calendar, at_ms: int) -> Window | None:
    return None if limit.window is WindowKind.REQUEST else limit.window_at(at_ms, calendar)


def _now(connection: Connection, customer: str, calendar: Calendar, now_ms: int) -> Look:
    def look(limit: Limit, whose: str) -> tuple[Window | None, Use]:
        window = _window(limit, calendar, now_ms)
        if window is None or not limit.is_leased:
            return window, Use()
        rows = balances.counted(connection, customer, limit.counter, window.start_ms, scope_value=whose)
        if not rows:
            return window, Use()
        row = rows[0]
        if kind_of(limit.counter) is not Kind.QUOTA:
            return window, Use(reserved=row.in_flight, lent=row.lent, limbo=row.limbo)
        used = row.charged + row.settled
        return window, Use(used, row.in_flight, max(0, row.lent - row.settled - row.in_flight), row.limbo)

    return look


def _then(connection: Connection, customer: str, calendar: Calendar, at_ms: int) -> Look:
    def look(limit: Limit, whose: str) -> tuple[Window | None, Use]:
        window = _window(limit, calendar, at_ms)
        if window is None or not limit.is_leased:
            return window, Use()
        key = Key(customer, limit.counter, whose, window.start_ms)
        stood = ledger.standing_at(connection, key, at_ms)
        return window, Use(used=stood.charged, lent=stood.lent)

    return look
