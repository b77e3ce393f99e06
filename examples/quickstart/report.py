"""Tables for people, JSON for machines."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table

from examples.quickstart.audit import METERS, Audit
from examples.quickstart.callers import Told
from examples.quickstart.settings import STATE, Settings

SHOWN_CUSTOMERS = 16
WAITED_S = 0.02
"""A decision from memory takes a fraction of this; what took longer has asked the control plane."""
VERDICTS = ("allow", "throttle", "block")


def percentile_us(durations_s: list[float], share: float) -> int:
    """Whole microseconds below which ``share`` of the durations lie."""
    if not durations_s:
        return 0
    ordered = sorted(durations_s)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e6)


def summary(
    settings: Settings, told: list[Told], found: Audit, outage: dict[str, Any], replay_s: float
) -> dict[str, Any]:
    """Everything that the run found out, as it is written to ``report.json``."""
    verdicts = Counter(one.verdict for one in told)
    away = [one for one in told if _in_outage(one, outage)]
    decided = [one.decided_s for one in told if one.verdict and not _in_outage(one, outage)]
    return {
        "calls": len(told),
        "allowed": verdicts["allow"],
        "throttled": verdicts["throttle"],
        "blocked": verdicts["block"],
        "unanswered": verdicts[""] + sum(1 for one in told if one.verdict == "allow" and one.settled is None),
        "settled": {meter: found.settled[meter] for meter in METERS},
        "ledger": {meter: found.ledger[meter] for meter in METERS},
        "overspend": found.overspend,
        "lost": found.lost,
        "duplicated": found.duplicated,
        "conflicts": found.conflicts,
        "agents": settings.agents,
        "customers": settings.customers,
        "decision_us": {"p50": percentile_us(decided, 0.50), "p99": percentile_us(decided, 0.99)},
        "waited": sum(duration > WAITED_S for duration in decided),
        "kill": {
            **{name: round(value, 3) if isinstance(value, float) else value for name, value in outage.items()},
            "calls_that_waited": len(away),
            "settled_after_return": sum(_settled_after_return(one, outage) for one in told),
            "settles_repeated": sum(one.duplicate for one in told),
            "streams_cut": sum(one.cut for one in told),
        },
        "replay_s": round(replay_s, 3),
        "calls_a_second": round(len(told) / replay_s, 1) if replay_s else 0,
    }


def _in_outage(one: Told, outage: dict[str, Any]) -> bool:
    """Whether this call met the agent that was away, between its death and its return."""
    return bool(
        one.call.agent == outage["agent"]
        and one.asked_at < outage["back_at"]
        and one.asked_at + one.decided_s > outage["killed_at"]
    )


def _settled_after_return(one: Told, outage: dict[str, Any]) -> bool:
    """Whether the agent that was killed had allowed this call before, and recorded its use once it was back."""
    return bool(
        one.call.agent == outage["agent"]
        and one.asked_at + one.decided_s < outage["killed_at"]
        and one.ended_at > outage["back_at"]
        and one.settled is not None
    )


def write(report: dict[str, Any]) -> None:
    """Write ``var/quickstart/report.json``."""
    (STATE / "report.json").write_text(json.dumps(report, indent=2) + "\n")


def show(console: Console, plans: dict[str, str], told: list[Told], found: Audit, report: dict[str, Any]) -> None:
    """Print the tables and the verdict of the audit."""
    console.print(_plans(plans, told, found))
    console.print(_customers(plans, told, found))
    latency = report["decision_us"]
    kill = report["kill"]
    console.print(
        f"Decisions: p50 {latency['p50']:,} µs, p99 {latency['p99']:,} µs"
        f" (over the socket, as the callers saw them; {report['calls_a_second']:,} calls a second).\n"
        f"{report['waited']:,} of them waited for the control plane: a customer's first call on a host or in a window,"
        " and the last few calls of an allowance."
    )
    settles = f"reservations from before its death settled after its return: {kill['settled_after_return']}"
    if kill["settles_repeated"]:
        settles += f", settles repeated: {kill['settles_repeated']}"
    console.print(
        f"Agent {kill['agent'] + 1} was killed in the middle and answered again {kill['away_s']:.2f} s later;"
        f" {kill['calls_that_waited']} calls waited for it; {settles}."
    )
    audit = Table(title="Audit: what callers were told, and what the ledger holds", title_justify="left")
    for heading in ("", "told", "ledger"):
        audit.add_column(heading, justify="right" if heading else "left")
    for meter in METERS:
        audit.add_row(meter, f"{found.settled[meter]:,}", f"{found.ledger[meter]:,}")
    console.print(audit)
    colour = "green" if found.clean else "red"
    console.print(
        f"[bold {colour}]{'The books agree' if found.clean else 'The books do NOT agree'}[/]:"
        f" overspend {found.overspend}, lost {found.lost}, duplicated {found.duplicated}, conflicts {found.conflicts}"
    )
    for finding in found.findings[:10]:
        console.print(f"  {finding}", highlight=False)


def _plans(plans: dict[str, str], told: list[Told], found: Audit) -> Table:
    table = _table("By plan", "plan", "customers")
    for plan in dict.fromkeys(plans.values()):
        members = [name for name, of in plans.items() if of == plan]
        table.add_row(plan, str(len(members)), *_numbers(members, told, found))
    return table


def _customers(plans: dict[str, str], told: list[Told], found: Audit) -> Table:
    table = _table(f"By customer (the {min(SHOWN_CUSTOMERS, len(plans))} most active)", "customer", "plan", "remaining")
    for name in list(plans)[:SHOWN_CUSTOMERS]:
        left = found.remaining.get(name, {})
        tightest = ", ".join(
            f"{limit} {'unlimited' if rest is None else f'{rest:,}'}"
            for limit, rest in left.items()
            if limit in ("input-tokens-a-day", "output-tokens-a-month")
        )
        table.add_row(name, plans[name], tightest, *_numbers([name], told, found))
    return table


def _table(title: str, *first: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in first:
        table.add_column(heading)
    for heading in ("calls", "allowed", "throttled", "blocked", "input tokens", "output tokens"):
        table.add_column(heading, justify="right")
    return table


def _numbers(members: list[str], told: list[Told], found: Audit) -> list[str]:
    wanted = set(members)
    verdicts = Counter(one.verdict for one in told if one.call.customer in wanted)
    used = sum((found.by_customer.get(name, Counter()) for name in members), Counter())
    return [
        f"{verdicts.total():,}",
        *(f"{verdicts[verdict]:,}" for verdict in VERDICTS),
        f"{used['input_tokens']:,}",
        f"{used['output_tokens']:,}",
    ]
