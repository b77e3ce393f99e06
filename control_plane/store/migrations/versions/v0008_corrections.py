"""Adds corrections, closed billing periods, notices, and what limits in shadow would have refused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
_GRACE_MS = str(34 * 86_400_000)


def upgrade() -> None:
    """Forwards."""
    op.add_column('customers', sa.Column('closed_until_ms', sa.BigInteger(), server_default='0', nullable=False))
    op.add_column('generations', sa.Column('grace_ms', sa.BigInteger(), server_default=_GRACE_MS, nullable=False))
    op.create_index(op.f('ix_credit_transfers_customer_at_ms'), 'credit_transfers', ['customer', 'at_ms'])
    op.create_table('corrections',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('correction', sa.String(length=128), nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('ordered', sa.Text(), nullable=False),
    sa.Column('outcome', sa.Text(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('actor', sa.String(length=128), nullable=False),
    sa.Column('at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('customer', 'correction', name=op.f('pk_corrections'))
    )
    op.create_table('billing_periods',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('start_ms', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('end_ms', sa.BigInteger(), nullable=False),
    sa.Column('closed_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('actor', sa.String(length=128), nullable=False),
    sa.Column('statement', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('customer', 'start_ms', name=op.f('pk_billing_periods'))
    )
    op.create_table('adjustments',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('event', sa.String(length=128), nullable=False),
    sa.Column('own_ms', sa.BigInteger(), nullable=False),
    sa.Column('counted_ms', sa.BigInteger(), nullable=False),
    sa.Column('at_ms', sa.BigInteger(), nullable=False),
    sa.Column('amounts', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('customer', 'event', name=op.f('pk_adjustments'))
    )
    with op.batch_alter_table('adjustments', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_adjustments_customer_counted_ms'), ['customer', 'counted_ms'])
    op.create_table('notices',
    sa.Column('notice', _SERIAL, autoincrement=True, nullable=False),
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('kind', sa.String(length=64), nullable=False),
    sa.Column('body', sa.Text(), nullable=False),
    sa.Column('at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('notice', name=op.f('pk_notices')),
    sqlite_autoincrement=True
    )
    with op.batch_alter_table('notices', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_notices_customer_notice'), ['customer', 'notice'])
    op.create_table('crossings',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('counter', sa.String(length=300), nullable=False),
    sa.Column('scope_value', sa.String(length=128), nullable=False),
    sa.Column('window_start_ms', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('percent', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('window_end_ms', sa.BigInteger(), nullable=False),
    sa.Column('at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('customer', 'counter', 'scope_value', 'window_start_ms', 'percent', name=op.f('pk_crossings'))
    )
    op.create_table('shadow_refusals',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('counter', sa.String(length=300), nullable=False),
    sa.Column('scope_value', sa.String(length=128), nullable=False),
    sa.Column('window_start_ms', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('window_end_ms', sa.BigInteger(), nullable=False),
    sa.Column('limit_key', sa.String(length=128), nullable=False),
    sa.Column('events', sa.BigInteger(), nullable=False),
    sa.Column('quantity', sa.BigInteger(), nullable=False),
    sa.Column('first_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('last_at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('customer', 'counter', 'scope_value', 'window_start_ms', name=op.f('pk_shadow_refusals'))
    )
