"""Bytes to typed messages and back: bounded, strict, and with one error for all that can be wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from protocol.complaints import BODY_BYTES_MAX, VALUE_LETTERS_MAX, in_words, point_out
from protocol.violations import Violation

T = TypeVar("T")

encode_msgpack = msgspec.msgpack.Encoder().encode
encode_json = msgspec.json.Encoder().encode

_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError)
_PATH = re.compile(r" - at `(key` in `)?\$\.?(.*)`$")


class MsgpackDecoder(Generic[T]):
    """Decodes msgpack into one type. Fractions, booleans and strings are not quantities; unknown fields are refused."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._decode = msgspec.msgpack.Decoder(kind).decode

    def __call__(self, body: bytes) -> T:
        """Raises: Violation: anything but a well-formed, well-typed, bounded message."""
        try:
            return self._decode(body)
        except _DECODE_ERRORS as error:
            raise _exact(as_violation(error), body, self._decode, msgspec.msgpack, self._kind) from None


class JsonDecoder(Generic[T]):
    """Decodes JSON into one type, under the same rules."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._decode = msgspec.json.Decoder(kind).decode

    def __call__(self, body: bytes) -> T:
        """Raises: Violation: anything but a well-formed, well-typed, bounded message."""
        try:
            return self._decode(body)
        except _DECODE_ERRORS as error:
            raise _exact(as_violation(error), body, self._decode, msgspec.json, self._kind) from None


def _exact(wrong: Violation, body: bytes, decode: Callable[[bytes], Any], form: Any, kind: Any) -> Violation:
    """The violation with entry and value named, where the message is small and well-formed enough to look again."""

    def refused(said: Any) -> bool:
        try:
            decode(form.encode(said))
        except _DECODE_ERRORS:
            return True
        return False

    if not wrong.field or len(body) > BODY_BYTES_MAX:
        return wrong
    try:
        return point_out(wrong, form.decode(body), refused, kind)
    except (*_DECODE_ERRORS, TypeError, LookupError):  # it is still wrong, only not in a way that can be shown
        return wrong


def as_violation(error: Exception) -> Violation:
    """Name field, fault and remedy of what msgspec says, whose messages end in a path: ``... - at `$.amounts` ``."""
    if isinstance(error, RecursionError):
        return Violation("", "is nested too deeply", "a flat message")
    text = str(error)
    path = _PATH.search(text)
    field = path.group(2) if path else ""
    said = text[: path.start()] if path else text
    if path and path.group(1):
        return Violation(field, "has a wrong name", in_words(said.removeprefix("Expected ").partition(", got")[0]))
    if said.startswith("Expected ") and ", got " in said:
        expected, got = said.removeprefix("Expected ").split(", got ", 1)
        return Violation(field, f"is {got}", expected)
    if said.startswith("Expected "):
        return Violation(field, "is out of bounds", in_words(said.removeprefix("Expected ")))
    if said.startswith(("Invalid enum value ", "Invalid value ")):
        return Violation(field, "is not a value of this field")
    if said.startswith("Object missing required field "):
        name = said.removeprefix("Object missing required field ").strip("`")
        return Violation(f"{field}.{name}".lstrip("."), "is missing", "a value")
    if said.startswith("Object contains unknown field "):
        name = ascii(said.removeprefix("Object contains unknown field ").strip("`"))[1:-1][:VALUE_LETTERS_MAX]
        return Violation(f"{field}.{name}".lstrip("."), "is not a field of this message", "only documented fields")
    return Violation(field, said[:200] or "cannot be read")
