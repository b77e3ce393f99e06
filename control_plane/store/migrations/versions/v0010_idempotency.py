"""Adds the answers that are kept for requests that say an Idempotency-Key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0010'
down_revision = '0009'
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forwards."""
    op.create_table('kept_answers',
    sa.Column('token', sa.String(length=128), nullable=False),
    sa.Column('idempotency_key', sa.String(length=128), nullable=False),
    sa.Column('digest', sa.LargeBinary(), nullable=False),
    sa.Column('answer', sa.Text(), nullable=False),
    sa.Column('at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('token', 'idempotency_key', name=op.f('pk_kept_answers'))
    )
    op.create_index(op.f('ix_kept_answers_at_ms'), 'kept_answers', ['at_ms'], unique=False)
