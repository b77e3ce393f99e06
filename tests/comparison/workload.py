"""The calls: sizes, outputs and the rhythm of arrival from the real traces; hosts by a Zipf law, from a seed."""

from __future__ import annotations

import csv
import gzip
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

TRACE = Path(__file__).with_name("trace.csv.gz")
FIRST_TOKEN_MS = 300
OUTPUT_TOKEN_MS = 25
"""Forty tokens a second, after a moment for the prompt: the traces name no durations."""
OFFERED = 1.1
"""How much is asked for, as a multiple of the allowance: long enough to see what happens at its end and beyond."""


@dataclass(frozen=True, slots=True)
class Row:
    """One call of the trace: milliseconds since the one before, and its tokens."""

    gap_ms: int
    input: int
    output: int


@dataclass(slots=True)
class Call:
    """One call on one host.

    Attributes:
        cost: what it really uses if nothing stops it. used: what the provider has been asked for and bills in the end.
    """

    number: int
    host: int
    input: int
    output: int
    asked_at_ms: int = 0
    began_at_ms: int = 0
    held: int = 0

    @property
    def cost(self) -> int:
        """What it really uses if nothing cuts it short."""
        return self.input + self.output


@cache
def rows() -> tuple[Row, ...]:
    """The committed sample, in order."""
    with gzip.open(TRACE, "rt", encoding="ascii", newline="") as lines:
        read = list(csv.DictReader(lines))
    at_ms = [int(row["at_ms"]) for row in read]
    gaps = [after - before for before, after in zip([0, *at_ms], at_ms, strict=False)]
    return tuple(
        Row(gap, int(row["input_tokens"]), int(row["output_tokens"])) for gap, row in zip(gaps, read, strict=True)
    )


@cache
def mean_cost() -> float:
    """Tokens a call."""
    return sum(row.input + row.output for row in rows()) / len(rows())


def arrivals(hosts: int, skew: float, allowance: int, span_ms: int, seed: int) -> Iterator[tuple[int, Call]]:
    """Pauses (ms) and the calls that follow them, until more than the allowance has been asked for.

    Args:
        skew: exponent of the Zipf law by which calls fall on hosts; 0 is evenly.
        allowance: tokens. span_ms: in how long the calls would use it up.
    """
    dice = random.Random(f"{seed} {hosts} {skew}")
    weights = list(accumulate(1 / rank**skew for rank in range(1, hosts + 1)))
    trace = rows()
    at = dice.randrange(len(trace))
    stretch = span_ms * mean_cost() / allowance / (sum(row.gap_ms for row in trace) / len(trace))
    number, asked, due, told = 0, 0, 0.0, 0
    places = range(hosts)
    while asked < OFFERED * allowance or number < 3:
        row = trace[(at + number) % len(trace)]
        due += row.gap_ms * stretch
        host = dice.choices(places, cum_weights=weights)[0]
        yield int(due) - told, Call(number, host, row.input, row.output)
        told = int(due)
        asked += row.input + row.output
        number += 1
