"""Bytes to typed messages and back: bounded, strict, and with one error for all that can be wrong."""

from __future__ import annotations

import re
from typing import Generic, TypeVar

import msgspec

from protocol.violations import Violation

T = TypeVar("T")

encode_msgpack = msgspec.msgpack.Encoder().encode
encode_json = msgspec.json.Encoder().encode

_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError)
_PATH = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")


class MsgpackDecoder(Generic[T]):
    """Decodes msgpack into one type. Fractions, booleans and strings are not quantities; unknown fields are refused."""

    def __init__(self, kind: type[T]) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode

    def __call__(self, body: bytes) -> T:
        """Raises: Violation: anything but a well-formed, well-typed, bounded message."""
        try:
            return self._decode(body)
        except _DECODE_ERRORS as error:
            raise as_violation(error) from None


class JsonDecoder(Generic[T]):
    """Decodes JSON into one type, under the same rules."""

    def __init__(self, kind: type[T]) -> None:
        self._decode = msgspec.json.Decoder(kind).decode

    def __call__(self, body: bytes) -> T:
        """Raises: Violation: anything but a well-formed, well-typed, bounded message."""
        try:
            return self._decode(body)
        except _DECODE_ERRORS as error:
            raise as_violation(error) from None


def as_violation(error: Exception) -> Violation:
    """Name field, fault and remedy of what msgspec says, whose messages end in a path: ``... - at `$.amounts` ``."""
    if isinstance(error, RecursionError):
        return Violation("", "is nested too deeply", "a flat message")
    text = str(error)
    path = _PATH.search(text)
    field = path.group(1) if path else ""
    said = text[: path.start()] if path else text
    if said.startswith("Expected ") and ", got " in said:
        expected, got = said.removeprefix("Expected ").split(", got ", 1)
        return Violation(field, f"is {got}", expected)
    if said.startswith("Expected "):
        return Violation(field, "is out of bounds", said.removeprefix("Expected "))
    if said.startswith("Object missing required field "):
        name = said.removeprefix("Object missing required field ").strip("`")
        return Violation(f"{field}.{name}".lstrip("."), "is missing", "a value")
    if said.startswith("Object contains unknown field "):
        name = said.removeprefix("Object contains unknown field ").strip("`")
        return Violation(f"{field}.{name}".lstrip("."), "is not a field of this message", "only documented fields")
    return Violation(field, said[:200] or "cannot be read")
