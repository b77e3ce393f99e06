"""What calls used since the start, by model and token class: for metrics, in a bounded number of series."""

from __future__ import annotations

from protocol.events import UsageEvent
from protocol.units import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS

MODELS_MAX = 100
"""Pairs of provider and model that are told apart; those that come later, and calls without a model, are ``other``."""
OTHER = "other"

Model = tuple[str, str]


class Tally:
    """Sums of what was entered. Never of customers: whoever reads metrics is not to learn of them.

    Attributes:
        requests: by (provider, model). tokens: by (provider, model) and class.
    """

    __slots__ = ("requests", "tokens")

    def __init__(self) -> None:
        self.requests: dict[Model, int] = {}
        self.tokens: dict[tuple[Model, str], int] = {}

    def add(self, event: UsageEvent) -> None:
        """Add a call; corrections change no sum, which only grow."""
        if event.corrects is not None:
            return
        model = (event.provider or OTHER, event.model) if event.model is not None else (OTHER, OTHER)
        requests = self.requests
        if model not in requests and len(requests) >= MODELS_MAX:
            model = (OTHER, OTHER)
        amounts = event.amounts
        requests[model] = requests.get(model, 0) + amounts.get(REQUESTS, 0)
        # Without classes, all that is known is that they went in, or came out.
        told = event.tokens or {"input": amounts.get(INPUT_TOKENS, 0), "output": amounts.get(OUTPUT_TOKENS, 0)}
        for name, count in told.items():
            if count:
                self.tokens[model, name] = self.tokens.get((model, name), 0) + count
