"""On what terms a call is admitted: how urgent it is, and how much must find room for it."""

from __future__ import annotations

from enum import StrEnum


class Priority(StrEnum):
    """What a call is worth when little is left: ``batch`` leaves a limit's ``batch_floor`` to the others."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


class Estimate(StrEnum):
    """What a model call must find room for before it is sent, from the least to the most.

    ``slices``: what 95 of a hundred such prompts do not pass, and the answer a slice at a time while it streams.
    ``p95``: what 95 of a hundred such answers do not pass, too, so that few are cut short. ``worst``: the most that the
    request allows, so that whatever is admitted can end.
    """

    SLICES = "slices"
    P95 = "p95"
    WORST = "worst"
