"""Who makes a change, and when: what every change is written down with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.operations.keep_entitlements import keep_entitlements
from control_plane.store import audit_log
from control_plane.store.database import Connection


@dataclass(frozen=True)
class Author:
    """One request's author.

    Attributes:
        token: the public half of the token that was shown.
        now_ms: when, milliseconds UTC.
    """

    token: str
    now_ms: int

    def write_down(
        self, connection: Connection, action: str, target: str, body: Mapping[str, object], customer: str | None = None
    ) -> None:
        """Add a row to the audit log, in the transaction that makes the change."""
        audit_log.append(connection, self.now_ms, self.token, action, target, body, customer)

    def change_entitlement(self, connection: Connection, customer: str, cause: str) -> None:
        """Something that decides the customer's entitlement has changed; last in a transaction.

        Args:
            cause: the action, for the record of versions.
        """
        keep_entitlements(connection, [customer], self.now_ms, cause)
