"""Tables for what the control plane must know of itself and of its agents to believe the right things after trouble."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text

from control_plane.store.tables import KEY, metadata

__all__ = [
    "generations",
    "kept_answers",
    "metadata",
    "seal_keys",
    "troubles",
]  # importing this is importing every table

# One row for each state that the database was put into: when it was made, and each time it was restored.
# Learning lasts while `ended_at_ms` is null and `at_most_until_ms` has not come.
generations = Table(
    "generations",
    metadata,
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("name", KEY, nullable=False),  # what agents are told
    Column("begun_at_ms", BigInteger, nullable=False),
    Column("cause", String(16), nullable=False),  # made told noticed
    Column("agent", KEY),  # by whose words it was noticed
    Column("detail", Text, nullable=False),
    Column("expected_since_ms", BigInteger, nullable=False),  # agents heard of since then are waited for
    Column("until_ms", BigInteger, nullable=False),
    Column("at_most_until_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger),
    Column("learning_max_ms", BigInteger, nullable=False),  # for the next one
    # How old an event may be to count; 34 days unless it is said otherwise.
    Column("grace_ms", BigInteger, nullable=False, server_default="2937600000"),
)

# Keys that grants are sealed with: the newest seals, all of them are believed.
seal_keys = Table(
    "seal_keys",
    metadata,
    Column("seal_key", Integer, primary_key=True, autoincrement=False),
    Column("secret", LargeBinary, nullable=False),
    Column("made_at_ms", BigInteger, nullable=False),
)

# What was odd about the syncs of an agent: how often, when, and what the last one said.
troubles = Table(
    "troubles",
    metadata,
    Column("agent", KEY, primary_key=True),
    Column("code", String(64), primary_key=True),
    Column("times", BigInteger, nullable=False),
    Column("first_at_ms", BigInteger, nullable=False),
    Column("last_at_ms", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
)

# What requests that said an Idempotency-Key were answered; for two days, and never with a secret.
kept_answers = Table(
    "kept_answers",
    metadata,
    Column("token", KEY, primary_key=True),  # whose key it is
    Column("idempotency_key", String(128), primary_key=True),
    Column("digest", LargeBinary, nullable=False),  # of what was asked
    Column("answer", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Index(None, "at_ms"),
)
