"""What a plan charges of calls whose provider has not said what they used."""

from __future__ import annotations

import msgspec

from agent.core.reservations import Said
from protocol.events import Outcome, UnfinishedCalls, UsageSource
from protocol.units import INPUT_CLASSES, INPUT_TOKENS, REQUESTS


def as_charged(policy: UnfinishedCalls, said: Said) -> Said:
    """What of these words counts. Estimates of calls that came to their end always do: their callers know them."""
    if (
        policy is UnfinishedCalls.ESTIMATED
        or said.usage_source is not UsageSource.ESTIMATED
        or said.outcome is Outcome.COMPLETE
    ):
        return said
    if policy is UnfinishedCalls.NOTHING:
        amounts = {REQUESTS: said.amounts.get(REQUESTS, 1)}
        return msgspec.structs.replace(said, amounts=amounts, tokens={}, usage_source=UsageSource.NONE)
    amounts = {meter: amount for meter, amount in said.amounts.items() if meter in (REQUESTS, INPUT_TOKENS)}
    tokens = {name: amount for name, amount in said.tokens.items() if name in INPUT_CLASSES}
    return msgspec.structs.replace(said, amounts=amounts, tokens=tokens)
