"""The catalog: features, meters, and plans with all their versions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Table, func, insert, select, update

from control_plane.store.subscription_tables import add_ons
from control_plane.store.tables import features, meters, plans
from protocol.entitlements import FeatureKind

_IN_MAX = 500


class FeatureRow(NamedTuple):
    """A feature: its kind never changes, because published plans rely on it."""

    feature: str
    name: str
    kind: FeatureKind
    combine: str = "sum"
    disabled: bool = False


class MeterRow(NamedTuple):
    """A meter: its unit never changes, because what was counted is counted in it. ``aggregate``: how it is made of
    events, as the text of a ``core.aggregates.Aggregate``; empty for one that is reported."""

    meter: str
    unit: str
    description: str
    combine: str = "sum"
    aggregate: str = ""


class PlanRow(NamedTuple):
    """One published version of a plan; ``body`` is the text of a ``core.catalog.PlanBody``."""

    plan: str
    version: int
    name: str
    body: str
    published_at_ms: int


def find_feature(connection: Connection, feature: str) -> FeatureRow | None:
    """One feature."""
    row = connection.execute(select(features).where(features.c.feature == feature)).one_or_none()
    return _feature(row) if row else None


def features_after(connection: Connection, feature: str, count: int) -> list[FeatureRow]:
    """Up to ``count`` features in order of name, beginning after ``feature``."""
    query = select(features).where(features.c.feature > feature).order_by(features.c.feature).limit(count)
    return [_feature(row) for row in connection.execute(query)]


def _feature(row: Row[Any]) -> FeatureRow:
    return FeatureRow(row.feature, row.name, FeatureKind(row.kind), row.combine, row.disabled)


def feature_kinds(connection: Connection) -> dict[str, FeatureKind]:
    """Every feature and its kind."""
    query = select(features.c.feature, features.c.kind)
    return {row.feature: FeatureKind(row.kind) for row in connection.execute(query)}


def add_feature(connection: Connection, row: FeatureRow) -> None:
    """A new feature."""
    connection.execute(insert(features).values(**row._asdict() | {"kind": row.kind.value}))


def change_feature(connection: Connection, row: FeatureRow) -> None:
    """Everything about it but its kind."""
    changed = update(features).where(features.c.feature == row.feature)
    connection.execute(changed.values(name=row.name, combine=row.combine, disabled=row.disabled))


def rules(connection: Connection) -> tuple[dict[str, str], set[str]]:
    """How features and meters combine where it is not by sum (``feature:KEY``, ``meter:KEY``), and which features are
    switched off for everybody."""
    unusual = select(features.c.feature, features.c.combine, features.c.disabled).where(
        (features.c.combine != "sum") | features.c.disabled
    )
    rows = connection.execute(unusual).all()
    combine = {f"feature:{row.feature}": row.combine for row in rows}
    query = select(meters.c.meter, meters.c.combine).where(meters.c.combine != "sum")
    combine |= {f"meter:{row.meter}": row.combine for row in connection.execute(query)}
    return combine, {row.feature for row in rows if row.disabled}


_METERS = select(meters.c.meter).where(meters.c.aggregate == "").order_by(meters.c.meter)
_AGGREGATES = select(meters.c.meter, meters.c.aggregate).where(meters.c.aggregate != "").order_by(meters.c.meter)


def meter_names(connection: Connection) -> list[str]:
    """Every declared meter that is reported, or made by rates."""
    return list(connection.execute(_METERS).scalars())


def aggregates(connection: Connection) -> dict[str, str]:
    """Every meter that is made of events, and how."""
    return {row.meter: row.aggregate for row in connection.execute(_AGGREGATES)}


def find_meter(connection: Connection, meter: str) -> MeterRow | None:
    """One declared meter."""
    row = connection.execute(select(meters).where(meters.c.meter == meter)).one_or_none()
    return MeterRow(*row) if row else None


def meters_after(connection: Connection, meter: str, count: int) -> list[MeterRow]:
    """Up to ``count`` declared meters in order of name, beginning after ``meter``."""
    query = select(meters).where(meters.c.meter > meter).order_by(meters.c.meter).limit(count)
    return [MeterRow(*row) for row in connection.execute(query)]


def add_meter(connection: Connection, row: MeterRow) -> None:
    """A new meter."""
    connection.execute(insert(meters).values(**row._asdict()))


def change_meter(connection: Connection, row: MeterRow) -> None:
    """Everything about it but its unit and what it is made of."""
    changed = update(meters).where(meters.c.meter == row.meter)
    connection.execute(changed.values(description=row.description, combine=row.combine))


class Shelf(NamedTuple):
    """Where versions of one kind lie: plans, or add-ons. Both are bundles of features and limits."""

    table: Table
    key: str


PLANS = Shelf(plans, "plan")
ADD_ONS = Shelf(add_ons, "add_on")


def find_plan(connection: Connection, plan: str, version: int | None = None, shelf: Shelf = PLANS) -> PlanRow | None:
    """One version of a plan (or add-on); without ``version`` the newest."""
    table = shelf.table
    query = select(table).where(table.c[shelf.key] == plan)
    query = query.where(table.c.version == version) if version else query.order_by(table.c.version.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return PlanRow(*row) if row else None


def bodies(
    connection: Connection, wanted: Iterable[tuple[str, int]], shelf: Shelf = PLANS
) -> dict[tuple[str, int], str]:
    """The bodies of these versions."""
    named = sorted(set(wanted))
    table = shelf.table
    found: dict[tuple[str, int], str] = {}
    for start in range(0, len(named), _IN_MAX):
        keys = {key for key, _ in named[start : start + _IN_MAX]}
        query = select(table.c[shelf.key], table.c.version, table.c.body).where(table.c[shelf.key].in_(sorted(keys)))
        found |= {(row[0], row[1]): row[2] for row in connection.execute(query)}
    return {name: found[name] for name in named}


def newest_plans_after(connection: Connection, plan: str, count: int, shelf: Shelf = PLANS) -> list[PlanRow]:
    """The newest version of up to ``count`` plans (or add-ons) in order of name, beginning after ``plan``."""
    table = shelf.table
    key = table.c[shelf.key]
    newest = select(key, func.max(table.c.version).label("version")).where(key > plan)
    page = newest.group_by(key).order_by(key).limit(count).subquery()
    query = select(table).join(page, (key == page.c[shelf.key]) & (table.c.version == page.c.version))
    return [PlanRow(*row) for row in connection.execute(query.order_by(key))]


def add_plan(connection: Connection, row: PlanRow, shelf: Shelf = PLANS) -> None:
    """Publish a version."""
    values = row._asdict()
    connection.execute(insert(shelf.table).values(**{shelf.key: values.pop("plan")} | values))
