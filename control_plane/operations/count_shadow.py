"""Counts what limits in shadow would have refused: calls that found no room in their counter, in order of acceptance.

What would have been refused has happened, and is used like everything: so each of these calls is counted, and not only
the first. Calls that are voided later stay counted: the limit would have refused them all the same.
"""

from __future__ import annotations

from control_plane.operations.accounts import Account
from control_plane.store import shadow_refusals
from control_plane.store.database import Connection
from control_plane.store.shadow_refusals import Refused
from protocol.entitlements import Limit


class Shadow:
    """What one transaction finds."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str, int], Refused] = {}

    def look(self, account: Account, limit: Limit, amount: int, at_ms: int, window_end_ms: int) -> None:
        """At a call of ``at_ms`` that is about to be charged ``amount``."""
        ceiling = limit.admission_ceiling
        if ceiling is None or account.taken + amount <= ceiling:
            return
        known = self._found.get(account.key)
        if known is None:
            known = Refused(account.key, window_end_ms, limit.key, 0, 0, at_ms, at_ms)
        self._found[account.key] = known._replace(
            events=known.events + 1,
            quantity=known.quantity + amount,
            first_at_ms=min(known.first_at_ms, at_ms),
            last_at_ms=max(known.last_at_ms, at_ms),
        )

    def save(self, connection: Connection) -> None:
        """Write it down."""
        shadow_refusals.add(connection, list(self._found.values()))
