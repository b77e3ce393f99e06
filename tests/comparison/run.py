"""Compares ways of sharing an allowance: `make compare`, or `python -m tests.comparison.run [--quick] [--docs]`.

Runs every cell in its own virtual time, as many at once as there are cores, and writes results.json, results.csv,
comparison.md, comparison.svg and comparison.png. Nothing here is a test: no figure passes or fails.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.comparison import cells, report
from tests.comparison.measure import Cell, run_cell

WIDTH_MIN = 150
"""Columns are never cut, not even where the output is a file."""

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few small cells, in about a minute")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "comparison", help="folder for what is written")
    parser.add_argument("--docs", action="store_true", help="write docs/comparison.md, .svg and .png too")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    begun = time.monotonic()
    chosen = cells.glance() if options.quick else cells.everything()
    results = run(chosen, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    report.write(results, options.out)
    if options.docs:
        report.write_docs(results, ROOT / "docs")
    console = Console()
    console = Console(width=max(WIDTH_MIN, console.width))
    console.print(report.table(results))
    console.print(f"{len(results)} cells in {time.monotonic() - begun:.0f} s; results: {options.out}", highlight=False)


def run(chosen: list[Cell], seed: int) -> list[dict[str, Any]]:
    """Every cell, the longest first; in the order of ``chosen``."""
    ordered = sorted(chosen, key=lambda cell: -cell.work)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    done: dict[Cell, dict[str, Any]] = {}
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool, Progress(*columns) as progress:
        task = progress.add_task("cells", total=len(ordered))
        running = {pool.submit(run_cell, cell, seed): cell for cell in ordered}
        for one in as_completed(running):
            cell = running[one]
            done[cell] = one.result()
            told = f"{cell.policy}, {cell.hosts:,} hosts x {cell.calls:,} calls, skew {cell.skew}"
            progress.update(task, advance=1, description=f"{told:55}")
    return [done[cell] for cell in chosen]


if __name__ == "__main__":
    main()
