"""Says what a meter that is made of events came to for a customer, told apart as asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo

from control_plane.core.aggregates import REPORTED, Aggregate, decode
from control_plane.core.catalog import BUILT_IN_METERS
from control_plane.core.grains import HOUR_MS, AskedSpan, Grain, segments, starts
from control_plane.operations.change_customer import require_customer
from control_plane.operations.refusals import Conflict, NotFound
from control_plane.operations.resolve_entitlement import calendar_of
from control_plane.store import catalog, meter_values
from control_plane.store.database import Connection
from control_plane.store.meter_values import Wanted
from protocol.violations import Violation

Position = tuple[str | int, ...]


@dataclass(frozen=True)
class MeterQuery:
    """Which values are wanted.

    Attributes:
        span: of which time: whole hours.
        grain: a value for each of these; ``None``: one for all.
        zone: whose days, weeks and months; ``None``: UTC's.
        group_by: attributes that it is told apart by. only: what attributes must be.
        after: continue after the value with these keys. count: at most so many.
    """

    span: AskedSpan
    grain: Grain | None = None
    zone: tzinfo | None = None
    group_by: tuple[str, ...] = ()
    only: Mapping[str, str] = field(default_factory=dict)
    after: Position | None = None
    count: int = 1_000


@dataclass(frozen=True)
class MeterValue:
    """One value; ``at_ms``: when its bucket begins, 0 without a grain. ``group``: by attribute."""

    value: int
    at_ms: int
    group: dict[str, str]


@dataclass(frozen=True)
class MeterFound:
    """Values of ``from_ms <= t < to_ms``, in order of their keys.

    Attributes:
        whole: ``False`` while something of the span is still to be made of the events: a correction of a moment ago,
            or what was there before the meter was declared.
        more_after: there are more, after this position.
    """

    aggregate: Aggregate
    from_ms: int
    to_ms: int
    values: Sequence[MeterValue]
    whole: bool
    more_after: Position | None


def read_meter(connection: Connection, customer: str, meter: str, query: MeterQuery, now_ms: int) -> MeterFound:
    """What a meter came to. Groups without any call are left out.

    Raises: NotFound. Conflict: the meter is reported: its sums are in the usage. Violation: it is not told apart so.
    """
    require_customer(connection, customer)
    aggregate = _aggregate(connection, meter)
    span = query.span.whole(HOUR_MS, now_ms, calendar_of(connection, customer, now_ms))
    times = None if query.grain is None else segments(query.grain, span.start_ms, span.end_ms, query.zone)
    if query.grain is Grain.MINUTE:
        raise Violation("grain", "is minute, and these meters are kept by the hour", "hour, day, week or month")
    if times is not None and any(at_ms % HOUR_MS for at_ms in starts(times)):
        expected = "a zone whose days begin with an hour of UTC"
        raise Violation("zone", "begins days within an hour, and these meters are kept by the hour", expected)
    wanted = Wanted(
        customer=customer,
        meter=meter,
        aggregation=aggregate.aggregation.value,
        from_ms=span.start_ms,
        to_ms=span.end_ms,
        times=times,
        groups=[_place(aggregate, name, "group_by") for name in query.group_by],
        only={_place(aggregate, name, name): value for name, value in query.only.items()},
    )
    rows = meter_values.values(connection, wanted, query.count + 1, query.after)
    shown = rows[: query.count]
    return MeterFound(
        aggregate=aggregate,
        from_ms=span.start_ms,
        to_ms=span.end_ms,
        values=[_value(keys, value, query) for keys, value in shown],
        whole=meter_values.is_whole(connection, customer, meter, span.start_ms, span.end_ms),
        more_after=tuple(shown[-1][0]) if len(rows) > query.count else None,
    )


def _aggregate(connection: Connection, meter: str) -> Aggregate:
    row = catalog.find_meter(connection, meter)
    if row is None and meter not in BUILT_IN_METERS:
        raise NotFound("meter_not_found", f"There is no meter {meter!r}.", "meter")
    aggregate = decode(row.aggregate) if row else REPORTED
    if aggregate == REPORTED:
        detail = f"Meter {meter!r} is a sum of what was reported: GET .../usage?meter={meter} has it."
        raise Conflict("meter_reported", detail, "meter")
    return aggregate


def _place(aggregate: Aggregate, name: str, field: str) -> int:
    if name not in aggregate.group_by:
        expected = "one of " + ", ".join(aggregate.group_by) if aggregate.group_by else "none: it has no group_by"
        raise Violation(field, f"asks for {name}, which the meter is not told apart by", expected)
    return aggregate.group_by.index(name)


def _value(keys: Sequence[str | int], value: int, query: MeterQuery) -> MeterValue:
    at_ms = 0 if query.grain is None else int(keys[0])
    named = keys if query.grain is None else keys[1:]
    return MeterValue(value, at_ms, {name: str(key) for name, key in zip(query.group_by, named, strict=True)})
