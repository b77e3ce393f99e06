"""What the figures show: sentences and tables made from the figures, so that they cannot say anything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.comparison.measure import POLICIES
from tests.comparison.naming import NAMES, share

Row = dict[str, Any]


def findings(results: Sequence[Row]) -> list[str]:
    """Sections of the page."""
    return [
        "## What it shows",
        *_use(results),
        *_messages(results),
        *_waits(results),
        *_overspend(results),
        *_lost(results),
    ]


def select(results: Sequence[Row], **wanted: Any) -> list[Row]:
    """Rows with these coordinates; an hour and nothing lost unless it is said."""
    wanted = {"minutes": 60, "lossy": False, **wanted}
    return [row for row in results if all(row[name] == value for name, value in wanted.items())]


def matrix(
    rows: Sequence[Row], across: Callable[[Row], str], figure: Callable[[Row], str], policies: Sequence[str] = ()
) -> str:
    """A table of one figure: policies down, something else across, in the order of the rows."""
    titles = list(dict.fromkeys(across(row) for row in rows))
    found = {(row["policy"], across(row)): figure(row) for row in rows}
    lines = ["| policy | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    for policy in policies or POLICIES:
        cells = [found.get((policy, title), "-") for title in titles]
        lines.append(f"| {NAMES[policy]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _use(results: Sequence[Row]) -> list[str]:
    parts = ["", "### How much is used before anybody is refused wrongly"]
    for calls in (200, 5):
        rows = select(results, hosts=1_000, calls=calls, round_trip_ms=50)
        if rows:
            told = matrix(rows, lambda row: f"skew {row['skew']:g}", lambda row: share(row["u1"]))
            parts += ["", f"1,000 hosts, {calls} calls each, round trip 50 ms:", "", told]
    parts += [
        "",
        (
            "Allotment stays with the central check that reserves in the same way, at the other end of a"
            " thousand leases;"
            " what both leave is what calls in flight hold and do not use. A static split strands what quiet hosts were"
            " given; chunks and shares strand what lies on them when the centre has run out; worst-case"
            " reservations refuse"
            " while most of what they hold will come back."
        ),
        "",
        (
            "With an allowance of a handful of calls in all, the last call that does not fit decides, and no"
            " policy can do"
            " better: see the fleets of one host below."
        ),
    ]
    return parts


def _messages(results: Sequence[Row]) -> list[str]:
    parts = ["", "### Messages for 1,000 decisions, until 99 % of the allowance is taken"]
    rows = [row for row in select(results, skew=1.1, round_trip_ms=50) if row["calls"] > 1]
    busy = select(results, minutes=10, round_trip_ms=50)
    for title, some in (("The allowance lasts an hour:", rows), ("Busy: ten minutes:", busy)):
        if some:
            told = matrix(
                some, lambda row: f"{row['hosts']:,} x {row['calls']:,}", lambda row: f"{row['messages']:,.0f}"
            )
            parts += ["", title, "", told]
    parts += [
        "",
        (
            "Ours fall with the rate of calls, not with their number: an agent says every 20 s what was used,"
            " and asks for"
            " its next lease every 20 to 30 s, so a host with a call a second needs fifty messages for a"
            " thousand, and one"
            " with a call in ten minutes as many as a central check (in fleets of ten hosts that have a few calls"
            " each, up to half as many again: a first look, returns and recalls are not spread over anything)."
            " **Static split and fixed chunks need"
            " fewer**: they carry"
            " quotas alone, while ours bring every usage event to the ledger as well."
        ),
    ]
    return parts


def _waits(results: Sequence[Row]) -> list[str]:
    rows = select(results, hosts=1_000, calls=200, skew=1.1)
    if not rows:
        return []
    ordered = sorted(rows, key=lambda row: row["round_trip_ms"])
    told = matrix(
        ordered,
        lambda row: f"{row['round_trip_ms']} ms",
        lambda row: f"{row['wait_ms_p50']:,.0f} / {row['wait_ms_p99']:,.0f}",
    )
    used = matrix(ordered, lambda row: f"{row['round_trip_ms']} ms", lambda row: share(row["u1"]))
    return [
        "", "### Waiting for an answer: p50 / p99 in ms, by round trip", "", "1,000 hosts, 200 calls each, skew 1.1:",
        "", told, "", "Used at the first false refusal, by round trip:", "", used, "",
        ("A call waits for the network only where its host has nothing: on first sight, on hosts with less than"
         " a call a"
        " minute, and for the last calls of an allowance. Static split never waits."),
    ]  # fmt: skip


def _overspend(results: Sequence[Row]) -> list[str]:
    rows = [row for row in results if row["policy"] == "check-then-add" and not row["lossy"]]
    worst = max(rows, key=lambda row: row["overspend"])
    others = max(row["overspend"] for row in results if row["policy"] != "check-then-add" and not row["lossy"])
    said = "never, in any cell" if others == 0 else f"up to {share(others)}"
    return [
        "", "### Overspend", "",
        (f"Check-then-add passes the limit by whatever is in flight when it is reached: by up to"
         f" {share(worst['overspend'])} of the allowance ({_fleet(worst)}). All others: {said}."),
    ]  # fmt: skip


def _lost(results: Sequence[Row]) -> list[str]:
    rows = [row for row in results if row["lossy"]]
    parts = ["", "### Hosts that stop, and hosts that are lost for good", ""]
    parts += [
        (
            "One host stops in good order at 45 % of the allowance, one in ten is lost with its disk at 50 %."
            " Until others"
            " can use what the stopping host held (ms):"
        ),
        "",
        matrix(rows, _fleet, _reclaim),
        "",
        "Limbo, as a share of the allowance:",
        "",
        matrix(rows, _fleet, lambda row: "-" if row["limbo"] is None else f"{100 * row['limbo']:.3f} %"),
        "",
        (
            "What lies on lost hosts stays charged with all but two: proportional share gives it away again"
            " after a minute, as"
            " a rate's lease may be, and so forgets what the host had used and not yet told"
            f" ({_passes(rows, 'share')} the limit for it); check-then-add never hears of calls on lost hosts at all"
            f" ({_passes(rows, 'check-then-add')} the limit). A central check has nothing on hosts"
            " to lose, only"
            " the reservations of calls in flight: **here it does better than leases**, by the figures above."
        ),
    ]
    return parts if rows else []


def _passes(rows: Sequence[Row], policy: str) -> str:
    worst = max((row["overspend"] for row in rows if row["policy"] == policy), default=0.0)
    return f"up to {share(worst)} beyond" if worst else "here it did not pass"


def _fleet(row: Row) -> str:
    return f"{row['hosts']:,} x {row['calls']:,}, skew {row['skew']:g}"


def _reclaim(row: Row) -> str:
    if row["reclaim_ms"] is None:
        return "never" if row["policy"] == "static" else "-"
    return f"{row['reclaim_ms']:,.0f}"
