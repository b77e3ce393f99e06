"""What is read of a request before it is sent on, and the one thing that is changed. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from agent.core.told import Told, fields_of, plain, told_by
from agent.proxy.upstreams import Target

_ASKED = msgspec.Raw(b'{"include_usage":true}')


class Prepared(NamedTuple):
    """A request, ready to be sent on.

    Attributes:
        body: as it came, but for ``stream_options.include_usage`` where a stream would else say nothing.
        told: what it tells.
        hides_usage: that was put in, so the caller does not expect the chunk that comes of it.
    """

    body: bytes
    told: Told
    hides_usage: bool


def prepare(target: Target, content_type: bytes, body: bytes) -> Prepared:
    """Look at a request. One that is no JSON object is passed on as it is."""
    told = told_by(target.path, content_type.decode("latin-1"), body)
    if told.streams and target.says_usage_if_asked:
        fields = fields_of(body)
        options = plain(fields.get("stream_options"))
        if options is None or (isinstance(options, dict) and options.get("include_usage") is not True):
            # Everything else stays byte for byte: whatever numbers there are, they are the provider's to read.
            fields["stream_options"] = _asking(options)
            return Prepared(msgspec.json.encode(fields), told, hides_usage=True)
    return Prepared(body, told, hides_usage=False)


def _asking(options: dict[str, Any] | None) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode({**options, "include_usage": True})) if options else _ASKED
