"""Corrections by hand: the entry that brings a past call to what it should have been, or to nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from control_plane.core.rerating import sums
from protocol.events import Priced, UsageEvent
from protocol.units import METERS_MAX, QUANTITY_MAX
from protocol.violations import Violation

NAME_MAX = 100
"""Letters of a correction's id: it is part of the id of its event."""


def correction_id(correction: str) -> str:
    """The id of the event that a correction by hand makes."""
    return f"by-hand~{correction}"


def latest_prices(said: Sequence[UsageEvent]) -> dict[str, Priced]:
    """By what each derived meter of a call was priced last."""
    return {priced.meter: priced for event in said for priced in event.priced}


def derived_of(said: Sequence[UsageEvent]) -> tuple[str, ...]:
    """Which meters of a call nobody reported, in order of name."""
    return tuple(sorted({meter for event in said for meter in event.derived}))


def correct(
    correction: str,
    said: Sequence[UsageEvent],
    amounts: Mapping[str, int],
    tokens: Mapping[str, int],
    at_ms: int,
) -> UsageEvent | None:
    """The event that brings a call to these amounts and tokens: the differences; ``None``: it is there already.

    Args:
        said: everything that was said of the call: its event first, then what corrects it, oldest first.
        amounts: all that it comes to, derived meters too; what is not named comes to nothing.
        at_ms: when it counts, and so does this.

    Raises: Violation: a difference that no event can say.
    """
    first, last = said[0], said[-1]
    were, were_tokens = sums(said)
    moved, moved_tokens = _differences(were, amounts), _differences(were_tokens, tokens)
    if not moved and not moved_tokens:
        return None
    for field, differences in (("amounts", moved), ("tokens", moved_tokens)):
        for name, difference in differences.items():
            if abs(difference) > QUANTITY_MAX:
                raise Violation(f"{field}.{name}", f"is {difference} from what it was", f"at most {QUANTITY_MAX}")
        if len(differences) > METERS_MAX:
            raise Violation(field, f"differ in {len(differences)} names", f"at most {METERS_MAX}")
    priced = latest_prices(said)
    return UsageEvent(
        event=correction_id(correction),
        customer=first.customer,
        feature=first.feature,
        at_ms=at_ms,
        amounts=moved,
        subject=first.subject,
        tags=first.tags,
        model=last.model,
        provider=last.provider,
        tokens=moved_tokens,
        usage_source=last.usage_source,
        outcome=last.outcome,
        corrects=first.event,
        # All of them, moved or not: whoever prices the call anew reads there what it was priced by last.
        derived=derived_of(said),
        priced=tuple(priced[meter] for meter in sorted(priced)),
    )


def _differences(were: Mapping[str, int], become: Mapping[str, int]) -> dict[str, int]:
    found = {name: become.get(name, 0) - were.get(name, 0) for name in sorted(were.keys() | become.keys())}
    return {name: difference for name, difference in found.items() if difference}
