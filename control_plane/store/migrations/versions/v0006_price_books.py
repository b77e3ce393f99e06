"""Adds price books, and says beside each event which one it corrects."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


class _Event(msgspec.Struct):
    corrects: str | None = None


def upgrade() -> None:
    """Forwards."""
    op.create_table('price_books',
    sa.Column('book', sa.String(length=128), nullable=False),
    sa.Column('version', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('body', sa.Text(), nullable=False),
    sa.Column('published_at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('book', 'version', name=op.f('pk_price_books'))
    )
    op.create_table('reratings',
    sa.Column('rerating', sa.String(length=128), nullable=False),
    sa.Column('ordered', sa.Text(), nullable=False),
    sa.Column('at_ms', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('rerating', name=op.f('pk_reratings'))
    )
    # A column and an index added in place: copying a table of all events would take its time.
    op.add_column('events', sa.Column('corrects', sa.String(length=128), nullable=True))
    op.create_index(op.f('ix_events_customer_corrects'), 'events', ['customer', 'corrects'], unique=False)
    _fill()


def _fill() -> None:
    """So far only agents made corrections, and named them by what they correct: EVENT~NUMBER."""
    connection = op.get_bind()
    events = sa.table('events', *(sa.column(name) for name in ('customer', 'event', 'body', 'corrects')))
    found = connection.execute(
        sa.select(events.c.customer, events.c.event, events.c.body).where(events.c.event.like('%~%'))
    )
    rows = []
    for row in found:
        corrects = msgspec.msgpack.decode(bytes(row.body), type=_Event).corrects
        if corrects is not None:
            rows.append({'of': row.customer, 'named': row.event, 'what': corrects})
    if rows:
        same = (events.c.customer == sa.bindparam('of')) & (events.c.event == sa.bindparam('named'))
        connection.execute(sa.update(events).where(same).values(corrects=sa.bindparam('what')), rows)
