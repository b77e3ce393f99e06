"""The provider's side: what calls truly use, whatever anybody's counters say; and whether a refusal was wrong.

Definitions: a refusal is *false* if what has been and will be used by every call let through so far, and all that this
call would use, is still within the allowance (a clairvoyant serial oracle). *U1* is the share of the allowance that had
truly been used at the first false refusal; 1 when there was none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.comparison.workload import FIRST_TOKEN_MS, OUTPUT_TOKEN_MS, Call


@dataclass(slots=True)
class Truth:
    """Counts for one run.

    Attributes:
        allowance: tokens. promised: what all calls let through so far use, once they have ended.
        streaming: calls in flight. billed: what ended calls have used.
        first_false: U1, once there was a false refusal.
        cut: streams that were ended early.
    """

    allowance: int
    promised: int = 0
    billed: int = 0
    streaming: dict[int, Call] = field(default_factory=dict)
    allowed: int = 0
    refused: int = 0
    false: int = 0
    cut: int = 0
    first_false: float | None = None
    waits_ms: list[int] = field(default_factory=list)

    @property
    def decisions(self) -> int:
        """Calls that got an answer."""
        return self.allowed + self.refused

    def allow(self, call: Call, now_ms: int) -> None:
        """A call is let through: the provider reads its prompt at once."""
        self.allowed += 1
        self.waits_ms.append(now_ms - call.asked_at_ms)
        self.promised += call.cost
        self.streaming[call.number] = call

    def refuse(self, call: Call, now_ms: int) -> None:
        """A call is refused."""
        self.refused += 1
        self.waits_ms.append(now_ms - call.asked_at_ms)
        self._judge(self.promised + call.cost, now_ms)

    def refuse_more(self, call: Call, now_ms: int) -> None:
        """A stream gets no further slice: it will be cut where its last one ends."""
        self._judge(self.promised, now_ms)
        if call.output > call.held:
            self.cut += 1
            self.promised -= call.output - call.held
            call.output = call.held

    def end(self, call: Call) -> None:
        """A call has ended."""
        del self.streaming[call.number]
        self.billed += call.cost

    def used(self, now_ms: int) -> int:
        """What has been used by now: prompts, and the tokens that streams have written so far."""
        return self.billed + sum(call.input + written(call, now_ms) for call in self.streaming.values())

    def _judge(self, would_be: int, now_ms: int) -> None:
        if would_be > self.allowance:
            return
        self.false += 1
        if self.first_false is None:
            self.first_false = self.used(now_ms) / self.allowance


def written(call: Call, now_ms: int) -> int:
    """Output tokens so far."""
    return min(call.output, max(0, now_ms - call.began_at_ms - FIRST_TOKEN_MS) // OUTPUT_TOKEN_MS)
