"""Makes and ends overrides: what one customer has otherwise than its plan says."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from control_plane.core.credit_features import free_violations
from control_plane.core.entitlements import resolve
from control_plane.core.feature_values import VALUES_BYTES_MAX, value_violations, values_bytes
from control_plane.core.overrides import OverrideBody
from control_plane.operations.author import Author
from control_plane.operations.change_customer import require_customer
from control_plane.operations.refusals import Conflict, NotFound
from control_plane.operations.resolve_entitlement import facts_of
from control_plane.store import catalog, overrides
from control_plane.store.database import Connection
from control_plane.store.overrides import OverrideRow
from protocol.entitlements import FeatureKind
from protocol.units import QUANTITY_MAX
from protocol.violations import Violation


@dataclass(frozen=True)
class OverrideOrder:
    """What shall be otherwise, why, and for how long; ``from_ms`` of ``None``: from now on."""

    body: OverrideBody
    reason: str
    from_ms: int | None = None
    until_ms: int | None = None


def put_override(
    connection: Connection, customer: str, override: str, wanted: OverrideOrder, author: Author
) -> OverrideRow:
    """Make one. It is what it is: the same said again changes nothing, something else is another override.

    Raises: NotFound. Conflict: the id stands for something else. Violation: it says nothing, contradicts itself, or
        would make something free that never may be.
    """
    require_customer(connection, customer, lock=True)
    checked = _checked(connection, wanted)
    body = msgspec.json.encode(checked, order="deterministic").decode()
    known = overrides.find(connection, customer, override)
    if known is not None:
        same = (known.body, known.reason) == (body, wanted.reason)
        if same and wanted.from_ms in (None, known.from_ms) and known.until_ms == wanted.until_ms:
            return known
        detail = f"Override {override!r} is there and says something else. End it, and make another under a new id."
        raise Conflict("override_exists", detail, "override")
    from_ms = author.now_ms if wanted.from_ms is None else wanted.from_ms
    if wanted.until_ms is not None and wanted.until_ms <= max(from_ms, author.now_ms):
        raise Violation("until", "is not after its beginning and after now", "a later instant")
    serial = overrides.next_serial(connection, customer)
    row = OverrideRow(
        customer, override, serial, body, wanted.reason, author.token, author.now_ms, from_ms, wanted.until_ms
    )
    overrides.add(connection, row)
    if checked.feature is not None:
        _require_sound(connection, row, checked)
    said = {"body": msgspec.json.decode(body), "reason": wanted.reason, "from_ms": from_ms, "until_ms": row.until_ms}
    author.write_down(connection, "override.put", override, said, customer)
    author.change_entitlement(connection, customer, "override.put")
    return row


def end_override(connection: Connection, customer: str, override: str, author: Author) -> OverrideRow:
    """End one now; it stays on record. Ending it twice changes nothing. Raises: NotFound."""
    require_customer(connection, customer, lock=True)
    known = require_override(connection, customer, override)
    if known.until_ms is not None and known.until_ms <= author.now_ms:
        return known
    until_ms = max(author.now_ms, known.from_ms)
    overrides.end(connection, customer, override, until_ms)
    author.write_down(connection, "override.end", override, {}, customer)
    author.change_entitlement(connection, customer, "override.end")
    return known._replace(until_ms=until_ms)


def require_override(connection: Connection, customer: str, override: str) -> OverrideRow:
    """One override. Raises: NotFound."""
    require_customer(connection, customer)
    known = overrides.find(connection, customer, override)
    if known is None:
        raise NotFound("override_not_found", f"Customer {customer!r} has no override {override!r}.", "override")
    return known


def _require_sound(connection: Connection, made: OverrideRow, body: OverrideBody) -> None:
    """Raises: Violation: it would switch on a credit feature whose calls burn nothing, or make values too large."""
    document = resolve(facts_of(connection, [made.customer])[made.customer], made.from_ms)
    size = 0 if body.value is None else values_bytes(document.features)
    if size > VALUES_BYTES_MAX:
        raise Violation("value", f"makes {size} bytes with the other features'", f"at most {VALUES_BYTES_MAX} together")
    if body.enabled:
        for wrong in free_violations(document.features, document.limits, document.rates):
            raise Violation("enabled", wrong.problem, f"a plan that has {wrong.expected}")


def _checked(connection: Connection, wanted: OverrideOrder) -> OverrideBody:
    body = wanted.body
    if (body.feature is None) == (body.limit is None):
        raise Violation("feature", "and limit are both given, or neither", "one of the two")
    if body.limit is not None:
        if body.enabled is not None or body.value is not None:
            raise Violation("value", "is given for a limit", "amount, unlimited or add")
        if body.amount is not None and body.unlimited:
            raise Violation("unlimited", "is true beside an amount", "one of the two")
        if body.amount is None and not body.unlimited and not body.add:
            raise Violation("amount", "is missing", "an amount, unlimited, or what to add")
        if abs(body.add) > QUANTITY_MAX:
            raise Violation("add", f"is {body.add}", f"at most {QUANTITY_MAX} either way")
        return body
    if body.amount is not None or body.unlimited or body.add:
        raise Violation("amount", "is given for a feature", "enabled or value")
    if body.enabled is None and body.value is None:
        raise Violation("enabled", "is missing", "whether the feature is on, or its value")
    known = catalog.find_feature(connection, body.feature or "")
    if known is None:
        raise NotFound("feature_not_found", f"There is no feature {body.feature!r}.", "feature")
    if body.value is not None and known.kind is not FeatureKind.STATIC:
        raise Violation("value", f"is given for a {known.kind.value} feature", "a value for static features only")
    for violation in value_violations("value", body.value):
        raise violation
    return body
