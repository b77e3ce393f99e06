"""What exactly was wrong in a refused message: the entry, its value, and the choices there were. Off the hot path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import msgspec

from protocol.ids import KEY_PATTERN, KEY_WORDS, MODEL_PATTERN, MODEL_WORDS
from protocol.violations import Violation

ENTRIES_TRIED_MAX = 64
BODY_BYTES_MAX = 256 * 1024
VALUE_LETTERS_MAX = 80

_STEP = re.compile(r"\[(\d+|\.\.\.)\]|([^.\[\]]+)")
_PATTERNS = {repr(KEY_PATTERN): KEY_WORDS, repr(MODEL_PATTERN): MODEL_WORDS}


def in_words(expected: str) -> str:
    """Patterns of ids, said for people."""
    for pattern, words in _PATTERNS.items():
        if pattern in expected:
            return words
    return expected


def point_out(wrong: Violation, said: Any, refused: Callable[[Any], bool], kind: Any) -> Violation:
    """The same violation with the entry of a map named, the value shown, and the choices of an enumeration listed.

    Args:
        wrong: what msgspec says, whose path has ``[...]`` for an entry of a map.
        said: the message, decoded without types; changed by the search.
        refused: whether a message is refused, for finding the entry.
        kind: the type that the message should have had.
    """
    path, here = "", said
    for index, name in _STEP.findall(wrong.field):
        if index == "...":
            entry = _entry(here, said, refused)
            path, here = f"{path}.{_shown(entry, quotes=False)}", here[entry]
        elif index:
            path, here = f"{path}[{index}]", here[int(index)]
        elif isinstance(here, dict) and name in here:
            path, here = f"{path}.{name}".lstrip("."), here[name]
        else:  # a field that is missing: there is no value to show
            return Violation(f"{path}.{name}".lstrip("."), wrong.problem, wrong.expected, wrong.code)
    problem = wrong.problem
    if wrong.problem == "has a wrong name":
        return Violation(path, f"{_shown(_entry(here, said, refused))} {problem}", wrong.expected, wrong.code)
    if _may_be_shown(path, here) and not problem.startswith("is not a field"):
        problem = f"{_shown(here)} {problem}"
    choices = wrong.expected or _choices(kind, path.rpartition(".")[2])
    return Violation(path, problem, choices, wrong.code)


def _entry(entries: dict[Any, Any], said: Any, refused: Callable[[Any], bool]) -> Any:
    """The first entry that is refused although it is alone."""
    everything = dict(entries)
    try:
        for name in list(everything)[:ENTRIES_TRIED_MAX]:
            entries.clear()
            entries[name] = everything[name]
            if refused(said):
                return name
    finally:
        entries.clear()
        entries.update(everything)
    raise LookupError("no entry is refused alone")


def _may_be_shown(path: str, value: Any) -> bool:
    """Numbers may, and texts unless they could be a secret."""
    if isinstance(value, str):
        return not any(word in path for word in ("token", "secret"))
    return isinstance(value, bool | int | float)


def _shown(value: Any, *, quotes: bool = True) -> str:
    text = ascii(value) if quotes else ascii(str(value))[1:-1]
    return text if len(text) <= VALUE_LETTERS_MAX else text[:VALUE_LETTERS_MAX] + "..."


def _choices(kind: Any, field: str) -> str:
    return _choices_by_field(kind).get(field, "")


@lru_cache(maxsize=64)
def _choices_by_field(kind: Any) -> dict[str, str]:
    """The choices of every enumeration in a type. Kept: looking takes milliseconds, and a wrong peer does it often."""
    return {
        name: "one of " + ", ".join(map(str, values))
        for name, values in _enumerations(msgspec.inspect.type_info(kind), set())
    }


def _enumerations(info: Any, seen: set[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Every field of these types that is an enumeration, with its values."""
    inside = (*getattr(info, "types", ()), getattr(info, "item_type", None), getattr(info, "value_type", None))
    for inner in filter(None, inside):
        yield from _enumerations(inner, seen)
    if isinstance(info, msgspec.inspect.StructType) and info.cls not in seen:
        seen.add(info.cls)
        for field in info.fields:
            if isinstance(field.type, msgspec.inspect.EnumType):
                yield field.encode_name, [member.value for member in field.type.cls]
            yield from _enumerations(field.type, seen)
