"""The applications: each call asks, streams, asks for further slices, and says at the end what it used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from tests.comparison.clock import Clock
from tests.comparison.truth import Truth
from tests.comparison.workload import FIRST_TOKEN_MS, OUTPUT_TOKEN_MS, Call

SLICE = 512
"""Output tokens that a streaming call reserves at a time."""
GUARD = 64
"""How many tokens before the end of a slice the next one is asked for."""
PATIENCE_MS = 2_000
"""How long a call may wait for its first answer, where a policy can make it wait; the product's own default."""
MORE_PATIENCE_MS = GUARD * OUTPUT_TOKEN_MS
"""A stream can wait for its next slice until it has used the last one up."""
OUTPUT_MAX = 4_096
"""What the caller sends to the provider as the most output it wants, where nothing else bounds a call."""

Answer = Callable[[bool], None]


class Policy(Protocol):
    """How an allowance is shared by hosts.

    Attributes:
        slice: output tokens reserved at first and with each extension; ``None``: one reservation for the worst case.
        messages: requests that crossed the network, each with its answer.
    """

    slice: int | None
    messages: int

    def reserve(self, call: Call, amount: int, answer: Answer) -> None:
        """May this call begin, holding ``amount``?"""

    def extend(self, call: Call, more: int, answer: Answer) -> None:
        """May it hold so much more?"""

    def settle(self, call: Call, held: int) -> None:
        """It has ended; ``held`` was reserved for it in all."""

    def stop(self, host: int, done: Callable[[], None]) -> None:
        """This host stops in good order; ``done`` once all it does not need any longer can be used by others."""

    def kill(self, host: int) -> None:
        """This host is gone, with its disk."""

    def stranded(self, host: int) -> int:
        """Of a host that is gone: what nobody may use although nobody has used it."""


@dataclass(slots=True)
class Callers:
    """All callers of all hosts. ``gone``: hosts on which nothing happens any longer;
    ``stopped``: hosts that take no new calls."""

    clock: Clock
    policy: Policy
    truth: Truth
    gone: set[int]
    stopped: set[int] = field(default_factory=set)
    waiting: int = 0
    over: bool = False

    def begin(self, calls: Iterator[tuple[int, Call]]) -> None:
        """Let calls arrive."""
        pause_ms, call = next(calls, (0, None))
        if call is None:
            self.over = True
        else:
            self.clock.after(pause_ms, self._arrive, call, calls)

    def ended(self) -> bool:
        """Whether every call has been answered and has ended."""
        return self.over and not self.waiting and not self.truth.streaming

    def _arrive(self, call: Call, calls: Iterator[tuple[int, Call]]) -> None:
        self.begin(calls)
        if call.host in self.gone or call.host in self.stopped:
            return
        call.asked_at_ms = self.clock.now_ms
        call.held = self.policy.slice or OUTPUT_MAX
        self.waiting += 1
        self.policy.reserve(call, call.input + call.held, lambda allowed: self._decided(call, allowed))

    def _decided(self, call: Call, allowed: bool) -> None:
        self.waiting -= 1
        if not allowed:
            self.truth.refuse(call, self.clock.now_ms)
            return
        call.began_at_ms = self.clock.now_ms
        self.truth.allow(call, self.clock.now_ms)
        self._go_on(call, FIRST_TOKEN_MS, 0)

    def _go_on(self, call: Call, delay_ms: int, token: int) -> None:
        """Stream from this token to where the next slice must be asked for, or to the end."""
        look = call.held - GUARD
        if self.policy.slice is not None and call.output > look:
            self.clock.after(delay_ms + max(0, look - token) * OUTPUT_TOKEN_MS, self._ask_more, call, max(look, token))
        else:
            self.clock.after(delay_ms + (call.output - token) * OUTPUT_TOKEN_MS, self._end, call)

    def _ask_more(self, call: Call, token: int) -> None:
        if call.host in self.gone:
            self._end_after(call, token)
            return
        assert self.policy.slice is not None
        self.policy.extend(call, self.policy.slice, lambda allowed: self._told_more(call, allowed))

    def _told_more(self, call: Call, allowed: bool) -> None:
        token = (self.clock.now_ms - call.began_at_ms - FIRST_TOKEN_MS) // OUTPUT_TOKEN_MS
        if not allowed:
            self.truth.refuse_more(call, self.clock.now_ms)
            self._end_after(call, token)
        elif token >= call.output:
            call.held += self.policy.slice or 0
            self._end(call)
        else:
            call.held += self.policy.slice or 0
            self._go_on(call, 0, token)

    def _end_after(self, call: Call, token: int) -> None:
        self.clock.after(max(0, call.output - token) * OUTPUT_TOKEN_MS, self._end, call)

    def _end(self, call: Call) -> None:
        self.truth.end(call)
        if call.host not in self.gone:
            self.policy.settle(call, call.input + call.held)
