"""Commands that answer questions about one customer: explain, usage, balances, credits."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from control_plane.cli.admin_http import Desk, cells, filled, is_name, moment, speaks, table

_STYLES = {"allow": "bold green", "throttle": "bold yellow", "block": "bold red"}
_SUBJECTS = ("user", "workspace", "role", "api_key")


def _subjects(command: Any) -> Any:
    for name in _SUBJECTS:
        option = f"--{name.replace('_', '-')}"
        command = click.option(option, name, callback=is_name, help=f"Of this {name.replace('_', ' ')}.")(command)
    return command


@click.command()
@click.argument("customer", callback=is_name)
@click.argument("feature", callback=is_name)
@_subjects
@click.option("--model", help="Of this model, as it is called.")
@click.option("--meter", callback=is_name, help="What the call uses beside a request, as input_tokens.")
@click.option("--amount", type=click.IntRange(0), help="How much of it; else 1.")
@click.option("--at", help="At this instant that has passed, as 2026-11-24T05:00:00Z; else now.")
@speaks
def explain(desk: Desk, customer: str, feature: str, **asked: Any) -> None:
    """Why CUSTOMER may use FEATURE or not, now or at an instant.

    Shows the decision and everything that it follows from: plan, add-ons, overrides, and each limit on the path of such
    a call with what is used, reserved by calls in flight, lent to agents, and in limbo at lost ones.

    \b
    Why is u7 refused?         allotment explain acme chat --user u7
    Is there room for 50,000?  allotment explain acme chat --meter input_tokens --amount 50000
    And yesterday at noon?     allotment explain acme chat --at 2026-11-23T12:00:00Z
    """
    found = desk.get(f"/v1/customers/{customer}/explain", feature=feature, **asked)
    desk.show(found, lambda console: _draw_explanation(console, feature, found))


def _draw_explanation(console: Console, feature: str, found: dict[str, Any]) -> None:
    heading = Text(f"{found['decision'].upper()} ({found['code']})", style=_STYLES[found["decision"]])
    console.print(heading)
    console.print(Text(found["message"]), soft_wrap=True)
    terms = ", ".join([found["plan"] or "no plan", *found["add_ons"]])
    status = found["subscription"] or "no subscription"
    console.print(Text(f"{found['customer']} has {terms}; {status}. As of {found['at']}."), soft_wrap=True)
    cause = f", by {found['cause']}" if found["cause"] else ""
    console.print(Text(f"Entitlement version {found['version']}, since {found['since']}{cause}."), soft_wrap=True)
    console.print(Text(_feature(feature, found)), soft_wrap=True)
    if not found["limits"]:
        console.print("No limit is on the path of such a call.")
        return
    heads = ("", "limit", "counts", "of", "window", "until", "amount", "used", "reserved", "lent", "limbo", "left",
             "needs", "made of")  # fmt: skip
    rows = []
    for one in found["limits"]:
        mark = "ok" if one["granted"] else ("would refuse" if one["shadow"] else "REFUSES")
        several = ", ".join(_source(source) for source in one["sources"]) if len(one["sources"]) > 1 else ""
        rows.append(
            (mark, one["limit"], one["meter"], _whose(one), one["window"], moment(one["window_end"]), _amount(one),
             one["used"], one["reserved"], one["lent"], one["limbo"], one["remaining"], one["need"], several)
        )  # fmt: skip
    console.print(filled(heads, rows, ("reserved", "lent", "limbo", "made of")))


def _whose(one: dict[str, Any]) -> str:
    return one["scope"] if not one["scope_value"] else f"{one['scope']} {one['scope_value']}"


def _amount(one: dict[str, Any]) -> object:
    return "unlimited" if one["amount"] is None else one["amount"]


def _feature(key: str, found: dict[str, Any]) -> str:
    feature = found["feature"]
    if feature is None:
        return f"Feature {key}: nothing that the customer has names it."
    said = "on" if feature.get("enabled", True) else "off"
    set_to = feature.get("value")
    value = f", set to {set_to if isinstance(set_to, str) else json.dumps(set_to, ensure_ascii=False)}"
    value = value if set_to is not None else ""
    roles = "".join(
        f"; {'on' if terms.get('enabled', True) else 'off'} for role {role}"
        for role, terms in feature.get("by_role", {}).items()
    )
    sources = ", ".join(_source(source) for source in found["feature_sources"])
    burns = f"; its calls burn {', '.join(found['balances'])}" if found["balances"] else ""
    return f"Feature {key} ({feature['kind']}): {said}{value}{roles}{burns}; from {sources}."


def _source(source: dict[str, Any]) -> str:
    amount = source.get("amount")
    return source["source"] if amount is None else f"{source['source']} {amount:,}"


@click.command()
@click.argument("customer", callback=is_name)
@click.option("--by", "group_by", default="meter", show_default=True,
              help="Told apart by: meter, feature, model, hour, day, and one of user, workspace, role, api_key,"
              " tag:NAME; several with commas.")  # fmt: skip
@click.option("--from", "since", help="First instant; else 30 days ago.")
@click.option("--to", "until", help="Until before this instant; else now.")
@click.option("--tag", help="Only calls with this tag, as project:apollo.")
@_subjects
@speaks
def usage(desk: Desk, customer: str, group_by: str, since: str | None, until: str | None, **only: Any) -> None:
    """What CUSTOMER used, summed by whole hours.

    \b
    By day and meter:   allotment usage acme --by day,meter
    Who used it:        allotment usage acme --by user,meter --from 2026-11-01T00:00:00Z
    """
    found = desk.get(f"/v1/customers/{customer}/usage", group_by=group_by, **only, **{"from": since, "to": until})
    desk.show(found, lambda console: _draw_usage(console, customer, group_by, found))


def _draw_usage(console: Console, customer: str, group_by: str, found: dict[str, Any]) -> None:
    keys = [key.strip() for key in group_by.split(",")]
    shown = table(*keys, "quantity", "events", title=f"{customer}: {found['from']} to {found['to']}")
    for one in found["items"]:
        named = [one.get("tag" if key.startswith("tag:") else key) for key in keys]
        shown.add_row(*cells(*named, one["quantity"], one["events"]))
    console.print(shown)


@click.command()
@click.argument("customer", callback=is_name)
@click.option("--tag", help="Of limits by this tag, only this value's, as project:apollo.")
@_subjects
@speaks
def balances(desk: Desk, customer: str, **only: Any) -> None:
    """How every limit of CUSTOMER stands in its present window, and when it resets."""
    found = list(desk.pages(f"/v1/customers/{customer}/balances", **only))
    desk.show(found, lambda console: _draw_balances(console, customer, found))


def _draw_balances(console: Console, customer: str, found: list[dict[str, Any]]) -> None:
    heads = ("limit", "counts", "of", "window", "until", "amount", "used", "in flight", "lent", "limbo", "left",
             "at its end", "overage")  # fmt: skip
    rows = [
        (one["limit"], one["meter"], _whose(one), one["window"], moment(one["window_end"]), _amount(one), one["used"],
         one["in_flight"], one["lent"], one["limbo"], one["remaining"], one["at_end"], _overage(one))
        for one in found
    ]  # fmt: skip
    console.print(filled(heads, rows, ("in flight", "lent", "limbo", "overage"), customer))


def _overage(one: dict[str, Any]) -> str:
    if not one["overage"]:
        return ""
    cost = one["overage_cost_micros"]
    return f"{one['overage']:,}" + ("" if cost is None else f" = {cost:,} micro-{one['overage_currency']}")


@click.command()
@click.argument("customer", callback=is_name)
@speaks
def credits(desk: Desk, customer: str) -> None:
    """How CUSTOMER's credits stand: balances by meter, and the grants of each in the order in which they burn."""
    found = desk.get(f"/v1/customers/{customer}/credits")
    desk.show(found, lambda console: _draw_credits(console, customer, found))


def _draw_credits(console: Console, customer: str, found: list[dict[str, Any]]) -> None:
    if not found:
        console.print(Text(f"{customer} has no credits."))
    for one in found:
        title = (
            f"{customer}, {one['meter']}: {one['remaining']:,} left for new calls, {one['reserved']:,} held by calls in"
            f" flight, {one['overdrawn']:,} overdrawn"
        )
        heads = ("grant", "status", "left", "of", "burned", "priority", "kind", "ends", "from")
        rows = [
            (grant["grant"], grant["status"], grant["left"], grant["amount"], grant["burned"], grant["priority"],
             grant["category"], moment(grant["expires_at"]), grant["source"] or grant["reason"])
            for grant in one["grants"]
        ]  # fmt: skip
        console.print(filled(heads, rows, (), title))
