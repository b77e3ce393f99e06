"""Rate cards: which rate prices a call, the most that a call in flight may come to, and what it came to in the end.

Pure. Weights are millionths, so a money meter in micro-units has the price of a million tokens as its weight: 2.50
dollars for a million input tokens is a weight of 2,500,000 on a meter that counts millionths of a dollar.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from protocol.entitlements import MILLION, Rate
from protocol.events import Priced
from protocol.units import INPUT_CLASSES, INPUT_TOKENS, OUTPUT_CLASSES, OUTPUT_TOKENS

CHOICES_MAX = 1_024
"""How many shapes of call one card remembers: models are named by callers, so there may be any number of them."""

_METER_OF = {
    **dict.fromkeys(INPUT_CLASSES, INPUT_TOKENS),
    **dict.fromkeys(OUTPUT_CLASSES, OUTPUT_TOKENS),
}
_DATE = re.compile(r"([-@]20\d\d-?\d\d-?\d\d|-latest)\Z")

Weights = tuple[tuple[str, int], ...]


def meter_of_class(token_class: str) -> str:
    """The meter that tokens of this class sum into."""
    return _METER_OF[token_class]


def model_names(model: str | None) -> tuple[str, ...]:
    """Under which names a model is looked for, the most exact first: as it is called, without its date
    (``-2024-08-06``, ``-20240806``, ``@20240806``, ``-latest``), then both without what stands before the last ``/``.
    Capitals do not matter."""
    if model is None:
        return ()
    whole = model.lower()
    bare = whole.rpartition("/")[2] or whole
    names = (whole, _DATE.sub("", whole), bare, _DATE.sub("", bare))
    return tuple(name for name in dict.fromkeys(names) if name)


class _Price:
    """One rate, ready for arithmetic."""

    __slots__ = ("_classes", "_most", "_others", "_per", "_plain")

    def __init__(self, rate: Rate) -> None:
        weights = rate.weights
        self._per = MILLION * rate.per
        self._plain: Weights = tuple(weights.items())
        self._others: Weights = tuple((name, at) for name, at in self._plain if name not in _METER_OF.values())
        classes = {str(name): at for name, at in rate.classes.items()}
        self._classes = {name: classes.get(name, weights.get(meter, 0)) for name, meter in _METER_OF.items()}
        dearest = {
            meter: max([weights.get(meter, 0), *(self._classes[name] for name in parts)])
            for meter, parts in ((INPUT_TOKENS, INPUT_CLASSES), (OUTPUT_TOKENS, OUTPUT_CLASSES))
        }
        self._most: Weights = (*self._others, *((meter, at) for meter, at in dearest.items() if at))

    def most(self, meters: Mapping[str, int]) -> int:
        total = 0
        for name, weight in self._most:
            total += meters.get(name, 0) * weight
        return -(-total // self._per)

    def exact(self, meters: Mapping[str, int], tokens: Mapping[str, int]) -> int:
        total = 0
        for name, weight in self._others if tokens else self._plain:
            total += meters.get(name, 0) * weight
        for name, amount in tokens.items():
            total += amount * self._classes[name]
        return -(-total // self._per)


class Choice:
    """What prices calls of one feature and model.

    Attributes:
        rates: the rates that do.
        meters: what they make, in order of name.
        priced: the same for the event.
        known: for each of those meters, whether one of its rates is meant for such a call. certain: all are.
    """

    __slots__ = ("_prices", "certain", "known", "meters", "priced", "rates")

    def __init__(self, found: Mapping[str, tuple[list[Rate], bool]], plan: str) -> None:
        ordered = sorted(found.items())
        self.meters = tuple(meter for meter, _ in ordered)
        self.rates = tuple(rate for _, (rates, _) in ordered for rate in rates)
        self.known = {meter: known for meter, (_, known) in ordered}
        self.certain = all(self.known.values())
        self.priced = tuple(_priced(meter, rates, known, plan) for meter, (rates, known) in ordered)
        self._prices = [(meter, [_Price(rate) for rate in rates]) for meter, (rates, _) in ordered]

    def most(self, meters: Mapping[str, int]) -> dict[str, int]:
        """What a call of which only meters are known can come to at most: every token counts as its dearest class."""
        return {meter: max([price.most(meters) for price in prices]) for meter, prices in self._prices}

    def exact(self, meters: Mapping[str, int], tokens: Mapping[str, int]) -> dict[str, int]:
        """What a call came to. Tokens that are told as a sum, not by class, count as plain input and output.

        Args:
            tokens: by class; they are in ``meters``, too.
        """
        return {meter: max([price.exact(meters, tokens) for price in prices]) for meter, prices in self._prices}

    def unpriced(self, made: Mapping[str, int]) -> str | None:
        """A meter that such a call makes something of although no rate is meant for its model; ``None`` if all is well.

        Args:
            made: what :meth:`most` or :meth:`exact` said.
        """
        return next((meter for meter, known in self.known.items() if not known and made.get(meter)), None)


class RateCard:
    """All rates of an entitlement.

    For each meter the most specific rate prices a call: one for its feature and model, then for its model, then for
    its feature, then for all. Where there are rates of models but none for this one, and none without a model, no price
    is known: such a call is refused before it happens. If it has happened all the same, it counts by what was asked
    for, or else by the dearest rate of all, and its event says so.

    Args:
        plan: the plan and version whose rates they are, as ``pro@3``.
    """

    __slots__ = ("_choices", "plan", "rates")

    def __init__(self, rates: tuple[Rate, ...], plan: str = "") -> None:
        self.rates = rates
        self.plan = plan
        self._choices: dict[tuple[str, str | None, str | None], Choice] = {}

    def __bool__(self) -> bool:
        return bool(self.rates)

    def choose(self, feature: str, model: str | None, asked: str | None = None) -> Choice:
        """What prices calls of this feature and model.

        Args:
            asked: which model was asked for, where another one answered.
        """
        shape = (feature, model, asked)
        choice = self._choices.get(shape)
        if choice is None:
            if len(self._choices) >= CHOICES_MAX:
                self._choices.clear()
            choice = self._choices[shape] = Choice(self._find(feature, model, asked), self.plan)
        return choice

    def _find(self, feature: str, model: str | None, asked: str | None) -> dict[str, tuple[list[Rate], bool]]:
        meant = [rate for rate in self.rates if rate.feature is None or rate.feature == feature]
        first, second = _best(meant, model), _best(meant, asked)
        found: dict[str, tuple[list[Rate], bool]] = {}
        for meter in {rate.meter for rate in meant}:
            if meter in first:
                found[meter] = ([first[meter]], True)
            elif meter in second:
                found[meter] = ([second[meter]], False)
            else:
                found[meter] = ([rate for rate in meant if rate.meter == meter], False)
        return found


NO_RATES = RateCard(())


def _best(rates: list[Rate], model: str | None) -> dict[str, Rate]:
    """By meter, the most specific of these rates for the model."""
    places = {name: at for at, name in enumerate(model_names(model))}
    found: dict[str, tuple[tuple[bool, bool, int], Rate]] = {}
    for rate in rates:
        place = 0 if rate.model is None else places.get(rate.model.lower())
        if place is None:
            continue
        rank = (rate.model is None, rate.feature is None, place)
        if rate.meter not in found or rank < found[rate.meter][0]:
            found[rate.meter] = (rank, rate)
    return {meter: rate for meter, (_, rate) in found.items()}


def _priced(meter: str, rates: list[Rate], known: bool, plan: str) -> Priced:
    rate = rates[0]
    return Priced(meter, rate.book or plan, rate.model if len(rates) == 1 else None, rate.per, known)
