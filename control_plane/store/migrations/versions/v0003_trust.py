"""Adds what a restore, copied disks and odd syncs leave behind, and makes the key that seals grants."""

from __future__ import annotations

import hashlib
import secrets
import time

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None

LEARNING_MAX_MS = 600_000


def upgrade() -> None:
    """Forwards."""
    op.add_column('leases', sa.Column('journaled', sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column('incarnations', sa.Column('serial', sa.BigInteger(), server_default='0', nullable=False))
    op.add_column('agents', sa.Column('generation', sa.Integer(), server_default='0', nullable=False))
    generations = op.create_table('generations',
    sa.Column('generation', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('name', sa.String(length=128), nullable=False),
    sa.Column('begun_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('cause', sa.String(length=16), nullable=False),
    sa.Column('agent', sa.String(length=128), nullable=True),
    sa.Column('detail', sa.Text(), nullable=False),
    sa.Column('expected_since_ms', sa.BigInteger(), nullable=False),
    sa.Column('until_ms', sa.BigInteger(), nullable=False),
    sa.Column('at_most_until_ms', sa.BigInteger(), nullable=False),
    sa.Column('ended_at_ms', sa.BigInteger(), nullable=True),
    sa.Column('learning_max_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('generation', name=op.f('pk_generations'))
    )
    seal_keys = op.create_table('seal_keys',
    sa.Column('seal_key', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('secret', sa.LargeBinary(), nullable=False),
    sa.Column('made_at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('seal_key', name=op.f('pk_seal_keys'))
    )
    op.create_table('troubles',
    sa.Column('agent', sa.String(length=128), nullable=False),
    sa.Column('code', sa.String(length=64), nullable=False),
    sa.Column('times', sa.BigInteger(), nullable=False),
    sa.Column('first_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('last_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('detail', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('agent', 'code', name=op.f('pk_troubles'))
    )
    with op.batch_alter_table('event_conflicts', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_event_conflicts_journal_boot_seq'), ['journal', 'boot', 'seq'], unique=False)
    secret, now_ms = secrets.token_bytes(32), time.time_ns() // 1_000_000
    op.bulk_insert(seal_keys, [{'seal_key': 1, 'secret': secret, 'made_at_ms': now_ms}])
    op.bulk_insert(generations, [{
        'generation': 1, 'name': f"1-{hashlib.sha256(secret).hexdigest()[:12]}", 'begun_at_ms': 0, 'cause': 'made',
        'agent': None, 'detail': '', 'expected_since_ms': 0, 'until_ms': 0, 'at_most_until_ms': 0,
        'ended_at_ms': now_ms, 'learning_max_ms': LEARNING_MAX_MS,
    }])
