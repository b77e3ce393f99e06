"""Features of kind ``credit``: never free by mistake. Wherever one is on, its calls burn a balance. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from control_plane.core.plans import PlanLimit
from protocol.entitlements import Feature, FeatureKind, Limit, Rate
from protocol.violations import Violation
from protocol.windows import WindowKind

_POOL = "a limit of window `grants` beside it, as {key: credits, meter: credits, amount: 0, window: grants}"


def balances_of(feature: str, limits: Iterable[Limit], rates: Iterable[Rate]) -> tuple[str, ...]:
    """The limits whose grants calls of this feature burn: what its calls are turned into is what they count."""
    made = {rate.meter for rate in rates if rate.feature in (None, feature)}
    return tuple(limit.key for limit in _pools(limits) if limit.meter in made)


def free_violations(
    features: tuple[Feature, ...], limits: tuple[Limit, ...], rates: tuple[Rate, ...]
) -> Iterator[Violation]:
    """Credit features that are on, for anybody, without a balance that their calls burn.

    A meter that callers report does not count, for leaving it out would be free: a rate of one for one makes it sure.
    """
    pools = _pools(limits)
    for index, feature in enumerate(features):
        on = feature.enabled or any(terms.enabled for terms in feature.by_role.values())
        if feature.kind is not FeatureKind.CREDIT or not on or balances_of(feature.key, limits, rates):
            continue
        head = f"is on for the credit feature {feature.key!r}, and"
        path = f"features[{index}]"
        if not pools:
            yield Violation(path, f"{head} no balance is on the path of its calls", _POOL)
        else:
            meters = " or ".join(sorted({repr(limit.meter) for limit in pools}))
            expected = f"a rate or price book with meter {meters}, for feature {feature.key!r} or for all"
            yield Violation(path, f"{head} nothing makes {meters} of its calls", expected)


def _pools(limits: Iterable[Limit]) -> list[Limit]:
    """Balances that refuse calls when they are empty; one in shadow never does."""
    pools = [limit for limit in limits if limit.window is WindowKind.GRANTS]
    return [limit for limit in pools if not (isinstance(limit, PlanLimit) and limit.shadow)]
