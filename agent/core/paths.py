"""What the path of a model call tells: whether it may cost anything, and whether its answer is made of tokens."""

from __future__ import annotations

import re

# What is known to cost nothing, or is charged when its result is made use of. All else that is posted is metered: a
# path that nobody here knows yet may cost.
_FREE = re.compile(
    r"(/count_tokens|:countTokens|/input_tokens|/tokenize|/cancel|/oauth2?/token)\Z"
    r"|/(files|uploads|batches|vector_stores|fine_tuning|containers|moderations|cachedContents)(/|\Z|\?)"
)
# Only of a path that means the same to everybody: others may be put together again on their way.
_PLAIN = re.compile(r"(/(?!\.{1,2}(/|\Z))[\w.:@~+-]+)+/?\Z", re.ASCII)
_OTHER_ANSWERS = re.compile(r"/embeddings\Z|:(batch)?embed|/audio/|/images/|/rerank\Z", re.IGNORECASE)


def is_metered(method: str, path: str) -> bool:
    """Whether a call may cost anything."""
    path = path.partition("?")[0]
    return method.upper() == "POST" and (_PLAIN.match(path) is None or _FREE.search(path) is None)


def answers_in_tokens(path: str) -> bool:
    """Whether the answer is made of output tokens: what is embedded or transcribed, for one, is not."""
    return _OTHER_ANSWERS.search(path.partition("?")[0]) is None
