"""Derived meters: what the rates of an entitlement make of the meters that callers report."""

from __future__ import annotations

from agent.core.reservations import Said
from protocol.entitlements import Rate
from protocol.events import Outcome
from protocol.local_messages import Call
from protocol.rates import NO_RATES, Choice, RateCard
from protocol.units import METERS_MAX, QUANTITY_MAX
from protocol.violations import Violation

CARDS_MAX = 1_024
"""How many price lists are kept for sharing; customers keep what they have when these are forgotten."""

_cards: dict[tuple[object, ...], RateCard] = {}


def card_of(rates: tuple[Rate, ...], plan: str) -> RateCard:
    """The card of these rates: customers of one plan share it, because a price list for each would fill the memory."""
    if not rates:
        return NO_RATES
    # Add-ons give one plan several lists: they are told apart by what they price, and compared in full.
    key = (plan, *((rate.meter, rate.feature, rate.model, rate.book) for rate in rates))
    card = _cards.get(key)
    if card is None or card.rates != rates:
        if len(_cards) >= CARDS_MAX:
            _cards.clear()
        card = _cards[key] = RateCard(rates, plan)
    return card


def with_most(choice: Choice, meters: dict[str, int]) -> dict[str, int]:
    """What a call that is going to use ``meters`` counts as at most: its token classes are not known yet.

    Raises:
        Violation: the caller says a derived meter itself; there are more meters in all than a call may have; one of
            them is larger than a quantity may be.
    """
    return _joined(meters, choice.most(meters)) if choice.meters else meters


def as_counted(card: RateCard, call: Call, said: Said) -> dict[str, int]:
    """What a call that has ended counts as: what its caller said, and what that is turned into, rounded up once. Of one
    that has expired nobody knows more than what it held.

    Raises:
        Violation: as :func:`with_most`.
    """
    if not card.rates:
        return said.amounts
    choice = choice_of(card, call, said)
    if not choice.meters:
        return said.amounts
    if said.outcome is Outcome.EXPIRED:
        return _joined(said.amounts, choice.most(said.amounts))
    return _joined(said.amounts, choice.exact(said.amounts, said.tokens))


def choice_of(card: RateCard, call: Call, said: Said) -> Choice:
    """What prices a call that has ended: the rates of the model that answered."""
    return card.choose(call.feature, said.model, None if said.model == call.model else call.model)


def as_said(card: RateCard, call: Call, meters: dict[str, int]) -> dict[str, int]:
    """What a caller says of all that a call counts as."""
    if not card.rates:
        return meters
    made = card.choose(call.feature, call.model).meters
    return {meter: amount for meter, amount in meters.items() if meter not in made}


def _joined(meters: dict[str, int], made: dict[str, int]) -> dict[str, int]:
    for meter, amount in made.items():
        if meter in meters:
            raise Violation(f"amounts.{meter}", "is made of other meters by the plan's rates", "only those others")
        if amount > QUANTITY_MAX:
            raise Violation("amounts", f"make {amount} {meter}", f"at most {QUANTITY_MAX}")
    if len(meters) + len(made) > METERS_MAX:
        problem = f"make {len(meters) + len(made)} meters with those that rates make of them"
        raise Violation("amounts", problem, f"at most {METERS_MAX}")
    return meters | made
