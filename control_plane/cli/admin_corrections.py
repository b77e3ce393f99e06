"""Commands about past usage that was not what happened: amend, void, backfill, corrections."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from control_plane.cli.admin_http import ApiProblem, Desk, counted, filled, is_name, moment, speaks
from control_plane.cli.catalog_yaml import line_of, read_catalog

PATH = "/v1/customers/{}"
_IDS = "Of the correction: one id corrects once, and said again it changes nothing."


def _quantities(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, int]:
    """For click: ``METER=N``, several times. Raises: BadParameter."""
    found: dict[str, int] = {}
    for one in value:
        name, _, amount = one.partition("=")
        if not is_name(context, parameter, name) or not amount.isdecimal() or name in found:
            raise click.BadParameter(
                f"{one!r}: expected NAME=N, each name once, as input=120", ctx=context, param=parameter
            )
        found[name] = int(amount)
    return found


def _correcting(id_help: str) -> Callable[[Any], Any]:
    """The options of every correction."""

    def options(command: Any) -> Any:
        command = click.option(
            "--dry-run", "--preview", "dry_run", is_flag=True, help="Only show what would be moved; nothing is."
        )(command)
        command = click.option("--id", "name", callback=is_name, help=f"{_IDS} {id_help}")(command)
        return click.option("--reason", required=True, help="Why, for the ledger and the audit log.")(command)

    return options


@click.command()
@click.argument("customer", callback=is_name)
@click.argument("event", callback=is_name)
@click.option("--tokens", multiple=True, callback=_quantities, metavar="CLASS=N",
              help="Tokens of one class, as input=120 or cache_read=40; several times.")  # fmt: skip
@click.option("--amount", "amounts", multiple=True, callback=_quantities, metavar="METER=N",
              help="Of another meter, as images=2; several times.")  # fmt: skip
@_correcting("Else amend-EVENT: to amend the same call once more, say another.")
@speaks
def amend(desk: Desk, customer: str, event: str, tokens: Any, amounts: Any, **rest: Any) -> None:
    """Say what one call of CUSTOMER, by its EVENT, really came to.

    Give the whole call as it should have been reported, not the difference. A compensating entry is made: nothing in
    the ledger is overwritten, and credits and cost follow by the prices that the call had.

    \b
    Look first:   allotment amend acme call-17 --tokens input=120 --tokens output=40 --reason "wrong model" --dry-run
    Then do it:   the same without --dry-run
    """
    _correct(desk, customer, {"kind": "amend", "event": event, "amounts": amounts, "tokens": tokens}, **rest)


@click.command()
@click.argument("customer", callback=is_name)
@click.argument("event", callback=is_name)
@_correcting("Else void-EVENT.")
@speaks
def void(desk: Desk, customer: str, event: str, **rest: Any) -> None:
    """Say that one call of CUSTOMER, by its EVENT, never was: all that it used is given back.

    \b
    Look first:   allotment void acme call-17 --reason "a test of ours" --dry-run
    """
    _correct(desk, customer, {"kind": "void", "event": event}, **rest)


def _correct(desk: Desk, customer: str, order: dict[str, Any], reason: str, name: str | None, *, dry_run: bool) -> None:
    name = name or f"{order['kind']}-{order['event']}"
    path = f"{PATH.format(customer)}/corrections/{name}"
    found = desk.put(path, {**order, "reason": reason}, preview="true" if dry_run else None)
    desk.show(found, lambda console: _draw(console, found))


@click.command()
@click.argument("customer", callback=is_name)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True))
@_correcting("Else made from what FILE says, so that the same file enters its calls once.")
@speaks
def backfill(desk: Desk, customer: str, file: Path, reason: str, name: str | None, dry_run: bool) -> None:
    """Enter calls of CUSTOMER that no agent saw, from FILE (YAML or JSON; - reads standard input), up to 500.

    Each has its own result: accepted, duplicate, conflict, rejected or late. They count at their own time, by the
    prices of that time.

    \b
    events:
      - {event: call-18, feature: chat, at: 2026-11-20T10:00:00Z, model: gpt-4o, tokens: {input: 900, output: 200}}
      - {event: call-19, feature: images, at: 2026-11-20T10:01:00Z, amounts: {images: 2}, subject: {user: u7}}
    \b
    Look first:   allotment backfill acme missed.yaml --reason "host-7 had no agent" --dry-run
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise click.ClickException(f"{file} cannot be read: {error}") from None
    name = name or f"backfill-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    said = read_catalog(text, str(file))
    if said.keys() != {"events"}:
        raise click.ClickException(f"{file}: expected `events:` and nothing beside it; see --help")
    path = f"{PATH.format(customer)}/backfills/{name}"
    try:
        found = desk.put(path, {**said, "reason": reason}, preview="true" if dry_run else None)
    except ApiProblem as wrong:
        line = line_of(text, wrong.field) if wrong.field else None
        raise click.ClickException(f"{file}:{line}: {wrong.message}" if line else wrong.message) from None
    desk.show(found, lambda console: _draw(console, found))


@click.command()
@click.argument("customer", callback=is_name)
@speaks
def corrections(desk: Desk, customer: str) -> None:
    """Corrections of CUSTOMER's usage by hand: what was asked for, by whom, why, and how many entries it moved."""
    found = list(desk.pages(f"{PATH.format(customer)}/corrections"))
    desk.show(found, lambda console: _draw_list(console, customer, found))


def _draw(console: Console, found: dict[str, Any]) -> None:
    head = "Would make" if found["preview"] else "Made"
    results: dict[str, int] = {}
    for item in found["items"]:
        results[item["result"]] = results.get(item["result"], 0) + 1
    listed = ", ".join(f"{count:,} {result}" for result, count in results.items())
    console.print(Text(f"{head} correction {found['correction']}: {listed}."), soft_wrap=True)
    for item in found["items"]:
        if item["detail"]:
            console.print(Text(f"    {item['event']} is {item['result']}: {item['detail']}"), soft_wrap=True)
    effects = found["effects"]
    _table(console, "Limits", effects["counters"], ("limit", "scope_value", "window_start", "window_end", "change"))
    _table(console, "Usage by the hour", effects["sums"], ("hour", "meter", "feature", "change"))
    _table(console, "Credits burned", effects["credits"], ("meter", "grant", "change"))
    if found["preview"]:
        console.print("Nothing has changed: this was a dry run.")


def _table(console: Console, title: str, entries: list[dict[str, Any]], fields: tuple[str, ...]) -> None:
    if not entries:
        return
    heads = tuple({"scope_value": "of", "window_start": "from", "window_end": "until"}.get(one, one) for one in fields)
    rows = [[_cell(field, entry[field]) for field in fields] for entry in entries]
    console.print(filled(heads, rows, ("of", "until"), title))


def _cell(field: str, value: Any) -> Any:
    if field == "change":
        return f"{value:+,}"
    return moment(value) if field in {"hour", "window_start", "window_end"} else value


def _draw_list(console: Console, customer: str, found: list[dict[str, Any]]) -> None:
    if not found:
        console.print(Text(f"Nothing of {customer}'s usage was corrected by hand."))
        return
    rows = []
    for one in found:
        what = counted(len(one["items"]), "call") if one["ordered"] is None else one["ordered"]["event"]
        moved = sum(len(entries) for entries in one["effects"].values())
        rows.append((one["correction"], one["kind"], what, moment(one["at"]), one["actor"], one["reason"], moved))
    heads = ("correction", "kind", "of", "made", "by", "because", "entries moved")
    console.print(filled(heads, rows, (), customer))
