"""Names of models: as an answer gives them, or as the path of the request does."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from agent.core.tokens.usage import Troubles
from protocol.ids import is_model_name

RESPONSE_CHARS_MAX = 256

_IN_PATH = re.compile(r"/(?:models?|deployments|engines)/(.+?)(?=:[A-Za-z]+(?:\?|$)|/|\?|$)")


def model_in(path: str) -> str | None:
    """The model that a request's path names, as those of Gemini, Vertex AI, Bedrock and Azure do."""
    found = _IN_PATH.search(path)
    name = unquote(found.group(1)) if found else ""
    return name if is_model_name(name) else None


def model_of(value: Any, troubles: Troubles) -> str | None:
    """The model that an answer names, if the name may be on our wires."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        name = value.removeprefix("models/")
        if is_model_name(name):
            return name
    troubles.add("model", f"is {str(value)[:64]!r}: not taken, for it is no name of a model")
    return None


def response_of(value: Any, troubles: Troubles) -> str | None:
    """The identity that an answer has at its provider."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and len(value) <= RESPONSE_CHARS_MAX and value.isprintable():
        return value
    troubles.add("id", "is not taken: no text, or too long")
    return None
