"""Applies a catalog file as a whole, and says what that changes and for whom; the same file again changes nothing."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from control_plane.core import aggregates
from control_plane.core.catalog import authored, decode_plan
from control_plane.core.catalog_changes import (
    FieldChange,
    Subscribers,
    field_changes,
    touched,
    with_combine,
    with_disabled,
)
from control_plane.core.catalog_file import (
    ENTRIES_MAX,
    CatalogFile,
    FeatureWrite,
    MeterWrite,
    PlanWrite,
    PriceBookWrite,
    meter_write,
    plan_write,
)
from control_plane.core.combining import Combine
from control_plane.core.entitlements import CatalogRules
from control_plane.core.price_books import decode_book
from control_plane.operations.apply_catalog import publish_plan, put_feature, put_meter
from control_plane.operations.author import Author
from control_plane.operations.change_price_book import put_price_book
from control_plane.operations.refusals import Conflict, Refusal
from control_plane.store import catalog, price_books
from control_plane.store.catalog import ADD_ONS, PLANS, FeatureRow, MeterRow, PlanRow, Shelf
from control_plane.store.database import Connection
from control_plane.store.price_books import PriceBookRow
from protocol.violations import Violation


class Outcome(StrEnum):
    """What becomes of an entry of the file."""

    NEW = "new"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


class Versioned(NamedTuple):
    """So many customers have this version."""

    version: int
    customers: int


class Entry(NamedTuple):
    """What became of one entry of a file.

    Attributes:
        kind: the file's section. version: that holds now, of what has versions.
        changes: field by field; none of what is new.
        subscribers: of a plan or add-on: who has which version, and keeps it.
        customers: of a feature or meter: for how many another `combine` or `disabled` changes what they may use.
    """

    kind: str
    key: str
    outcome: Outcome
    changes: tuple[FieldChange, ...] = ()
    version: int | None = None
    subscribers: tuple[Versioned, ...] = ()
    customers: int = 0


def apply_file(
    connection: Connection, wanted: CatalogFile, subscribers: Sequence[Subscribers], author: Author
) -> list[Entry]:
    """Make the catalog what the file says, in the order in which entries need each other; what it does not name stays.

    Args:
        subscribers: who has what, for saying whom it concerns.

    Raises: Violation, NotFound, Conflict: as for a single entry, with its path in the file. Nothing is applied then.
    """
    rules = _rules(connection)
    entries: list[Entry] = []
    for key, meter in wanted.meters.items():
        with _at(f"meters.{key}", meter):
            entries.append(_meter(connection, key, meter, author))
    for key, feature in wanted.features.items():
        with _at(f"features.{key}", feature):
            entries.append(_feature(connection, key, feature, author))
    for key, book in wanted.price_books.items():
        with _at(f"price_books.{key}", book):
            entries.append(_price_book(connection, key, book, author))
    for section, plans, shelf in (("plans", wanted.plans, PLANS), ("add_ons", wanted.add_ons, ADD_ONS)):
        for key, plan in plans.items():
            with _at(f"{section}.{key}", plan):
                entries.append(_plan(connection, section, key, plan, shelf, author))
    return [_with_whom(entry, wanted, subscribers, rules) for entry in entries]


def export_file(connection: Connection) -> CatalogFile:
    """The newest version of everything in the catalog; applied again it changes nothing.

    The version of a price book is left out where a plan has the newest, so that the plan follows the book.

    Raises: Conflict: there is more of one kind than a file may hold.
    """
    books = _all("price_books", lambda after, count: price_books.newest_after(connection, after, count))
    newest = {row.book: row.version for row in books}
    meters = _all("meters", lambda after, count: catalog.meters_after(connection, after, count))
    features = _all("features", lambda after, count: catalog.features_after(connection, after, count))
    plans = _all("plans", lambda after, count: catalog.newest_plans_after(connection, after, count))
    add_ons = _all("add_ons", lambda after, count: catalog.newest_plans_after(connection, after, count, ADD_ONS))
    return CatalogFile(
        {row.meter: _meter_write(row) for row in meters},
        {row.feature: _feature_write(row) for row in features},
        {row.book: _book_write(row) for row in books},
        {row.plan: _unpinned(_plan_write(row), newest) for row in plans},
        {row.plan: _unpinned(_plan_write(row), newest) for row in add_ons},
    )


def _meter(connection: Connection, key: str, wanted: MeterWrite, author: Author) -> Entry:
    known = catalog.find_meter(connection, key)
    made = aggregates.encode(wanted.aggregate)
    row = put_meter(connection, MeterRow(key, wanted.unit, wanted.description, wanted.combine.value, made), author)
    return _entry("meters", key, known and _meter_write(known), _meter_write(row))


def _feature(connection: Connection, key: str, wanted: FeatureWrite, author: Author) -> Entry:
    known = catalog.find_feature(connection, key)
    row = FeatureRow(key, wanted.name, wanted.kind, wanted.combine.value, wanted.disabled)
    return _entry(
        "features", key, known and _feature_write(known), _feature_write(put_feature(connection, row, author))
    )


def _price_book(connection: Connection, key: str, wanted: PriceBookWrite, author: Author) -> Entry:
    known = price_books.find(connection, key)
    row = put_price_book(connection, key, wanted.currency, wanted.markup_bp, wanted.overrides, author)
    return _entry("price_books", key, known and _book_write(known), _book_write(row), row.version)


def _plan(connection: Connection, section: str, key: str, wanted: PlanWrite, shelf: Shelf, author: Author) -> Entry:
    known = catalog.find_plan(connection, key, shelf=shelf)
    row = publish_plan(connection, key, wanted.name, wanted.bundle, author, shelf)
    entry = _entry(section, key, known and _plan_write(known), _plan_write(row), row.version)
    if known is not None and known.version != row.version and not entry.changes:
        # The same words, and another meaning: prices behind a book's version, or the kind of a feature.
        return entry._replace(outcome=Outcome.CHANGED)
    return entry


def _entry(kind: str, key: str, before: Any, after: Any, version: int | None = None) -> Entry:
    if before is None:
        return Entry(kind, key, Outcome.NEW, version=version)
    changes = tuple(field_changes(before, after))
    return Entry(kind, key, Outcome.CHANGED if changes else Outcome.UNCHANGED, changes, version)


def _with_whom(entry: Entry, wanted: CatalogFile, subscribers: Sequence[Subscribers], rules: CatalogRules) -> Entry:
    """The same with whom it concerns."""
    match entry.kind:
        case "plans":
            counts = Counter[int]()
            for one in subscribers:
                if one.terms.plan == entry.key:
                    counts[one.terms.version] += one.customers
            return entry._replace(subscribers=tuple(Versioned(*item) for item in sorted(counts.items())))
        case "add_ons":
            counts = Counter()
            for one in subscribers:
                for add_on in one.terms.add_ons:
                    if add_on.add_on == entry.key:
                        counts[add_on.version] += one.customers
            return entry._replace(subscribers=tuple(Versioned(*item) for item in sorted(counts.items())))
        case "features" if entry.changes:
            feature = wanted.features[entry.key]
            after = with_combine(rules, f"feature:{entry.key}", feature.combine)
            after = with_disabled(after, entry.key, disabled=feature.disabled)
            return entry._replace(customers=touched(subscribers, rules, after))
        case "meters" if entry.changes:
            after = with_combine(rules, f"meter:{entry.key}", wanted.meters[entry.key].combine)
            return entry._replace(customers=touched(subscribers, rules, after))
        case _:
            return entry


def _rules(connection: Connection) -> CatalogRules:
    combine, disabled = catalog.rules(connection)
    return CatalogRules({name: Combine(rule) for name, rule in combine.items()}, frozenset(disabled))


@contextlib.contextmanager
def _at(path: str, entry: msgspec.Struct) -> Iterator[None]:
    """What is wrong with an entry is told with its path in the file."""

    def inside(field: str) -> str:
        root = field.partition("[")[0].partition(".")[0]
        return f"{path}.{field}" if root in entry.__struct_fields__ else path

    try:
        yield
    except Violation as wrong:
        raise Violation(inside(wrong.field), wrong.problem, wrong.expected, wrong.code) from None
    except Refusal as refused:
        raise type(refused)(refused.code, refused.detail, inside(refused.field)) from None


def _all(kind: str, pages: Callable[[str, int], list[Any]]) -> list[Any]:
    rows = pages("", ENTRIES_MAX + 1)
    if len(rows) > ENTRIES_MAX:
        detail = f"The catalog has more than {ENTRIES_MAX} {kind}, which a file cannot hold; read them page by page."
        raise Conflict("catalog_too_large", detail, kind)
    return rows


def _meter_write(row: MeterRow) -> MeterWrite:
    return meter_write(row.unit, row.description, Combine(row.combine), aggregates.decode(row.aggregate))


def _feature_write(row: FeatureRow) -> FeatureWrite:
    return FeatureWrite(row.name, row.kind, Combine(row.combine), row.disabled)


def _book_write(row: PriceBookRow) -> PriceBookWrite:
    book = decode_book(row.body)
    return PriceBookWrite(book.currency, book.markup_bp, book.overrides)


def _plan_write(row: PlanRow) -> PlanWrite:
    return plan_write(row.name, authored(decode_plan(row.body)))


def _unpinned(plan: PlanWrite, newest: dict[str, int]) -> PlanWrite:
    uses = tuple(
        msgspec.structs.replace(use, version=None) if use.version == newest.get(use.book) else use
        for use in plan.price_books
    )
    return msgspec.structs.replace(plan, price_books=uses)
