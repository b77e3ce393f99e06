"""Meters made of events come to what a plain look at the events says, however the events are dealt out."""

from __future__ import annotations

from collections import defaultdict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.aggregates import (
    HOUR_MS,
    REPORTED,
    Aggregate,
    Aggregation,
    Counted,
    attribute,
    corrected,
    decode,
    encode,
    make,
    merge,
    violations,
)
from protocol.events import Outcome, Subject, UsageEvent

users = st.sampled_from(["ann", "bob", None])
models = st.sampled_from(["m-1", "m-2", None])
amounts = st.fixed_dictionaries({}, optional={"requests": st.just(1), "images": st.integers(0, 9)})
events = st.builds(
    UsageEvent,
    event=st.uuids().map(str),
    customer=st.sampled_from(["acme", "beta"]),
    feature=st.sampled_from(["chat", "draw"]),
    at_ms=st.just(0),
    amounts=amounts,
    subject=st.builds(Subject, user=users),
    tags=st.sampled_from([{}, {"team": "red"}, {"team": "blue"}]),
    model=models,
    outcome=st.sampled_from(list(Outcome)),
)
counted = st.lists(st.builds(Counted, events, st.integers(0, 3 * HOUR_MS)), max_size=25)
filters = st.sampled_from([{}, {"feature": ("chat",)}, {"tag:team": ("red", "blue"), "outcome": ("complete",)}])
groups = st.sampled_from([(), ("user",), ("tag:team", "model")])
aggregates = st.one_of(
    st.builds(
        Aggregate, st.sampled_from(["sum", "max", "latest"]).map(Aggregation), st.just("images"), filters, groups
    ),
    st.builds(Aggregate, st.just(Aggregation.COUNT), st.none(), filters, groups),
    st.builds(Aggregate, st.just(Aggregation.UNIQUE_COUNT), st.sampled_from(["user", "tag:team"]), filters, groups),
)


def plainly(aggregate: Aggregate, some: list[Counted]) -> dict[tuple[object, ...], int]:
    """By customer, hour and group, what it comes to."""
    seen: dict[tuple[object, ...], list[tuple[int, int, str]]] = defaultdict(list)
    for event, at_ms in some:
        if all(attribute(event, name) in values for name, values in aggregate.filter.items()):
            group = tuple(attribute(event, name) for name in aggregate.group_by)
            of = aggregate.of or ""
            if aggregate.aggregation is Aggregation.UNIQUE_COUNT:
                value = (0, 0, attribute(event, of))
                if not value[2]:
                    continue
            elif aggregate.aggregation is Aggregation.COUNT:
                value = (at_ms, 1, "")
            elif of in event.amounts:
                value = (at_ms, event.amounts[of], "")
            else:
                continue
            seen[(event.customer, at_ms // HOUR_MS, *group)].append(value)
    how = {
        Aggregation.SUM: lambda values: sum(value[1] for value in values),
        Aggregation.COUNT: len,
        Aggregation.MAX: lambda values: max(value[1] for value in values),
        Aggregation.LATEST: lambda values: max(values)[1],
        Aggregation.UNIQUE_COUNT: lambda values: len({value[2] for value in values}),
    }[aggregate.aggregation]
    return {key: how(values) for key, values in seen.items()}


@given(aggregates, counted, st.data())
def test_a_meter_comes_to_what_its_events_say_however_they_are_dealt_out(aggregate, some, data):
    cut = data.draw(st.integers(0, len(some)))
    shuffled = data.draw(st.permutations(some))
    made = make({"m": aggregate}, shuffled[:cut])
    for place, value in make({"m": aggregate}, shuffled[cut:]).items():
        made[place] = merge(aggregate.aggregation, made[place], value) if place in made else value
    found: dict[tuple[object, ...], int] = defaultdict(int)
    for place, value in made.items():
        group = (place.group_1, place.group_2, place.group_3)[: len(aggregate.group_by)]
        key = (place.customer, place.hour_ms // HOUR_MS, *group)
        found[key] += 1 if aggregate.aggregation is Aggregation.UNIQUE_COUNT else value.quantity
    assert found == plainly(aggregate, some)


@given(counted)
def test_corrections_among_events_move_sums_alone(some):
    corrections = [
        Counted(msgspec.structs.replace(one.event, corrects="first", amounts={"images": -2}), one.at_ms) for one in some
    ]
    for aggregation in Aggregation:
        of = {"unique_count": "feature", "count": None}.get(aggregation.value, "images")
        made = make({"m": Aggregate(aggregation, of)}, corrections)
        assert sum(value.quantity for value in made.values()) == (-2 * len(some) if aggregation == "sum" else 0)


@given(events, st.lists(amounts, max_size=3))
def test_a_call_is_as_its_corrections_left_it(call, moves):
    later = [msgspec.structs.replace(call, corrects=call.event, amounts=move) for move in moves]
    left = corrected(call, later)
    total = {m: sum(a.get(m, 0) for a in (call.amounts, *moves)) for m in ("requests", "images")}
    if not moves or any(total.values()):
        assert left is not None
        assert {m: left.amounts.get(m, 0) for m in total} == total
        assert left.subject == call.subject
    else:
        assert left is None
    taken = msgspec.structs.replace(call, corrects="x", amounts={m: -a for m, a in call.amounts.items()})
    assert corrected(call, [taken]) is None


@pytest.mark.parametrize(
    ("declared", "field"),
    [
        (Aggregate(Aggregation.MAX), "of"),
        (Aggregate(Aggregation.LATEST, "nobody"), "of"),
        (Aggregate(Aggregation.SUM, "made"), "of"),
        (Aggregate(Aggregation.SUM, None, {"feature": ("chat",)}), "of"),
        (Aggregate(Aggregation.COUNT, "images"), "of"),
        (Aggregate(Aggregation.UNIQUE_COUNT), "of"),
        (Aggregate(Aggregation.UNIQUE_COUNT, "images"), "of"),
        (Aggregate(Aggregation.COUNT, None, {}, ("user", "user")), "group_by"),
    ],
)
def test_declarations_that_cannot_be_are_named(declared, field):
    found = list(violations(declared, {"images": True, "made": False}))
    assert [violation.field for violation in found] == [field]


@given(aggregates)
def test_declarations_survive_storage_and_break_no_rule(aggregate):
    assert decode(encode(aggregate)) == aggregate
    assert not list(violations(aggregate, {"images": True}))
    assert encode(REPORTED) == ""
