"""The rules that the rates of a plan must keep: how calls turn into meters of their own, such as credits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from protocol.entitlements import FeatureKind, Rate
from protocol.violations import Violation

CATALOG = "one that is in the catalog"


def rate_violations(
    rates: tuple[Rate, ...], kinds: Mapping[str, FeatureKind], meters: set[str], declared: set[str]
) -> Iterator[Violation]:
    """Every rule that these rates break, in their order.

    Args:
        kinds: every feature of the catalog; meters: every meter that may be named.
        declared: the meters that somebody declared: callers report the built-in ones, so these cannot be made.
    """
    made = {rate.meter for rate in rates}
    seen: dict[tuple[str, str | None], int] = {}
    for index, rate in enumerate(rates):
        path = f"rates[{index}]"
        if rate.meter not in meters:
            yield Violation(f"{path}.meter", f"names the unknown meter {rate.meter!r}", CATALOG)
        elif rate.meter not in declared:
            problem = f"names {rate.meter!r}, which callers report"
            yield Violation(f"{path}.meter", problem, "a declared meter that calls are turned into")
        if rate.feature is not None and rate.feature not in kinds:
            yield Violation(f"{path}.feature", f"names the unknown feature {rate.feature!r}", CATALOG)
        if (rate.meter, rate.feature) in seen:
            first = seen[rate.meter, rate.feature]
            problem = f"makes the same meter of the same feature as rates[{first}]"
            yield Violation(path, problem, "one rate for each meter and feature")
        seen[rate.meter, rate.feature] = index
        for name in rate.weights:
            if name not in meters:
                yield Violation(f"{path}.weights.{name}", "is not a meter", CATALOG)
            elif name in made:
                problem = "is itself made by a rate"
                yield Violation(f"{path}.weights.{name}", problem, "meters that callers report")
