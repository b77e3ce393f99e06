"""Identifiers: what may name a customer, a feature, a subject, a reservation or a model.

The patterns are deliberately narrow ASCII: no control characters, no look-alikes, nothing a spreadsheet, a shell or a
path would interpret. They begin with a letter or digit and end with ``\\Z`` (``$`` would admit a trailing newline).
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

KEY_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@+~-]{0,127}\Z"
MODEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@+~/-]{0,127}\Z"
TAGS_MAX = 8

KEY_WORDS = "1 to 128 letters, digits or any of . _ : @ + ~ -, beginning with a letter or digit"
MODEL_WORDS = "1 to 128 letters, digits or any of . _ : @ + ~ - /, beginning with a letter or digit"

Key = Annotated[str, msgspec.Meta(pattern=KEY_PATTERN, min_length=1, max_length=128, description=KEY_WORDS)]
ModelName = Annotated[str, msgspec.Meta(pattern=MODEL_PATTERN, min_length=1, max_length=128, description=MODEL_WORDS)]
Tags = Annotated[dict[Key, Key], msgspec.Meta(max_length=TAGS_MAX)]

_KEY = re.compile(KEY_PATTERN)
_MODEL = re.compile(MODEL_PATTERN)


def is_key(text: str) -> bool:
    """Whether ``text`` may name a thing on any of our wires."""
    return _KEY.match(text) is not None


def is_model_name(text: str) -> bool:
    """Whether ``text`` may name a model on any of our wires."""
    return _MODEL.match(text) is not None
