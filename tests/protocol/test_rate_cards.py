"""Rate cards: the most specific rate prices a call, holds are never too small, and no model is free in silence."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.entitlements import MILLION, Rate
from protocol.events import Priced, UsageEvent
from protocol.rates import CHOICES_MAX, RateCard, model_names
from protocol.units import TOKEN_CLASSES, normalise

GPT = Rate("cost_micros", {"input_tokens": 2_500_000, "output_tokens": 10_000_000}, model="gpt-4o")
MINI = Rate("cost_micros", {"input_tokens": 150_000, "output_tokens": 600_000}, model="gpt-4o-mini")
OTHERS = Rate("cost_micros", {"input_tokens": 9_000_000, "output_tokens": 9_000_000})
CHAT = Rate("cost_micros", {"input_tokens": 1_000_000, "output_tokens": 1_000_000}, "chat")
CHAT_GPT = Rate("cost_micros", {"input_tokens": 2_000_000, "output_tokens": 2_000_000}, "chat", "gpt-4o")

meter_names = st.sampled_from(["requests", "input_tokens", "output_tokens", "images"])
quantities = st.integers(0, 2**53 - 1)
some_weights = st.dictionaries(meter_names, quantities, min_size=1, max_size=4)
some_classes = st.dictionaries(st.sampled_from(sorted(TOKEN_CLASSES)), quantities, max_size=9)
some_tokens = st.dictionaries(st.sampled_from(sorted(TOKEN_CLASSES)), st.integers(0, 10**9), max_size=9)


def cost(card: RateCard, feature: str, model: str | None, **meters: int) -> int:
    return card.choose(feature, model).exact(meters, {})["cost_micros"]


@given(st.dictionaries(meter_names, quantities, max_size=4), some_weights, st.integers(1, 10**9))
def test_a_derived_meter_is_rounded_up_once_a_call_and_never_favours_the_spender(meters, weights, per):
    made = RateCard((Rate("credits", weights, per=per),)).choose("chat", None).exact(meters, {})["credits"]
    millionths = sum(meters.get(name, 0) * weight for name, weight in weights.items())
    assert millionths <= made * MILLION * per < millionths + MILLION * per


@given(some_weights, some_classes, some_tokens, st.integers(0, 10**6), st.integers(1, 10**6))
def test_what_is_held_covers_every_way_to_split_the_tokens_into_classes(weights, classes, tokens, images, per):
    choice = RateCard((Rate("credits", weights, classes=classes, per=per),)).choose("chat", None)
    by_class = normalise({"images": images}, tokens)
    held = choice.most(by_class)
    assert choice.exact(by_class, tokens)["credits"] <= held["credits"]
    assert choice.exact(by_class, {})["credits"] <= held["credits"], "told as sums"


def test_token_classes_cost_what_they_cost_and_others_what_their_meter_costs():
    rate = Rate("micros", {"input_tokens": 3_000_000, "output_tokens": 15_000_000}, classes={"cache_read": 300_000})
    tokens = {"input": 1_000, "cache_read": 10_000, "output": 100, "reasoning": 50}
    choice = RateCard((rate,)).choose("chat", None)
    assert choice.exact(normalise({}, tokens), tokens) == {"micros": 3_000 + 3_000 + 1_500 + 750}
    assert choice.exact({"input_tokens": 11_000, "output_tokens": 150}, {}) == {"micros": 33_000 + 2_250}


@pytest.mark.parametrize("rates", [(OTHERS, CHAT, GPT, CHAT_GPT), (CHAT_GPT, GPT, CHAT, OTHERS)])
def test_feature_and_model_go_before_model_before_feature_before_all(rates):
    card = RateCard(rates)
    assert cost(card, "chat", "gpt-4o", input_tokens=1) == 2
    assert cost(card, "search", "gpt-4o", input_tokens=1) == 3, "2.5, rounded up"
    assert cost(card, "chat", "llama", input_tokens=1) == 1
    assert cost(card, "search", "llama", input_tokens=1) == 9
    assert cost(card, "search", None, input_tokens=1) == 9


def test_models_are_known_with_date_and_provider_and_the_most_exact_name_goes_first():
    assert model_names("openai/GPT-4o-2024-08-06") == (
        "openai/gpt-4o-2024-08-06", "openai/gpt-4o", "gpt-4o-2024-08-06", "gpt-4o",
    )  # fmt: skip
    assert model_names("claude-sonnet-4@20250514")[-1] == "claude-sonnet-4"
    assert model_names("claude-3-5-haiku-20241022")[-1] == "claude-3-5-haiku"
    assert model_names("mistral-large-latest")[-1] == "mistral-large"
    assert model_names("openrouter/openai/gpt-4o")[-1] == "gpt-4o"
    assert model_names("gpt-4-0613") == ("gpt-4-0613",)
    assert model_names(None) == ()
    dated = msgspec.structs.replace(OTHERS, model="gpt-4o-2024-05-13")
    card = RateCard((GPT, MINI, dated))
    assert cost(card, "chat", "openai/gpt-4o-2024-08-06", output_tokens=1) == 10
    assert cost(card, "chat", "GPT-4o-2024-05-13", output_tokens=1) == 9
    assert cost(card, "chat", "openai/gpt-4o-mini", output_tokens=1_000) == 600


def test_an_unknown_model_counts_at_the_dearest_rate_and_is_named():
    choice = RateCard((GPT, MINI)).choose("chat", "llama")
    made = choice.exact({"input_tokens": 1_000}, {})
    assert made == {"cost_micros": 2_500}
    assert choice.unpriced(made) == "cost_micros"
    assert choice.priced == (Priced("cost_micros", "", known=False),)
    assert not RateCard((GPT, MINI)).choose("chat", None).certain, "nor may the model be left out"


def test_an_unknown_model_that_answers_for_a_known_one_counts_as_what_was_asked_for():
    choice = RateCard((GPT, MINI), "pro@3").choose("chat", "llama", "gpt-4o-mini")
    assert choice.exact({"input_tokens": 1_000}, {}) == {"cost_micros": 150}
    assert choice.priced == (Priced("cost_micros", "pro@3", "gpt-4o-mini", known=False),)


def test_a_call_that_uses_nothing_that_is_priced_by_model_needs_no_model():
    choice = RateCard((GPT, MINI)).choose("export", None)
    assert choice.unpriced(choice.most({"requests": 1})) is None


def test_a_rate_without_a_model_is_the_price_of_unknown_ones():
    choice = RateCard((GPT, OTHERS)).choose("chat", "llama")
    assert (choice.certain, choice.exact({"output_tokens": 1}, {})) == (True, {"cost_micros": 9})


def test_calls_of_other_features_make_nothing():
    assert RateCard((CHAT, CHAT_GPT)).choose("search", "gpt-4o").meters == ()


def test_events_say_by_which_book_each_meter_was_made():
    booked = msgspec.structs.replace(GPT, book="standard@7", per=10_000)
    requests = Rate("credits", {"requests": MILLION})
    choice = RateCard((booked, requests), "pro@3").choose("chat", "gpt-4o")
    assert choice.meters == ("cost_micros", "credits")
    assert choice.priced == (Priced("cost_micros", "standard@7", "gpt-4o", 10_000), Priced("credits", "pro@3"))


def test_models_that_callers_make_up_do_not_fill_the_memory():
    card = RateCard((GPT,))
    for number in range(3 * CHOICES_MAX):
        card.choose("chat", f"m{number}")
    assert len(card._choices) <= CHOICES_MAX


def test_events_and_rates_without_the_new_fields_are_written_as_before():
    event = UsageEvent("e", "acme", "chat", 1, {"credits": 1}, derived=("credits",))
    old = {
        "event": "e",
        "customer": "acme",
        "feature": "chat",
        "at_ms": 1,
        "amounts": {"credits": 1},
        "derived": ["credits"],
    }
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(event)) == old
    assert msgspec.convert(old, UsageEvent).priced == ()
    assert msgspec.to_builtins(Rate("credits", {"requests": 1})) == {"meter": "credits", "weights": {"requests": 1}}
