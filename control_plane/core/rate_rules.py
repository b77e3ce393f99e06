"""The rules that the rates of a plan must keep: how calls turn into meters of their own, such as credits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from protocol.entitlements import RATES_MAX, FeatureKind, Rate
from protocol.ids import MODEL_WORDS, is_model_name
from protocol.rates import meter_of_class
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
    seen: dict[tuple[str, str | None, str | None], int] = {}
    for index, rate in enumerate(rates):
        path = f"rates[{index}]"
        if rate.meter not in meters:
            yield Violation(f"{path}.meter", f"names the unknown meter {rate.meter!r}", CATALOG)
        elif rate.meter not in declared:
            problem = f"names {rate.meter!r}, which callers report"
            yield Violation(f"{path}.meter", problem, "a declared meter that calls are turned into")
        if rate.feature is not None and rate.feature not in kinds:
            yield Violation(f"{path}.feature", f"names the unknown feature {rate.feature!r}", CATALOG)
        if rate.model is not None and not is_model_name(rate.model):
            yield Violation(f"{path}.model", "is no name of a model", MODEL_WORDS)
        what = (rate.meter, rate.feature, rate.model and rate.model.lower())
        if what in seen:
            problem = f"makes the same meter of the same feature and model as rates[{seen[what]}]"
            yield Violation(path, problem, "one rate for each meter, feature and model")
        seen[what] = index
        yield from _class_violations(path, rate)
        for name in rate.weights:
            if name not in meters:
                yield Violation(f"{path}.weights.{name}", "is not a meter", CATALOG)
            elif name in made:
                problem = "is itself made by a rate"
                yield Violation(f"{path}.weights.{name}", problem, "meters that callers report")


def book_rate_violations(
    own: tuple[Rate, ...],
    made: tuple[Rate, ...],
    kinds: Mapping[str, FeatureKind],
    meters: set[str],
    declared: set[str],
) -> Iterator[Violation]:
    """Every rule that the rates that price books make break, beside the plan's own, which are in order."""
    for index, rate in enumerate(own):
        if rate.book:
            yield Violation(f"rates[{index}].book", "names a price book", "an entry of `price_books` instead")
    if len(own) + len(made) > RATES_MAX:
        problem = f"make {len(own) + len(made)} rates with those of the plan"
        yield Violation("price_books", problem, f"at most {RATES_MAX}")
    for violation in rate_violations((*own, *made), kinds, meters, declared):
        yield Violation("price_books", f"make a rate that {violation.problem} ({violation.field})", violation.expected)


def _class_violations(path: str, rate: Rate) -> Iterator[Violation]:
    """Classes differ from the meter that they sum into, so that has a weight, too: no other class is then free."""
    for name in rate.classes:
        meter = meter_of_class(name)
        if meter not in rate.weights:
            problem = f"sums into {meter}, which has no weight"
            yield Violation(f"{path}.classes.{name}", problem, f"`weights.{meter}` beside it, for the other classes")
