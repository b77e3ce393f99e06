"""Commands for after trouble: the database was restored, a holder is lost, a quarantine was a false alarm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from control_plane.cli.opening import errors_for_people, opened
from control_plane.clock import SystemClock
from control_plane.operations.author import Author
from control_plane.operations.learn_again import say_restored
from control_plane.operations.release_journal import release_journal
from control_plane.operations.write_off_lease import write_off_lease
from control_plane.store.database import Connection

ACTOR = "operator"


def _reason(_: click.Context, parameter: click.Parameter, value: str) -> str:
    if not value.isprintable() or not 1 <= len(value) <= 500:
        raise click.BadParameter("expected 1 to 500 printable letters", param=parameter)
    return value


_why = click.option("--reason", required=True, callback=_reason, help="Why, for the audit log.")


def _do(work: Callable[[Connection, Author], Any]) -> Any:
    with errors_for_people(), opened() as (_, database):
        database.migrate()
        return database.run(lambda connection: work(connection, Author(ACTOR, SystemClock().now_ms())))


@click.command()
@_why
def restored(reason: str) -> None:
    """Say that the database was restored to an older state, before serving from it.

    Nothing finite is lent until agents have said what they hold: a minute at least, ALLOTMENT_LEARNING_MINUTES at most.
    """
    begun = _do(lambda connection, author: say_restored(connection, author.token, reason, author.now_ms))
    click.echo(f"Generation {begun.name} has begun; agents are heard before anything finite is lent.")


@click.command("write-off")
@click.option("--customer", required=True)
@click.option("--lease", required=True)
@click.option("--used", type=click.IntRange(0), help="What to charge; else what its holder had reported.")
@_why
def write_off(customer: str, lease: str, used: int | None, reason: str) -> None:
    """Close a lease whose holder is silent, openly; what is not charged goes back."""
    _do(lambda connection, author: write_off_lease(connection, customer, lease, used, reason, author))
    click.echo(f"Lease {lease} of {customer} is closed.")


@click.command("release-journal")
@click.option("--agent", required=True)
@click.option("--journal", required=True)
@_why
def release(agent: str, journal: str, reason: str) -> None:
    """Believe a journal in quarantine again: only one copy of it lives."""
    done = _do(lambda connection, author: release_journal(connection, agent, journal, reason, author))
    click.echo(f"Journal {journal} of {agent} is {'believed again' if done else 'not in quarantine'}.")
