"""Estimates: how many tokens a call may use before it is sent, how much to hold while it streams, and what to charge
when it broke off before the provider said a number.

Learned from what providers said of past calls, one model at a time, in bounded memory; whole numbers in and out.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import msgspec

from agent.core.prompts import Prompt
from agent.core.tokens.usage import Usage
from protocol.admission import Estimate
from protocol.events import Outcome, UsageSource
from protocol.units import INPUT_CLASSES, OUTPUT_CLASSES, QUANTITY_MAX

SLICE_TOKENS = 512
"""How much output is held at a time while an answer streams."""

OUTPUT_TOKENS_MAX = 16_384
"""What is held, at most, before a call that sets itself no limit, and four times it before one whose limit is absurd.
A stream that becomes longer takes slices."""

LONG_ANSWER_TOKENS = 2_048
"""What an answer is taken to be that nothing bounds and of whose like nothing has been learned, unless the worst is
wanted. To hold all that a model could say would refuse whoever has a small limit."""

TEMPLATE_TOKENS = 256
"""What models are told before the first message, without the caller's doing."""

MEDIA_TOKENS = 5_000
"""What an image, a sound or a document costs at most, as far as anyone can say before: 1,600 to 4,800 for the largest
images of today's providers."""

UNSEEN_TOKENS = 20_000
"""What a provider's own tools and stores add to a prompt: 2,600 to 11,700 in recorded answers."""

PROMPT_BYTES_PER_TOKEN = 4
OUTPUT_BYTES_PER_TOKEN = 3
"""What is charged for where nothing has been learned yet: 4.1 to 4.9 bytes for requests of prose and code, 3.0 for all
recorded streams together, whose calls of tools cost more than their bytes."""

SPREADS_MAX = 4_096
"""How many spreads are learned at the same time; the least recently used is forgotten."""

_STEPS = 8
"""Buckets for each doubling: an edge is at most nine percent above what is in its bucket."""

_CALLS_MIN = 30
_CALLS_MAX = 2_048
"""Past so many calls, all counts are halved: newer ones weigh more."""

_UNIT = 1_024
"""Ratios are learned as tokens in so many bytes."""


class Spread:
    """How a quantity was spread over past calls, and what share of bytes it was.

    Attributes:
        calls: how many are remembered, by weight.
    """

    __slots__ = ("_buckets", "_bytes", "_tokens", "calls")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self.calls = self._tokens = self._bytes = 0

    def add(self, value: int, tokens: int = 0, size: int = 0) -> None:
        """One more call: what is spread, and the tokens and bytes it was of."""
        bucket = math.ceil(_STEPS * math.log2(max(1, value)))
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.calls += 1
        self._tokens += tokens
        self._bytes += size
        if self.calls >= _CALLS_MAX:
            self._buckets = {one: count // 2 for one, count in self._buckets.items() if count > 1}
            self.calls = sum(self._buckets.values())
            self._tokens //= 2
            self._bytes //= 2

    def p95(self) -> int:
        """What 95 of a hundred calls did not pass."""
        left = self.calls - self.calls // 20
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return math.ceil(2 ** (bucket / _STEPS))
        return 0

    def share_of(self, size: int) -> int:
        """Tokens of so many bytes, at the ratio of all calls together."""
        return -(-size * self._tokens // self._bytes) if self._bytes else 0


class Estimates:
    """Learns from calls that have ended, and estimates those that have not."""

    def __init__(self, spreads_max: int = SPREADS_MAX) -> None:
        self._spreads: OrderedDict[tuple[str, str, int], Spread] = OrderedDict()
        self._spreads_max = spreads_max

    def learn(self, model: str, prompt: Prompt, usage: Usage) -> None:
        """What a call with this prompt really used, if its provider has said so."""
        if usage.usage_source is not UsageSource.PROVIDER or usage.outcome is not Outcome.COMPLETE or usage.batch:
            return
        inputs, outputs = _sides(usage.tokens)
        if inputs and prompt.text_bytes and not prompt.media and not prompt.unseen:
            spread = self._spread("prompt", model, _size(prompt.text_bytes))
            spread.add(-(-inputs * _UNIT // prompt.text_bytes), inputs, prompt.text_bytes)
        if outputs:
            self._spread("output", model).add(outputs)
            if usage.output_bytes:
                text = self._spread("text", model)
                text.add(-(-outputs * _UNIT // usage.output_bytes), outputs, usage.output_bytes)

    def input_tokens(self, model: str, prompt: Prompt, estimate: Estimate) -> int:
        """How many tokens the prompt may be."""
        worst = prompt.text_bytes + TEMPLATE_TOKENS
        beside = prompt.media * MEDIA_TOKENS + UNSEEN_TOKENS * prompt.unseen
        known = self._known("prompt", model, _size(prompt.text_bytes))
        if estimate is not Estimate.WORST and known is not None:
            worst = min(worst, -(-prompt.text_bytes * known.p95() // _UNIT))
        return min(QUANTITY_MAX, worst + beside)

    def likely_input(self, model: str, prompt: Prompt) -> int:
        """How many tokens the text of the prompt is, more likely than not."""
        known = self._known("prompt", model, _size(prompt.text_bytes))
        return -(-prompt.text_bytes // PROMPT_BYTES_PER_TOKEN) if known is None else known.share_of(prompt.text_bytes)

    def output_tokens(self, model: str, prompt: Prompt, estimate: Estimate) -> int:
        """How many tokens all answers may be."""
        limit = prompt.output_max or OUTPUT_TOKENS_MAX
        worst = min(QUANTITY_MAX, min(limit, 4 * OUTPUT_TOKENS_MAX) * prompt.choices)
        if estimate is Estimate.WORST:
            return worst
        known = self._known("output", model)
        if known is not None:
            return min(worst, known.p95())
        return worst if prompt.output_max else min(worst, LONG_ANSWER_TOKENS * prompt.choices)

    def first_slice(self, prompt: Prompt) -> int:
        """How much output to hold before a stream begins."""
        return min(SLICE_TOKENS * prompt.choices, self.output_tokens("", prompt, Estimate.WORST))

    def next_slice(self, model: str, prompt: Prompt, output_bytes: int, held: int) -> int | None:
        """How much output to hold in all, now that so many bytes have been streamed; ``None``: what is held will do.

        Asks when less than half a slice is left, so that the next is there before it is needed.
        """
        spent = self._spent(model, output_bytes)
        if spent + SLICE_TOKENS // 2 <= held:
            return None
        more = min(max(held, spent) + SLICE_TOKENS, _allowed(prompt))
        return more if more > held else None

    def bytes_within(self, model: str, prompt: Prompt, output_bytes: int, held: int) -> int | None:
        """How many more bytes of output the next slice can wait for; ``None``: what is held is all there will be."""
        if held >= _allowed(prompt):
            return None
        known = self._known("text", model)
        left = max(0, held - SLICE_TOKENS // 2 - self._spent(model, output_bytes))
        return left if known is None else left * _UNIT // max(1, known.p95())

    def _spent(self, model: str, output_bytes: int) -> int:
        """How many tokens so many bytes of output are at most."""
        known = self._known("text", model)
        return output_bytes if known is None else -(-output_bytes * known.p95() // _UNIT)

    def completed(self, model: str, prompt: Prompt | None, usage: Usage) -> Usage:
        """The same usage, with estimates where the provider said nothing: what to charge for a call that broke off.

        What it did say is kept, and is the least; input is estimated from the prompt, output from what was streamed.
        """
        if usage.usage_source is UsageSource.PROVIDER:
            return usage
        inputs, outputs = _sides(usage.tokens)
        tokens = dict(usage.tokens)
        if not inputs and prompt is not None:
            tokens["input"] = self.likely_input(model, prompt)
        streamed = self._likely_output(model, usage.output_bytes)
        if streamed > outputs:
            tokens["output"] = tokens.get("output", 0) + streamed - outputs
        tokens = {name: count for name, count in tokens.items() if count}
        return msgspec.structs.replace(usage, tokens=tokens, usage_source=UsageSource.ESTIMATED)

    def _likely_output(self, model: str, output_bytes: int) -> int:
        known = self._known("text", model)
        return -(-output_bytes // OUTPUT_BYTES_PER_TOKEN) if known is None else known.share_of(output_bytes)

    def _spread(self, what: str, model: str, size: int = 0) -> Spread:
        key = (what, model, size)
        found = self._spreads.get(key)
        if found is None:
            found = self._spreads[key] = Spread()
            if len(self._spreads) > self._spreads_max:
                self._spreads.popitem(last=False)
        else:
            self._spreads.move_to_end(key)
        return found

    def _known(self, what: str, model: str, size: int = 0) -> Spread | None:
        found = self._spreads.get((what, model, size))
        return found if found is not None and found.calls >= _CALLS_MIN else None


def _sides(tokens: dict[str, int]) -> tuple[int, int]:
    return sum(tokens.get(name, 0) for name in INPUT_CLASSES), sum(tokens.get(name, 0) for name in OUTPUT_CLASSES)


def _allowed(prompt: Prompt) -> int:
    """The most that all answers may be by what the request says. What it does not say nobody knows for certain."""
    return min(QUANTITY_MAX, (prompt.output_max or QUANTITY_MAX) * prompt.choices)


def _size(text_bytes: int) -> int:
    """Prompts of about one size: short ones have another ratio, because templates weigh more in them."""
    return text_bytes.bit_length() // 3
