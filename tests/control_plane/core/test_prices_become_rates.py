"""Prices become rates: markups are rounded up, overrides go first, and every rule that a book breaks is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.price_books import (
    WHOLE,
    Difference,
    ModelPrice,
    PriceBook,
    PriceBookUse,
    check_prices,
    decode_book,
    differences,
    encode_book,
    rates_of,
)
from protocol.rates import RateCard
from protocol.units import normalise
from protocol.violations import Violation

SONNET = ModelPrice("claude-sonnet-4", {"input": 3_000_000, "output": 15_000_000, "cache_read": 300_000})
EMBED = ModelPrice("text-embedding-3-small", {"input": 20_000})
BOOK = PriceBook("USD", seeded=(SONNET, EMBED))


def rates(book: PriceBook, **use: object):
    return tuple(rates_of("price_books[0]", "standard@3", book, PriceBookUse("standard", **use)))  # type: ignore[arg-type]


def test_a_price_for_a_million_tokens_is_the_weight_of_one() -> None:
    (rate,) = rates(BOOK, models=("claude-sonnet-4",))
    assert rate.weights == {"input_tokens": 3_000_000, "output_tokens": 15_000_000}
    assert rate.classes == {"cache_read": 300_000}, "what costs the same as its meter is not said again"
    assert (rate.model, rate.book, rate.per) == ("claude-sonnet-4", "standard@3", 1)
    tokens = {"input": 1_000, "cache_read": 1_000, "output": 100}
    made = RateCard((rate,)).choose("chat", "claude-sonnet-4").exact(normalise({}, tokens), tokens)
    assert made == {"cost_micros": 3_000 + 300 + 1_500}


@given(st.integers(0, 10**12), st.integers(-WHOLE, 100 * WHOLE))
def test_markups_are_exact_to_the_last_millionth_and_rounded_up(price: int, markup_bp: int) -> None:
    book = PriceBook("USD", markup_bp, seeded=(ModelPrice("m", {"input": price}),))
    (rate,) = rates(book, models=("m",))
    exact = price * (WHOLE + markup_bp)
    assert exact <= rate.weights["input_tokens"] * WHOLE < exact + WHOLE


def test_an_override_goes_before_what_was_seeded_and_may_have_a_markup_of_its_own() -> None:
    mine = ModelPrice("Claude-Sonnet-4", {"input": 1_000_000}, markup_bp=0)
    book = PriceBook("USD", 2_000, overrides=(mine,), seeded=(SONNET, EMBED))
    one, other = rates(book, models=("claude-sonnet-4", "text-embedding-3-small"))
    assert one.weights == {"input_tokens": 1_000_000}
    assert other.weights == {"input_tokens": 24_000}


def test_other_models_cost_what_the_plan_says_they_cost() -> None:
    made = rates(BOOK, models=("text-embedding-3-small",), others="claude-sonnet-4")
    assert [rate.model for rate in made] == ["text-embedding-3-small", None]
    choice = RateCard(made).choose("chat", "llama")
    assert (choice.certain, choice.exact({"input_tokens": 10}, {})) == (True, {"cost_micros": 30})


def test_credits_are_so_many_micro_units_of_money() -> None:
    (rate,) = rates(BOOK, models=("claude-sonnet-4",), meter="credits", micros_per_unit=10_000)
    made = RateCard((rate,)).choose("chat", "claude-sonnet-4").exact({"output_tokens": 1_334}, {})
    assert made == {"credits": 3}, "20,010 micro-dollars are 2.001 credits of a cent"


def test_a_model_that_has_no_price_is_named() -> None:
    with pytest.raises(Violation) as refused:
        rates(BOOK, models=("claude-sonnet-4", "gpt-4o"))
    assert refused.value.field == "price_books[0].models[1]"
    with pytest.raises(Violation) as refused:
        rates(BOOK, models=("claude-sonnet-4",), others="gpt-4o")
    assert refused.value.field == "price_books[0].others"


@pytest.mark.parametrize(
    ("price", "field"),
    [
        (ModelPrice("m"), "overrides[0]"),
        (ModelPrice("m", {"cache_read": 1}), "overrides[0].tokens"),
        (ModelPrice("m", {"input": 1, "reasoning": 1}), "overrides[0].tokens"),
        (ModelPrice("m", {"input": 1}, {"input_tokens": 1}), "overrides[0].meters.input_tokens"),
        (ModelPrice("m", meters={"imagez": 1}), "overrides[0].meters.imagez"),
    ],
)
def test_a_price_that_breaks_a_rule_is_named(price: ModelPrice, field: str) -> None:
    with pytest.raises(Violation) as refused:
        check_prices("overrides", (price,), {"requests", "images"})
    assert refused.value.field == field


def test_a_model_has_one_price() -> None:
    with pytest.raises(Violation) as refused:
        check_prices("overrides", (EMBED, ModelPrice("TEXT-embedding-3-small", {"input": 1})), set())
    assert refused.value.field == "overrides[1].model"


def test_differences_name_each_price_that_is_another() -> None:
    cheaper = ModelPrice("claude-sonnet-4", {"input": 2_000_000, "output": 15_000_000})
    assert differences(BOOK, PriceBook("USD", seeded=(cheaper, EMBED))) == [
        Difference("claude-sonnet-4", "cache_read", 300_000, None),
        Difference("claude-sonnet-4", "input", 3_000_000, 2_000_000),
    ]
    assert differences(BOOK, BOOK) == []
    assert len(differences(None, BOOK)) == 4


def test_books_are_read_as_they_were_written() -> None:
    assert decode_book(encode_book(BOOK)) == BOOK
