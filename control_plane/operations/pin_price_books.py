"""Pins the price books of a plan that is being published: the newest versions, and the rates that they make."""

from __future__ import annotations

import msgspec

from control_plane.core.price_books import PriceBook, PriceBookUse, decode_book, rates_of
from control_plane.operations.refusals import NotFound
from control_plane.store import price_books
from control_plane.store.database import Connection
from protocol.entitlements import Rate


def pin_price_books(
    connection: Connection, uses: tuple[PriceBookUse, ...]
) -> tuple[tuple[PriceBookUse, ...], tuple[Rate, ...]]:
    """The same uses with their versions, and the rates of all models that they name.

    Raises: NotFound: no such book or version. Violation: a model that has no price in it.
    """
    pinned: list[PriceBookUse] = []
    rates: list[Rate] = []
    for index, use in enumerate(uses):
        path = f"price_books[{index}]"
        version, book = require_price_book(connection, use.book, use.version, f"{path}.book")
        rates += rates_of(path, f"{use.book}@{version}", book, use)
        pinned.append(msgspec.structs.replace(use, version=version))
    return tuple(pinned), tuple(rates)


def require_price_book(
    connection: Connection, book: str, version: int | None, field: str = "book"
) -> tuple[int, PriceBook]:
    """One version of a book, without ``version`` the newest, and its number. Raises: NotFound: there is none."""
    row = price_books.find(connection, book, version)
    if row is None:
        which = f"price book {book!r}" if version is None else f"version {version} of price book {book!r}"
        raise NotFound("price_book_not_found", f"There is no {which}.", field)
    return row.version, decode_book(row.body)
