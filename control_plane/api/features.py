"""Features over HTTP."""

from __future__ import annotations

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody

from control_plane.api.context import Context
from control_plane.api.parameters import Page, PageCursor, PageLimit, PathKey, key_cursor, page
from control_plane.api.verbs import puts, reads
from control_plane.core.catalog_file import FeatureWrite
from control_plane.core.combining import Combine
from control_plane.operations.apply_catalog import put_feature
from control_plane.operations.refusals import NotFound
from control_plane.store import catalog
from control_plane.store.catalog import FeatureRow
from control_plane.store.database import Connection
from protocol.entitlements import FeatureKind

TAGS = ["catalog"]


class FeatureItem(msgspec.Struct, frozen=True):
    """A feature of the catalog."""

    feature: str
    name: str
    kind: FeatureKind
    combine: Combine
    disabled: bool


def _item(row: FeatureRow) -> FeatureItem:
    return FeatureItem(row.feature, row.name, row.kind, Combine(row.combine), row.disabled)


@puts("/v1/features/{feature:str}", FeatureWrite, tags=TAGS)
def declare_feature(feature: PathKey, data: JSONBody[FeatureWrite], context: NamedDependency[Context]) -> FeatureItem:
    """Declare a feature, rename it, say how it combines, or switch it off."""
    wanted = FeatureRow(feature, data.name, data.kind, data.combine.value, data.disabled)
    row = context.change(
        lambda connection, author: put_feature(connection, wanted, author),
        shown=lambda connection: _item(_require(connection, feature)),
    )
    return _item(row)


@reads("/v1/features/{feature:str}", tags=TAGS)
def get_feature(feature: PathKey, context: NamedDependency[Context]) -> FeatureItem:
    """One feature."""
    return _item(context.read(lambda connection: _require(connection, feature)))


@reads("/v1/features", tags=TAGS)
def list_features(
    context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None
) -> Page[FeatureItem]:
    """Features in order of name."""
    after = key_cursor(cursor)
    rows = context.read(lambda connection: catalog.features_after(connection, after, limit + 1))
    return page(rows, limit, _item, lambda row: row.feature)


def _require(connection: Connection, feature: str) -> FeatureRow:
    row = catalog.find_feature(connection, feature)
    if row is None:
        raise NotFound("feature_not_found", f"There is no feature {feature!r}.", "feature")
    return row


FEATURE_HANDLERS = [declare_feature, get_feature, list_features]
