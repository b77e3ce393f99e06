"""Adds meters that are made of events: counts, greatest, latest and distinct values, and sums of some calls."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0009'
down_revision = '0008'
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forwards."""
    op.add_column('meters', sa.Column('aggregate', sa.Text(), server_default='', nullable=False))
    op.create_table('meter_values',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('meter', sa.String(length=128), nullable=False),
    sa.Column('hour_ms', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('group_1', sa.String(length=128), nullable=False),
    sa.Column('group_2', sa.String(length=128), nullable=False),
    sa.Column('group_3', sa.String(length=128), nullable=False),
    sa.Column('member', sa.String(length=128), nullable=False),
    sa.Column('quantity', sa.BigInteger(), nullable=False),
    sa.Column('at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('customer', 'meter', 'hour_ms', 'group_1', 'group_2', 'group_3', 'member', name=op.f('pk_meter_values'))
    )
    op.create_table('meter_hours_due',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('hour_ms', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.PrimaryKeyConstraint('customer', 'hour_ms', name=op.f('pk_meter_hours_due'))
    )
    op.create_table('meter_makings',
    sa.Column('meter', sa.String(length=128), nullable=False),
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('hour_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('meter', name=op.f('pk_meter_makings'))
    )
