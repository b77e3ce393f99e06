"""The report as tables on a terminal; every ratio is of figures from the same round."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

WIDTH_MIN = 112
"""Columns are never cut, not even where the output is a file."""


def show(report: dict[str, Any]) -> None:
    """Print everything that was measured."""
    console = Console()
    console = Console(width=max(WIDTH_MIN, console.width))
    console.print(f"\n[bold]{report['machine']}[/]\n{report['redis']}; {report['method']}\n", highlight=False)
    for name, what in report["contenders"].items():
        console.print(f"  {name:18} {what}", highlight=False)
    for part in (_socket, _ratios, _python, _disk, _memory):
        table = part(report)
        if table is not None:
            console.print()
            console.print(table)


def _table(title: str, caption: str, *columns: str) -> Table:
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD, title_justify="left", caption_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
    return table


def _socket(report: dict[str, Any]) -> Table:
    table = _table(
        "Over the Unix socket, from C",
        "A decision is one answer: a reserve, or its settle (agent-check: a check). CPU: all of the server's threads.",
        "", "decisions/s", "CPU us each", "reserve p50 us", "p99 us", "settle p50 us", "p99 us", "wrong",
    )  # fmt: skip
    for shape, contenders in report["socket"].items():
        _section(table, shape)
        for name, row in contenders.items():
            steps = [figure for step in row["steps"].values() for figure in (step["p50_us"], step["p99_us"])]
            cells = [_number(one) for one in (row["per_s"], row["cpu_us"], *steps)]
            table.add_row(f"  {name}", *cells, *[""] * (6 - len(cells)), str(row["wrong"]))
    return table


def _ratios(report: dict[str, Any]) -> Table:
    to = {"echo": "echo", "redis-lua": "redis", "redis-lua-durable": "AOF"}
    kinds = {"per_s_to": "rate", "p50_to": "p50", "cpu_to": "CPU"}
    columns = [f"{kind}\nx {short}" for kind in kinds.values() for short in to.values()]
    table = _table(
        "The agent beside them: how many times theirs, within one round (p50: of the reserve, or the check)",
        "",
        "",
        *columns,
    )
    for shape, contenders in report["socket"].items():
        _section(table, shape)
        for name, row in contenders.items():
            if name.startswith("agent"):
                table.add_row(f"  {name}", *(_number(row[kind].get(other)) for kind in kinds for other in to))
    return table


def _section(table: Table, shape: str) -> None:
    table.add_section()
    table.add_row(f"[bold]{shape}[/]")


def _python(report: dict[str, Any]) -> Table | None:
    if not report.get("python"):
        return None
    table = _table(
        "From Python: one thread, one call after the other",
        "The agent's settle answers when it is on disk; Redis here writes nothing to disk.",
        "", "reserve p50 us", "p99 us", "settle p50 us", "p99 us", "client CPU us", "reserve x redis-py",
    )  # fmt: skip
    for name, row in report["python"].items():
        cells = [row["reserve"]["p50_us"], row["reserve"]["p99_us"], row["settle"]["p50_us"], row["settle"]["p99_us"]]
        table.add_row(
            name, *map(_number, cells), _number(row["client_cpu_us"]), _number(row.get("reserve_p50_to_redis"))
        )
    return table


def _disk(report: dict[str, Any]) -> Table | None:
    if not report.get("disk"):
        return None
    table = _table(
        "Events to disk, one commit after the other",
        "journal: the agent's, WAL, synchronous=FULL. fdatasync: the same bytes appended to a file.",
        "events in a commit", "journal events/s", "commit p50 us", "fdatasync events/s", "p50 us",
        "journal x fdatasync",
    )  # fmt: skip
    for size, journal in report["disk"]["journal"].items():
        floor = report["disk"]["fdatasync"][size]
        figures = (journal["events_per_s"], journal["commit_p50_us"], floor["events_per_s"], floor["commit_p50_us"])
        ratio = journal["events_per_s"] / floor["events_per_s"]
        table.add_row(str(size), *map(_number, figures), _number(ratio))
    return table


def _memory(report: dict[str, Any]) -> Table | None:
    if not report.get("memory"):
        return None
    table = _table("Memory, MiB", "", "", "RSS", "PSS", "private", "RSS x bare Python")
    bare = report["memory"]["bare Python"]["rss"]
    for name, row in report["memory"].items():
        table.add_row(
            name, *(f"{row[kind] / 1024:.1f}" for kind in ("rss", "pss", "private")), _number(row["rss"] / bare)
        )
    return table


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
