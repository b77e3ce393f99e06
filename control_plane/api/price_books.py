"""Price books over HTTP: what models cost, in versions that never change."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from control_plane.api.context import Context
from control_plane.api.parameters import Page, PageCursor, PageLimit, PathKey, decode_cursor, key_cursor, page
from control_plane.api.verbs import acts, puts, reads
from control_plane.core.catalog_file import PriceBookWrite
from control_plane.core.price_books import (
    Difference,
    ModelPrice,
    PriceBook,
    decode_book,
    prices_of,
)
from control_plane.operations.change_price_book import put_price_book, seed_prices
from control_plane.operations.library_prices import library_prices
from control_plane.operations.pin_price_books import require_price_book
from control_plane.operations.refusals import NotFound
from control_plane.store import price_books
from control_plane.store.price_books import PriceBookRow
from protocol.ids import ModelName
from protocol.instants import rfc3339

TAGS = ["prices"]
VERSION_MAX = 2**31 - 1
SHOWN_MAX = 1_000
Version = Annotated[int | None, QueryParameter(ge=1, le=VERSION_MAX, description="without it the newest")]

_POSITION: msgspec.json.Decoder[str] = msgspec.json.Decoder(ModelName)


class PriceBookItem(msgspec.Struct, frozen=True):
    """One version of a price book. ``source``: the library that the other prices come from; ``models``: how many have
    a price."""

    book: str
    version: int
    published_at: str
    currency: str
    markup_bp: int
    source: str
    models: int
    overrides: tuple[ModelPrice, ...]


class SeedOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``dry_run``: only say what would change. ``long_prompts``: where a price rises with the length of the prompt,
    take that of the longest."""

    dry_run: bool = False
    long_prompts: bool = False


class SeedItem(msgspec.Struct, frozen=True):
    """``version``: that holds then; ``changes``: how many prices are other than before, and ``first`` of them."""

    book: str
    version: int
    source: str
    changes: int
    first: tuple[Difference, ...]
    tiered: int
    left_out: int


def _item(row: PriceBookRow) -> PriceBookItem:
    body = decode_book(row.body)
    at, models = rfc3339(row.published_at_ms), len(prices_of(body))
    return PriceBookItem(row.book, row.version, at, body.currency, body.markup_bp, body.source, models, body.overrides)


@puts("/v1/price-books/{book:str}", PriceBookWrite, tags=TAGS)
def put_book(book: PathKey, data: JSONBody[PriceBookWrite], context: NamedDependency[Context]) -> PriceBookItem:
    """Publish the book's next version, unless the newest says the same. Plans keep the version they were published
    with; seeded prices stay."""
    return _item(
        context.change(
            lambda connection, author: put_price_book(
                connection, book, data.currency, data.markup_bp, data.overrides, author
            )
        )
    )


@acts("/v1/price-books/{book:str}/seed", SeedOrder, tags=TAGS)
def seed_book(book: PathKey, data: JSONBody[SeedOrder], context: NamedDependency[Context]) -> SeedItem:
    """Publish a version with the prices of the library that comes with this program; overrides and markup stay."""
    library = library_prices(context.now_ms, long_prompts=data.long_prompts)
    done = context.change(
        lambda connection, author: seed_prices(connection, book, library, author, dry_run=data.dry_run)
    )
    first = tuple(done.changes[:SHOWN_MAX])
    return SeedItem(
        book, done.version, library.source, len(done.changes), first, len(library.tiered), len(library.left_out)
    )


@reads("/v1/price-books/{book:str}", tags=TAGS)
def get_book(book: PathKey, context: NamedDependency[Context], version: Version = None) -> PriceBookItem:
    """One version of a price book."""
    row = context.read(lambda connection: price_books.find(connection, book, version))
    if row is None:
        which = f"price book {book!r}" if version is None else f"version {version} of price book {book!r}"
        raise NotFound("price_book_not_found", f"There is no {which}.", "book")
    return _item(row)


@reads("/v1/price-books/{book:str}/prices", tags=TAGS)
def list_prices(
    book: PathKey,
    context: NamedDependency[Context],
    version: Version = None,
    limit: PageLimit = 100,
    cursor: PageCursor = None,
) -> Page[ModelPrice]:
    """The prices that hold in one version, without markup, in order of model."""
    after = "" if cursor is None else decode_cursor(cursor, _POSITION)
    body: PriceBook = context.read(lambda connection: require_price_book(connection, book, version)[1])
    rows = [price for model, price in prices_of(body).items() if model > after][: limit + 1]
    return page(rows, limit, lambda price: price, lambda price: price.model.lower())


@reads("/v1/price-books", tags=TAGS)
def list_books(
    context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None
) -> Page[PriceBookItem]:
    """The newest version of each price book, in order of name."""
    after = key_cursor(cursor)
    rows = context.read(lambda connection: price_books.newest_after(connection, after, limit + 1))
    return page(rows, limit, _item, lambda row: row.book)


PRICE_BOOK_HANDLERS = [put_book, seed_book, get_book, list_prices, list_books]
