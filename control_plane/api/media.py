"""Request bodies that routes read by themselves, for the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema

_REF = "#/here/"


@dataclass
class Written(Schema):
    """A schema that is written already."""

    text: dict[str, Any] = field(default_factory=dict)

    def to_schema(self) -> dict[str, Any]:
        """As it is."""
        return self.text


def described(kinds: Mapping[str, Any]) -> type[Operation]:
    """The operation of a route, with what it takes.

    Args:
        kinds: by content type, the type of the body; ``bytes`` of one that has no schema.
    """
    body = RequestBody(
        content={media: OpenAPIMediaType(schema=Written(text=schema_of(kind))) for media, kind in kinds.items()},
        required=True,
    )

    class Described(Operation):
        """With that body."""

        def __post_init__(self) -> None:
            self.request_body = body

    return Described


def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON schema of a type, whole: structs stand where they are meant, for none of ours contains itself."""
    if kind is bytes:
        return {"type": "string", "format": "binary"}
    (schema,), parts = msgspec.json.schema_components([kind], ref_template=_REF + "{name}")
    whole = _whole(schema, parts)
    assert isinstance(whole, dict)
    return whole


def _whole(part: Any, parts: Mapping[str, Any]) -> Any:
    if isinstance(part, list):
        return [_whole(one, parts) for one in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        beside = {name: value for name, value in part.items() if name != "$ref"}
        return {**_whole(parts[part["$ref"].removeprefix(_REF)], parts), **beside}
    return {name: _whole(value, parts) for name, value in part.items()}
