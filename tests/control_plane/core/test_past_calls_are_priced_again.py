"""Pricing past calls again: corrections bring each to what a new call would cost, whatever was said of it before."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.price_books import ModelPrice, PriceBook, PriceBookUse, rates_of
from control_plane.core.rerating import Repricer, correction, correction_id
from protocol.events import Outcome, Priced, UsageEvent
from protocol.ids import is_key
from protocol.rates import RateCard
from protocol.units import normalise

MODELS = ("a", "b")
OLD = PriceBook(
    "USD",
    seeded=(ModelPrice("a", {"input": 7, "output": 30, "cache_read": 1}), ModelPrice("b", {"input": 5, "output": 9})),
)
NEW = PriceBook("USD", 2_500, seeded=(ModelPrice("a", {"input": 6, "output": 36}), ModelPrice("b", {"input": 500})))
THIRD = PriceBook("USD", seeded=(ModelPrice("a", {"input": 1}), ModelPrice("b", {"input": 1, "output": 1})))
tokens = st.dictionaries(st.sampled_from(["input", "output", "cache_read"]), st.integers(0, 10**7))


def card(version: int, book: PriceBook) -> RateCard:
    use = PriceBookUse("standard", MODELS, meter="credits", micros_per_unit=3)
    return RateCard(tuple(rates_of("", f"standard@{version}", book, use)), "pro@1")


def told(price: RateCard, model: str, words: Sequence[dict[str, int]]) -> list[UsageEvent]:
    """What an agent tells of a call whose caller used these words, one after the other."""
    said: list[UsageEvent] = []
    amounts: dict[str, int] = {}
    known: dict[str, int] = {}
    choice = price.choose("chat", model)
    for number, word in enumerate(words):
        meters = normalise({}, word)
        meters |= choice.exact(meters, word)
        event = UsageEvent(
            "call" if number == 0 else f"call~{number}", "acme", "chat", 1_000 + number,
            {name: amount - amounts.get(name, 0) for name, amount in meters.items()}, model=model,
            tokens={name: word.get(name, 0) - known.get(name, 0) for name in {*word, *known}},
            corrects=None if number == 0 else "call", derived=choice.meters, priced=choice.priced,
        )  # fmt: skip
        amounts, known = meters, word
        said.append(event)
    return said


def credit_total(said: Sequence[UsageEvent]) -> int:
    return sum(event.amounts.get("credits", 0) for event in said)


@given(st.sampled_from(MODELS), st.lists(tokens.filter(bool), min_size=1, max_size=3))
def test_a_call_comes_to_what_a_new_one_would_cost_and_back_again(model: str, words: list[dict[str, int]]) -> None:
    said = told(card(1, OLD), model, words)
    for number, (version, book) in enumerate([(2, NEW), (3, THIRD), (1, OLD)]):
        moved, unpriced = Repricer("standard", version, book).reprice(said)
        assert unpriced == []
        if moved:
            said.append(correction(f"r{number}", said, moved, 1_000))
        assert credit_total(said) == credit_total(told(card(version, book), model, words[-1:]))
        assert Repricer("standard", version, book).reprice(said) == ([], []), "the second time there is nothing to do"


def test_the_correction_says_what_it_corrects_and_by_which_price() -> None:
    said = told(card(1, OLD), "a", [{"input": 3_000_000}])
    moved, _ = Repricer("standard", 2, NEW).reprice(said)
    event = correction("november", said, moved, 1_000)
    assert (event.event, event.corrects, event.at_ms) == ("call~rerate~november", "call", 1_000)
    assert event.amounts == {"credits": 8 - 7}, "7.5 micro-dollars a token of three a credit, rounded up"
    assert event.priced == (Priced("credits", "standard@2", "a", 3),)


def test_calls_of_other_books_and_of_the_plans_own_rates_are_left_alone() -> None:
    (event,) = told(card(1, OLD), "a", [{"input": 10}])
    for by in ("other@1", "pro@1", ""):
        theirs = msgspec.structs.replace(event, priced=(Priced("credits", by, "a", 3),))
        assert Repricer("standard", 2, NEW).reprice([theirs]) == ([], [])


def test_a_model_that_had_no_price_gets_its_own() -> None:
    (event,) = told(card(1, OLD), "a", [{"input": 3_000_000}])
    guessed = msgspec.structs.replace(event, model="b", priced=(Priced("credits", "standard@1", None, 3, known=False),))
    ((change,), _) = Repricer("standard", 2, NEW).reprice([guessed])
    assert (change.after, change.priced) == (625, Priced("credits", "standard@2", "b", 3))
    nobody = msgspec.structs.replace(guessed, model="c")
    assert Repricer("standard", 2, NEW).reprice([nobody]) == ([], ["credits"])


def test_a_call_that_expired_is_priced_as_what_it_held() -> None:
    (event,) = told(card(1, OLD), "a", [{"input": 3_000_000}])
    expired = msgspec.structs.replace(event, tokens={}, outcome=Outcome.EXPIRED)
    dear_class = PriceBook("USD", seeded=(ModelPrice("a", {"input": 6, "cache_write": 60}),))
    ((change,), _) = Repricer("standard", 2, dear_class).reprice([expired])
    assert change.after == 60


@given(st.text("ab~.", min_size=1, max_size=127), st.text("xy", min_size=1, max_size=48))
def test_ids_of_corrections_are_ids_and_the_same_each_time(event: str, rerating: str) -> None:
    name = correction_id(f"e{event}", rerating)
    assert is_key(name)
    assert name == correction_id(f"e{event}", rerating)
    assert name != correction_id(f"e{event}", f"{rerating}z"[:48]) or len(rerating) == 48
