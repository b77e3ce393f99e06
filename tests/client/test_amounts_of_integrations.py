"""What calls may use and did use, as other libraries say it: bounds hold, and classes never overlap."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allotment.integrations.amounts import Prompt, as_key, disjoint, next_step
from allotment.integrations.spans import tokens_of
from protocol.ids import is_key
from protocol.units import INPUT_CLASSES, OUTPUT_CLASSES

counts = st.one_of(st.none(), st.integers(-5, 10_000), st.just("many"), st.floats(allow_nan=True))
parts = st.dictionaries(st.sampled_from([*INPUT_CLASSES, *OUTPUT_CLASSES]), counts)
json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=40)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=20,
)


@given(counts, counts, parts)
def test_classes_sum_into_what_is_paid_for_whatever_is_said(inputs: Any, outputs: Any, said: dict[str, Any]) -> None:
    said.pop("input", None)
    said.pop("output", None)
    found = disjoint(inputs, outputs, **said)
    for total, classes in ((inputs, INPUT_CLASSES), (outputs, OUTPUT_CLASSES)):
        real = int(total) if isinstance(total, int | float) and 0 <= total < 2**53 else 0
        assert sum(found.get(name, 0) for name in classes) == real
    assert all(count > 0 for count in found.values())


@given(json)
def test_a_prompt_is_never_more_tokens_than_its_bound(body: Any) -> None:
    texts: list[str] = []

    def collect(node: Any) -> None:
        if isinstance(node, str):
            texts.append(node)
        elif isinstance(node, dict):
            for name, value in node.items():
                texts.append(name)
                collect(value)
        elif isinstance(node, list):
            for one in node:
                collect(one)

    collect(body)
    assert Prompt(body).tokens_max >= sum(len(text.encode()) for text in texts)


def test_images_count_as_images_and_text_as_text_whatever_it_is_called() -> None:
    blob = "A" * 400_000
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{blob}"}}
    assert Prompt({"content": [image]}).tokens_max < 10_000
    assert Prompt({"content": blob}).tokens_max > 400_000
    assert Prompt({"data": "many words " * 1_000}).tokens_max > 10_000


@given(st.integers(0, 100_000), st.integers(0, 100_000))
def test_more_is_held_before_it_is_needed(held: int, output_bytes: int) -> None:
    step = next_step(held, output_bytes)
    assert held + step > output_bytes
    assert step >= 0


@given(st.one_of(st.none(), st.text(), st.integers(1)))
def test_every_name_becomes_one_that_can_be_counted(name: Any) -> None:
    found = as_key(name)
    assert found is None or is_key(found)
    assert (found is None) == (not name)


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        ({"input_tokens": 100, "cache_read.input_tokens": 60}, {"input": 40, "cache_read": 60}),
        ({"input_tokens": 10, "cache_read.input_tokens": 60}, {"input": 10, "cache_read": 60}),  # counted beside it
        ({"output_tokens": 9, "reasoning.output_tokens": 4}, {"output": 5, "reasoning": 4}),
        ({"prompt_tokens": 3, "completion_tokens": 2}, {"input": 3, "output": 2}),
    ],
)
def test_spans_say_sums_or_parts(said: dict[str, int], tokens: dict[str, int]) -> None:
    assert tokens_of({f"gen_ai.usage.{name}": count for name, count in said.items()}) == tokens
