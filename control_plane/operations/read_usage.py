"""Says what a customer used, told apart as asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from control_plane.operations.change_customer import require_customer
from control_plane.store import usage
from control_plane.store.database import Connection
from protocol.violations import Violation

GROUPS_MAX = 10_000
HOUR_MS = 3_600_000


def parse_keys(text: str) -> list[str]:
    """``meter,day`` as a list. Raises: Violation: an unknown key, or one twice."""
    keys = text.split(",")
    for key in keys:
        if key not in usage.KEYS:
            raise Violation("group_by", f"names {key!r}", "a list of " + ", ".join(usage.KEYS))
    if len(set(keys)) < len(keys):
        raise Violation("group_by", "names a key twice", "each once")
    return keys


def read_usage(
    connection: Connection, customer: str, from_ms: int, to_ms: int, keys: Sequence[str]
) -> list[dict[str, Any]]:
    """Sums of ``from_ms <= hour < to_ms``; both are whole hours.

    Raises: NotFound. Violation: the answer would have more than ``GROUPS_MAX`` groups.
    """
    require_customer(connection, customer)
    rows = usage.sums(connection, customer, from_ms, to_ms, keys, GROUPS_MAX + 1)
    if len(rows) > GROUPS_MAX:
        raise Violation("group_by", f"gives more than {GROUPS_MAX} groups", "fewer keys or a shorter span")
    return rows
