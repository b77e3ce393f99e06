"""Measures how often calls use more than was estimated, on real traces of two services, in the order they came.

Usage: estimates.py TRACES, a folder with azure-2023-*.csv.gz (Azure LLM inference traces 2023, CC-BY-4.0). The token
counts and their order are real. The traces hold no text: how many bytes a prompt or an answer had is drawn from a seed,
out of what a real tokenizer (cl100k) made of 3,000 pieces of real prose and of real code. Nothing here is a test: no
figure passes or fails.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.core.estimate import SLICE_TOKENS, Estimates
from agent.core.prompts import Prompt
from agent.core.tokens.usage import Usage
from protocol.admission import Estimate
from protocol.events import Outcome, UsageSource

BYTES_PER_TOKEN = {
    "conversation": (2.0, 2.6, 3.77, 4.1, 4.52, 4.86, 6.87),
    "code": (1.34, 3.71, 4.02, 4.21, 4.42, 4.82, 6.17),
}
"""Least, 5, 25, 50, 75 and 95 percent, and most."""

SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
ENVELOPE_BYTES = 180
"""What a request holds beside its text: names, settings, roles."""
CHUNK_TOKENS = 8
"""How many tokens come with one look at a stream."""


def drawn(points: tuple[float, ...], rng: random.Random) -> float:
    """One of such a spread, evenly between its points."""
    share = rng.random()
    at = max(one for one in range(len(SHARES) - 1) if SHARES[one] <= share)
    part = (share - SHARES[at]) / (SHARES[at + 1] - SHARES[at])
    return points[at] + part * (points[at + 1] - points[at])


@dataclass
class Tally:
    """How an estimate stood to what was used."""

    exceeded: int = 0
    estimated: int = 0
    used: int = 0
    calls: int = 0

    def add(self, estimated: int, used: int) -> None:
        """One call."""
        self.calls += 1
        self.exceeded += used > estimated
        self.estimated += estimated
        self.used += used

    def __str__(self) -> str:
        return f"{100 * self.exceeded / self.calls:6.2f} % exceeded   {self.estimated / self.used:7.2f} x used"


def calls(trace: Path) -> Iterator[tuple[int, int]]:
    """Input and output tokens of each call."""
    with gzip.open(trace, "rt") as file:
        for row in csv.DictReader(file):
            yield int(row["input_tokens"]), int(row["output_tokens"])


def streamed(estimates: Estimates, prompt: Prompt, outputs: int, per_token: float) -> tuple[int, int, int]:
    """One answer as it streams: how often more was asked for, what was held in the end, and how far it ran ahead."""
    held, asks, ahead = estimates.first_slice(prompt), 0, 0
    for so_far in range(CHUNK_TOKENS, outputs + CHUNK_TOKENS, CHUNK_TOKENS):
        used = min(so_far, outputs)
        ahead = max(ahead, used - held)
        more = estimates.next_slice("m", prompt, int(used * per_token), held)
        if more is not None:
            held, asks = more, asks + 1
    return asks, held, ahead


def replay(kind: str, trace: Path) -> None:
    """One trace, learning on the way."""
    rng, estimates = random.Random(kind), Estimates()
    tallies = {
        name: Tally() for name in ("prompt, worst", "prompt, p95", "output, worst", "output, p95", "slices held")
    }
    asks = ran_ahead = 0
    for inputs, outputs in calls(trace):
        prompt = Prompt(int(inputs * drawn(BYTES_PER_TOKEN[kind], rng)) + ENVELOPE_BYTES)
        for estimate in (Estimate.WORST, Estimate.P95):
            tallies[f"prompt, {estimate}"].add(estimates.input_tokens("m", prompt, estimate), inputs)
            tallies[f"output, {estimate}"].add(estimates.output_tokens("m", prompt, estimate), outputs)
        per_token = drawn(BYTES_PER_TOKEN[kind], rng)
        more, held, ahead = streamed(estimates, prompt, outputs, per_token)
        tallies["slices held"].add(held, outputs)
        asks += more
        ran_ahead += ahead > 0
        answer_bytes = int(outputs * per_token)
        usage = Usage(
            {"input": inputs, "output": outputs}, {}, UsageSource.PROVIDER, Outcome.COMPLETE, output_bytes=answer_bytes
        )
        estimates.learn("m", prompt, usage)
    count = tallies["prompt, worst"].calls
    sys.stdout.write(f"{kind}: {count} calls\n")
    for name, tally in tallies.items():
        sys.stdout.write(f"  {name:14} {tally}\n")
    sys.stdout.write(
        f"  slices of {SLICE_TOKENS}: {asks / count:.3f} asks for more a call; {ran_ahead} ran ahead of them\n"
    )


def main() -> int:
    """Print a table for each trace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", type=Path)
    options = parser.parse_args()
    for kind in BYTES_PER_TOKEN:
        replay(kind, options.traces / f"azure-2023-{kind}.csv.gz")
    return 0


if __name__ == "__main__":
    sys.exit(main())
