"""The report as tables on a terminal; every ratio is of figures from the same round."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def show(report: dict[str, Any]) -> None:
    """Print everything that was measured."""
    console = Console()
    console.print(f"\n[bold]{report['machine']}[/]\n{report['redis']}; {report['method']}\n")
    for part in (_socket, _python, _disk, _memory):
        table = part(report)
        if table is not None:
            console.print(table)
            console.print()


def _table(title: str, caption: str, *columns: str) -> Table:
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def _socket(report: dict[str, Any]) -> Table:
    table = _table(
        "Over the Unix socket, from C",
        "Decisions are answers: a reserve is one, its settle another. Server CPU counts all threads of the server.\n"
        + "\n".join(f"{name}: {what}" for name, what in report["contenders"].items()),
        "", "decisions/s", "x echo", "x redis", "CPU us", "x echo", "x redis",
        "reserve p50 us", "x echo", "x redis", "p99 us", "settle p50 us", "p99 us", "wrong",
    )  # fmt: skip
    for shape, contenders in report["socket"].items():
        table.add_section()
        table.add_row(f"[bold]{shape}[/]")
        for name, row in contenders.items():
            first, *rest = row["steps"].values()
            settled = [_number(rest[0]["p50_us"]), _number(rest[0]["p99_us"])] if rest else ["", ""]
            table.add_row(
                f"  {name}",
                _number(row["per_s"]), _ratio(row["per_s_to"], "echo"), _ratio(row["per_s_to"], "redis-lua"),
                _number(row["cpu_us"]), _ratio(row["cpu_to"], "echo"), _ratio(row["cpu_to"], "redis-lua"),
                _number(first["p50_us"]), _ratio(row["p50_to"], "echo"), _ratio(row["p50_to"], "redis-lua"),
                _number(first["p99_us"]), *settled, str(row["wrong"]),
            )  # fmt: skip
    return table


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


def _ratio(ratios: dict[str, float], to: str) -> str:
    return _number(ratios.get(to))
