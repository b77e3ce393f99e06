"""Tables of meters that are made of events."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, String, Table

from control_plane.store.tables import KEY, metadata

# What core.aggregates.Place and Made say, by the hour of the events' own time.
meter_values = Table(
    "meter_values",
    metadata,
    Column("customer", KEY, primary_key=True),
    Column("meter", KEY, primary_key=True),
    Column("hour_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("group_1", String(128), primary_key=True),
    Column("group_2", String(128), primary_key=True),
    Column("group_3", String(128), primary_key=True),
    Column("member", String(128), primary_key=True),
    Column("quantity", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

# Hours that hold something that was corrected: they are made anew from the events, as no greatest or latest value can
# be taken out of what is kept.
meter_hours_due = Table(
    "meter_hours_due",
    metadata,
    Column("customer", KEY, primary_key=True),
    Column("hour_ms", BigInteger, primary_key=True, autoincrement=False),
)

# How far a meter that was declared late is made of what was there before: all of customers that come before this one in
# order of name, and its hours before this one. A meter without a row is whole.
meter_makings = Table(
    "meter_makings",
    metadata,
    Column("meter", KEY, primary_key=True),
    Column("customer", KEY, nullable=False),
    Column("hour_ms", BigInteger, nullable=False),
)
