"""Runs the migrations on an open transaction, and tells whether there are any left to run."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

# Any constant will do, as long as it stays: replicas that start together migrate one after the other.
_MIGRATION_LOCK = 7_031_001


def upgrade(connection: Connection) -> None:
    """Apply every migration that this database has not seen, in the caller's transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def is_at_head(connection: Connection) -> bool:
    """Whether the database has exactly the migrations that this program knows."""
    heads = MigrationContext.configure(connection).get_current_heads()
    return set(heads) == set(ScriptDirectory.from_config(_config()).get_heads())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config
