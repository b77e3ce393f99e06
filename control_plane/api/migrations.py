"""Migrations over HTTP: subscribers from older versions of their plan or add-on to a newer one."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody

from control_plane.api.context import Context
from control_plane.api.instants import WhenText, when_of
from control_plane.api.parameters import PathKey, encode_cursor, key_cursor
from control_plane.api.plans import VERSION_MAX
from control_plane.api.verbs import acts
from control_plane.core.plan_migrations import Target
from control_plane.core.subscriptions import Track
from control_plane.operations.author import Author
from control_plane.operations.migrate_plan import NAME_MAX, Below, Migrated, Refused, migrate_plan
from control_plane.store.database import Connection
from protocol.ids import KEY_PATTERN, KEY_WORDS

TAGS = ["catalog"]
VERSIONS_MAX = 100
Version = Annotated[int, msgspec.Meta(ge=1, le=VERSION_MAX)]
Name = Annotated[str, msgspec.Meta(pattern=KEY_PATTERN, max_length=NAME_MAX, description=KEY_WORDS)]


class MigrationWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """Whom to move, and whither.

    Attributes:
        migration: its name. A customer is moved once under a name: repeat it freely, also after an interruption.
        from_: the versions that are left; empty: every older one.
        when: ``now``, ``period_end`` (each customer's own), or an instant to come.
        dry_run: only say what would happen.
    """

    migration: Name
    to: Version
    from_: Annotated[tuple[Version, ...], msgspec.Meta(max_length=VERSIONS_MAX)] = ()
    when: WhenText = "now"
    dry_run: bool = False
    cursor: Annotated[str, msgspec.Meta(max_length=600)] | None = None


class MigrationItem(msgspec.Struct, frozen=True):
    """One page: say the same with ``next_cursor`` until it is null.

    Attributes:
        moved: customers that were moved, or would be. held_back: that this migration had moved before, and somebody
            moved back: they are left alone. refused: that cannot be moved.
        below: limits that fall below what is used of them in the present window.
    """

    migration: str
    to: int
    dry_run: bool
    moved: tuple[str, ...]
    held_back: tuple[str, ...]
    refused: tuple[Refused, ...]
    below: tuple[Below, ...]
    next_cursor: str | None


@acts("/v1/plans/{plan:str}/migrations", MigrationWrite, tags=TAGS)
def migrate_subscribers(
    plan: PathKey, data: JSONBody[MigrationWrite], context: NamedDependency[Context]
) -> MigrationItem:
    """Move subscribers from older versions of a plan to this one. Usage counts on, and what else is arranged for them
    stays."""
    return _migrate(Track.PLAN, plan, data, context)


@acts("/v1/add-ons/{add_on:str}/migrations", MigrationWrite, tags=TAGS)
def migrate_holders(
    add_on: PathKey, data: JSONBody[MigrationWrite], context: NamedDependency[Context]
) -> MigrationItem:
    """The same for who has an add-on; quantities stay."""
    return _migrate(Track.ADD_ONS, add_on, data, context)


def _migrate(track: Track, key: str, data: MigrationWrite, context: Context) -> MigrationItem:
    target = Target(track, key, data.to, frozenset(data.from_))
    when, after = when_of(data.when), key_cursor(data.cursor)

    def work(connection: Connection, author: Author) -> Migrated:
        return migrate_plan(connection, data.migration, target, when, author, apply=not data.dry_run, after=after)

    found = context.read(lambda connection: work(connection, context.author)) if data.dry_run else context.change(work)
    return MigrationItem(
        data.migration,
        data.to,
        data.dry_run,
        tuple(found.moved),
        tuple(found.held_back),
        tuple(found.refused),
        tuple(found.below),
        None if found.following is None else encode_cursor(found.following),
    )


MIGRATION_HANDLERS = [migrate_subscribers, migrate_holders]
