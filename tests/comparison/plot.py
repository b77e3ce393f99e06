"""The plot: what was left when somebody was refused wrongly, and how many messages it took; always the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

Row = dict[str, Any]

LOOKS = {
    "ours": ("Allotment", "#0b6e4f", "o"),
    "central": ("central check", "#1f5fa8", "s"),
    "worst-case": ("central, worst case", "#7aa6d8", "D"),
    "check-then-add": ("check, then add (overspends)", "#c1121f", "X"),
    "share": ("proportional share, polling", "#e09f3e", "^"),
    "chunks": ("fixed chunks", "#8d6a9f", "v"),
    "static": ("static split", "#6c757d", "P"),
}
LEAST_LEFT = 1e-5
LEAST_MESSAGES = 0.5
FLEETS_MAX = 12


def draw(results: Sequence[Row], folder: Path) -> None:
    """Write comparison.svg and comparison.png."""
    mpl.rcParams.update({"svg.hashsalt": "comparison", "font.size": 9, "axes.spines.top": False})
    rows = [row for row in results if not row["lossy"] and row["minutes"] == 60 and row["round_trip_ms"] == 50]
    fleets = fleets_of(rows)
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(9.5, 7.5), sharex=True, layout="constrained")
    series(above, rows, fleets, lambda row: max(1 - row["u1"], LEAST_LEFT))
    above.set(yscale="log", ylabel="unused at the first false refusal", ylim=(LEAST_LEFT * 0.7, 1.5))
    above.set_yticks([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1], ["nothing", "0.01 %", "0.1 %", "1 %", "10 %", "100 %"])
    series(below, rows, fleets, lambda row: max(row["messages"], LEAST_MESSAGES))
    below.set(yscale="log", ylabel="messages for 1,000 decisions")
    below.set_yticks([LEAST_MESSAGES, 1, 10, 100, 1_000, 10_000], ["none", "1", "10", "100", "1,000", "10,000"])
    below.set_xticks(range(len(fleets)), [f"{hosts:,} x {calls:,}\nskew {skew:g}" for hosts, calls, skew in fleets])
    below.set_xlabel("hosts x calls that the allowance is good for on each; round trip 50 ms; lower is better")
    below.tick_params(axis="x", labelsize=7)
    for axes in (above, below):
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    above.legend(ncols=4, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    figure.savefig(folder / "comparison.svg", metadata={"Date": None})
    figure.savefig(folder / "comparison.png", dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def fleets_of(rows: Sequence[Row]) -> list[tuple[int, int, float]]:
    """Which fleets are shown: those of several hosts, without skew and with much of it."""
    known = {(row["hosts"], row["calls"], row["skew"]) for row in rows if row["calls"] > 1}
    shown = sorted(place for place in known if place[0] > 1 and place[2] in (0.0, 1.1, 1.5))
    while len(shown) > FLEETS_MAX:
        shown = (
            [place for place in shown if place[0] > shown[0][0]] if len({place[0] for place in shown}) > 2 else shown
        )
        if len(shown) > FLEETS_MAX:
            shown = (
                [place for place in shown if place[2] != 0.0] if any(one[2] == 0.0 for one in shown) else shown[-12:]
            )
    return shown


def series(axes: Axes, rows: Sequence[Row], fleets: Sequence[tuple[int, int, float]], value_of: Any) -> None:
    """One mark a policy and fleet, side by side."""
    for number, (policy, (label, colour, marker)) in enumerate(LOOKS.items()):
        found = {(row["hosts"], row["calls"], row["skew"]): row for row in rows if row["policy"] == policy}
        places = [at for at, fleet in enumerate(fleets) if fleet in found]
        aside = 0.1 * (number - (len(LOOKS) - 1) / 2)
        heights = [value_of(found[fleets[at]]) for at in places]
        axes.plot(
            [at + aside for at in places], heights, marker, color=colour, label=label, markersize=6 if number else 8
        )
