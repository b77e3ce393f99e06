"""Export: what is read back and applied again changes nothing, here, and means the same elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.core.catalog_file import (
    CatalogFile,
    FeatureWrite,
    MeterWrite,
    PlanWrite,
    PriceBookWrite,
    concise,
)
from control_plane.core.combining import Combine
from control_plane.core.plans import PlanFeature, PlanGrant, PlanLimit, Price
from control_plane.core.price_books import ModelPrice, PriceBookUse
from control_plane.operations.apply_file import Outcome, apply_file, export_file
from control_plane.operations.author import Author
from control_plane.operations.count_subscribers import count_subscribers
from control_plane.store.database import Database
from protocol.entitlements import FeatureKind, LimitEnd, Rate, RoleTerms, Scope
from protocol.windows import WindowKind

AUTHOR = Author("test", 1_790_000_000_000)
KEYS = st.sampled_from(["a", "b-2", "chat.v1", "Z"])
TEXTS = st.text("aZ ü'\"#:-{}", min_size=1, max_size=12)
AMOUNTS = st.integers(0, 2**40)

meters = st.builds(MeterWrite, unit=TEXTS, description=TEXTS, combine=st.sampled_from(Combine))
features = st.builds(
    FeatureWrite, TEXTS, st.just(FeatureKind.METERED), st.sampled_from(Combine), st.booleans()
) | st.builds(FeatureWrite, TEXTS, st.sampled_from([FeatureKind.BOOLEAN, FeatureKind.STATIC]))
values = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | TEXTS,
    lambda inner: st.lists(inner | st.none(), max_size=3) | st.dictionaries(TEXTS, inner | st.none(), max_size=3),
    max_leaves=4,
)
prices = st.builds(
    ModelPrice,
    st.sampled_from(["gpt/x", "m-1"]),
    st.fixed_dictionaries({"input": st.integers(0, 10**12), "output": st.integers(0, 10**12)}),
    markup_bp=st.none() | st.integers(-10, 10),
)
books = st.builds(
    PriceBookWrite,
    st.sampled_from(["USD", "EUR"]),
    st.integers(-100, 100),
    st.lists(prices, max_size=2, unique_by=lambda price: price.model).map(tuple),
)


@st.composite
def limits(draw: st.DrawFn) -> PlanLimit:
    amount, end, seats = draw(st.none() | AMOUNTS), LimitEnd.BLOCK, False
    role_amounts: dict[str, int | None] = {}
    overage_max, price = 0, None
    if amount is not None:
        end, seats = draw(st.sampled_from(LimitEnd)), draw(st.booleans())
        amounts = AMOUNTS if end is LimitEnd.OVERAGE else st.none() | AMOUNTS
        role_amounts = draw(st.dictionaries(KEYS, amounts, max_size=2))
        if end is LimitEnd.OVERAGE:
            overage_max, price = draw(st.integers(1, 99)), draw(st.none() | st.builds(Price, AMOUNTS, st.just("USD")))
    scope = draw(st.sampled_from([Scope.CUSTOMER, Scope.USER, Scope.TAG]))
    window = draw(st.sampled_from([WindowKind.DAY, WindowKind.MONTH, WindowKind.BILLING_PERIOD]))
    tag = "project" if scope is Scope.TAG else None
    return PlanLimit(
        "key", "requests", amount, window, None, scope, end, overage_max, scope_tag=tag, by_role=role_amounts,
        per_seat=seats, shadow=draw(st.booleans()), overage_price=price,
        thresholds=draw(st.sampled_from([(), (50, 100)])) if amount else (),
    )  # fmt: skip


@st.composite
def files(draw: st.DrawFn) -> CatalogFile:
    """Any file that may be applied to an empty catalog."""
    some_meters = draw(st.dictionaries(KEYS, meters, max_size=3))
    some_features = draw(st.dictionaries(KEYS, features, max_size=3))
    some_books = draw(st.dictionaries(KEYS, books, max_size=2))

    def feature_of(key: str, kind: FeatureKind) -> PlanFeature:
        value = values if kind is FeatureKind.STATIC else st.none()
        roles = st.dictionaries(KEYS, st.builds(RoleTerms, st.booleans(), value), max_size=1)
        return PlanFeature(key, draw(st.booleans()), draw(value), draw(roles))

    def plan() -> PlanWrite:
        found = draw(st.lists(limits(), max_size=4, unique_by=lambda limit: limit.counter))
        named = tuple(msgspec.structs.replace(limit, key=f"limit-{at}") for at, limit in enumerate(found))
        chosen = draw(st.lists(st.sampled_from(sorted(some_features)), unique=True)) if some_features else []
        rates, uses, grants = [], [], []
        for meter in some_meters:
            kind = draw(st.sampled_from(["rate", "book", "grant", "nothing"]))
            if kind == "rate":
                rates.append(Rate(meter, {"requests": draw(st.integers(1, 10**9))}))
            elif kind == "grant":
                grants.append(PlanGrant(meter, meter, draw(AMOUNTS), rollover_max=draw(st.integers(0, 5))))
            elif kind == "book" and (priced := [(key, book) for key, book in some_books.items() if book.overrides]):
                key, book = draw(st.sampled_from(priced))
                uses.append(PriceBookUse(key, (book.overrides[0].model,), meter=meter))
        return PlanWrite(
            name=draw(TEXTS),
            features=tuple(feature_of(key, some_features[key].kind) for key in chosen),
            limits=named, rates=tuple(rates), price_books=tuple(uses), grants=tuple(grants),
        )  # fmt: skip

    plans = {key: plan() for key in draw(st.sets(KEYS, max_size=2))}
    add_ons = {key: plan() for key in draw(st.sets(KEYS, max_size=1))}
    return CatalogFile(some_meters, some_features, some_books, plans, add_ons)


@settings(max_examples=50)
@given(files())
def test_what_a_person_would_write_means_the_same(file: CatalogFile) -> None:
    assert msgspec.convert(concise(file), CatalogFile) == file


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(first=files(), second=files())
def test_any_export_changes_nothing_here_and_gives_the_same_elsewhere(
    tmp_path_factory: Any, sqlite_template: Path, first: CatalogFile, second: CatalogFile
) -> None:
    here, there = (_database(tmp_path_factory, sqlite_template) for _ in range(2))
    try:
        _apply(here, first)
        exported = here.read(export_file)
        assert _outcomes(here, exported) <= {Outcome.UNCHANGED}
        assert _outcomes(here, first) <= {Outcome.UNCHANGED}
        assert _outcomes(there, exported) <= {Outcome.NEW}
        assert there.read(export_file) == exported
        if not _clash(first, second):
            _apply(here, second)
            assert _outcomes(here, here.read(export_file)) <= {Outcome.UNCHANGED}
    finally:
        here.dispose()
        there.dispose()


def _database(tmp_path_factory: Any, template: Path) -> Database:
    path = tmp_path_factory.mktemp("catalog") / "control-plane.db"
    path.write_bytes(template.read_bytes())
    return Database(f"sqlite:///{path}")


def _apply(database: Database, file: CatalogFile) -> Any:
    return database.run(
        lambda connection: apply_file(connection, file, count_subscribers(connection, AUTHOR.now_ms), AUTHOR)
    )


def _outcomes(database: Database, file: CatalogFile) -> set[Outcome]:
    return {entry.outcome for entry in _apply(database, file)}


def _clash(first: CatalogFile, second: CatalogFile) -> bool:
    """Whether the second changes what never changes."""
    return (
        any(key in first.meters and first.meters[key].unit != one.unit for key, one in second.meters.items())
        or any(key in first.features and first.features[key].kind != one.kind for key, one in second.features.items())
        or any(
            key in first.price_books and first.price_books[key].currency != one.currency
            for key, one in second.price_books.items()
        )
    )


def test_an_export_over_http_can_be_applied_as_it_came(admin: Any) -> None:
    admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
    admin.put("/v1/meters/credits", {"unit": "credit"})
    book = {"currency": "USD", "overrides": [{"model": "m", "tokens": {"input": 1, "output": 2}}]}
    admin.put("/v1/price-books/standard", book)
    use = {"book": "standard", "models": ["m"], "meter": "credits"}
    admin.put("/v1/plans/old", {"name": "Old", "price_books": [use]})
    admin.put("/v1/price-books/standard", {**book, "markup_bp": 5})
    admin.put("/v1/plans/new", {"name": "New", "price_books": [use]})
    exported = admin.get("/v1/catalog")
    assert exported["plans"]["old"]["price_books"][0]["version"] == 1, "an older version is named"
    assert "version" not in exported["plans"]["new"]["price_books"][0], "the newest is followed"
    applied = admin.put("/v1/catalog", exported)
    assert {one["outcome"] for one in applied["entries"]} == {"unchanged"}
