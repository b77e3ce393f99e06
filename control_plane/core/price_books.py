"""Price books: what models cost by token class, in versions; and the rates that a plan makes of one. Pure.

Prices are micro-units of the book's currency for a million units: 2.50 dollars for a million input tokens is 2,500,000.
They become the weights of a :class:`protocol.entitlements.Rate` as they are, because weights are millionths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Annotated

import msgspec

from protocol.entitlements import RATES_MAX, Rate
from protocol.ids import Key, ModelName
from protocol.rates import meter_of_class
from protocol.units import (
    INPUT_CLASSES,
    INPUT_TOKENS,
    METERS_MAX,
    OUTPUT_CLASSES,
    OUTPUT_TOKENS,
    TOKEN_CLASSES,
    TokenClass,
)
from protocol.violations import Violation

OVERRIDES_MAX = 1_000
SEEDED_MAX = 10_000
USES_MAX = 8
WHOLE = 10_000
PRICE_MAX = 10**12
"""A million units of money for a million tokens; with the largest markup it still fits a weight."""

Price = Annotated[int, msgspec.Meta(ge=0, le=PRICE_MAX)]
Markup = Annotated[int, msgspec.Meta(ge=-WHOLE, le=100 * WHOLE)]
Currency = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z", description="ISO 4217, as USD")]

BASES = {INPUT_TOKENS: ("input", INPUT_CLASSES), OUTPUT_TOKENS: ("output", OUTPUT_CLASSES)}


class ModelPrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one model costs, in micro-units of money for a million.

    Attributes:
        tokens: by token class; classes not named cost what ``input`` or ``output`` cost, which must be there then.
        meters: of other meters, such as ``requests`` or ``images``.
        markup_bp: hundredths of a percent on top; ``None``: what the book says.
    """

    model: ModelName
    tokens: Annotated[dict[TokenClass, Price], msgspec.Meta(max_length=len(TOKEN_CLASSES))] = {}
    meters: Annotated[dict[Key, Price], msgspec.Meta(max_length=METERS_MAX - 2)] = {}
    markup_bp: Markup | None = None


class PriceBook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One version of a price book.

    Attributes:
        markup_bp: hundredths of a percent on top of every price that has no markup of its own; negative: a discount.
        overrides: prices that an admin has set. They go before those that were seeded.
        seeded: prices from a library; ``source`` names it and its version.
    """

    currency: Currency
    markup_bp: Markup = 0
    overrides: tuple[ModelPrice, ...] = ()
    seeded: tuple[ModelPrice, ...] = ()
    source: str = ""


class PriceBookUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a plan uses a price book: which models it offers, and what their prices are turned into.

    Attributes:
        version: of the book; ``None``: the newest when the plan is published, which is then written down.
        models: the models that the plan offers. Calls of any other are refused, unless ``others`` gives them a price.
        meter: what is made: a declared meter.
        micros_per_unit: how many micro-units of money make one unit of it: 1 for ``cost_micros``, 10,000 for credits
            of a cent.
        feature: only calls of this feature.
        others: the model whose price holds for models that the plan does not name.
    """

    book: Key
    models: Annotated[tuple[ModelName, ...], msgspec.Meta(min_length=1, max_length=RATES_MAX)]
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None
    meter: Key = "cost_micros"
    micros_per_unit: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] = 1
    feature: Key | None = None
    others: ModelName | None = None


def check_prices(path: str, prices: tuple[ModelPrice, ...], meters: set[str]) -> None:
    """The rules of prices that an admin sets.

    Args:
        meters: those that callers may report.

    Raises: Violation: the first rule that is broken, naming ``overrides[2].tokens`` and what would be right.
    """
    seen: dict[str, int] = {}
    for index, price in enumerate(prices):
        where = f"{path}[{index}]"
        name = price.model.lower()
        if name in seen:
            raise Violation(f"{where}.model", f"is that of {path}[{seen[name]}]", "each model once")
        seen[name] = index
        if not price.tokens and not price.meters:
            raise Violation(where, "has no price", "`tokens` or `meters`; a price of 0 is said openly")
        for base, classes in BASES.values():
            if base not in price.tokens and any(token_class in price.tokens for token_class in classes):
                problem = f"has no price for {base!r}, which all other classes of its kind cost"
                raise Violation(f"{where}.tokens", problem, f"a price for {base!r}")
        for meter in price.meters:
            if meter in BASES:
                raise Violation(f"{where}.meters.{meter}", "is what token classes sum into", "its price in `tokens`")
            if meter not in meters:
                raise Violation(f"{where}.meters.{meter}", "is not a meter", "one that is in the catalog")


def prices_of(book: PriceBook) -> dict[str, ModelPrice]:
    """The prices that hold, by model in small letters, in order of name."""
    both = {price.model.lower(): price for prices in (book.seeded, book.overrides) for price in prices}
    return dict(sorted(both.items()))


def rate_of(name: str, book: PriceBook, price: ModelPrice, use: PriceBookUse) -> Rate:
    """The rate that a price makes.

    Args:
        name: of the book with its version, as ``standard@3``.
    """
    markup_bp = book.markup_bp if price.markup_bp is None else price.markup_bp

    def marked_up(amount: int) -> int:
        return -(-amount * (WHOLE + markup_bp) // WHOLE)

    weights = {meter: marked_up(amount) for meter, amount in price.meters.items()}
    tokens = {str(name): amount for name, amount in price.tokens.items()}
    for meter, (base, _) in BASES.items():
        if base in tokens:
            weights[meter] = marked_up(tokens[base])
    classes = {
        token_class: marked_up(amount)
        for token_class, amount in price.tokens.items()
        if marked_up(amount) != weights[meter_of_class(token_class)]
    }
    return Rate(
        use.meter, weights, use.feature, price.model.lower(), classes=classes, per=use.micros_per_unit, book=name
    )


def rates_of(path: str, name: str, book: PriceBook, use: PriceBookUse) -> Iterator[Rate]:
    """The rates of every model that the plan offers.

    Raises: Violation: the book has no price for one of them.
    """
    prices = prices_of(book)
    for index, model in enumerate(use.models):
        yield rate_of(name, book, _price(f"{path}.models[{index}]", name, prices, model), use)
    if use.others is not None:
        rate = rate_of(name, book, _price(f"{path}.others", name, prices, use.others), use)
        yield msgspec.structs.replace(rate, model=None)


def _price(path: str, name: str, prices: Mapping[str, ModelPrice], model: str) -> ModelPrice:
    price = prices.get(model.lower())
    if price is None:
        raise Violation(path, f"names {model!r}, which has no price in {name}", "a model of the price book")
    return price


class Difference(msgspec.Struct, frozen=True):
    """One price that is another than before; ``None`` where there is none.

    Attributes:
        of: a token class or a meter.
    """

    model: str
    of: str
    before: int | None
    after: int | None


def differences(before: PriceBook | None, after: PriceBook) -> list[Difference]:
    """What changes in the prices that hold, in order of model; markups are told by the book itself."""
    olds = {} if before is None else prices_of(before)
    news = prices_of(after)
    found = []
    for model in sorted({*olds, *news}):
        old, new = _flat(olds.get(model)), _flat(news.get(model))
        found += [
            Difference(model, of, old.get(of), new.get(of)) for of in sorted({*old, *new}) if old.get(of) != new.get(of)
        ]
    return found


def _flat(price: ModelPrice | None) -> dict[str, int]:
    return {} if price is None else {**price.meters, **{str(name): amount for name, amount in price.tokens.items()}}


def within(amount: int) -> int:
    """A price from outside, kept within what a price may be."""
    return min(max(amount, 0), PRICE_MAX)


def encode_book(book: PriceBook) -> str:
    """The canonical text of a book: equal books have equal texts."""
    return msgspec.json.encode(book).decode()


@lru_cache(maxsize=64)
def decode_book(text: str) -> PriceBook:
    """A book from its stored text; the same text gives the same (immutable) object."""
    return msgspec.json.decode(text, type=PriceBook)
