"""Replays what a customer really used against other terms: what would have been refused, and when. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from control_plane.core.entitlements import Document
from protocol.decisions import Code, feature_refusal
from protocol.entitlements import Limit, limits_on_path, scope_value
from protocol.events import Subject
from protocol.rates import RateCard
from protocol.windows import Calendar, WindowKind


class PastCall(NamedTuple):
    """One call that happened: what its event says, without what rates had made of it."""

    at_ms: int
    feature: str
    model: str | None
    subject: Subject
    tags: Mapping[str, str]
    amounts: Mapping[str, int]
    tokens: Mapping[str, int]


@dataclass
class Refusals:
    """What one limit (or, by its code, one feature) would have refused."""

    calls: int = 0
    quantity: int = 0
    first_at_ms: int = 0
    last_at_ms: int = 0

    def add(self, at_ms: int, quantity: int) -> None:
        """One more."""
        self.first_at_ms = self.first_at_ms or at_ms
        self.last_at_ms = at_ms
        self.calls += 1
        self.quantity += quantity


@dataclass
class Replay:
    """What the terms would have done with the calls.

    Attributes:
        refused: by limit, or by feature with its code (``sso: feature_unavailable``).
        not_replayed: limits that cannot be told from events: rates, and calls in flight.
    """

    calls: int = 0
    allowed: int = 0
    refused: dict[str, Refusals] = field(default_factory=dict)
    not_replayed: tuple[str, ...] = ()


def replay(document: Document, calls: Iterable[PastCall], by: Calendar) -> Replay:
    """Decide each call in order of time as if the terms had counted from the first on.

    A refused call uses nothing, so what comes after it has the room that it would have taken.
    """
    features = {feature.key: feature for feature in document.features}
    card = RateCard(document.rates, document.plan)
    counters: dict[tuple[str, str, int], int] = {}
    found = Replay(not_replayed=tuple(limit.key for limit in document.limits if not _is_told(limit)))
    for call in sorted(calls, key=lambda one: one.at_ms):
        found.calls += 1
        code = feature_refusal(document.status, features.get(call.feature), call.subject.role)
        choice = card.choose(call.feature, call.model)
        made = choice.exact(call.amounts, call.tokens)
        if code is None and choice.unpriced(made) is not None:
            code = Code.MODEL_UNAVAILABLE
        if code is not None:
            found.refused.setdefault(f"{call.feature}: {code.value}", Refusals()).add(call.at_ms, 0)
            continue
        amounts = {**call.amounts, **made}
        steps = list(_steps(document, call, amounts, by))
        full = next(
            ((limit, need) for limit, key, need in steps if not _has_room(limit, counters.get(key, 0), need)), None
        )
        if full is not None:
            found.refused.setdefault(full[0].key, Refusals()).add(call.at_ms, full[1])
            continue
        found.allowed += 1
        for _, key, need in steps:
            counters[key] = counters.get(key, 0) + need
    return found


def _steps(
    document: Document, call: PastCall, amounts: Mapping[str, int], by: Calendar
) -> Iterable[tuple[Limit, tuple[str, str, int], int]]:
    for limit in limits_on_path(document.limits, call.feature, amounts, call.subject.role):
        if _is_told(limit):
            whose = scope_value(limit, call.subject, call.tags)
            start_ms = call.at_ms if limit.window is WindowKind.REQUEST else limit.window_at(call.at_ms, by).start_ms
            yield limit, (limit.counter, whose, start_ms), amounts[limit.meter]


def _has_room(limit: Limit, used: int, need: int) -> bool:
    if limit.ceiling is None:
        return True
    return need <= limit.ceiling if limit.window is WindowKind.REQUEST else used + need <= limit.ceiling


def _is_told(limit: Limit) -> bool:
    return not limit.smooth and limit.window is not WindowKind.IN_FLIGHT
