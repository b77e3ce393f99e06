"""How policies and shares are written, everywhere."""

from __future__ import annotations

NAMES = {
    "ours": "Allotment",
    "static": "static split",
    "chunks": "fixed chunks",
    "share": "proportional share",
    "central": "central check",
    "worst-case": "central, worst case",
    "check-then-add": "check, then add",
}


def share(value: float) -> str:
    """A share as per cent, with as many digits as show what is missing or too much."""
    if value in (0, 1):
        return f"{100 * value:.0f} %"
    close = 0.98 <= value < 1 or value < 0.02 or 1 < value < 1.02
    return f"{100 * value:.{3 if close else 1}f} %"
