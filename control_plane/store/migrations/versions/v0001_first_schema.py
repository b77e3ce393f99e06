"""Creates every table of the first release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forwards."""

    op.create_table('agents',
    sa.Column('agent', sa.String(length=128), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('enrolled_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('revoked_at_ms', sa.BigInteger(), nullable=True),
    sa.Column('last_seen_at_ms', sa.BigInteger(), nullable=True),
    sa.PrimaryKeyConstraint('agent', name=op.f('pk_agents'))
    )
    op.create_table('allowances',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('counter', sa.String(length=300), nullable=False),
    sa.Column('scope_value', sa.String(length=128), nullable=False),
    sa.Column('window_start_ms', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('window_end_ms', sa.BigInteger(), nullable=False),
    sa.Column('posted', sa.BigInteger(), nullable=False),
    sa.Column('direct', sa.BigInteger(), nullable=False),
    sa.Column('outstanding', sa.BigInteger(), nullable=False),
    sa.Column('recalled_at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('customer', 'counter', 'scope_value', 'window_start_ms', name=op.f('pk_allowances'))
    )
    op.create_table('audit_log',
    sa.Column('entry', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('at_ms', sa.BigInteger(), nullable=False),
    sa.Column('actor', sa.String(length=128), nullable=False),
    sa.Column('action', sa.String(length=64), nullable=False),
    sa.Column('customer', sa.String(length=128), nullable=True),
    sa.Column('target', sa.String(length=300), nullable=False),
    sa.Column('body', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('entry', name=op.f('pk_audit_log')),
    sqlite_autoincrement=True
    )
    op.create_table('changes',
    sa.Column('change', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('agent', sa.String(length=128), nullable=True),
    sa.Column('at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('change', name=op.f('pk_changes')),
    sqlite_autoincrement=True
    )
    op.create_table('customers',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('version', sa.BigInteger(), nullable=False),
    sa.Column('created_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('archived_at_ms', sa.BigInteger(), nullable=True),
    sa.PrimaryKeyConstraint('customer', name=op.f('pk_customers'))
    )
    op.create_table('demands',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('counter', sa.String(length=300), nullable=False),
    sa.Column('scope_value', sa.String(length=128), nullable=False),
    sa.Column('agent', sa.String(length=128), nullable=False),
    sa.Column('demand_per_min', sa.BigInteger(), nullable=False),
    sa.Column('typical', sa.BigInteger(), nullable=False),
    sa.Column('seen_at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('customer', 'counter', 'scope_value', 'agent', name=op.f('pk_demands'))
    )
    op.create_table('entries',
    sa.Column('entry', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('counter', sa.String(length=300), nullable=False),
    sa.Column('scope_value', sa.String(length=128), nullable=False),
    sa.Column('window_start_ms', sa.BigInteger(), nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('amount', sa.BigInteger(), nullable=False),
    sa.Column('released', sa.BigInteger(), nullable=False),
    sa.Column('cause', sa.String(length=64), nullable=False),
    sa.Column('lease', sa.String(length=128), nullable=True),
    sa.Column('event', sa.String(length=128), nullable=True),
    sa.Column('at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('entry', name=op.f('pk_entries'))
    )
    with op.batch_alter_table('entries', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_entries_customer_counter_scope_value_window_start_ms'), ['customer', 'counter', 'scope_value', 'window_start_ms'], unique=False)

    op.create_table('event_conflicts',
    sa.Column('conflict', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('event', sa.String(length=128), nullable=False),
    sa.Column('agent', sa.String(length=128), nullable=False),
    sa.Column('journal', sa.String(length=128), nullable=False),
    sa.Column('boot', sa.Integer(), nullable=False),
    sa.Column('seq', sa.BigInteger(), nullable=False),
    sa.Column('code', sa.String(length=64), nullable=False),
    sa.Column('body', sa.LargeBinary(), nullable=False),
    sa.Column('received_at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('conflict', name=op.f('pk_event_conflicts'))
    )
    op.create_table('events',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('event', sa.String(length=128), nullable=False),
    sa.Column('journal', sa.String(length=128), nullable=False),
    sa.Column('boot', sa.Integer(), nullable=False),
    sa.Column('seq', sa.BigInteger(), nullable=False),
    sa.Column('agent', sa.String(length=128), nullable=False),
    sa.Column('feature', sa.String(length=128), nullable=False),
    sa.Column('at_ms', sa.BigInteger(), nullable=False),
    sa.Column('received_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('digest', sa.LargeBinary(length=32), nullable=False),
    sa.Column('body', sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint('customer', 'event', name=op.f('pk_events'))
    )
    with op.batch_alter_table('events', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_events_customer_at_ms'), ['customer', 'at_ms'], unique=False)
        batch_op.create_index(batch_op.f('ix_events_journal_boot_seq'), ['journal', 'boot', 'seq'], unique=True)

    op.create_table('features',
    sa.Column('feature', sa.String(length=128), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.PrimaryKeyConstraint('feature', name=op.f('pk_features'))
    )
    op.create_table('incarnations',
    sa.Column('agent', sa.String(length=128), nullable=False),
    sa.Column('journal', sa.String(length=128), nullable=False),
    sa.Column('boot', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('nonce', sa.String(length=128), nullable=False),
    sa.Column('high_water', sa.BigInteger(), nullable=False),
    sa.Column('first_seen_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('last_seen_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('quarantined', sa.Text(), nullable=True),
    sa.PrimaryKeyConstraint('agent', 'journal', 'boot', name=op.f('pk_incarnations'))
    )
    op.create_table('leases',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('lease', sa.String(length=128), nullable=False),
    sa.Column('counter', sa.String(length=300), nullable=False),
    sa.Column('scope_value', sa.String(length=128), nullable=False),
    sa.Column('window_start_ms', sa.BigInteger(), nullable=False),
    sa.Column('agent', sa.String(length=128), nullable=False),
    sa.Column('journal', sa.String(length=128), nullable=False),
    sa.Column('boot', sa.Integer(), nullable=False),
    sa.Column('granted', sa.BigInteger(), nullable=False),
    sa.Column('cap', sa.BigInteger(), nullable=False),
    sa.Column('settled', sa.BigInteger(), nullable=False),
    sa.Column('in_flight', sa.BigInteger(), nullable=False),
    sa.Column('unreported', sa.BigInteger(), nullable=False),
    sa.Column('overage', sa.BigInteger(), nullable=False),
    sa.Column('central', sa.Boolean(), nullable=False),
    sa.Column('status', sa.String(length=16), nullable=False),
    sa.Column('keep', sa.BigInteger(), nullable=False),
    sa.Column('ttl_ms', sa.BigInteger(), nullable=False),
    sa.Column('granted_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('renewed_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('closed_at_ms', sa.BigInteger(), nullable=True),
    sa.PrimaryKeyConstraint('customer', 'lease', name=op.f('pk_leases'))
    )
    with op.batch_alter_table('leases', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_leases_agent_journal_status'), ['agent', 'journal', 'status'], unique=False)
        batch_op.create_index(batch_op.f('ix_leases_agent_lease'), ['agent', 'lease'], unique=True)
        batch_op.create_index(batch_op.f('ix_leases_status_renewed_at_ms'), ['status', 'renewed_at_ms'], unique=False)
        batch_op.create_index(batch_op.f('ix_leases_customer_counter_scope_value_window_start_ms_status'), ['customer', 'counter', 'scope_value', 'window_start_ms', 'status'], unique=False)

    op.create_table('meters',
    sa.Column('meter', sa.String(length=128), nullable=False),
    sa.Column('unit', sa.String(length=64), nullable=False),
    sa.Column('description', sa.Text(), nullable=False),
    sa.PrimaryKeyConstraint('meter', name=op.f('pk_meters'))
    )
    op.create_table('plans',
    sa.Column('plan', sa.String(length=128), nullable=False),
    sa.Column('version', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('body', sa.Text(), nullable=False),
    sa.Column('published_at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('plan', 'version', name=op.f('pk_plans'))
    )
    op.create_table('rollups',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('hour_ms', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('meter', sa.String(length=128), nullable=False),
    sa.Column('feature', sa.String(length=128), nullable=False),
    sa.Column('model', sa.String(length=128), nullable=False),
    sa.Column('user', sa.String(length=128), nullable=False),
    sa.Column('quantity', sa.BigInteger(), nullable=False),
    sa.Column('events', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('customer', 'hour_ms', 'meter', 'feature', 'model', 'user', name=op.f('pk_rollups'))
    )
    op.create_table('subscriptions',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('plan', sa.String(length=128), nullable=False),
    sa.Column('plan_version', sa.Integer(), nullable=False),
    sa.Column('status', sa.String(length=16), nullable=False),
    sa.Column('anchor_ms', sa.BigInteger(), nullable=False),
    sa.Column('started_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('changed_at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('customer', name=op.f('pk_subscriptions'))
    )
    op.create_table('tokens',
    sa.Column('token', sa.String(length=128), nullable=False),
    sa.Column('secret_sha256', sa.LargeBinary(length=32), nullable=False),
    sa.Column('role', sa.String(length=16), nullable=False),
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('agent', sa.String(length=128), nullable=True),
    sa.Column('created_at_ms', sa.BigInteger(), nullable=False),
    sa.Column('expires_at_ms', sa.BigInteger(), nullable=True),
    sa.Column('revoked_at_ms', sa.BigInteger(), nullable=True),
    sa.Column('last_used_at_ms', sa.BigInteger(), nullable=True),
    sa.Column('uses_left', sa.Integer(), nullable=True),
    sa.PrimaryKeyConstraint('token', name=op.f('pk_tokens'))
    )

