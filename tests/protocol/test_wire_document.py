"""WIRE.md names every field, operation, kind, code, default and bound; its example is made of golden frames."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path

import msgspec
import pytest

from protocol import decisions, events, framing, ids, instants, local_messages, units, windows

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "protocol" / "WIRE.md").read_text()
GOLDEN = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "golden").glob("*.json")}
WORDS = {word for spelt in re.findall(r"`([^`\n]+)`", PAGE) for word in re.findall(r"[a-z_]+", spelt)}
REQUESTS = local_messages.Request.__args__
REPLIES = local_messages.Reply.__args__
PARTS = (local_messages.Call, events.Subject, decisions.LimitState, decisions.Reservation, local_messages.Problem)


def section(title: str) -> str:
    return re.split(r"^## ", PAGE.partition(f"## {title}")[2], maxsplit=1, flags=re.MULTILINE)[0]


def words_of(request: type[msgspec.Struct]) -> set[str]:
    """What the page says of one operation."""
    start = PAGE.index(f"**`{request.__struct_config__.tag}`**")
    return set(re.findall(r"`([a-z_]+)`", re.split(r"\n\*\*`|\n## ", PAGE[start:])[0]))


@pytest.mark.parametrize("message", [*REQUESTS, *REPLIES, *PARTS], ids=lambda kind: kind.__name__)
def test_every_field_is_named(message):
    assert set(message.__struct_fields__) <= WORDS


@pytest.mark.parametrize("request_kind", REQUESTS, ids=lambda kind: kind.__name__)
def test_every_field_of_an_operation_is_named_where_the_operation_is(request_kind):
    assert set(request_kind.__struct_fields__) - {"id"} <= words_of(request_kind)


@pytest.mark.parametrize(
    "names",
    [decisions.Code, decisions.Verdict, events.Outcome, events.UsageSource, windows.WindowKind],
    ids=lambda names: names.__name__,
)
def test_every_value_of_every_enumeration_is_named(names: type[StrEnum]):
    assert {name.value for name in names} <= WORDS


def test_every_token_class_is_named_and_sums_as_the_page_says():
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| tokens |")]
    listed = re.findall(r"`([a-z_]+)`", row)[:9]
    assert tuple(listed) == units.INPUT_CLASSES + units.OUTPUT_CLASSES


def test_every_error_code_has_a_row_that_says_whether_to_retry():
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| (yes|no) \|", section("6. Codes"), re.MULTILINE))
    golden = {
        frame["json"]["error"]["code"]: "yes" if frame["json"].get("retry") else "no"
        for frame in GOLDEN.values()
        if "error" in frame["json"]
    }
    assert rows == golden


def test_every_operation_and_kind_has_a_heading():
    assert set(re.findall(r"^\*\*`([a-z]+)`\*\*", section("4. Requests"), re.MULTILINE)) == {
        kind.__struct_config__.tag for kind in REQUESTS
    }
    assert set(re.findall(r"^\*\*kind `([a-z]+)`\*\*", section("5. Replies"), re.MULTILINE)) == {
        kind.__struct_config__.tag for kind in REPLIES
    }


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("A length is 1 to {}", framing.FRAME_BYTES_MAX),
        ("integer, 0 to 2^53-1", units.QUANTITY_MAX - (2**53 - 1)),
        ("at most {} entries. A call", units.METERS_MAX),
        ("map of key to key, at most {} entries", ids.TAGS_MAX),
        ("0 to {} |", instants.INSTANT_MS_MAX),
        ("| `ttl_ms` | 1000 to 86400000 | {} |", local_messages.RESERVATION_TTL_MS),
        ("| `deadline_ms` | 0 to 60000 | {} |", local_messages.DEADLINE_MS),
    ],
)
def test_bounds_and_defaults_are_those_of_the_code(said, number):
    assert said.format(number) in PAGE
    assert "2^53" not in said or number == 0


@pytest.mark.parametrize(
    ("field", "inside", "outside"),
    [("ttl_ms", (1_000, 86_400_000), (999, 86_400_001)), ("deadline_ms", (0, 60_000), (-1, 60_001))],
)
def test_the_bounds_that_the_page_gives_hold(field, inside, outside):
    for value in inside + outside:
        said = {"op": "extend", "reservation": "r", "amounts": {}, field: value}
        if value in inside:
            assert getattr(msgspec.convert(said, local_messages.Extend), field) == value
        else:
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert(said, local_messages.Extend)


def test_the_worked_example_is_made_of_golden_frames():
    examples = re.findall(r"^```\n(.*?)^```", section("9. Worked example"), re.MULTILINE | re.DOTALL)
    said = ["".join(re.findall(r"\b[0-9a-f]{2}\b", _bytes_only(example))) for example in examples]
    assert said == [GOLDEN["check"]["hex"], GOLDEN["decision_allow"]["hex"]]


def _bytes_only(example: str) -> str:
    return "\n".join(line[:52] for line in example.splitlines())


def test_key_letters_are_those_of_the_pattern():
    letters = re.findall(r"`(.)`", next(line for line in PAGE.splitlines() if line.startswith("| key |")))
    for code in range(128):
        letter = chr(code)
        assert ids.is_key("a" + letter) == (letter.isalnum() or letter in letters)


def test_the_page_is_short_enough_to_read():
    assert len(PAGE.splitlines()) <= 340
