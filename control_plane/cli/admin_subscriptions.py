"""Commands about one subscription: show, cancel, uncancel, pause, resume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from control_plane.cli.admin_http import Desk, cells, is_name, speaks, table

PATH = "/v1/customers/{}/subscription"


@click.group()
def subscription() -> None:
    """One customer's subscription: look at it, end it, pause it."""


@subscription.command()
@click.argument("customer", callback=is_name)
@speaks
def show(desk: Desk, customer: str) -> None:
    """What CUSTOMER has now, and what is arranged for later."""
    found = desk.get(PATH.format(customer))
    desk.show(found, lambda console: _draw(console, found))


def _move(action: str, help_: str, *, when: bool) -> click.Command:
    def do(desk: Desk, customer: str, **body: Any) -> None:
        given = {name: value for name, value in body.items() if value is not None}
        found = desk.post(PATH.format(customer) + "/moves", {"action": action, **given})
        desk.show(found, lambda console: _draw(console, found))

    made: Callable[..., None] = speaks(do)
    if when:
        made = click.option("--when", help="now, period_end, or an instant (RFC 3339); else now.")(made)
    made = click.argument("customer", callback=is_name)(made)
    return click.command(action, help=help_)(made)


for _made in (
    _move("cancel", "End CUSTOMER's subscription.", when=True),
    _move("uncancel", "Take a cancellation back that has not come yet.", when=False),
    _move("pause", "Refuse CUSTOMER's calls until it is resumed.", when=True),
    _move("resume", "Let CUSTOMER's calls through again.", when=False),
):
    subscription.add_command(_made)


def _draw(console: Console, found: dict[str, Any]) -> None:
    shown = table("", "", title=f"{found['customer']}: {found['plan']}@{found['version']}, {found['status']}")
    shown.show_header = False
    add_ons = ", ".join(f"{one['add_on']}@{one['version']} x{one['quantity']}" for one in found["add_ons"])
    for name, value in (
        ("seats", found["seats"]),
        ("add-ons", add_ons or "none"),
        ("period", f"{found['period_start']} to {found['period_end']} ({found['zone']})"),
        ("trial ends", found["trial_ends_at"]),
        ("ends", found["ends_at"]),
    ):
        if value is not None:
            shown.add_row(*cells(name, value))
    console.print(shown)
    for one in found["coming"]:
        console.print(Text(f"to come, {one['at']}: {one['track']} becomes {cells(one['value'])[0].plain}"))
