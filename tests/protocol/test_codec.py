"""Untrusted bytes become typed, bounded messages, or one Violation naming the field, the fault and the remedy."""

from __future__ import annotations

import json
import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import JsonDecoder, MsgpackDecoder, encode_json, encode_msgpack
from protocol.ids import KEY_WORDS
from protocol.local_messages import Record, Request, Reserve
from protocol.uplink_messages import EnrollRequest
from protocol.violations import Violation

decode = MsgpackDecoder(Request)
decode_json = JsonDecoder(Reserve)

CALL = {"customer": "acme", "feature": "chat"}
RESERVE = {"op": "reserve", "reservation": "r1", "call": CALL, "amounts": {"input_tokens": 1}}


def refused(said: Any) -> Violation:
    """The violation, found to be the same by way of JSON where JSON can say it."""
    with pytest.raises(Violation) as raised:
        decode(msgpack.packb(said))
    wrong = raised.value
    assert wrong.code == "invalid_request"
    assert wrong.message.startswith(wrong.field)
    if isinstance(said, dict) and said.get("op") == "reserve":
        with pytest.raises(Violation) as raised:
            decode_json(json.dumps(said).encode())
        assert raised.value.field == wrong.field
    return wrong


WRONG_QUANTITIES = [
    (True, "True is `bool`", "`int`"),
    (1.5, "1.5 is `float`", "`int`"),
    (1.0, "1.0 is `float`", "`int`"),
    ("3", "'3' is `str`", "`int`"),
    (None, "is `null`", "`int`"),
    ([1], "is `array`", "`int`"),
    (-1, "-1 is out of bounds", "`int` >= 0"),
    (2**53, f"{2**53} is out of bounds", f"`int` <= {2**53 - 1}"),
    (2**64 - 1, f"{2**64 - 1} is out of bounds", f"`int` <= {2**53 - 1}"),
]


@pytest.mark.parametrize(("value", "problem", "expected"), WRONG_QUANTITIES)
def test_what_is_no_quantity_is_refused_by_field_value_fault_and_remedy(value, problem, expected):
    wrong = refused(RESERVE | {"amounts": {"requests": 1, "images": value, "tool_calls": -7}})
    assert wrong.field == "amounts.images"
    assert (wrong.problem.replace("`None`", "`null`"), wrong.expected) == (problem, expected)


def test_not_a_number_is_no_quantity():
    with pytest.raises(Violation, match="is `float`"):
        decode(msgpack.packb(RESERVE | {"amounts": {"input_tokens": math.nan}}))
    with pytest.raises(Violation):
        decode_json(b'{"reservation":"r1","call":{"customer":"a","feature":"b"},"amounts":{"x":NaN}}')


def test_numbers_beyond_any_machine_word_are_refused_in_json_too():
    body = b'{"reservation":"r1","call":{"customer":"a","feature":"b"},"amounts":{"x":%s}}'
    for number in (b"1" * 30, b"1e400", b"-" + b"9" * 40, b"9007199254740992"):
        with pytest.raises(Violation):
            decode_json(body % number)


WRONG_KEYS = [
    "", "a" * 129, "a" * 300, "a\n", "a\x00b", "\x1b[0m", " a", "a b", "-a", ".a", "ä", "a/b", "a\u202eb", "'; --",
]  # fmt: skip


@pytest.mark.parametrize("key", WRONG_KEYS)
@pytest.mark.parametrize("field", ["reservation", "call.customer", "call.feature", "call.subject.user"])
def test_ids_with_anything_but_plain_letters_are_refused(field, key):
    said: dict[str, Any] = RESERVE | {"call": CALL | {"subject": {}}}
    *path, last = field.split(".")
    place = said
    for name in path:
        place[name] = dict(place[name])
        place = place[name]
    place[last] = key
    wrong = refused(said)
    assert wrong.field == field
    assert wrong.expected
    assert wrong.message.isprintable()
    assert len(wrong.message) < 300


@pytest.mark.parametrize("field", ["amounts", "call.tags"])
def test_a_wrong_name_in_a_map_is_shown(field):
    maps = {"amounts": {"ok": 1, "a\n": 1}} if field == "amounts" else {"call": CALL | {"tags": {"a\n": "v"}}}
    wrong = refused(RESERVE | maps)
    assert (wrong.field, wrong.problem) == (field, r"'a\n' has a wrong name")
    assert wrong.expected == KEY_WORDS


def test_a_wrong_value_of_an_enumeration_is_answered_with_the_choices():
    wrong = refused({"op": "settle", "reservation": "r1", "outcome": "fine"})
    assert (
        wrong.message
        == "outcome: 'fine' is not a value of this field; expected one of complete, aborted, error, expired"
    )


@pytest.mark.parametrize("length", [5, 300])
def test_a_secret_is_never_shown(length):
    with pytest.raises(Violation) as raised:
        JsonDecoder(EnrollRequest)(json.dumps({"join_token": "s" * length, "name": "a"}).encode())
    assert raised.value.field == "join_token"
    assert "sss" not in raised.value.message


def test_a_field_with_a_monstrous_name_is_refused_in_few_words():
    assert len(refused(RESERVE | {"\x1b" * 10_000: 1}).message) < 200


def test_a_missing_field_is_named_with_its_path():
    assert refused({"op": "reserve", "call": CALL}).message == "reservation: is missing; expected a value"
    assert refused(RESERVE | {"call": {"customer": "acme"}}).field == "call.feature"


def test_an_unknown_field_is_named_with_its_path():
    assert refused(RESERVE | {"amount": 3}).field == "amount"
    wrong = refused(RESERVE | {"call": CALL | {"costumer": "x"}})
    assert (wrong.field, wrong.problem) == ("call.costumer", "is not a field of this message")


@pytest.mark.parametrize("op", ["", "RESERVE", "drop", 7, None])
def test_an_unknown_operation_is_refused_under_its_field(op):
    assert refused({"op": op}).field == "op"


def test_a_missing_operation_is_refused_under_its_field():
    assert refused({"id": 1}).field == "op"


def test_more_than_the_bound_of_meters_or_tags_is_refused():
    assert refused(RESERVE | {"amounts": {f"m{n}": 1 for n in range(17)}}).field == "amounts"
    assert refused(RESERVE | {"call": CALL | {"tags": {f"t{n}": "v" for n in range(9)}}}).field == "call.tags"


def test_deep_nesting_is_refused_and_breaks_nothing():
    for opening in (b"\x91", b"\x81\xa1a"):
        with pytest.raises(Violation):
            decode(opening * 100_000)
    with pytest.raises(Violation):
        decode_json(b'{"amounts":' + b"[" * 200_000)


def test_text_that_is_not_utf8_is_refused():
    with pytest.raises(Violation):
        decode(b"\x81\xa2op\xa2\xff\xfe")


def test_more_bytes_than_the_message_are_refused():
    with pytest.raises(Violation):
        decode(msgpack.packb(RESERVE) + b"\x00")


@given(st.binary(max_size=300))
def test_noise_is_a_message_or_a_violation_and_nothing_else(noise):
    for decoder in (decode, decode_json):
        try:
            decoder(noise)
        except Violation as wrong:
            assert wrong.message  # noqa: PT017 - noise may also be a message


_plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(Reserve.__struct_fields__)), _plain)
def test_any_value_in_any_field_is_a_message_or_a_violation_in_that_field(field, value):
    try:
        message = decode(msgpack.packb(RESERVE | {field: value}))
    except Violation as wrong:
        assert wrong.field.startswith(field)  # noqa: PT017 - some values are right
    else:
        assert isinstance(message, Reserve)


@given(st.integers(0, 2**53 - 1), st.integers(0, 7_258_118_400_000))
def test_a_message_survives_both_codecs_unchanged(amount, at_ms):
    said = msgpack.packb({"op": "record", "event": "e", "call": CALL, "amounts": {"x": amount}, "at_ms": at_ms})
    message = decode(said)
    assert isinstance(message, Record)
    assert decode(encode_msgpack(message)) == message
    assert JsonDecoder(Request)(encode_json(message)) == message
