"""What was measured, as files: JSON, CSV, Markdown tables, a plot; and the page in the docs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tests.comparison import page, plot
from tests.comparison.findings import findings
from tests.comparison.naming import NAMES, share

Row = dict[str, Any]

COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("u1", "used at first false refusal", share),
    ("uf", "used in the end", share),
    ("overspend", "overspend", share),
    ("messages", "messages / 1,000 decisions", lambda value: f"{value:,.0f}"),
    ("messages_beyond", "whole run", lambda value: f"{value:,.0f}"),
    ("wait_ms_p50", "wait p50 ms", lambda value: f"{value:,.0f}"),
    ("wait_ms_p99", "p99 ms", lambda value: f"{value:,.0f}"),
)


def write(results: Sequence[Row], folder: Path) -> None:
    """Everything into a folder."""
    (folder / "results.json").write_text(json.dumps(list(results), indent=1) + "\n")
    with (folder / "results.csv").open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(results[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(results)
    (folder / "comparison.md").write_text("\n".join(findings(results)) + "\n\n" + "\n\n".join(tables(results)) + "\n")
    plot.draw(results, folder)


def write_docs(results: Sequence[Row], folder: Path) -> None:
    """The page that people read, and its plot."""
    folder.mkdir(exist_ok=True)
    plot.draw(results, folder)
    (folder / "comparison.md").write_text(page.text(findings(results), tables(results)))


def tables(results: Sequence[Row]) -> list[str]:
    """Markdown: one table a fleet, at a round trip of 50 ms; then what is special."""
    plain = [row for row in results if not row["lossy"] and row["minutes"] == 60]
    parts = []
    places = {(row["hosts"], row["calls"], row["skew"]): None for row in plain if row["skew"] in (0.0, 1.1)}
    for hosts, calls, skew in places:
        rows = [row for row in plain if (row["hosts"], row["calls"], row["skew"]) == (hosts, calls, skew)]
        middle = [row for row in rows if row["round_trip_ms"] == 50]
        if middle and (hosts, skew) != (1, 1.1):
            parts.append(f"**{_fleet(middle[0])}**\n\n{markdown(middle)}")
    return parts


def _fleet(row: Row) -> str:
    return f"{row['hosts']:,} host{'s' if row['hosts'] > 1 else ''}, {row['calls']:,} calls each, skew {row['skew']:g}"


def markdown(rows: Sequence[Row], columns: Sequence[tuple[str, str, Callable[[Any], str]]] = COLUMNS) -> str:
    """One table."""
    lines = ["| policy | " + " | ".join(title for _, title, _ in columns) + " |", "|---|" + "---:|" * len(columns)]
    for row in rows:
        cells = [form(row[name]) if row[name] is not None else "-" for name, _, form in columns]
        lines.append(f"| {NAMES[row['policy']]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table(results: Sequence[Row]) -> Table:
    """For the terminal."""
    shown = Table(box=SIMPLE_HEAD)
    for number, title in enumerate(("fleet", "policy", "round trip", *(title for _, title, _ in COLUMNS), "limbo")):
        shown.add_column(title, justify="left" if number < 2 else "right", no_wrap=number < 2)
    for row in results:
        fleet = f"{row['hosts']:,} x {row['calls']:,} z{row['skew']:g}" + (" busy" if row["minutes"] < 60 else "")
        cells = [form(row[name]) for name, _, form in COLUMNS]
        limbo = "" if row["limbo"] is None else f"{100 * row['limbo']:.3f} %"
        shown.add_row(fleet, NAMES[row["policy"]], f"{row['round_trip_ms']} ms", *cells, limbo)
    return shown
