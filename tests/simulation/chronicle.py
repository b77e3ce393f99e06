"""What a run leaves behind: its trace, what happened how often, and what should not have happened."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TextIO

import trio

TAIL = 200


@dataclass(frozen=True)
class Breach:
    """A property that did not hold: which checker saw it, and what it saw."""

    checker: str
    text: str
    at_ms: int


class Chronicle:
    """One run's.

    Attributes:
        faults: how often each fault had an effect, by (fault, what it hit).
        decisions: answers by reason code. numbers: everything else that is counted.
        broken: set at the first breach, which ends the run.
    """

    def __init__(self, now_ms: Callable[[], int], text: TextIO | None = None) -> None:
        self._now_ms = now_ms
        self._begin_ms = now_ms()
        self._text = text
        self._hash = blake2b(digest_size=16)
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.lines = 0
        self.faults: Counter[tuple[str, str]] = Counter()
        self.decisions: Counter[str] = Counter()
        self.numbers: Counter[str] = Counter()
        self.breaches: list[Breach] = []
        self.broken = trio.Event()

    @property
    def digest(self) -> str:
        """Of every line of the trace so far."""
        return self._hash.hexdigest()

    def note(self, text: str) -> None:
        """One line of the trace."""
        line = f"{self._now_ms() - self._begin_ms:>9} {text}\n"
        self.lines += 1
        self._hash.update(line.encode())
        self.tail.append(line)
        if self._text is not None:
            self._text.write(line)

    @property
    def wordy(self) -> bool:
        """Whether somebody reads along."""
        return self._text is not None

    def aside(self, text: str) -> None:
        """A remark for whoever reads along; no part of the trace."""
        if self._text is not None and text:
            self._text.write(f"{'':>9}   {text}\n")

    def happened(self, fault: str, hit: str, times: int = 1) -> None:
        """A fault had an effect."""
        self.faults[fault, hit] += times

    def breach(self, checker: str, text: str) -> None:
        """A property does not hold."""
        self.note(f"BREACH {checker}: {text}")
        self.breaches.append(Breach(checker, text, self._now_ms()))
        self.broken.set()
