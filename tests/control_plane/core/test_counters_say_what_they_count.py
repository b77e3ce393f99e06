"""Every limit's counter can be read back: whose it is, what it counts, and how its leases live."""

from __future__ import annotations

import itertools

import pytest

from control_plane.core.kinds import Counted, Kind, counted
from protocol.entitlements import Limit, Scope
from protocol.windows import WindowKind


@pytest.mark.parametrize(("feature", "scope"), list(itertools.product([None, "chat:v2"], Scope)))
@pytest.mark.parametrize("window", [kind for kind in WindowKind if kind is not WindowKind.REQUEST])
def test_a_counter_is_read_as_it_was_written(feature: str | None, scope: Scope, window: WindowKind) -> None:
    tag = "team:x" if scope is Scope.TAG else None
    limit = Limit("l", "in_flight-rate", 1, window, feature=feature, scope=scope, scope_tag=tag)
    dimension = {Scope.CUSTOMER: "", Scope.TAG: "tag:team:x"}.get(scope, scope.value)
    kind = Kind.SLOTS if window is WindowKind.IN_FLIGHT else Kind.QUOTA
    assert counted(limit.counter) == Counted(feature, "in_flight-rate", window.value, dimension, kind, 0)


@pytest.mark.parametrize(
    ("window", "period_ms"),
    [(WindowKind.MINUTE, 60_000), (WindowKind.HOUR, 3_600_000), (WindowKind.DAY, 86_400_000)],
)
def test_a_rate_has_its_period(window: WindowKind, period_ms: int) -> None:
    said = counted(Limit("l", "requests", 1, window, smooth=True).counter)
    assert (said.kind, said.period_ms, said.window) == (Kind.RATE, period_ms, window.value)
