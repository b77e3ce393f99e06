"""The journal's tables, as they came to be."""

from __future__ import annotations

import sqlite_utils
from sqlite_utils.migrations import Migrations

BOOTS_KEPT = 1_024
CLOSED_KEPT = 10_000
"""Closed leases that are remembered at most: as many as a control plane takes in at one registration, with room."""

CLOSED_TOLD = 500
"""Of those, how many each start tells of, asked or not: else a control plane that was restored without noticing could
take a lease that was closed meanwhile for one that the disk has lost."""

migrations = Migrations("allotment-agent")


@migrations()
def first(db: sqlite_utils.Database) -> None:
    """Version 0.1."""
    db.table("meta").create({"key": str, "value": str}, pk="key", strict=True)
    db.table("leases").create(
        {"lease": str, "body": bytes, "cap": int, "watermark": int, "settled": int, "orphan": int, "closing": int,
         "expires_at_ms": int, "window_ends_at_ms": int},
        pk="lease", strict=True,
    )  # fmt: skip
    db.table("reservations").create({"reservation": str, "body": bytes}, pk="reservation", strict=True)
    db.table("entitlements").create({"customer": str, "body": bytes}, pk="customer", strict=True)
    db.table("outbox").create(
        {"boot": int, "first": int, "count": int, "crc32": int, "body": bytes, "at_ms": int},
        pk=("boot", "first"), strict=True,
    )  # fmt: skip


@migrations()
def restorable(db: sqlite_utils.Database) -> None:
    """Remember for a while what the control plane has confirmed and closed, in case its database is restored.

    ``confirmed``: up to where each boot's events are in the ledger, as last heard and at most.
    """
    db.table("confirmed").create({"boot": int, "seq": int, "told": int}, pk="boot", strict=True)
    db.table("closed_leases").create(
        {"lease": str, "body": bytes, "settled": int, "orphan": int, "at_ms": int}, pk="lease", strict=True
    )
