"""Settings and database for a command, with errors that say what to do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import click

from control_plane.operations.refusals import Refusal
from control_plane.settings import Settings, from_environment
from control_plane.store.database import Database, DatabaseUnavailable
from control_plane.store.file_claim import FileClaimed
from protocol.violations import Violation


@contextlib.contextmanager
def errors_for_people() -> Iterator[None]:
    """What an operator can set right becomes one line and exit status 1; anything else stays a traceback."""
    try:
        yield
    except Violation as violation:
        raise click.ClickException(violation.message) from None
    except Refusal as refusal:
        raise click.ClickException(refusal.detail) from None
    except (DatabaseUnavailable, FileClaimed) as error:
        cause = error.__cause__
        why = f" ({str(getattr(cause, 'orig', cause)).strip()})" if cause else ""
        raise click.ClickException(f"{error}{why}") from None


@contextlib.contextmanager
def opened() -> Iterator[tuple[Settings, Database]]:
    """The settings, and the database they name, closed at the end."""
    settings = from_environment(os.environ)
    try:
        database = Database(settings.database_url)
    except (OSError, ValueError) as error:
        raise Violation("ALLOTMENT_DATABASE_URL", f"cannot be used: {error}", "a database that can be opened") from None
    try:
        yield settings, database
    finally:
        database.dispose()
