"""Runs many worlds, one seed a process at a time, and says what they came to.

    python -m tests.simulation.run --seeds 50 --hours 0.05
    python -m tests.simulation.run --seed 17 --trace
    python -m tests.simulation.run --mutations

Each seed is a storm of its own; on a breach the seed, the command that repeats it and the end of its trace are shown.
Ctrl-C ends a run with what the worlds that are over came to.
The report goes to var/simulation/report.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.simulation.mutations import MUTATIONS
from tests.simulation.rates import SEEDS, SUITE, Rates, draw, suite
from tests.simulation.world import simulate

REPORT = Path("var/simulation/report.json")
MUTATION_SEEDS_MAX = 16
console = Console(highlight=False)


@dataclass
class Outcome:
    """What one seed came to, in a form that crosses processes."""

    seed: int
    digest: str
    decisions: dict[str, int]
    numbers: dict[str, int]
    faults: dict[str, int]
    breaches: list[tuple[str, str]]
    tail: list[str]
    virtual_s: float
    wall_s: float
    mutation: str = ""


@dataclass
class Totals:
    """Over all seeds."""

    decisions: Counter[str] = field(default_factory=Counter)
    numbers: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    breaches: list[Outcome] = field(default_factory=list)
    worlds: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.worlds += 1
        self.decisions.update(outcome.decisions)
        self.numbers.update(outcome.numbers)
        self.faults.update(outcome.faults)
        self.virtual_s += outcome.virtual_s
        self.cpu_s += outcome.wall_s
        if outcome.breaches:
            self.breaches.append(outcome)


def one_of_the_suite(number: int, mutation: str = "", trace: str = "") -> Outcome:
    """One of the small worlds that every run of the tests sees."""
    return one_world(SEEDS[number], suite(number), mutation, trace)


def one_seed(seed: int, hosts: int | None, storm_s: float | None, crowded: bool, mutation: str, trace: str) -> Outcome:
    """The world of this seed."""
    return one_world(seed, draw(seed, hosts=hosts, storm_s=storm_s, crowded=crowded), mutation, trace)


def one_world(seed: int, rates: Rates, mutation: str, trace: str) -> Outcome:
    """Run one world."""
    broken = next((one for one in MUTATIONS if one.name == mutation), None)
    begun = time.perf_counter()
    text = Path(trace).open("w") if trace else None  # noqa: SIM115 - closed below
    try:
        if broken is None:
            report = simulate(seed, rates, text)
        else:
            with broken.in_force():
                report = simulate(seed, rates, text)
    finally:
        if text is not None:
            text.close()
    chronicle = report.chronicle
    return Outcome(
        seed=seed,
        digest=report.digest,
        decisions={str(code): count for code, count in chronicle.decisions.items()},
        numbers=dict(chronicle.numbers),
        faults={f"{fault} | {hit}": count for (fault, hit), count in chronicle.faults.items()},
        breaches=[(breach.checker, breach.text) for breach in chronicle.breaches],
        tail=list(chronicle.tail),
        virtual_s=report.virtual_s,
        wall_s=time.perf_counter() - begun,
        mutation=mutation,
    )


def run_seeds(seeds: range, options: argparse.Namespace) -> Totals:
    """All of them, on every core. Ctrl-C ends it with what the worlds that are over came to."""
    totals = Totals()
    world = partial(
        one_seed, hosts=options.agents, storm_s=options.storm_s, crowded=options.crowded, mutation="", trace=""
    )
    with _progress() as progress, _workers(options.jobs) as pool:
        bar = progress.add_task("worlds", total=len(seeds))
        with contextlib.suppress(KeyboardInterrupt):
            for outcome in pool.imap_unordered(world, seeds):
                totals.add(outcome)
                progress.update(bar, advance=1, description=f"worlds, {totals.decisions.total():,} decisions")
                if len(totals.breaches) >= 3:
                    break
    return totals


def run_mutations(options: argparse.Namespace) -> dict[str, Outcome | None]:
    """Every broken rule, against one seed after the other until it is caught."""
    caught: dict[str, Outcome | None] = {mutation.name: None for mutation in MUTATIONS}
    with _progress() as progress, _workers(options.jobs) as pool:
        bar = progress.add_task("broken rules", total=len(MUTATIONS))
        for name, outcome in zip(caught, pool.imap(hunt, caught), strict=True):
            caught[name] = outcome
            progress.update(bar, advance=1)
    return caught


def hunt(mutation: str) -> Outcome | None:
    """The first seed that catches it; where it was caught soonest is looked first."""
    likely = next(one.world for one in MUTATIONS if one.name == mutation)
    for number in sorted(range(len(SUITE)), key=lambda number: number != likely):
        outcome = one_of_the_suite(number, mutation)
        if outcome.breaches:
            return outcome
    for seed in range(1, MUTATION_SEEDS_MAX + 1):
        outcome = one_seed(seed, None, 60.0, False, mutation, "")
        if outcome.breaches:
            return outcome
    return None


def _workers(jobs: int) -> Pool:
    """Processes that are replaced after a few worlds. (The executor of ``concurrent.futures`` can hang when it replaces
    its own: cpython issue 115634.)"""
    left_to_us = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    return get_context("spawn").Pool(jobs, initializer=left_to_us, maxtasksperchild=8)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


def tables(totals: Totals) -> Iterator[Table]:
    """What happened, for people."""
    yield _table("decisions", totals.decisions)
    yield _table("faults with effect", totals.faults)
    yield _table("what else happened", totals.numbers)


def _table(title: str, counts: Counter[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(title)
    table.add_column("times", justify="right")
    for name, count in sorted(counts.items()):
        table.add_row(name, f"{count:,}")
    return table


def say_breach(outcome: Outcome, options: argparse.Namespace) -> None:
    """Which seed, what was broken, how to see it again, and how it came to it."""
    console.print("".join(outcome.tail), markup=False)
    for checker, text in outcome.breaches:
        console.print(f"seed {outcome.seed}: {checker}: {text}", markup=False, style="bold")
    again = f"python -m tests.simulation.run --seed {outcome.seed} --trace"
    again += f" --agents {options.agents}" if options.agents else ""
    again += f" --hours {options.hours}" if options.hours else ""
    again += " --crowded" if options.crowded else ""
    console.print(f"again: {again}", markup=False)


def mutation_table(caught: dict[str, Outcome | None]) -> Table:
    """Which seed and which checker caught which broken rule."""
    table = Table(title="rules broken on purpose", title_justify="left")
    for column in ("broken rule", "of", "caught by seed", "checker", "after, s"):
        table.add_column(column)
    for mutation in MUTATIONS:
        outcome = caught[mutation.name]
        found = ("-", "NOT CAUGHT", "-")
        if outcome is not None:
            found = (str(outcome.seed), outcome.breaches[0][0], f"{outcome.virtual_s:.0f}")
        table.add_row(f"{mutation.name}: {mutation.text}", mutation.rule, *found)
    return table


def write_report(totals: Totals | None, caught: dict[str, Outcome | None] | None, wall_s: float) -> None:
    """The same for programs."""
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, object] = {"wall_s": round(wall_s, 1)}
    if totals is not None:
        report |= {
            "worlds": totals.worlds,
            "decisions": totals.decisions.total(),
            "decisions_by_code": dict(totals.decisions),
            "decisions_a_second_and_core": round(totals.decisions.total() / max(totals.cpu_s, 0.001)),
            "virtual_s": round(totals.virtual_s),
            "faults": dict(totals.faults),
            "numbers": dict(totals.numbers),
            "breaches": [{"seed": one.seed, "breaches": one.breaches} for one in totals.breaches],
        }
    if caught is not None:
        report["mutations"] = {
            name: one and {"seed": one.seed, "checker": one.breaches[0][0]} for name, one in caught.items()
        }
    REPORT.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")


def options_from(arguments: list[str]) -> argparse.Namespace:
    """What is to be run."""
    parser = argparse.ArgumentParser(description="Real agents and a real control plane in simulated storms.")
    parser.add_argument("--seeds", type=int, default=10, help="how many worlds")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--first", type=int, default=1, help="the first of the seeds")
    parser.add_argument("--hours", type=float, help="of storm in each world (drawn by the seed otherwise)")
    parser.add_argument("--agents", type=int, help="in each world (drawn by the seed otherwise)")
    parser.add_argument(
        "--crowded", action="store_true", help="many calls at a time, most of them at the end of limits"
    )
    parser.add_argument("--mutations", action="store_true", help="break rules on purpose instead")
    parser.add_argument("--mutation", default="", help="with --seed: break this rule")
    parser.add_argument("--trace", action="store_true", help="with --seed: write the trace to var/simulation")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    options.storm_s = options.hours * 3_600 if options.hours else None
    return options


def main(arguments: list[str]) -> int:
    """Run, and say what it came to. Returns 1 when anything was broken that should not be."""
    options = options_from(arguments)
    begun = time.perf_counter()
    if options.mutations:
        caught = run_mutations(options)
        console.print(mutation_table(caught))
        write_report(None, caught, time.perf_counter() - begun)
        return 0 if all(caught.values()) else 1
    if options.seed is not None:
        totals = Totals()
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        trace = str(REPORT.parent / f"trace-{options.seed}.txt") if options.trace else ""
        wanted = (options.seed, options.agents, options.storm_s, options.crowded, options.mutation, trace)
        totals.add(one_seed(*wanted))
    else:
        totals = run_seeds(range(options.first, options.first + options.seeds), options)
    for table in tables(totals):
        console.print(table)
    wall_s = time.perf_counter() - begun
    console.print(
        f"{totals.worlds:,} worlds, {totals.decisions.total():,} decisions in {wall_s:,.0f} s, "
        f"{totals.decisions.total() / max(totals.cpu_s, 0.001):,.0f} a second and core; "
        f"{totals.virtual_s / 3_600:.2f} virtual hours; {len(totals.breaches)} seeds with breaches"
    )
    write_report(totals, None, wall_s)
    for outcome in totals.breaches:
        say_breach(outcome, options)
    return 1 if totals.breaches else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
