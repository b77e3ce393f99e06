"""What one call used, as its provider says it, and what of that was not understood."""

from __future__ import annotations

import msgspec

from protocol.events import Outcome, UsageSource

TROUBLES_MAX = 16
"""How many things that were not understood are named for one call; beyond that they are only counted."""

NAME_BYTES_MAX = 80
"""How much of a name that a provider chose is repeated in a trouble."""

COUNT_MAX = 10**12
"""What no single call or batch can count: numbers beyond it are refused. A few of them still add up to a quantity."""


class Pass(msgspec.Struct, frozen=True, gc=False):
    """Tokens of the same call that another model spent: an advisor, a model that declined, an image tool.

    Attributes:
        kind: the provider's word for it.
        model: ``None`` where the provider does not say.
    """

    kind: str
    model: str | None
    tokens: dict[str, int]


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What one call used.

    Attributes:
        tokens: by token class, disjoint; classes without tokens are left out. Without ``usage_source`` ``provider``,
            what was said before the answer broke off: a lower bound, to be completed by an estimate.
        meters: what else was counted, by meter.
        others: what other models spent on the same call; it is in nothing else here.
        model: which model answered, where the provider says so and its name may be on our wires.
        response: the provider's identity for the answer, as it gave it.
        batch: whether it came out of the provider's batch.
        usage_source: ``provider`` if the provider's own final figures were seen, ``none`` if not; never ``estimated``.
        outcome: ``aborted`` for a stream that ended before the model had finished.
        output_bytes: UTF-8 bytes of answer seen: text, reasoning and arguments of tools, while ``usage_source`` is
            ``none``, and always for a stream.
        troubles: what was not understood, and what was done about it.
        troubles_more: how many more there were.
    """

    tokens: dict[str, int]
    meters: dict[str, int]
    usage_source: UsageSource
    outcome: Outcome
    model: str | None = None
    response: str | None = None
    batch: bool = False
    output_bytes: int = 0
    others: tuple[Pass, ...] = ()
    troubles: tuple[str, ...] = ()
    troubles_more: int = 0


def named(text: str) -> str:
    """What a provider wrote, as it can be shown and stored: no control characters, no halves of characters."""
    return text if text.isprintable() else ascii(text)


class Troubles:
    """Collects what was not understood: bounded, each told once."""

    __slots__ = ("_said", "more")

    def __init__(self) -> None:
        self._said: dict[str, None] = {}
        self.more = 0

    def add(self, where: str, problem: str) -> None:
        """Name one: a place in the provider's words, and what was wrong with it or done about it."""
        text = named(f"{where[:NAME_BYTES_MAX]} {problem}")
        if text in self._said:
            return
        if len(self._said) < TROUBLES_MAX:
            self._said[text] = None
        else:
            self.more += 1

    def as_tuple(self) -> tuple[str, ...]:
        """All that were named, in order."""
        return tuple(self._said)

    def copy(self) -> Troubles:
        """The same, to be continued apart."""
        other = Troubles()
        other._said = dict(self._said)
        other.more = self.more
        return other
