"""Makes room for every kind of limit: sums by any subject or tag, and shares of rates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

KEY = ('customer', 'dimension', 'value', 'hour_ms', 'meter', 'feature', 'model')


def upgrade() -> None:
    """Forwards."""
    for name in ('level', 'level_at_ms', 'burst_lent', 'rate', 'burst'):
        op.add_column('allowances', sa.Column(name, sa.BigInteger(), server_default='0', nullable=False))
    op.create_index(op.f('ix_allowances_window_end_ms'), 'allowances', ['window_end_ms'], unique=False)
    op.add_column('leases', sa.Column('finishing', sa.Boolean(), server_default=sa.false(), nullable=False))
    for name in ('burst', 'level'):
        op.add_column('leases', sa.Column(name, sa.BigInteger(), server_default='0', nullable=False))
    op.rename_table('rollups', 'rollups_by_user')
    if op.get_bind().dialect.name == 'postgresql':  # there the name of a key is taken until its table is gone
        op.execute('ALTER TABLE rollups_by_user RENAME CONSTRAINT pk_rollups TO pk_rollups_by_user')
    op.create_table('rollups',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('dimension', sa.String(length=132), nullable=False),
    sa.Column('value', sa.String(length=128), nullable=False),
    sa.Column('hour_ms', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('meter', sa.String(length=128), nullable=False),
    sa.Column('feature', sa.String(length=128), nullable=False),
    sa.Column('model', sa.String(length=128), nullable=False),
    sa.Column('quantity', sa.BigInteger(), nullable=False),
    sa.Column('events', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint(*KEY, name=op.f('pk_rollups')),
    )
    columns = ', '.join(KEY)
    sums = 'CAST(SUM(quantity) AS BIGINT), CAST(SUM(events) AS BIGINT)'
    of_user = "SELECT customer, {}, hour_ms, meter, feature, model, {} FROM rollups_by_user{}"
    by = ' GROUP BY customer, hour_ms, meter, feature, model'
    op.execute(f"INSERT INTO rollups ({columns}, quantity, events) " + of_user.format("'', ''", sums, by))
    op.execute(f"INSERT INTO rollups ({columns}, quantity, events) "
               + of_user.format("'user', \"user\"", 'quantity, events', " WHERE \"user\" <> ''"))
    op.drop_table('rollups_by_user')
