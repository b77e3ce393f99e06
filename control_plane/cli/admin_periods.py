"""Commands about billing periods, and limits in shadow: period list, show, close; shadow-report."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console
from rich.text import Text

from control_plane.cli.admin_http import Desk, counted, filled, is_name, moment, speaks

PATH = "/v1/customers/{}/periods"


@click.group()
def period() -> None:
    """One customer's billing periods: statements, and closing them.

    \b
    What it costs so far:    allotment period show acme
    What the last one cost:  allotment period show acme --last
    Closed for good:         allotment period close acme --last --dry-run, and then without --dry-run
    """


def _which(command: Any) -> Any:
    command = click.option("--last", is_flag=True, help="The one before the present one.")(command)
    command = click.argument("start", required=False)(command)
    return click.argument("customer", callback=is_name)(command)


@period.command()
@_which
@speaks
def show(desk: Desk, customer: str, start: str | None, last: bool) -> None:
    """The statement of CUSTOMER's billing period that begins at START; without it of the present one, as it is now."""
    found = desk.get(f"{PATH.format(customer)}/{_named(start, last=last)}")
    desk.show(found, lambda console: _draw(console, found))


@period.command()
@_which
@click.option("--note", help="For the audit log.")
@click.option("--dry-run", "--preview", "dry_run", is_flag=True, help="Only show the statement; nothing is closed.")
@speaks
def close(desk: Desk, customer: str, start: str | None, last: bool, note: str | None, dry_run: bool) -> None:
    """Close CUSTOMER's billing period that begins at START (or --last): its statement never changes any more.

    It must be over, and no agent may hold a lease of its windows: ten minutes after its end at the latest. What is told
    or corrected of it later becomes an adjustment in the next. Periods are closed one after the other; closing one
    again shows it as it is. There is no opening it again.
    """
    if start is None and not last:
        raise click.UsageError("Say START, where the period begins, or --last.")
    path = PATH.format(customer)
    found = desk.get(f"{path}/{_named(start, last=last)}")
    if not dry_run:
        begins = start or found["statement"]["start"]
        found = desk.post(f"{path}/{begins}/close", {} if note is None else {"note": note})
    desk.show(found, lambda console: _draw(console, found))


@period.command("list")
@click.argument("customer", callback=is_name)
@speaks
def list_(desk: Desk, customer: str) -> None:
    """CUSTOMER's closed billing periods."""
    found = list(desk.pages(PATH.format(customer)))
    desk.show(found, lambda console: _draw_list(console, customer, found))


def _named(start: str | None, *, last: bool) -> str:
    """As what the API knows the period that is meant."""
    if start is not None and last:
        raise click.UsageError("START and --last are two ways to say which period: say one.")
    return start or ("last" if last else "present")


def _draw(console: Console, found: dict[str, Any]) -> None:
    said = found["statement"]
    state = "open" if found["closed_at"] is None else f"closed {found['closed_at']} by {found['closed_by']}"
    console.print(
        Text(f"{said['customer']}, {said['plan'] or 'no plan'}: {said['start']} to {said['end']}, {state}."),
        soft_wrap=True,
    )
    for title, name, heads in (
        ("Usage", "usage", ("meter", "feature", "quantity", "events")),
        ("Beyond limits", "overage", ("limit", "scope_value", "window_start", "amount", "used", "overage",
                                      "cost_micros", "currency")),
        ("Credits", "credits", ("meter", "burned")),
    ):  # fmt: skip
        if said[name]:
            rows = [
                [moment(one[head]) if head == "window_start" else one[head] for head in heads] for one in said[name]
            ]
            shown = tuple(head.replace("_", " ") for head in heads)
            console.print(filled(shown, rows, ("scope value", "cost micros", "currency"), title))
    if said["adjustments"]:
        rows = [[one["event"], moment(one["happened_at"]), moment(one["entered_at"]), one["amounts"]]
                for one in said["adjustments"]]  # fmt: skip
        title = f"Adjustments of closed periods, {len(rows):,} of {said['adjustments_count']:,}"
        console.print(filled(("event", "happened", "entered", "amounts"), rows, (), title))
    for total in said["overage_total"]:
        console.print(Text(f"Beyond limits: {total['micros']:,} micro-{total['currency']}."))
    if not said["usage"]:
        console.print("Nothing was used.")


def _draw_list(console: Console, customer: str, found: list[dict[str, Any]]) -> None:
    if not found:
        console.print(Text(f"No billing period of {customer} is closed."))
        return
    rows = []
    for one in found:
        said = one["statement"]
        totals = ", ".join(f"{total['micros']:,} micro-{total['currency']}" for total in said["overage_total"])
        rows.append((said["start"], said["end"], said["plan"], totals, said["adjustments_count"], one["closed_at"],
                     one["closed_by"]))  # fmt: skip
    heads = ("from", "until", "plan", "beyond limits", "adjustments", "closed", "by")
    console.print(filled(heads, rows, ("beyond limits", "adjustments"), customer))


@click.command("shadow-report")
@click.option("--customer", callback=is_name, help="Only of this customer.")
@speaks
def shadow_report(desk: Desk, customer: str | None) -> None:
    """What limits in shadow would have refused, had they been in force: by customer, limit, window and scope value.

    Limits with `shadow: true` refuse nothing: try one on real calls, read this, and then publish the plan without it.
    """
    found = list(desk.pages("/v1/shadow-report", customer=customer))
    desk.show(found, lambda console: _draw_shadow(console, found))


def _draw_shadow(console: Console, found: list[dict[str, Any]]) -> None:
    if not found:
        console.print("No limit in shadow would have refused anything.")
        return
    rows = [
        (one["customer"], one["limit"], one["scope_value"], one["window"], moment(one["window_start"]), one["events"],
         one["quantity"], one["meter"], moment(one["first_at"]), moment(one["last_at"]))
        for one in found
    ]  # fmt: skip
    heads = ("customer", "limit", "of", "window", "from", "calls", "quantity", "meter", "first", "last")
    console.print(filled(heads, rows, ("of",)))
    customers = len({one["customer"] for one in found})
    console.print(Text(f"Of {counted(customers, 'customer')}."))
