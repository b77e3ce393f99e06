"""Runs worlds."""

from __future__ import annotations

import sys
import time

from rich.console import Console

from tests.simulation.rates import draw
from tests.simulation.world import simulate

console = Console()
first, count = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
for seed in range(first, first + count):
    begun = time.perf_counter()
    text = open(f"/tmp/simtrace-{seed}.txt", "w") if "--trace" in sys.argv else None
    report = simulate(seed, draw(seed, crowded="--crowded" in sys.argv), text)
    took = time.perf_counter() - begun
    console.print(
        seed,
        report.digest,
        report.decisions,
        f"{took:.1f}s {report.decisions / took:.0f}/s virtual {report.virtual_s:.0f}s",
    )
    for breach in report.chronicle.breaches[:3]:
        console.print(f"  {breach.checker}: {breach.text[:1500]}")
    if "-v" in sys.argv:
        console.print(dict(report.chronicle.decisions))
        console.print(dict(report.chronicle.numbers))
        console.print({" × ".join(k): v for k, v in sorted(report.chronicle.faults.items())})
