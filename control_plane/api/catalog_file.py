"""The catalog as one file over HTTP: applied as a whole or not at all, looked at before, and read back."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from control_plane.api.context import Context
from control_plane.api.verbs import puts, reads
from control_plane.core.catalog_changes import FieldChange
from control_plane.core.catalog_file import CatalogFile
from control_plane.operations.apply_file import Entry, Outcome, apply_file, export_file
from control_plane.operations.count_subscribers import count_subscribers

TAGS = ["catalog"]
DryRun = Annotated[bool, QueryParameter(description="only say what would change; nothing does")]


class VersionCount(msgspec.Struct, frozen=True):
    """So many customers have this version of a plan or add-on, and keep it."""

    version: int
    customers: int


class EntryItem(msgspec.Struct, frozen=True):
    """What becomes of one entry of the file.

    Attributes:
        section: ``meters``, ``features``, ``price_books``, ``plans`` or ``add_ons``.
        version: of what has versions: the one that holds then.
        changes: field by field; entries of lists by their names. Empty for what is new.
        subscribers: of a plan or add-on: who has which version; they keep it until they are moved.
        customers: of a feature or meter: for how many customers ``combine`` or ``disabled`` changes what they may use.
    """

    section: str
    key: str
    outcome: Outcome
    version: int | None
    changes: tuple[FieldChange, ...]
    subscribers: tuple[VersionCount, ...]
    customers: int


class AppliedItem(msgspec.Struct, frozen=True):
    """What a file changed, or with ``dry_run`` would: every entry of it, in the order in which they were applied."""

    dry_run: bool
    new: int
    changed: int
    unchanged: int
    entries: tuple[EntryItem, ...]


@puts("/v1/catalog", CatalogFile, tags=TAGS)
def apply(data: JSONBody[CatalogFile], context: NamedDependency[Context], dry_run: DryRun = False) -> AppliedItem:
    """Make the catalog what the file says, all of it or nothing. What the file does not name stays; plans and add-ons
    that say something new get a version, and who has one keeps theirs."""
    subscribers = context.read(lambda connection: count_subscribers(connection, context.now_ms))
    entries = context.change(
        lambda connection, author: apply_file(connection, data, subscribers, author),
        shown=export_file,
        keep=not dry_run,
    )
    counts = {outcome: sum(one.outcome is outcome for one in entries) for outcome in Outcome}
    return AppliedItem(
        dry_run,
        counts[Outcome.NEW],
        counts[Outcome.CHANGED],
        counts[Outcome.UNCHANGED],
        tuple(_item(entry) for entry in entries),
    )


@reads("/v1/catalog", tags=TAGS)
def export(context: NamedDependency[Context]) -> CatalogFile:
    """The newest version of everything, as a file that can be applied: here, where it changes nothing, or elsewhere."""
    return context.read(export_file)


def _item(entry: Entry) -> EntryItem:
    subscribers = tuple(VersionCount(*one) for one in entry.subscribers)
    return EntryItem(entry.kind, entry.key, entry.outcome, entry.version, entry.changes, subscribers, entry.customers)


CATALOG_FILE_HANDLERS = [apply, export]
