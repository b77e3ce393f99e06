"""What the request of a model call tells: its prompt, its model, and whether it asks for a stream."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from agent.core.prompts import Prompt, prompt_of
from agent.core.tokens.names import model_in
from protocol.ids import is_model_name

_DECODER: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Told(NamedTuple):
    """What a request tells.

    Attributes:
        prompt: of its cost. model: that it names. streams: it asks for a stream.
    """

    prompt: Prompt
    model: str | None
    streams: bool


def told_by(path: str, content_type: str, body: bytes) -> Told:
    """What a request tells. Never raises: one that is no JSON object tells little."""
    model = model_in(path)
    if not content_type.startswith("application/json"):
        return Told(Prompt(0, media=1) if body else Prompt(0), model, streams=False)
    fields = fields_of(body)
    named = plain(fields.get("model"))
    if isinstance(named, str) and is_model_name(named):
        model = named
    return Told(prompt_of(body), model, plain(fields.get("stream")) is True or "streamGenerateContent" in path)


def fields_of(body: bytes) -> dict[str, msgspec.Raw]:
    """The fields of a JSON object as they stand there; of anything else none."""
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def plain(raw: msgspec.Raw | None) -> Any:
    """The value of one of them."""
    return None if raw is None else msgspec.json.decode(raw)
