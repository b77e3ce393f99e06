"""Visits every small world, breaks every rule once, and prints what was found: `make model`, LARGE=1 for larger ones.

Fails when something does not hold, when a broken rule does not show, or when a world is not visited whole.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from tests.model.explore import Verdict, explore
from tests.model.judge import Judged, judge
from tests.model.rules import Broken
from tests.model.state import World
from tests.model.worlds import (
    CASES,
    COPIED,
    COPIED_IN_LARGE,
    COST_OF_A_COPY,
    COST_OF_A_ROLLBACK,
    HOLDS,
    HOLDS_IN_LARGE,
    Case,
    Ends,
)

console = Console(width=132, highlight=False)


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="larger worlds, too: about fifteen minutes")
    large = parser.parse_args().large
    worlds = {**HOLDS, **COPIED, **(HOLDS_IN_LARGE | COPIED_IN_LARGE if large else {})}
    good = show_worlds(worlds)
    show_costs()
    good = show_rules(large=large) and good
    if not good:
        console.print("[bold red]Something is not as it must be; see above.")
    return 0 if good else 1


def show_worlds(worlds: dict[str, World]) -> bool:
    """The worlds in which all rules hold."""
    table = Table(title="All rules hold: every state visited", title_justify="left")
    table.add_column("world")
    for name in ("states", "sides", "used beyond the limit", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    good = True
    for name, world in worlds.items():
        begun = time.perf_counter()
        with console.status(name):
            found = explore(world)
        good = good and found.complete
        verdict = "holds" if found.complete else f"[red]{found.wrong}"
        took = f"{time.perf_counter() - begun:.1f}"
        table.add_row(name, f"{found.states:,}", f"{found.sides:,}", str(found.excess), took, verdict)
        if found.wrong:
            show_trace(found.wrong, found)
    console.print(table)
    return good


def show_costs() -> None:
    """The declared risk: a disk that comes to life twice."""
    for what, world in (("copied", COST_OF_A_COPY), ("rolled back", COST_OF_A_ROLLBACK)):
        show_trace(f"What a disk that is {what} can cost before it is noticed", explore(world, overspent_only=True))


def show_rules(*, large: bool) -> bool:
    """Every rule broken alone: the traces, then the table. In ``large``, what is harmless is looked at more deeply."""
    table = Table(
        title="One rule broken: states visited, and steps of the shortest ways to a broken line and to an overspend",
        title_justify="left",
    )
    table.add_column("broken rule", no_wrap=True)
    table.add_column("rule")
    for name in ("states", "broken line", "overspend"):
        table.add_column(name, justify="right")
    table.add_column("leads to")
    good = True
    for broken, case in CASES.items():
        if large and case.ends is Ends.NOTHING:
            case = replace(case, world=case.world._replace(leases=2))  # noqa: PLW2901
        with console.status(broken):
            judged = judge(broken, case, patient=True)
        expected = judged.is_as_expected(case.ends)
        good = good and expected
        if judged.trace:
            show_trace(f"Broken: {broken}", judged.use if judged.use and judged.use.trace else judged.line)
        table.add_row(broken, *_row(judged, case), case.ends.value if expected else "[red]something else")
    console.print(table)
    console.print("exhausted: every state visited, and no way found; not found: none in the states visited.")
    for broken, case in CASES.items():
        if case.ends is Ends.NOTHING:
            console.print(f"Liveness only - {broken}. {case.why}.")
    return good


def _row(judged: Judged, case: Case) -> tuple[str, ...]:
    states = f"{max(judged.line.states, judged.use.states if judged.use else 0):,}"
    line = f"{len(judged.line.trace)}" if judged.line.trace else "exhausted"
    guards = case.why.partition(":")[0]
    return guards, states, line, _use(judged)


def _use(judged: Judged) -> str:
    use = judged.use or judged.line
    if use.wrong.startswith("used"):
        return str(len(use.trace))
    if judged.use is None and judged.line.wrong:
        return "not asked"
    return "exhausted" if use.complete else "not found"


def show_trace(title: str, found: Verdict) -> None:
    """The steps, one a line."""
    console.print(f"\n[bold]{title}[/bold]: {found.wrong}")
    for number, what in enumerate(found.trace, 1):
        console.print(f"  {number:2}. {what}", markup=False)


if __name__ == "__main__":
    assert Broken.NONE not in CASES
    sys.exit(main())
