"""Commands that do one thing and end: migrate, create-token."""

from __future__ import annotations

import click

from control_plane.cli.opening import errors_for_people, opened
from control_plane.clock import SystemClock, random_id, random_secret
from control_plane.core.tokens import EXPIRES_IN_HOURS_MAX, USES_MAX, IssuedRole, Role
from control_plane.operations.issue_token import TokenOrder, issue


@click.command()
def migrate() -> None:
    """Bring the database's schema to this program's version."""
    with errors_for_people(), opened() as (_, database):
        database.migrate()
    click.echo("The schema is current.")


@click.command("create-token")
@click.option("--role", type=click.Choice([role.value for role in IssuedRole]), required=True)
@click.option("--name", required=True, help="What it is for, in the list of tokens.")
@click.option("--uses", type=click.IntRange(1, USES_MAX), help="How many agents may join with it; else any number.")
@click.option(
    "--expires-in-hours", type=click.IntRange(1, EXPIRES_IN_HOURS_MAX), help="Else it does not end by itself."
)
def create_token(role: str, name: str, uses: int | None, expires_in_hours: int | None) -> None:
    """Make a token and print it, this once."""
    if not name.isprintable() or not 1 <= len(name) <= 200:
        raise click.BadParameter("expected 1 to 200 printable letters", param_hint="--name")
    order = TokenOrder(Role(role), name, uses=uses, expires_in_hours=expires_in_hours)
    with errors_for_people(), opened() as (_, database):
        database.migrate()
        now_ms = SystemClock().now_ms()
        _, text = database.run(
            lambda connection: issue(connection, order, random_id(), random_secret(), actor="operator", now_ms=now_ms)
        )
    click.echo(text)
