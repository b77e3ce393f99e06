"""Tables for what subscriptions go through: changes, add-ons, overrides, and what all that resolved to."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text

from control_plane.store.tables import KEY, SERIAL, metadata

__all__ = ["add_ons", "documents", "entitlement_versions", "metadata", "overrides", "subscription_changes"]

# An add-on's version never changes once written; `body` is JSON of core.plans.PlanBody.
add_ons = Table(
    "add_ons",
    metadata,
    Column("add_on", KEY, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("published_at_ms", BigInteger, nullable=False),
)

# From `from_ms` on, a track (core.subscriptions.Track) has a value. A subscription at any instant is the fold of its
# changes up to then. What was arranged and then replaced before it came stays, with when that was.
subscription_changes = Table(
    "subscription_changes",
    metadata,
    Column("change", SERIAL, primary_key=True, autoincrement=True),
    Column("customer", KEY, nullable=False),
    Column("track", String(16), nullable=False),
    Column("value", Text, nullable=False),
    Column("from_ms", BigInteger, nullable=False),
    Column("cause", String(64), nullable=False),
    Column("actor", KEY, nullable=False),
    Column("recorded_at_ms", BigInteger, nullable=False),
    Column("replaced_at_ms", BigInteger),
    Index(None, "customer", "replaced_at_ms"),
    sqlite_autoincrement=True,
)

# What one customer has otherwise; `body` is JSON of core.overrides.OverrideBody. Ending one sets `until_ms`.
overrides = Table(
    "overrides",
    metadata,
    Column("customer", KEY, primary_key=True),
    Column("override", KEY, primary_key=True),
    Column("serial", BigInteger, nullable=False),  # order in which a customer's were made
    Column("body", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", KEY, nullable=False),
    Column("made_at_ms", BigInteger, nullable=False),
    Column("from_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger),
)

# Resolved documents (core.entitlements.Document), each once, by the SHA-256 of their text.
documents = Table(
    "documents",
    metadata,
    Column("document", String(64), primary_key=True),
    Column("body", Text, nullable=False),
)

# Which document each version of a customer's entitlement was, and from when on.
entitlement_versions = Table(
    "entitlement_versions",
    metadata,
    Column("customer", KEY, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("document", String(64), nullable=False),
    Column("from_ms", BigInteger, nullable=False),
    Column("cause", String(64), nullable=False),
)
