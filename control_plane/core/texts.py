"""Free text that people write and read: bounded, no control characters, none that turn the direction of others."""

from __future__ import annotations

from typing import Annotated

import msgspec

_VISIBLE = r"^[^\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
DisplayName = Annotated[str, msgspec.Meta(pattern=_VISIBLE + r"{1,200}\Z", min_length=1, max_length=200)]
Sentence = Annotated[str, msgspec.Meta(pattern=_VISIBLE + r"{0,500}\Z", max_length=500)]
Reason = Annotated[str, msgspec.Meta(pattern=_VISIBLE + r"{1,500}\Z", min_length=1, max_length=500)]
Unit = Annotated[str, msgspec.Meta(pattern=_VISIBLE + r"{1,64}\Z", min_length=1, max_length=64)]
