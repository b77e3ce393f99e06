"""When the next window's lease is asked for: shortly before this window ends, so that its beginning is no rush."""

from __future__ import annotations

AHEAD_MS_MAX = 30_000


def is_ending(length_ms: int, left_ms: int) -> bool:
    """Whether a window of this length is about to end: within half a minute, or within its last quarter if shorter."""
    return 0 < left_ms <= min(AHEAD_MS_MAX, length_ms // 4)
