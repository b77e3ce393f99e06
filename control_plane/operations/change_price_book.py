"""Publishes versions of price books: what an admin says, and what a library says; the same twice changes nothing."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from control_plane.core.catalog import BUILT_IN_METERS
from control_plane.core.price_books import (
    OVERRIDES_MAX,
    Difference,
    ModelPrice,
    PriceBook,
    check_prices,
    decode_book,
    differences,
    encode_book,
)
from control_plane.operations.author import Author
from control_plane.operations.library_prices import CURRENCY, LibraryPrices
from control_plane.operations.refusals import Conflict
from control_plane.store import catalog, price_books
from control_plane.store.database import Connection
from control_plane.store.price_books import PriceBookRow
from protocol.violations import Violation


class Seeding(NamedTuple):
    """What seeding a book did, or with a dry run would do: the version that then holds, and what is new in it."""

    version: int
    changes: list[Difference]


def put_price_book(
    connection: Connection,
    book: str,
    currency: str,
    markup_bp: int,
    overrides: tuple[ModelPrice, ...],
    author: Author,
) -> PriceBookRow:
    """Publish a version with this markup and these overrides, unless the newest says the same. What was seeded stays.

    Raises: Violation: an override breaks a rule. Conflict: the book is in another currency.
    """
    if len(overrides) > OVERRIDES_MAX:
        raise Violation("overrides", f"has {len(overrides)} entries", f"at most {OVERRIDES_MAX}")
    check_prices("overrides", overrides, {*BUILT_IN_METERS, *catalog.meter_names(connection)})
    newest = price_books.find(connection, book)
    known = decode_book(newest.body) if newest else PriceBook(currency)
    if known.currency != currency:
        detail = f"Price book {book!r} is in {known.currency}; a book's currency never changes. Make another one."
        raise Conflict("price_book_currency_fixed", detail, "currency")
    ordered = tuple(sorted(overrides, key=lambda price: price.model.lower()))
    wanted = msgspec.structs.replace(known, markup_bp=markup_bp, overrides=ordered)
    return _publish(connection, book, newest, wanted, "price_book.put", author)


def seed_prices(
    connection: Connection, book: str, library: LibraryPrices, author: Author, *, dry_run: bool = False
) -> Seeding:
    """Publish a version with a library's prices instead of those seeded before; overrides and markup stay.

    Raises: Conflict: the book is in another currency than the library.
    """
    newest = price_books.find(connection, book)
    known = decode_book(newest.body) if newest else PriceBook(CURRENCY)
    if known.currency != CURRENCY:
        detail = f"Price book {book!r} is in {known.currency}, the library's prices are in {CURRENCY}."
        raise Conflict("price_book_currency_fixed", detail, "book")
    wanted = msgspec.structs.replace(known, seeded=library.prices, source=library.source)
    changes = differences(known if newest else None, wanted)
    if newest is not None and known.seeded == wanted.seeded:
        return Seeding(newest.version, [])
    version = newest.version + 1 if newest else 1
    if not dry_run:
        _publish(connection, book, newest, wanted, "price_book.seed", author)
    return Seeding(version, changes)


def _publish(
    connection: Connection, book: str, newest: PriceBookRow | None, wanted: PriceBook, action: str, author: Author
) -> PriceBookRow:
    if newest is not None and decode_book(newest.body) == wanted:
        return newest
    row = PriceBookRow(book, newest.version + 1 if newest else 1, encode_book(wanted), author.now_ms)
    price_books.add(connection, row)
    told = {"version": row.version, "currency": wanted.currency, "markup_bp": wanted.markup_bp, "source": wanted.source}
    overrides = [msgspec.to_builtins(price) for price in wanted.overrides]
    author.write_down(connection, action, book, {**told, "overrides": overrides, "seeded": len(wanted.seeded)})
    return row
