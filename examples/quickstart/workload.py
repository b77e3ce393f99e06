"""The trace, and who its calls belong to: customers by a Zipf law, users and hosts at random, all from one seed."""

from __future__ import annotations

import csv
import gzip
import random
import sys
from dataclasses import dataclass

from examples.quickstart.settings import Settings

ZIPF_EXPONENT = 1.1
USERS_A_CUSTOMER = 8
PLANS = ("free", "pro", "free", "enterprise", "free", "pro", "free", "free")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the trace: when it comes (seconds after the start), how long it was, and whose it is."""

    number: int
    at_s: float
    input_tokens: int
    output_tokens: int
    customer: str
    user: str
    agent: int


def customers(settings: Settings) -> dict[str, str]:
    """The customers by name, most active first, and their plans."""
    return {f"{settings.prefix}customer-{rank + 1:03d}": PLANS[rank % len(PLANS)] for rank in range(settings.customers)}


def load(settings: Settings) -> list[Call]:
    """Every call of the trace, in order of time."""
    names = list(customers(settings))
    weights = [1 / (rank + 1) ** ZIPF_EXPONENT for rank in range(len(names))]
    dice = random.Random(settings.seed)
    calls = []
    for number, row in enumerate(_rows(settings)):
        customer = dice.choices(names, weights)[0]
        calls.append(
            Call(
                number,
                int(row["at_ms"]) / 1_000 / settings.speed,
                int(row["input_tokens"]),
                int(row["output_tokens"]),
                customer,
                f"user-{dice.randrange(USERS_A_CUSTOMER) + 1}",
                dice.randrange(settings.agents),
            )
        )
    return calls


def _rows(settings: Settings) -> list[dict[str, str]]:
    try:
        with gzip.open(settings.trace, "rt", encoding="ascii", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"TRACE {settings.trace} cannot be read: {error}; expected a gzipped CSV file")
    wanted = {"at_ms", "input_tokens", "output_tokens"}
    if not rows or not wanted <= set(rows[0]):
        sys.exit(f"TRACE {settings.trace} has no columns at_ms,input_tokens,output_tokens, or no rows")
    return rows
