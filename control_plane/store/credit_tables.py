"""Tables for credits: grants, and the double-entry ledger of every movement between their accounts."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Index, Integer, String, Table, Text, false

from control_plane.store.tables import KEY, SERIAL, metadata

__all__ = ["credit_transfers", "grants", "metadata"]

# An amount of credit on a meter's balance. `burned` and `forfeited` are the folds of its transfers.
grants = Table(
    "grants",
    metadata,
    Column("customer", KEY, primary_key=True),
    Column("grant_key", KEY, primary_key=True),
    Column("meter", KEY, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("burned", BigInteger, nullable=False, server_default="0"),
    Column("forfeited", BigInteger, nullable=False, server_default="0"),
    Column("from_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("category", String(16), nullable=False),
    Column("cost_micros", BigInteger, nullable=False, server_default="0"),
    Column("currency", String(3), nullable=False, server_default=""),
    Column("every", String(16), nullable=False, server_default=""),  # a window kind: it comes again each window
    Column("rollover_min", BigInteger, nullable=False, server_default="0"),
    Column("rollover_max", BigInteger, nullable=False, server_default="0"),
    Column("rollover_days", Integer),
    Column("source", String(300), nullable=False),  # of a plan: plan:pro@3; by hand: empty
    Column("reason", Text, nullable=False),
    Column("actor", KEY, nullable=False),
    Column("made_at_ms", BigInteger, nullable=False),
    Column("voided_at_ms", BigInteger),
    Column("closed", Boolean, nullable=False, server_default=false()),
    Index(None, "customer", "closed", "meter"),
    CheckConstraint("burned >= 0 AND forfeited >= 0 AND burned + forfeited <= amount", name="grants_add_up"),
)

# Double entry: each row moves an amount from one account to another, so all accounts sum to zero.
#   issued -> grant:K -> used | expired | voided | grant:K' (rollover), and back
credit_transfers = Table(
    "credit_transfers",
    metadata,
    Column("transfer", SERIAL, primary_key=True, autoincrement=True),
    Column("customer", KEY, nullable=False),
    Column("meter", KEY, nullable=False),
    Column("from_account", String(140), nullable=False),
    Column("to_account", String(140), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("cause", String(32), nullable=False),
    Column("event", KEY),
    Column("at_ms", BigInteger, nullable=False),
    Index(None, "customer", "transfer"),
    Index(None, "customer", "at_ms"),
    CheckConstraint("amount > 0 AND from_account <> to_account", name="transfers_move_something"),
    sqlite_autoincrement=True,
)
