"""Which sums a usage event is in: everything, and those of the subjects and tags that it names."""

from __future__ import annotations

from control_plane.store import rollups
from protocol.events import UsageEvent


def add_to_sums(sums: rollups.Sums, event: UsageEvent, at_ms: int) -> None:
    """Add an event that counts at ``at_ms`` to every sum that it is in; a correction is no call of its own."""
    minute_ms = at_ms - at_ms % rollups.MINUTE_MS
    calls = 0 if event.corrects else 1
    dimensions = _dimensions(event)
    for meter, amount in event.amounts.items():
        for dimension, value in dimensions:
            name = (event.customer, dimension, value, minute_ms, meter, event.feature, event.model or "")
            total = sums.get(name)
            if total is None:
                sums[name] = [amount, calls]
            else:
                total[0] += amount
                total[1] += calls


def _dimensions(event: UsageEvent) -> list[tuple[str, str]]:
    """Which sums it is in: everything, and those of the subjects and tags that it names."""
    subject = event.subject
    found = [("", "")]
    for dimension, value in (
        ("user", subject.user),
        ("workspace", subject.workspace),
        ("role", subject.role),
        ("api_key", subject.api_key),
    ):
        if value is not None:
            found.append((dimension, value))
    found.extend((f"tag:{name}", value) for name, value in event.tags.items())
    return found
