"""Adds what a subscription goes through, add-ons and overrides, and keeps what all that resolves to."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')


def upgrade() -> None:
    """Forwards."""
    with op.batch_alter_table('customers', schema=None) as batch_op:
        batch_op.add_column(sa.Column('document', sa.String(length=64), nullable=True))
        batch_op.add_column(sa.Column('changes_at_ms', sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column('ends_at_ms', sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column('anchor_ms', sa.BigInteger(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('zone', sa.String(length=64), server_default='UTC', nullable=False))
        batch_op.add_column(sa.Column('period_months', sa.Integer(), server_default='1', nullable=False))
        batch_op.create_index(batch_op.f('ix_customers_changes_at_ms'), ['changes_at_ms'], unique=False)
    op.add_column('features', sa.Column('combine', sa.String(length=8), server_default='sum', nullable=False))
    op.add_column('features', sa.Column('disabled', sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column('meters', sa.Column('combine', sa.String(length=8), server_default='sum', nullable=False))
    op.create_table('add_ons',
    sa.Column('add_on', sa.String(length=128), nullable=False),
    sa.Column('version', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('body', sa.Text(), nullable=False),
    sa.Column('published_at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('add_on', 'version', name=op.f('pk_add_ons'))
    )
    changes = op.create_table('subscription_changes',
    sa.Column('change', _SERIAL, autoincrement=True, nullable=False),
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('track', sa.String(length=16), nullable=False),
    sa.Column('value', sa.Text(), nullable=False),
    sa.Column('from_ms', sa.BigInteger(), nullable=False),
    sa.Column('cause', sa.String(length=64), nullable=False),
    sa.Column('actor', sa.String(length=128), nullable=False),
    sa.Column('recorded_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('replaced_at_ms', sa.BigInteger(), nullable=True),
    sa.PrimaryKeyConstraint('change', name=op.f('pk_subscription_changes')),
    sqlite_autoincrement=True
    )
    with op.batch_alter_table('subscription_changes', schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f('ix_subscription_changes_customer_replaced_at_ms'), ['customer', 'replaced_at_ms'], unique=False
        )
    op.create_table('overrides',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('override', sa.String(length=128), nullable=False),
    sa.Column('serial', sa.BigInteger(), nullable=False),
    sa.Column('body', sa.Text(), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('actor', sa.String(length=128), nullable=False),
    sa.Column('made_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('from_ms', sa.BigInteger(), nullable=False),
    sa.Column('until_ms', sa.BigInteger(), nullable=True),
    sa.PrimaryKeyConstraint('customer', 'override', name=op.f('pk_overrides'))
    )
    op.create_table('documents',
    sa.Column('document', sa.String(length=64), nullable=False),
    sa.Column('body', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('document', name=op.f('pk_documents'))
    )
    op.create_table('entitlement_versions',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('version', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('document', sa.String(length=64), nullable=False),
    sa.Column('from_ms', sa.BigInteger(), nullable=False),
    sa.Column('cause', sa.String(length=64), nullable=False),
    sa.PrimaryKeyConstraint('customer', 'version', name=op.f('pk_entitlement_versions'))
    )
    _carry_over(changes)
    op.drop_table('subscriptions')


def _carry_over(changes: sa.Table) -> None:
    """Each subscription becomes the changes that led to it; the documents are made when somebody first asks."""
    connection = op.get_bind()
    rows = connection.execute(sa.text(
        'SELECT customer, plan, plan_version, status, anchor_ms, started_at_ms, changed_at_ms FROM subscriptions'
    ))
    for row in rows.all():
        tracks: list[tuple[str, Any, int | None]] = [
            ('calendar', [row.anchor_ms, 'UTC', 1], row.anchor_ms), ('plan', [row.plan, row.plan_version], None)
        ]
        if row.status == 'paused':
            tracks.append(('pause', True, row.changed_at_ms))
        if row.status == 'cancelled':
            tracks.append(('cancellation', True, row.changed_at_ms))
        op.bulk_insert(changes, [{
            'customer': row.customer, 'track': track, 'value': json.dumps(value, separators=(',', ':')),
            'from_ms': row.started_at_ms if from_ms is None else from_ms, 'cause': 'migrated', 'actor': 'migration',
            'recorded_at_ms': row.changed_at_ms, 'replaced_at_ms': None,
        } for track, value, from_ms in tracks])
        connection.execute(
            sa.text('UPDATE customers SET anchor_ms = :anchor WHERE customer = :customer'),
            {'anchor': row.anchor_ms, 'customer': row.customer},
        )
    connection.execute(sa.text('UPDATE customers SET changes_at_ms = 0'))
