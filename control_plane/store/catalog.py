"""The catalog: features, meters, and plans with all their versions."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, func, insert, select, update

from control_plane.store.tables import features, meters, plans
from protocol.entitlements import FeatureKind


class FeatureRow(NamedTuple):
    """A feature: its kind never changes, because published plans rely on it."""

    feature: str
    name: str
    kind: FeatureKind


class MeterRow(NamedTuple):
    """A meter: its unit never changes, because what was counted is counted in it."""

    meter: str
    unit: str
    description: str


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
    return FeatureRow(row.feature, row.name, FeatureKind(row.kind)) if row else None


def features_after(connection: Connection, feature: str, count: int) -> list[FeatureRow]:
    """Up to ``count`` features in order of name, beginning after ``feature``."""
    query = select(features).where(features.c.feature > feature).order_by(features.c.feature).limit(count)
    return [FeatureRow(row.feature, row.name, FeatureKind(row.kind)) for row in connection.execute(query)]


def feature_kinds(connection: Connection) -> dict[str, FeatureKind]:
    """Every feature and its kind."""
    query = select(features.c.feature, features.c.kind)
    return {row.feature: FeatureKind(row.kind) for row in connection.execute(query)}


def add_feature(connection: Connection, row: FeatureRow) -> None:
    """A new feature."""
    connection.execute(insert(features).values(feature=row.feature, name=row.name, kind=row.kind.value))


def rename_feature(connection: Connection, feature: str, name: str) -> None:
    """Give it another display name."""
    connection.execute(update(features).where(features.c.feature == feature).values(name=name))


_METERS = select(meters.c.meter).order_by(meters.c.meter)


def meter_names(connection: Connection) -> list[str]:
    """Every declared meter."""
    return list(connection.execute(_METERS).scalars())


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


def describe_meter(connection: Connection, meter: str, description: str) -> None:
    """Say anew what it counts."""
    connection.execute(update(meters).where(meters.c.meter == meter).values(description=description))


def find_plan(connection: Connection, plan: str, version: int | None = None) -> PlanRow | None:
    """One version of a plan; without ``version`` the newest."""
    query = select(plans).where(plans.c.plan == plan)
    query = query.where(plans.c.version == version) if version else query.order_by(plans.c.version.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return PlanRow(*row) if row else None


def newest_plans_after(connection: Connection, plan: str, count: int) -> list[PlanRow]:
    """The newest version of up to ``count`` plans in order of name, beginning after ``plan``."""
    newest = select(plans.c.plan, func.max(plans.c.version).label("version")).where(plans.c.plan > plan)
    page = newest.group_by(plans.c.plan).order_by(plans.c.plan).limit(count).subquery()
    query = select(plans).join(page, (plans.c.plan == page.c.plan) & (plans.c.version == page.c.version))
    return [PlanRow(*row) for row in connection.execute(query.order_by(plans.c.plan))]


def add_plan(connection: Connection, row: PlanRow) -> None:
    """Publish a version."""
    connection.execute(insert(plans).values(**row._asdict()))
