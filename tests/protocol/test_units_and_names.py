"""Quantities, ids, instants and the limits on a call's path."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.entitlements import Limit, Scope, limits_on_path, scope_value
from protocol.events import Subject
from protocol.ids import is_key
from protocol.instants import INSTANT_MS_MAX, from_datetime, rfc3339, to_datetime
from protocol.units import (
    INPUT_CLASSES,
    INPUT_TOKENS,
    OUTPUT_CLASSES,
    OUTPUT_TOKENS,
    QUANTITY_MAX,
    REQUESTS,
    TOKEN_CLASSES,
    normalise,
)
from protocol.violations import Violation
from protocol.windows import WindowKind

quantities = st.integers(0, 10**9)
tokens = st.dictionaries(st.sampled_from(sorted(TOKEN_CLASSES)), quantities, min_size=1)
other_meters = st.dictionaries(st.sampled_from(["images", "tool_calls", "requests"]), quantities)
feature_names = st.sampled_from(["chat", "draw"])
meter_names = st.sampled_from([REQUESTS, INPUT_TOKENS, OUTPUT_TOKENS])
limits = st.builds(
    lambda whose, **said: Limit(key="l", scope=whose[0], scope_tag=whose[1], **said),
    whose=st.sampled_from([(scope, "team" if scope is Scope.TAG else None) for scope in Scope] + [(Scope.TAG, "desk")]),
    meter=meter_names,
    amount=st.none() | quantities,
    window=st.sampled_from(WindowKind),
    feature=st.none() | feature_names,
    smooth=st.booleans(),
)


@given(tokens, other_meters)
def test_classes_sum_into_their_meters_and_no_token_is_lost_or_counted_twice(said, others):
    meters = normalise(others, said)
    assert meters[INPUT_TOKENS] + meters[OUTPUT_TOKENS] == sum(said.values())
    assert meters[INPUT_TOKENS] == sum(said.get(name, 0) for name in INPUT_CLASSES)
    assert {name: meters[name] for name in others} == others


def test_token_classes_belong_to_one_meter_each():
    assert not set(INPUT_CLASSES) & set(OUTPUT_CLASSES)


@given(other_meters)
def test_a_call_is_one_request_unless_it_says_otherwise(said):
    assert normalise(said, {}) == {REQUESTS: 1} | said


@pytest.mark.parametrize("meter", [INPUT_TOKENS, OUTPUT_TOKENS])
def test_the_same_tokens_said_twice_are_refused(meter):
    with pytest.raises(Violation) as raised:
        normalise({meter: 1}, {"input": 1})
    assert raised.value.field == f"amounts.{meter}"


def test_an_unknown_class_is_refused_with_the_classes_there_are():
    with pytest.raises(Violation) as raised:
        normalise({}, {"thoughts": 1})
    assert raised.value.field == "tokens.thoughts"
    assert "reasoning" in raised.value.expected


def test_classes_that_sum_beyond_a_quantity_are_refused():
    with pytest.raises(Violation, match="sum to"):
        normalise({}, {"input": QUANTITY_MAX, "cache_read": 1})
    assert normalise({}, {"input": QUANTITY_MAX, "output": 1})[INPUT_TOKENS] == QUANTITY_MAX


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@+~-]{0,127}", fullmatch=True))
def test_plain_names_are_keys(name):
    assert is_key(name)


@given(st.text(max_size=140))
def test_keys_are_plain_ascii_of_bounded_length(text):
    if is_key(text):
        assert text.isascii()
        assert text.isprintable()
        assert 0 < len(text) <= 128
        assert not set(text) & set(" /\\'\"`$;&|<>*?#%=,")
    assert not is_key(text + "\n")


@given(st.integers(0, INSTANT_MS_MAX))
def test_instants_survive_the_calendar_and_their_form_for_people(at_ms):
    assert from_datetime(to_datetime(at_ms)) == at_ms
    assert from_datetime(datetime.fromisoformat(rfc3339(at_ms))) == at_ms
    assert rfc3339(at_ms).endswith("Z")


def test_milliseconds_are_written_only_where_there_are_any():
    moment = from_datetime(datetime(2026, 11, 24, 5, 6, 7, tzinfo=UTC))
    assert rfc3339(moment) == "2026-11-24T05:06:07Z"
    assert rfc3339(moment + 8) == "2026-11-24T05:06:07.008Z"
    assert to_datetime(INSTANT_MS_MAX).year == 2200


@given(st.lists(limits, max_size=10).map(tuple), feature_names, st.dictionaries(meter_names, quantities))
def test_a_limit_is_on_the_path_exactly_when_its_meter_and_its_feature_are(all_limits, feature, meters):
    found = list(limits_on_path(all_limits, feature, meters, None))
    expected = [limit for limit in all_limits if limit.meter in meters and limit.feature in (None, feature)]
    assert found == expected


SUBJECTS = {Scope.WORKSPACE: "workspace", Scope.USER: "user", Scope.ROLE: "role", Scope.API_KEY: "api_key"}


@given(limits, st.sets(st.sampled_from(sorted(SUBJECTS.values()))), st.booleans())
def test_a_call_that_leaves_out_whose_it_is_shares_one_counter_and_never_leaves_the_limit(limit, said, tagged):
    counted_under = scope_value(
        limit, Subject(**{name: f"the-{name}" for name in said}), {"team": "a"} if tagged else {}
    )
    if limit.scope is Scope.TAG:
        assert counted_under == ("a" if tagged and limit.scope_tag == "team" else "")
    else:
        name = SUBJECTS.get(limit.scope)
        assert counted_under == (f"the-{name}" if name in said else "")


@given(limits, limits)
def test_limits_share_a_counter_exactly_when_they_count_the_same(one, other):
    def counted(limit):
        return (limit.feature, limit.meter, limit.window, limit.scope, limit.scope_tag, limit.smooth)

    same = counted(one) == counted(other)
    assert (one.counter == other.counter) == same


@given(limits)
def test_the_ceiling_is_the_amount_and_its_overage_or_nothing_when_unlimited(limit):
    assert limit.ceiling == (None if limit.amount is None else limit.amount + limit.overage_max)
