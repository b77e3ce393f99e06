"""Tables of what is made right afterwards: corrections, billing periods that are closed, and what people are told."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text

from control_plane.store.tables import COUNTER, KEY, SERIAL, metadata

__all__ = ["adjustments", "billing_periods", "corrections", "crossings", "metadata", "notices", "shadow_refusals"]

# What people ordered to be corrected under each id, and what came of it; what it did are events.
corrections = Table(
    "corrections",
    metadata,
    Column("customer", KEY, primary_key=True),
    Column("correction", KEY, primary_key=True),
    Column("kind", String(16), nullable=False),  # amend void backfill
    Column("ordered", Text, nullable=False),  # JSON of the order
    Column("outcome", Text, nullable=False),  # JSON of operations.correct_usage.Outcome
    Column("reason", Text, nullable=False),
    Column("actor", KEY, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

# Billing periods that are closed; `statement` is JSON of core.statements.Statement, as it was then.
billing_periods = Table(
    "billing_periods",
    metadata,
    Column("customer", KEY, primary_key=True),
    Column("start_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("closed_at_ms", BigInteger, nullable=False),
    Column("actor", KEY, nullable=False),
    Column("statement", Text, nullable=False),
)

# Events whose own time lies in a closed billing period: they count at the beginning of the next one.
adjustments = Table(
    "adjustments",
    metadata,
    Column("customer", KEY, primary_key=True),
    Column("event", KEY, primary_key=True),
    Column("own_ms", BigInteger, nullable=False),  # when it happened
    Column("counted_ms", BigInteger, nullable=False),  # when it counts
    Column("at_ms", BigInteger, nullable=False),  # when it was entered
    Column("amounts", Text, nullable=False),  # JSON, by meter
    Index(None, "customer", "counted_ms"),
)

# What people, and one day webhooks, are told: a numbered feed.
notices = Table(
    "notices",
    metadata,
    Column("notice", SERIAL, primary_key=True, autoincrement=True),
    Column("customer", KEY, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("body", Text, nullable=False),  # JSON
    Column("at_ms", BigInteger, nullable=False),
    Index(None, "customer", "notice"),
    sqlite_autoincrement=True,
)

# Which thresholds an allowance is beyond, so that each crossing is told once.
crossings = Table(
    "crossings",
    metadata,
    Column("customer", KEY, primary_key=True),
    Column("counter", COUNTER, primary_key=True),
    Column("scope_value", KEY, primary_key=True),
    Column("window_start_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("percent", Integer, primary_key=True, autoincrement=False),
    Column("window_end_ms", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

# What limits in shadow would have refused, by allowance.
shadow_refusals = Table(
    "shadow_refusals",
    metadata,
    Column("customer", KEY, primary_key=True),
    Column("counter", COUNTER, primary_key=True),
    Column("scope_value", KEY, primary_key=True),
    Column("window_start_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("window_end_ms", BigInteger, nullable=False),
    Column("limit_key", KEY, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("first_at_ms", BigInteger, nullable=False),
    Column("last_at_ms", BigInteger, nullable=False),
)
