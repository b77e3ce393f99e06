"""Measures what rate cards cost a decision: reserve and settle without rates, with two, and with as many as may be.

Usage: hot_rates.py [--calls 20000] [--rounds 9]. No network and no disk: the decision's own work; and how large the
entitlement becomes, how long it takes to read, and what a second customer of the same plan adds to the memory. Nothing
here is a test: no figure passes or fails.
"""

from __future__ import annotations

import argparse
import sys
import time
import tracemalloc
import zlib
from statistics import median

from agent.core.books import Books
from agent.operations.reserve import reserve
from agent.operations.settle import settle
from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.entitlements import RATES_MAX, CustomerStatus, Entitlement, Feature, FeatureKind, Limit, Rate
from protocol.local_messages import Call, Reserve, Settle
from protocol.windows import WindowKind

_decode = MsgpackDecoder(Entitlement)


def rates(count: int) -> tuple[Rate, ...]:
    """A price list like those of providers: four classes each."""
    return tuple(
        Rate(
            "cost_micros",
            {"input_tokens": 3_000_000 + at, "output_tokens": 15_000_000 + at},
            model=f"model-{at}",
            classes={"cache_read": 300_000, "cache_write": 3_750_000},
            book="standard@7",
        )
        for at in range(count)
    )


def entitlement(count: int, customer: str = "acme") -> Entitlement:
    """One with a budget that is not limited, so that no lease is needed."""
    return Entitlement(
        customer,
        1,
        CustomerStatus.ACTIVE,
        f"plan-{count}@1",
        (Feature("chat", FeatureKind.METERED),),
        (Limit("budget", "cost_micros", None, WindowKind.MONTH),),
        ("requests", "input_tokens", "output_tokens", "cost_micros"),
        rates=rates(count),
    )


def run(count: int, calls: int) -> float:
    """Microseconds a reserve and its settle take together."""
    books = Books("agent", "journal", 1, "nonce")
    books.customer("acme").entitle(entitlement(count), 0)
    call = Call("acme", "chat", model=f"model-{count // 2}")
    amounts = {"input_tokens": 900, "output_tokens": 512}
    tokens = {"input": 400, "cache_read": 500, "output": 200}
    begun = time.perf_counter()
    for at in range(calls):
        reserve(books, Reserve(reservation=f"r{at}", call=call, amounts=amounts), 1_000, 1_000)
        settle(books, Settle(reservation=f"r{at}", tokens=tokens), 1_000, 1_000)
        if at % 500 == 499:
            books.gather(0)
    return (time.perf_counter() - begun) / calls * 1e6


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    counts = (0, 2, 64, RATES_MAX)
    took: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(options.rounds):  # interleaved, so that a busy moment of the machine hits all alike
        for count in counts:
            took[count].append(run(count, options.calls))
    say = sys.stdout.write
    say("rates  reserve+settle µs (median, least)\n")
    for count in counts:
        say(f"{count:5}  {median(took[count]):6.2f}  {min(took[count]):6.2f}\n")
    say("rates  bytes  compressed  read µs  first customer KiB  each further KiB\n")
    for count in counts:
        body = encode_msgpack(entitlement(count))
        begun = time.perf_counter()
        for _ in range(100):
            _decode(body)
        read_us = (time.perf_counter() - begun) * 1e4
        books = Books("agent", "journal", 1, "nonce")
        tracemalloc.start()
        books.customer("first").entitle(_decode(body), 0)
        first = tracemalloc.get_traced_memory()[0]
        for at in range(100):
            books.customer(f"c{at}").entitle(_decode(encode_msgpack(entitlement(count, f"c{at}"))), 0)
        further = (tracemalloc.get_traced_memory()[0] - first) / 100
        tracemalloc.stop()
        say(f"{count:5} {len(body):6} {len(zlib.compress(body)):8} {read_us:10.1f} {first / 1024:12.1f}")
        say(f" {further / 1024:16.1f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
