"""A command that proves that the books agree, or names what does not."""

from __future__ import annotations

import click
import msgspec

from control_plane.cli.opening import errors_for_people, opened
from control_plane.operations import reconcile as operation
from control_plane.operations.audit_books import Difference
from control_plane.operations.change_customer import require_customer
from control_plane.operations.refusals import Conflict
from control_plane.store import customers
from control_plane.store.database import Database


@click.command()
@click.option("--customer", help="Only this one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: customers, and differences.")
@click.pass_context
def reconcile(context: click.Context, customer: str | None, *, as_json: bool) -> None:
    """Recompute every sum from what it was made of - events, ledger, leases - and name each difference.

    Changes nothing, and may run beside running replicas. Exit status 1 if anything differs.
    """
    with errors_for_people(), opened() as (_, database):
        if not database.is_current():
            raise Conflict("schema_not_current", "The schema is not this program's: run `migrate` first.")
        if customer is not None:
            database.read(lambda connection: require_customer(connection, customer))
        count, differences = _look(database, customer)
    if as_json:
        found = {"customers": count, "differences": [one._asdict() for one in differences]}
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        for one in differences:
            click.echo(f"{one.part}: {one.text}")
        what = "agree" if not differences else f"disagree in {len(differences)} places"
        click.echo(f"The books of {count:,} customers {what}.")
    context.exit(1 if differences else 0)


def _look(database: Database, customer: str | None) -> tuple[int, list[Difference]]:
    from rich.console import Console
    from rich.progress import Progress

    count = 0
    differences: list[Difference] = []
    total = 1 if customer is not None else database.read(customers.count)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Reconciling", total=total)
        for found in operation.reconcile(database, only=customer):
            count += found.customers
            differences += found.differences
            progress.update(task, completed=count)
    return count, differences
