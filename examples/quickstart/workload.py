"""The trace, and who its calls belong to: customers by a Zipf law, users and hosts at random, all from one seed."""

from __future__ import annotations

import csv
import gzip
import random
import sys
import zlib
from dataclasses import dataclass

from examples.quickstart.settings import Settings

ZIPF_EXPONENT = 1.1
USERS_A_CUSTOMER = 8
COLUMNS = ("at_ms", "input_tokens", "output_tokens")
VALUE_MAX = 10**12
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
    for number, (at_ms, input_tokens, output_tokens) in enumerate(_rows(settings)):
        customer = dice.choices(names, weights)[0]
        calls.append(
            Call(
                number,
                at_ms / 1_000 / settings.speed,
                input_tokens,
                output_tokens,
                customer,
                f"user-{dice.randrange(USERS_A_CUSTOMER) + 1}",
                dice.randrange(settings.agents),
            )
        )
    return calls


def _rows(settings: Settings) -> list[tuple[int, ...]]:
    """The numbers of COLUMNS, row by row; exits with one line that says what is wrong and where."""
    trace = f"TRACE {settings.trace}"
    try:
        with gzip.open(settings.trace, "rt", encoding="ascii", newline="") as lines:
            reader = csv.DictReader(lines)
            names = list(reader.fieldnames or ())
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        sys.exit(f"{trace} cannot be read: {error}; expected a whole gzipped CSV file")
    expected = f"expected a line of column names ({','.join(COLUMNS)}) and a row for each call"
    if not names:
        sys.exit(f"{trace} is empty; {expected}")
    if missing := [name for name in COLUMNS if name not in names]:
        sys.exit(f"{trace} has no column {', '.join(missing)}; {expected}")
    if not rows:
        sys.exit(f"{trace} has no rows below its column names; {expected}")
    return [tuple(_amount(trace, line, name, row[name]) for name in COLUMNS) for line, row in rows]


def _amount(trace: str, line: int, name: str, text: str | None) -> int:
    value = (text or "").strip()
    if value.isdecimal() and len(value) <= len(str(VALUE_MAX)) and int(value) <= VALUE_MAX:
        return int(value)
    wrong = f"is {value!r}" if value else "is missing"
    sys.exit(f"{trace}, row {line} (column names are row 1): {name} {wrong}; expected a whole number from 0 to 10^12")
