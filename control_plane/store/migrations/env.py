"""What Alembic runs to reach the database: always on a connection it is handed, in the caller's transaction."""

from __future__ import annotations

from alembic import context

from control_plane.store import (
    correction_tables,
    credit_tables,
    meter_tables,
    price_tables,
    subscription_tables,
    trust_tables,
    usage_tables,
)
from control_plane.store.tables import metadata

__all__ = [
    "correction_tables",
    "credit_tables",
    "meter_tables",
    "price_tables",
    "subscription_tables",
    "trust_tables",
    "usage_tables",
]  # importing them is adding their tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes tables by copying them
)
with context.begin_transaction():
    context.run_migrations()
