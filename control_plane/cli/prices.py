"""Commands about prices: seed-prices, rerate."""

from __future__ import annotations

from functools import partial

import click
from rich.console import Console
from rich.table import Table

from control_plane.cli.opening import errors_for_people, opened
from control_plane.clock import SystemClock
from control_plane.core.rerating import NAME_MAX
from control_plane.operations.author import Author
from control_plane.operations.change_price_book import seed_prices
from control_plane.operations.library_prices import library_prices
from control_plane.operations.rerate_usage import Rerated, Rerating, rerate_usage
from control_plane.store.database import Database
from protocol.ids import KEY_WORDS, is_key
from protocol.instants import from_rfc3339, rfc3339

SHOWN_MAX = 40


def is_name(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """For click. Raises: BadParameter: it is no id."""
    if value is not None and not is_key(value):
        raise click.BadParameter(f"expected {KEY_WORDS}", ctx=context, param=parameter)
    return value


@click.command("seed-prices")
@click.argument("book", callback=is_name)
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--long-prompts", is_flag=True, help="Where long prompts cost more, take their price for all.")
@click.option("--all", "show_all", is_flag=True, help="Show every change, not the first ones only.")
def seed(book: str, dry_run: bool, long_prompts: bool, show_all: bool) -> None:
    """Put the prices of the genai-prices library into a price BOOK: its next version. Overrides and markup stay."""
    now_ms = SystemClock().now_ms()
    library = library_prices(now_ms, long_prompts=long_prompts)
    with errors_for_people(), opened() as (_, database):
        database.migrate()
        author = Author("operator", now_ms)
        done = database.run(lambda connection: seed_prices(connection, book, library, author, dry_run=dry_run))
    table = Table("model", "of", "before", "after", title=f"{book}@{done.version}: micro-USD for a million")
    for change in done.changes if show_all else done.changes[:SHOWN_MAX]:
        cells = ["" if amount is None else f"{amount:,}" for amount in (change.before, change.after)]
        table.add_row(change.model, change.of, *cells)
    if done.changes:
        Console().print(table)
    would = "would be" if dry_run else "are"
    click.echo(
        f"{len(done.changes)} prices {would} other than before in {book}@{done.version}, from {library.source}."
        f" {len(library.tiered)} models cost more for long prompts, {len(library.left_out)} are not priced by tokens."
    )


def to_instant(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """For click. Raises: BadParameter: it is no instant."""
    try:
        return from_rfc3339(value)
    except ValueError:
        text = "expected an instant with its zone, as 2026-11-24T05:00:00Z"
        raise click.BadParameter(text, ctx=context, param=parameter) from None


@click.command()
@click.argument("book", callback=is_name)
@click.argument("version", type=click.IntRange(1, 2**31 - 1))
@click.option("--from", "from_ms", required=True, callback=to_instant, help="First instant, as 2026-11-01T00:00:00Z.")
@click.option("--to", "to_ms", required=True, callback=to_instant, help="Until before this instant.")
@click.option("--customer", callback=is_name, help="Calls of this customer.")
@click.option("--plan", callback=is_name, help="Calls of all who are on this plan now.")
@click.option("--apply", "name", callback=is_name, help="Correct the calls, under this name; else only show.")
@click.option("--reason", default="", help="For the audit log.")
def rerate(
    book: str, version: int, from_ms: int, to_ms: int, customer: str | None, plan: str | None, name: str | None,
    reason: str,
) -> None:  # fmt: skip
    """Price past calls again by VERSION of the price BOOK that priced them. Shows the difference by day and meter."""
    if (customer is None) == (plan is None):
        raise click.UsageError("expected --customer or --plan, one of the two")
    if name is not None and len(name) > NAME_MAX:
        raise click.BadParameter(f"expected at most {NAME_MAX} letters", param_hint="--apply")
    order = Rerating(book, version, from_ms, to_ms, customer, plan, reason)
    with errors_for_people(), opened() as (_, database):
        database.migrate()
        found = _all_pages(database, order, name)
    table = Table("day", "meter", "before", "after", "difference", title=f"by {book}@{version}")
    for (day_ms, meter), (before, after) in sorted(found.sums.items()):
        table.add_row(rfc3339(day_ms)[:10], meter, f"{before:,}", f"{after:,}", f"{after - before:+,}")
    if found.sums:
        Console().print(table)
    done = f"{found.corrected} corrected now" if name else "nothing changed; say --apply NAME to correct them"
    click.echo(
        f"{found.calls} calls, of which {found.moved} have another price ({done}), {found.unpriced} have no price in"
        f" this version and stay, {found.closed} are of closed periods."
    )


def _all_pages(database: Database, order: Rerating, name: str | None) -> Rerated:
    """Every page in a transaction of its own: an interrupted one goes on when the same is said again."""
    found, after = Rerated(), None
    while True:
        author = Author("operator", SystemClock().now_ms())
        page = partial(rerate_usage, name=name or "-", order=order, author=author, apply=name is not None, after=after)
        found_here = database.run(page)
        _add(found, found_here)
        after = found_here.following
        if after is None:
            return found


def _add(found: Rerated, more: Rerated) -> None:
    for count in ("calls", "moved", "corrected", "unpriced", "closed"):
        setattr(found, count, getattr(found, count) + getattr(more, count))
    for key, (before, after) in more.sums.items():
        sums = found.sums.setdefault(key, [0, 0])
        sums[0] += before
        sums[1] += after
