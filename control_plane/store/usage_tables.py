"""Tables of sums of usage that are finer than an hour, and since when they are whole."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, String, Table

from control_plane.store.tables import KEY, metadata

# The totals of `rollups` (dimension "") by the minute of the event's own time. Not those of subjects and tags: an event
# is in four or five of these, and a row a minute for each was measured to cost a third of what can be accepted. Minutes
# are kept for as long as other records are (`rollup_starts` says since when they are whole); the hours stay for ever.
minute_rollups = Table(
    "minute_rollups",
    metadata,
    Column("customer", KEY, primary_key=True),
    Column("minute_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("meter", KEY, primary_key=True),
    Column("feature", KEY, primary_key=True),
    Column("model", KEY, primary_key=True),  # "" where not said
    Column("quantity", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
)

# Since when the sums of a grain are whole: a whole hour. A grain without a row has never been cut.
rollup_starts = Table(
    "rollup_starts",
    metadata,
    Column("grain", String(16), primary_key=True),
    Column("since_ms", BigInteger, nullable=False),
)
