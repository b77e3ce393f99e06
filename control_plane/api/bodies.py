"""Request bodies: decoded from bytes straight into a typed, bounded struct, without the framework's leniency."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
from litestar.dto import AbstractDTO, DTOFieldDefinition
from litestar.openapi.spec import Reference, Schema
from litestar.typing import FieldDefinition

from control_plane.core.texts import DisplayName, Reason, Sentence, Unit
from protocol.codec import JsonDecoder

__all__ = ["BODY_BYTES_MAX", "DisplayName", "Reason", "Sentence", "StrictBody", "Unit"]

T = TypeVar("T", bound=msgspec.Struct)

BODY_BYTES_MAX = 1024 * 1024


class StrictBody(AbstractDTO[T], Generic[T]):
    """A JSON body as one struct: no text for a number, no unknown field, no depth that was not declared."""

    _decoders: ClassVar[dict[type[Any], JsonDecoder[Any]]] = {}

    def decode_bytes(self, value: bytes) -> T:
        """Raises: Violation: anything but such a body."""
        decoder = self._decoders.setdefault(self.model_type, JsonDecoder(self.model_type))
        body: T = decoder(value)
        return body

    @classmethod
    def create_for_field_definition(cls, field_definition: FieldDefinition, *_: Any, **__: Any) -> None:
        """Nothing to prepare: the struct is the schema."""
        cls.resolve_model_type(field_definition)

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: Any
    ) -> Reference | Schema:
        """The struct itself."""
        del field_definition, handler_id
        schema: Reference | Schema = schema_creator.for_field_definition(
            FieldDefinition.from_annotation(cls.model_type)
        )
        return schema

    @classmethod
    def generate_field_definitions(cls, model_type: type[Any]) -> Generator[DTOFieldDefinition, None, None]:
        """Not used: fields are the struct's."""
        del model_type
        yield from ()

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        """Not used: fields are the struct's."""
        del field_definition
        return False
