"""Every instant is in one bucket of its grain and zone, and the sums that make up an answer cover its span once."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.grains import HOUR_MS, MINUTE_MS, ZONED, Grain, bucket, by_minute, segments, splits, starts
from protocol.instants import from_datetime, to_datetime
from protocol.violations import Violation

ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "America/Sao_Paulo", "Australia/Lord_Howe",
         "Pacific/Apia", "America/St_Johns", "Africa/Casablanca")  # fmt: skip
zones = st.sampled_from(ZONES).map(ZoneInfo)
instants = st.integers(946_684_800_000 // MINUTE_MS, 2_000_000_000_000 // MINUTE_MS).map(lambda at: at * MINUTE_MS)
spans = st.tuples(instants, st.integers(1, 200 * 24 * 60)).map(lambda one: (one[0], one[0] + one[1] * MINUTE_MS))


def local_start(grain: Grain, at_ms: int, zone: ZoneInfo) -> tuple[int, ...]:
    day = to_datetime(at_ms).astimezone(zone).date()
    return {
        Grain.DAY: (day.toordinal(),),
        Grain.WEEK: tuple(day.isocalendar()[:2]),
        Grain.MONTH: (day.year, day.month),
    }[grain]


@given(st.sampled_from(ZONED), spans, zones, st.lists(st.floats(0, 1, exclude_max=True), min_size=1))
def test_an_instant_is_in_the_bucket_of_its_local_day_week_or_month(
    grain: Grain, span: tuple[int, int], zone: ZoneInfo, places: list[float]
) -> None:
    parts = segments(grain, *span, zone)
    edges = list(starts(parts))
    assert edges == sorted(set(edges))
    assert edges[0] <= span[0]
    assert edges[-1] >= span[1]
    for place in places:
        at_ms = span[0] + int((span[1] - span[0]) * place)
        begin = bucket(parts, at_ms)
        assert begin in edges
        assert begin <= at_ms
        assert local_start(grain, at_ms, zone) == local_start(grain, max(begin, 0), zone)
        assert local_start(grain, begin - 1, zone) != local_start(grain, begin, zone)


@given(st.lists(st.sampled_from(list(Grain)), max_size=2, unique=True), spans, zones)
def test_whole_hours_and_split_hours_cover_the_span_once_and_never_cross_a_bucket(
    grains: list[Grain], span: tuple[int, int], zone: ZoneInfo
) -> None:
    kinds = [segments(grain, *span, zone) for grain in grains]
    cut = splits(*span, kinds)
    if by_minute(kinds):
        assert [(part.from_ms, part.to_ms) for part in cut] == [span]
        return
    pieces = [(part.from_ms, part.to_ms) for part in cut]
    split_hours = {part.hour_ms for part in cut}
    first = span[0] - span[0] % HOUR_MS
    for hour_ms in range(first, span[1], HOUR_MS):
        if hour_ms not in split_hours:
            pieces.append((hour_ms, hour_ms + HOUR_MS))
            for parts in kinds:
                assert bucket(parts, hour_ms) == bucket(parts, hour_ms + HOUR_MS - MINUTE_MS)
    pieces.sort()
    assert pieces[0][0] == span[0]
    assert pieces[-1][1] == span[1]
    assert all(before[1] == after[0] for before, after in pairwise(pieces))


def test_days_are_as_long_as_clocks_make_them() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    march = [from_datetime(datetime(2026, 3, day, tzinfo=berlin)) for day in (28, 31)]
    lengths = [(end - start) // HOUR_MS for start, end in pairwise(list(starts(segments(Grain.DAY, *march, berlin))))]
    assert lengths == [24, 23, 24]
    samoa = ZoneInfo("Pacific/Apia")  # had no 30 December 2011
    days = [from_datetime(datetime(2011, 12, day, tzinfo=samoa)) for day in (29, 31)]
    assert [(end - start) // HOUR_MS for start, end in pairwise(list(starts(segments(Grain.DAY, *days, samoa))))] == [
        24
    ]


def test_too_many_buckets_are_refused() -> None:
    with pytest.raises(Violation, match="from"):
        segments(Grain.DAY, 0, 2_000_000_000_000, ZoneInfo("Asia/Kolkata"))
