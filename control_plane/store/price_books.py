"""Price books, with all their versions."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, func, insert, select

from control_plane.store.price_tables import price_books


class PriceBookRow(NamedTuple):
    """One version of a price book; ``body`` is the text of a ``core.price_books.PriceBook``."""

    book: str
    version: int
    body: str
    published_at_ms: int


def find(connection: Connection, book: str, version: int | None = None) -> PriceBookRow | None:
    """One version of a price book; without ``version`` the newest."""
    query = select(price_books).where(price_books.c.book == book)
    if version is None:
        query = query.order_by(price_books.c.version.desc()).limit(1)
    else:
        query = query.where(price_books.c.version == version)
    row = connection.execute(query).one_or_none()
    return PriceBookRow(*row) if row else None


def newest_after(connection: Connection, book: str, count: int) -> list[PriceBookRow]:
    """The newest version of up to ``count`` books in order of name, beginning after ``book``."""
    newest = select(price_books.c.book, func.max(price_books.c.version).label("version")).where(
        price_books.c.book > book
    )
    page = newest.group_by(price_books.c.book).order_by(price_books.c.book).limit(count).subquery()
    same = (price_books.c.book == page.c.book) & (price_books.c.version == page.c.version)
    query = select(price_books).join(page, same).order_by(price_books.c.book)
    return [PriceBookRow(*row) for row in connection.execute(query)]


def add(connection: Connection, row: PriceBookRow) -> None:
    """Publish a version."""
    connection.execute(insert(price_books).values(**row._asdict()))
