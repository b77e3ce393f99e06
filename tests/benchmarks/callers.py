"""Callers that use the agent through the real client, survive its deaths, and remember what they were told."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import calls

from allotment import AgentUnavailable, Call, Client, ReservationNotFound

PATIENCE_S = 20.0
"""How long a patient caller waits for one answer: longer than an agent needs to come back."""

HURRY_S = 0.03
"""How long an impatient one waits, who then never asks again."""

PAUSE_MEAN_S = 0.002


@dataclass
class Usage:
    """One use that a caller reported, and what it knows of it.

    Attributes:
        acked: the agent said "recorded".
        doubted: at least once no answer came; what happened was unknown then.
        again: says it once more in the same words, under the same id.
    """

    customer: str
    amounts: dict[str, int]
    again: Callable[[float], None] = field(repr=False)
    acked: bool = False
    doubted: bool = False


class Caller(threading.Thread):
    """One thread: reserves and settles, records, releases, repeats; from its own seed."""

    def __init__(self, client: Client, name: str, seed: int, stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.usages: dict[str, Usage] = {}
        self.refused: Counter[str] = Counter()
        self.released = self.repeated = 0
        self.failure: BaseException | None = None
        self._client, self._random, self._told_to_stop = client, random.Random(seed), stop
        self._doubtful: list[Usage] = []
        self._number = 0

    def run(self) -> None:
        """Call after call until told to stop; whatever goes wrong is kept for whoever joins."""
        try:
            while not self._told_to_stop.wait(self._random.expovariate(1 / PAUSE_MEAN_S)):
                self._one()
                self._clear_doubts()
        except BaseException as error:  # noqa: BLE001 - a thread has nobody else to tell
            self.failure = error

    def clear_all_doubts(self) -> None:
        """Repeat what is still unanswered until it is answered. Raises: AgentUnavailable."""
        for usage in self._doubtful:
            usage.again(PATIENCE_S)
            usage.acked = True
        self._doubtful.clear()

    def _clear_doubts(self) -> None:
        waiting, self._doubtful = self._doubtful, []
        for usage in waiting:
            self._say(usage, PATIENCE_S, repeats=True)

    def _one(self) -> None:
        self._number += 1
        name = f"{self.name}-{self._number}"
        who = calls.customer(self._random.randrange(calls.CUSTOMERS))
        kind = self._random.choices(("settle", "record", "release", "hurry", "twice"), (60, 15, 5, 10, 10))[0]
        used = {
            "requests": 1,
            "input_tokens": self._random.randint(1, 2_000),
            "output_tokens": self._random.randint(0, 900),
        }
        if kind == "record":
            record = Usage(who, used, lambda s: self._record(name, who, used, s))
            self._report(name, record, PATIENCE_S, repeats=True)
            return
        if not self._reserve(name, who, used):
            return
        if kind == "release":
            self._release(name)
            return
        settle = Usage(who, used, lambda s: self._settle(name, who, used, s))
        hurry = kind == "hurry"
        self._report(name, settle, HURRY_S if hurry else PATIENCE_S, repeats=not hurry)
        if kind == "twice" and settle.acked:
            self.repeated += 1
            self._say(settle, PATIENCE_S, repeats=False)

    def _reserve(self, name: str, who: str, used: dict[str, int]) -> bool:
        held = {**used, "output_tokens": 1_000}
        try:
            decision = self._client.reserve(
                who, calls.FEATURE, user="user-1", reservation=name, amounts=held, timeout_s=PATIENCE_S
            )
        except AgentUnavailable:
            return False
        if not decision.allowed:
            self.refused[decision.code] += 1
        return decision.allowed

    def _release(self, name: str) -> None:
        # A reservation that a crash forgot, or that nobody ends, was not used and is never charged to anybody.
        with contextlib.suppress(AgentUnavailable, ReservationNotFound):
            self._client.release(name, timeout_s=PATIENCE_S)
            self.released += 1

    def _report(self, name: str, usage: Usage, within_s: float, *, repeats: bool) -> None:
        self.usages[name] = usage
        self._say(usage, within_s, repeats=repeats)

    def _say(self, usage: Usage, within_s: float, *, repeats: bool) -> None:
        try:
            usage.again(within_s)
            usage.acked = True
        except AgentUnavailable:
            usage.doubted = True
            if repeats:
                self._doubtful.append(usage)

    def _settle(self, name: str, who: str, used: dict[str, int], within_s: float) -> None:
        # `call` lets an agent that forgot the reservation in a crash account for it all the same.
        call = Call(who, calls.FEATURE, user="user-1")
        self._client.settle(name, amounts=used, call=call, timeout_s=within_s)

    def _record(self, name: str, who: str, used: dict[str, int], within_s: float) -> None:
        self._client.record(who, calls.FEATURE, event=name, user="user-1", amounts=used, timeout_s=within_s)
