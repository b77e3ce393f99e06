"""Prices past calls again by another version of their price book: what each came to, and what it comes to now. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from control_plane.core.price_books import PriceBook, PriceBookUse, prices_of, rate_of
from protocol.events import Outcome, Priced, UsageEvent
from protocol.rates import Choice, RateCard

NAME_MAX = 48
"""Letters of a re-rating's id: it is part of the ids of its corrections."""


@dataclass(frozen=True, slots=True)
class Moved:
    """One meter of one call: what it came to by all that was said so far, and what it comes to now."""

    meter: str
    before: int
    after: int
    priced: Priced


class Repricer:
    """One version of a price book, as the prices of calls that were priced by any version of it."""

    def __init__(self, book: str, version: int, body: PriceBook) -> None:
        self.name = f"{book}@{version}"
        self._book = book
        self._body = body
        self._cards: dict[tuple[str, int], RateCard] = {}

    def reprice(self, said: Sequence[UsageEvent]) -> tuple[list[Moved], list[str]]:
        """What moves when a call is priced anew, and meters that cannot be, because this version has no price.

        A rate for all other models has no name in an event: a call that was priced by one gets the price of its own
        model if there is one, else it stays.

        Args:
            said: everything that was said of one call: its event first, then what corrects it, oldest first.
        """
        word = next(event for event in reversed(said) if not _is_rerating(event) or event is said[0])
        amounts, tokens = sums(said)
        moved, unpriced = [], []
        for priced in word.priced:
            if priced.by.rpartition("@")[0] != self._book:
                continue
            choice = self._choose(word, priced)
            if choice is None:
                unpriced.append(priced.meter)
                continue
            known = {name: amount for name, amount in amounts.items() if name not in word.derived}
            made = _made(choice, word, known, tokens)
            change = Moved(priced.meter, amounts.get(priced.meter, 0), made[priced.meter], choice.priced[0])
            if change.before != change.after:
                moved.append(change)
        return moved, unpriced

    def price(
        self, word: UsageEvent, priced: Priced, amounts: Mapping[str, int], tokens: Mapping[str, int]
    ) -> int | None:
        """What a call that was priced so comes to with other amounts; ``None``: this version has no price for it."""
        choice = self._choose(word, priced)
        return None if choice is None else _made(choice, word, amounts, tokens)[priced.meter]

    def _choose(self, word: UsageEvent, priced: Priced) -> Choice | None:
        """The price of the model that was priced, or of the one that answered where that had none."""
        names = (priced.model,) if priced.known and priced.model else (word.model, priced.model)
        card = self._card(priced.meter, priced.per)
        choices = (card.choose(word.feature, name) for name in names if name is not None)
        return next((choice for choice in choices if choice.certain), None)

    def _card(self, meter: str, per: int) -> RateCard:
        card = self._cards.get((meter, per))
        if card is None:
            use = PriceBookUse(self._book, (), meter=meter, micros_per_unit=per)
            prices = prices_of(self._body).values()
            card = self._cards[meter, per] = RateCard(tuple(rate_of(self.name, self._body, one, use) for one in prices))
        return card


def correction(rerating: str, said: Sequence[UsageEvent], moved: Sequence[Moved], at_ms: int) -> UsageEvent:
    """The event that brings a call to its new price: the difference, under an id of the re-rating's own.

    Args:
        at_ms: when the call counts, and so does this.
    """
    first, last = said[0], said[-1]
    return UsageEvent(
        event=correction_id(first.event, rerating),
        customer=first.customer,
        feature=first.feature,
        at_ms=at_ms,
        amounts={change.meter: change.after - change.before for change in moved},
        subject=first.subject,
        tags=first.tags,
        model=last.model,
        provider=last.provider,
        usage_source=last.usage_source,
        outcome=last.outcome,
        corrects=first.event,
        derived=tuple(sorted(change.meter for change in moved)),
        priced=tuple(change.priced for change in sorted(moved, key=lambda change: change.meter)),
    )


def correction_id(event: str, rerating: str) -> str:
    """The id of what a re-rating says of an event: the same each time, so that it is said once."""
    whole = f"{event}~rerate~{rerating}"
    if len(whole) <= 128:
        return whole
    return f"{event[:38]}~{blake2b(event.encode(), digest_size=16).hexdigest()}~rerate~{rerating}"


def _made(choice: Choice, word: UsageEvent, amounts: Mapping[str, int], tokens: Mapping[str, int]) -> dict[str, int]:
    return choice.most(amounts) if word.outcome is Outcome.EXPIRED else choice.exact(amounts, tokens)


def _is_rerating(event: UsageEvent) -> bool:
    return not event.tokens and set(event.amounts) <= set(event.derived)


def sums(said: Sequence[UsageEvent]) -> tuple[dict[str, int], dict[str, int]]:
    """What a call came to by all that was said of it: amounts, and tokens."""
    amounts: dict[str, int] = {}
    tokens: dict[str, int] = {}
    for event in said:
        for total, parts in ((amounts, event.amounts), (tokens, event.tokens)):
            for name, amount in parts.items():
                total[name] = total.get(name, 0) + amount
    return amounts, tokens
