"""What is read of a request before it is sent on, and the one thing that is changed. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from agent.core.prompts import Prompt, prompt_of
from agent.core.tokens.names import model_in
from agent.proxy.upstreams import Target
from protocol.ids import is_model_name

_DECODER: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ASKED = msgspec.Raw(b'{"include_usage":true}')


class Prepared(NamedTuple):
    """A request, ready to be sent on.

    Attributes:
        body: as it came, but for ``stream_options.include_usage`` where a stream would else say nothing.
        hides_usage: that was put in, so the caller does not expect the chunk that comes of it.
        model: that it names. prompt: what it tells of its cost. streams: it asks for a stream.
    """

    body: bytes
    prompt: Prompt
    model: str | None
    streams: bool
    hides_usage: bool


def prepare(target: Target, content_type: bytes, body: bytes) -> Prepared:
    """Look at a request. One that is no JSON object is passed on as it is."""
    model = model_in(target.path)
    if not content_type.startswith(b"application/json"):
        return Prepared(body, Prompt(0, media=1) if body else Prompt(0), model, streams=False, hides_usage=False)
    prompt = prompt_of(body)
    fields = _fields(body)
    named = _plain(fields.get("model"))
    if isinstance(named, str) and is_model_name(named):
        model = named
    streams = _plain(fields.get("stream")) is True or "streamGenerateContent" in target.path
    if streams and target.says_usage_if_asked:
        options = _plain(fields.get("stream_options"))
        if options is None or (isinstance(options, dict) and options.get("include_usage") is not True):
            # Everything else stays byte for byte: whatever numbers there are, they are the provider's to read.
            fields["stream_options"] = _asking(options)
            return Prepared(msgspec.json.encode(fields), prompt, model, streams, hides_usage=True)
    return Prepared(body, prompt, model, streams, hides_usage=False)


def _asking(options: dict[str, Any] | None) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode({**options, "include_usage": True})) if options else _ASKED


def _fields(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def _plain(raw: msgspec.Raw | None) -> Any:
    return None if raw is None else msgspec.json.decode(raw)
