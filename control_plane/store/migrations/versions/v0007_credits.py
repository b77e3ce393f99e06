"""Adds credits: grants, and the ledger of every movement between their accounts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')


def upgrade() -> None:
    """Forwards."""
    op.create_table('grants',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('grant_key', sa.String(length=128), nullable=False),
    sa.Column('meter', sa.String(length=128), nullable=False),
    sa.Column('amount', sa.BigInteger(), nullable=False),
    sa.Column('burned', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('forfeited', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('from_ms', sa.BigInteger(), nullable=False),
    sa.Column('until_ms', sa.BigInteger(), nullable=True),
    sa.Column('priority', sa.Integer(), server_default='0', nullable=False),
    sa.Column('category', sa.String(length=16), nullable=False),
    sa.Column('cost_micros', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('currency', sa.String(length=3), server_default='', nullable=False),
    sa.Column('every', sa.String(length=16), server_default='', nullable=False),
    sa.Column('rollover_min', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('rollover_max', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('rollover_days', sa.Integer(), nullable=True),
    sa.Column('source', sa.String(length=300), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('actor', sa.String(length=128), nullable=False),
    sa.Column('made_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('voided_at_ms', sa.BigInteger(), nullable=True),
    sa.Column('closed', sa.Boolean(), server_default=sa.false(), nullable=False),
    sa.CheckConstraint('burned >= 0 AND forfeited >= 0 AND burned + forfeited <= amount', name='grants_add_up'),
    sa.PrimaryKeyConstraint('customer', 'grant_key', name=op.f('pk_grants'))
    )
    with op.batch_alter_table('grants', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_grants_customer_closed_meter'), ['customer', 'closed', 'meter'])
    op.create_table('credit_transfers',
    sa.Column('transfer', _SERIAL, autoincrement=True, nullable=False),
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('meter', sa.String(length=128), nullable=False),
    sa.Column('from_account', sa.String(length=140), nullable=False),
    sa.Column('to_account', sa.String(length=140), nullable=False),
    sa.Column('amount', sa.BigInteger(), nullable=False),
    sa.Column('cause', sa.String(length=32), nullable=False),
    sa.Column('event', sa.String(length=128), nullable=True),
    sa.Column('at_ms', sa.BigInteger(), nullable=False),
    sa.CheckConstraint('amount > 0 AND from_account <> to_account', name='transfers_move_something'),
    sa.PrimaryKeyConstraint('transfer', name=op.f('pk_credit_transfers')),
    sqlite_autoincrement=True
    )
    with op.batch_alter_table('credit_transfers', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_credit_transfers_customer_transfer'), ['customer', 'transfer'])
