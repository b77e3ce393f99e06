"""Says what a customer used, told apart as asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from control_plane.operations.change_customer import require_customer
from control_plane.store import usage
from control_plane.store.database import Connection
from protocol.ids import is_key
from protocol.violations import Violation

GROUPS_MAX = 10_000
HOUR_MS = 3_600_000
SUBJECTS = ("user", "workspace", "role", "api_key")
TAG = "tag:"
KEYS = ("meter", "feature", "model", "hour", "day", *SUBJECTS, "tag:NAME")


@dataclass(frozen=True)
class UsageQuery:
    """Which usage is wanted.

    Attributes:
        from_ms, to_ms: ``from_ms <= hour < to_ms``; both are whole hours.
        keys: what it is told apart by, in order; of subjects and tags at most one.
        dimension: the subject or tag that is told apart or asked for; empty for neither.
        value: only what names this one; ``None``: whoever is named, and what names nobody.
    """

    from_ms: int
    to_ms: int
    keys: tuple[str, ...]
    dimension: str = ""
    value: str | None = None


def parse_keys(text: str) -> tuple[str, ...]:
    """``meter,day`` as a list. Raises: Violation: an unknown key, one twice, or two of subjects and tags."""
    keys = tuple(text.split(","))
    for key in keys:
        if not _is_key(key):
            raise Violation("group_by", f"names {key!r}", "a list of " + ", ".join(KEYS))
    if len(set(keys)) < len(keys):
        raise Violation("group_by", "names a key twice", "each once")
    if len([key for key in keys if is_dimension(key)]) > 1:
        expected = "one of " + ", ".join((*SUBJECTS, "tag:NAME"))
        raise Violation("group_by", "names two of the subjects and tags, of which sums are kept one by one", expected)
    return keys


def is_dimension(key: str) -> bool:
    """Whether sums are kept for each value of it, beside the total."""
    return key in SUBJECTS or key.startswith(TAG)


def _is_key(key: str) -> bool:
    return is_key(key.removeprefix(TAG)) if key.startswith(TAG) else key in KEYS


def read_usage(connection: Connection, customer: str, query: UsageQuery) -> list[dict[str, Any]]:
    """Sums, in order of their keys; a subject or tag that was not named is ``""``.

    Raises: NotFound. Violation: the answer would have more than ``GROUPS_MAX`` groups.
    """
    require_customer(connection, customer)
    rows = _sums(connection, customer, query, query.dimension, query.value)
    if query.dimension in query.keys and query.value is None:
        rows = _with_unnamed(rows, _sums(connection, customer, query, "", None), query)
    return [{query.dimension if key == "value" else key: part for key, part in row.items()} for row in rows]


def _sums(
    connection: Connection, customer: str, query: UsageQuery, dimension: str, value: str | None
) -> list[dict[str, Any]]:
    keys = ["value" if key == query.dimension else key for key in query.keys]
    rows = usage.sums(
        connection, customer, query.from_ms, query.to_ms, keys, GROUPS_MAX + 1, dimension=dimension, value=value
    )
    if len(rows) > GROUPS_MAX:
        raise Violation("group_by", f"gives more than {GROUPS_MAX} groups", "fewer keys or a shorter span")
    return rows


def _with_unnamed(
    named: list[dict[str, Any]], totals: Sequence[dict[str, Any]], query: UsageQuery
) -> list[dict[str, Any]]:
    """What names nobody is the difference between everything and what names somebody."""
    keys = ["value" if key == query.dimension else key for key in query.keys]
    rest = {tuple(row[key] for key in keys): dict(row) for row in totals}
    for row in named:
        left = rest[tuple("" if key == "value" else row[key] for key in keys)]
        left["quantity"] -= row["quantity"]
        left["events"] -= row["events"]
    unnamed = [row for row in rest.values() if row["quantity"] or row["events"]]
    return sorted([*named, *unnamed], key=lambda row: [row[key] for key in keys])
