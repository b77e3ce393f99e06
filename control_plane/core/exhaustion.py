"""When a limit will be reached if its use goes on as it lately went. Pure."""

from __future__ import annotations

from protocol.windows import Window


def exhausts_in_ms(remaining: int, used: int, span_ms: int, now_ms: int, window: Window) -> int | None:
    """How long what remains will last; ``None``: for longer than the window does.

    Args:
        remaining: what is left of the limit; nothing left is reached now.
        used: what was lately used of its meter, within ``span_ms``. Corrections may make it negative.
        now_ms, window: the present window, whose end gives everything back.
    """
    if remaining <= 0:
        return 0
    if used <= 0 or span_ms <= 0:
        return None
    lasts_ms = -(-remaining * span_ms // used)
    return lasts_ms if now_ms + lasts_ms < window.end_ms else None
