"""Tables of price books, and of what was priced again by them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, Table, Text

from control_plane.store.tables import KEY, metadata

# A version never changes once written; `body` is JSON of core.price_books.PriceBook.
price_books = Table(
    "price_books",
    metadata,
    Column("book", KEY, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
    Column("published_at_ms", BigInteger, nullable=False),
)

# What was ordered under each id, so that an id never means two things; what it did are events that correct others.
reratings = Table(
    "reratings",
    metadata,
    Column("rerating", KEY, primary_key=True),
    Column("ordered", Text, nullable=False),  # JSON of operations.rerate_usage.Rerating
    Column("at_ms", BigInteger, nullable=False),
)
