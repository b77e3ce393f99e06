"""What a call may use and did use, where other libraries say it: prompts by their bytes, usage in disjoint classes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

TEMPLATE_TOKENS = 256
"""What models are told before the first message, without the caller's doing."""

MEDIA_TOKENS = 5_000
"""What an image, a sound or a document costs at most, as far as anyone can say before."""

LONG_ANSWER_TOKENS = 2_048
"""What is held of an answer that is not bounded by its request."""

SLICE_TOKENS = 512
"""How much output is held at a time while an answer streams."""

PROMPT_BYTES_PER_TOKEN = 4
OUTPUT_BYTES_PER_TOKEN = 3
"""What is charged for where the provider said nothing; the agent's proxy does the same."""

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+~-]{0,127}")
_ITEM_BYTES = 4
_NODES_MAX = 200_000
_BLOB = re.compile(r"data:|[A-Za-z0-9+/_-]{256}")
_BLOB_KEYS = frozenset({"data", "url", "image_url", "file_data", "bytes", "b64_json", "file_id"})


class Prompt:
    """How much text a request holds, and how much that is no text.

    A tokenizer gives every byte of a text at most one token, so ``tokens_max`` bounds the prompt; ``tokens_likely`` is
    what a prompt of that size usually is.
    """

    def __init__(self, *parts: Any) -> None:
        self._text_bytes = self._media = self._nodes = 0
        for part in parts:
            self._weigh(part)

    @property
    def tokens_max(self) -> int:
        """An upper bound of the prompt's tokens."""
        return self._text_bytes + self._media * MEDIA_TOKENS + TEMPLATE_TOKENS

    @property
    def tokens_likely(self) -> int:
        """What is charged of a prompt whose tokens nobody counted."""
        return -(-self._text_bytes // PROMPT_BYTES_PER_TOKEN)

    def _weigh(self, root: Any) -> None:
        stack: list[tuple[str, Any]] = [("", root)]
        while stack and self._nodes < _NODES_MAX:
            name, node = stack.pop()
            self._nodes += 1
            self._text_bytes += _ITEM_BYTES
            if isinstance(node, str):
                if name in _BLOB_KEYS and _BLOB.match(node):
                    self._media += 1
                else:
                    self._text_bytes += text_bytes(node)
            elif isinstance(node, Mapping):
                for key, value in node.items():
                    self._text_bytes += text_bytes(str(key))
                    stack.append((str(key), value))
            elif isinstance(node, Sequence) and not isinstance(node, bytes):
                stack.extend((name, item) for item in node)
            elif node is not None:
                self._text_bytes += len(str(node))
        for _, rest in stack:  # a request of absurdly many parts: what they are as they stand
            self._text_bytes += text_bytes(repr(rest))


def text_bytes(text: str) -> int:
    """How long a text is in UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def likely_output(size: int) -> int:
    """What is charged of so many bytes of an answer whose tokens nobody counted."""
    return -(-size // OUTPUT_BYTES_PER_TOKEN)


def next_step(held: int, output_bytes: int) -> int:
    """How much more output to hold while an answer streams; 0 while at least half a slice is left.

    A byte of output is a token at most, so nothing that has been streamed is ever more than what is held.
    """
    if output_bytes + SLICE_TOKENS // 2 <= held:
        return 0
    return max(held, output_bytes) + SLICE_TOKENS - held


def whole(value: Any) -> int:
    """A count that another library says: 0 where it says none, or nonsense."""
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**53 else 0


def as_key(name: Any) -> str | None:
    """A name as the agent can count it: what is no key stands there by the first 16 digits of its SHA-256."""
    if not name:
        return None
    text = str(name)
    return text if _KEY.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()[:16]


def disjoint(inputs: Any, outputs: Any, **parts: Any) -> dict[str, int]:
    """Token classes, which never overlap, of sums that include their parts.

    Args:
        inputs, outputs: everything read, and everything written: the parts included.
        parts: by class, ``cache_read`` or ``reasoning``. Together they are never more than their sum: what does not fit
            is taken to be said twice, because the sum is what is paid for.
    """
    found: dict[str, int] = {}
    for rest, total, classes in (("input", whole(inputs), _INPUT), ("output", whole(outputs), _OUTPUT)):
        left = total
        for name in classes:
            found[name] = min(left, whole(parts.get(name)))
            left -= found[name]
        found[rest] = left
    return {name: count for name, count in found.items() if count}


_INPUT = ("cache_read", "cache_write", "input_audio", "input_image")
_OUTPUT = ("reasoning", "output_audio", "output_image")
