"""Does what a request asks for once, however often it is said under the same Idempotency-Key, and answers the same.

After draft-ietf-httpapi-idempotency-key-header. The answer is kept in the transaction that makes what was asked for, so
that a crash leaves both or neither. Refusals are not kept: nothing was made, and the same may be granted later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from control_plane.operations.author import Author
from control_plane.operations.refusals import Conflict, Unprocessable
from control_plane.store import kept_answers
from control_plane.store.database import Connection
from control_plane.store.kept_answers import Kept

KEPT_MS = 48 * 3_600_000
"""For how long an answer is kept: twice the day for which clients of other APIs are used to."""

T = TypeVar("T")


@dataclass(frozen=True)
class Once:
    """What a request says of itself: its key, and a digest of what it asks for and where."""

    key: str
    digest: bytes


def answer_once(
    connection: Connection, once: Once, author: Author, make: Callable[[], T], text_of: Callable[[T], str]
) -> T | str:
    """The answer that is kept under this key; or else what ``make`` makes, whose text is kept.

    Args:
        text_of: what is kept of it: never a secret.

    Raises: Unprocessable: the key was said with something else. Conflict: the first request is still being done.
    """
    if not kept_answers.take_turn(connection, author.token, once.key):
        detail = "A request with this key is being done at this moment; ask again when it has had its answer."
        raise Conflict("request_in_progress", detail, "Idempotency-Key")
    kept_answers.drop(connection, author.now_ms - KEPT_MS)
    known = kept_answers.find(connection, author.token, once.key)
    if known is None:
        made = make()
        kept_answers.add(connection, Kept(author.token, once.key, once.digest, text_of(made), author.now_ms))
        return made
    if known.digest != once.digest:
        detail = "This key was said before, with another request; say another key for what is another request."
        raise Unprocessable("idempotency_key_reused", detail, "Idempotency-Key")
    return known.answer
