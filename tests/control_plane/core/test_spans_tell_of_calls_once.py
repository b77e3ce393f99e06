"""Spans of any trace: the innermost of those inside each other count, once, in any order; classes are disjoint."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.spans import DEPTH_MAX, SpanName, Trace, described, is_call, parse_name, tokens_of
from protocol.units import normalise

TRACE = "5b8efff798038103d269b633813fc60c"
counts = st.integers(0, 10**6)


def span(number: int) -> str:
    return f"{number + 1:016x}"


@st.composite
def forests(draw: st.DrawFn) -> dict[str, str]:
    """Spans and the span around each, ``""`` for none."""
    size = draw(st.integers(1, 12))
    around = [draw(st.integers(-1, number - 1)) for number in range(size)]
    return {span(number): span(one) if one >= 0 else "" for number, one in enumerate(around)}


@given(forests(), st.randoms(use_true_random=False), st.data())
def test_in_one_export_exactly_the_innermost_count_and_again_nothing_more(
    parents: dict[str, str], chance: object, data: st.DataObject
) -> None:
    telling = data.draw(st.sets(st.sampled_from(sorted(parents)), min_size=1))
    names = data.draw(st.permutations([SpanName(TRACE, one, parents[one], "") for one in sorted(telling)]))

    def around(one: str) -> set[str]:
        found = set()
        while one := parents[one]:
            found.add(one)
        return found

    innermost = telling - {outer for one in telling for outer in around(one)}
    found = described(names, Trace(parents, ()))
    assert {name.span for name, other in found.items() if other is None} == innermost
    counted = tuple(name for name, other in found.items() if other is None)
    again = described(names, Trace(parents, counted))
    assert all(other is not None for other in again.values())
    assert all(again[name] == name for name in counted), "a repeat is held against what it said before"


@given(st.integers(2, 6), st.data())
def test_a_span_and_those_right_inside_it_count_on_one_side_however_exports_are_cut(
    inside: int, data: st.DataObject
) -> None:
    outer = SpanName(TRACE, span(0), "", "")
    names = [outer, *(SpanName(TRACE, span(number), outer.span, "") for number in range(1, inside))]
    counted: list[SpanName] = []
    for name in data.draw(st.permutations(names)):
        if described([name], Trace({name.span: name.parent}, tuple(counted)))[name] is None:
            counted.append(name)
    assert counted == [outer] or sorted(counted) == names[1:]


def test_circles_and_endless_chains_end() -> None:
    one, other = SpanName(TRACE, span(1), span(2), ""), SpanName(TRACE, span(2), span(1), "")
    found = described([one, other], Trace({one.span: one.parent, other.span: other.parent}, ()))
    assert set(found) == {one, other}
    chain = {span(number): span(number + 1) for number in range(100 * DEPTH_MAX)}
    names = [SpanName(TRACE, here, parent, "") for here, parent in chain.items()]
    assert [name for name, inner in described(names, Trace(chain, ())).items() if inner is None] == names[:1]


@given(counts, counts, counts, counts, counts, counts)
def test_classes_are_disjoint_and_sum_to_what_the_span_says(
    inputs: int, outputs: int, read: int, write: int, reasoning: int, audio: int
) -> None:
    said = {
        "gen_ai.usage.input_tokens": inputs,
        "gen_ai.usage.output_tokens": outputs,
        "gen_ai.usage.cache_read.input_tokens": read,
        "gen_ai.usage.cache_creation.input_tokens": write,
        "gen_ai.usage.reasoning.output_tokens": reasoning,
        "gen_ai.usage.audio.input_tokens": audio,
    }
    assert is_call(said)
    meters = normalise({}, tokens_of(said))
    within = read + write <= inputs
    if any((inputs, outputs, read, write, reasoning)):
        assert meters["input_tokens"] == (inputs if within else inputs + read + write)
        assert meters["output_tokens"] == (outputs if reasoning <= outputs else outputs + reasoning)


@given(st.integers(1, 2**64 - 1), st.integers(0, 2**64 - 1), st.booleans())
def test_names_are_read_as_they_were_written(here: int, parent: int, answered: bool) -> None:
    name = SpanName(TRACE, f"{here:016x}", f"{parent:016x}" if parent else "", "ab" * 8 if answered else "")
    assert parse_name(name.event) == name
    assert parse_name(name.event + "0") is None
    boot, seq = name.place
    assert 0 <= boot < 4, "columns hold it"
    assert 0 <= seq < 2**62
    assert name._replace(parent="1" * 16).place != name.place or parent == 0x1111111111111111
