"""Keeps sums of usage by the minute beside those by the hour, and makes them of the events that are there."""

from __future__ import annotations

import time
from itertools import groupby
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None

KEY = ('customer', 'minute_ms', 'meter', 'feature', 'model')
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
MADE_FOR_MS = 400 * 86_400_000  # for as long as records are kept by default
ROWS_MAX = 5_000
SUM_MAX = 2**61


def upgrade() -> None:
    """Forwards."""
    minutes = op.create_table('minute_rollups',
    sa.Column('customer', sa.String(length=128), nullable=False),
    sa.Column('minute_ms', sa.BigInteger(), autoincrement=False, nullable=False),
    sa.Column('meter', sa.String(length=128), nullable=False),
    sa.Column('feature', sa.String(length=128), nullable=False),
    sa.Column('model', sa.String(length=128), nullable=False),
    sa.Column('quantity', sa.BigInteger(), nullable=False),
    sa.Column('events', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint(*KEY, name=op.f('pk_minute_rollups')),
    )
    starts = op.create_table('rollup_starts',
    sa.Column('grain', sa.String(length=16), nullable=False),
    sa.Column('since_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('grain', name=op.f('pk_rollup_starts')),
    )
    since_ms = time.time_ns() // 1_000_000 - MADE_FOR_MS
    since_ms -= since_ms % HOUR_MS
    if _add_minutes(op.get_bind(), minutes, since_ms):
        op.bulk_insert(starts, [{'grain': 'minute', 'since_ms': since_ms}])


def _add_minutes(bind: sa.Connection, minutes: sa.Table, since_ms: int) -> bool:
    """Sum what events say by the minute, one customer after the other. Returns whether older ones were left out."""
    events = sa.table('events', *map(sa.column, ('customer', 'event', 'at_ms', 'feature', 'body')))
    query = (
        sa.select(events.c.customer, events.c.at_ms, events.c.feature, events.c.body)
        .where(events.c.at_ms >= since_ms)
        .order_by(events.c.customer)
    )
    rows = bind.execute(query, execution_options={'yield_per': 1_000})
    for customer, theirs in groupby(rows, key=lambda row: row.customer):
        sums: dict[tuple[str | int, ...], list[int]] = {}
        for row in theirs:
            _count(sums, row)
        made = [
            dict(zip((*KEY, 'quantity', 'events'), (customer, *key, max(-SUM_MAX, min(SUM_MAX, total[0])), total[1])))
            for key, total in sums.items()
        ]
        for start in range(0, len(made), ROWS_MAX):
            bind.execute(sa.insert(minutes), made[start:start + ROWS_MAX])
    older = sa.select(events.c.event).where(events.c.at_ms < since_ms).limit(1)
    return bind.execute(older).first() is not None


def _count(sums: dict[tuple[str | int, ...], list[int]], row: Any) -> None:
    event = msgspec.msgpack.decode(bytes(row.body))
    minute_ms = row.at_ms - row.at_ms % MINUTE_MS
    for meter, amount in event['amounts'].items():
        total = sums.setdefault((minute_ms, meter, row.feature, event.get('model') or ''), [0, 0])
        total[0] += amount
        total[1] += 0 if event.get('corrects') else 1
