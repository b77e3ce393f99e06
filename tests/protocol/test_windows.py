"""Windows are half-open, contiguous, hold their instant, and follow the calendar."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from protocol.instants import INSTANT_MS_MAX, DurationMs, from_datetime, to_datetime
from protocol.windows import Calendar, Window, WindowKind, window_at

SPANS = [kind for kind in WindowKind if kind is not WindowKind.REQUEST]
REPEATING = [kind for kind in SPANS if kind not in {WindowKind.LIFETIME, WindowKind.IN_FLIGHT, WindowKind.GRANTS}]
# Half an hour off, a day skipped (Samoa 2011), clocks set at midnight (Lebanon, Cuba), in winter (Ireland).
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"]
ZONES += ["Asia/Beirut", "America/Havana", "America/Sao_Paulo", "Europe/Dublin", "Pacific/Kiritimati"]
kinds = st.sampled_from(SPANS)
repeating = st.sampled_from(REPEATING)
YEAR_MS = 366 * 86_400_000
# The longest window fits before and after each: the first and the last of all time are cut, and tested by themselves.
instants = st.integers(YEAR_MS, INSTANT_MS_MAX - YEAR_MS)
zones = st.sampled_from(ZONES)
anchors = st.builds(Calendar, st.integers(0, INSTANT_MS_MAX - 1), zones, st.sampled_from([1, 3, 12]))


def at(text: str) -> int:
    return from_datetime(datetime.fromisoformat(text).replace(tzinfo=UTC))


def period(anchor: str, instant: str) -> tuple[str, str]:
    window = window_at(WindowKind.BILLING_PERIOD, at(instant), Calendar(at(anchor)))
    return tuple(to_datetime(edge).strftime("%Y-%m-%d %H:%M") for edge in window)


@given(kinds, instants, anchors)
def test_a_window_holds_its_instant_and_not_its_end(kind, instant, anchor):
    window = window_at(kind, instant, anchor)
    assert window.start_ms <= instant < window.end_ms


@given(kinds, instants, anchors)
def test_what_is_left_of_any_window_can_be_said_on_the_wire(kind, instant, anchor):
    left_ms = window_at(kind, instant, anchor).end_ms - instant
    assert msgspec.convert(left_ms, DurationMs) == left_ms


@given(repeating, instants, anchors)
def test_windows_follow_each_other_without_gap_or_overlap(kind, instant, anchor):
    window = window_at(kind, instant, anchor)
    assert window_at(kind, window.start_ms, anchor) == window
    assert window_at(kind, window.end_ms - 1, anchor) == window
    assert window_at(kind, window.end_ms, anchor).start_ms == window.end_ms
    assert window_at(kind, window.start_ms - 1, anchor).end_ms == window.start_ms


@given(repeating, instants, st.integers(0, 400 * 86_400_000), anchors)
def test_later_instants_never_fall_into_earlier_windows(kind, instant, later, anchor):
    later_ms = min(instant + later, INSTANT_MS_MAX - YEAR_MS)
    if later_ms >= instant:
        assert window_at(kind, later_ms, anchor).start_ms >= window_at(kind, instant, anchor).start_ms


@pytest.mark.parametrize("kind", SPANS)
@pytest.mark.parametrize("instant", [0, INSTANT_MS_MAX - 1])
def test_the_ends_of_time_have_windows_too(kind, instant):
    window = window_at(kind, instant, Calendar(at("2024-01-31 13:00")))
    assert window.start_ms <= instant < window.end_ms


@given(instants)
def test_weeks_begin_on_monday_at_midnight(instant):
    start = to_datetime(window_at(WindowKind.WEEK, instant).start_ms)
    assert (start.isoweekday(), start.hour, start.minute) == (1, 0, 0)


@given(instants)
def test_months_are_those_of_the_calendar(instant):
    start, end = (to_datetime(edge) for edge in window_at(WindowKind.MONTH, instant))
    moment = to_datetime(instant)
    assert (start.year, start.month, start.day, start.hour) == (moment.year, moment.month, 1, 0)
    assert end.day == 1
    assert 28 <= (end - start).days <= 31


@pytest.mark.parametrize(
    ("kind", "milliseconds"),
    [
        (WindowKind.MINUTE, 60_000),
        (WindowKind.HOUR, 3_600_000),
        (WindowKind.DAY, 86_400_000),
        (WindowKind.WEEK, 604_800_000),
    ],
)
def test_short_windows_have_their_length(kind, milliseconds):
    window = window_at(kind, at("2026-11-24 05:06:07"))
    assert window.end_ms - window.start_ms == milliseconds


@pytest.mark.parametrize(
    ("anchor", "instant", "start", "end"),
    [
        ("2026-01-15 10:30", "2026-03-15 10:29", "2026-02-15 10:30", "2026-03-15 10:30"),
        ("2026-01-15 10:30", "2026-03-15 10:30", "2026-03-15 10:30", "2026-04-15 10:30"),
        ("2026-01-31 00:00", "2026-02-15 00:00", "2026-01-31 00:00", "2026-02-28 00:00"),
        ("2026-01-31 00:00", "2026-03-01 00:00", "2026-02-28 00:00", "2026-03-31 00:00"),  # the 31st is kept
        ("2026-01-31 00:00", "2026-04-30 00:00", "2026-04-30 00:00", "2026-05-31 00:00"),
        ("2026-01-30 00:00", "2026-02-28 12:00", "2026-02-28 00:00", "2026-03-30 00:00"),
        ("2026-01-29 00:00", "2026-02-28 12:00", "2026-02-28 00:00", "2026-03-29 00:00"),
        ("2024-01-29 00:00", "2024-02-29 12:00", "2024-02-29 00:00", "2024-03-29 00:00"),  # a leap year
        ("2024-02-29 06:00", "2025-02-28 06:00", "2025-02-28 06:00", "2025-03-29 06:00"),
        ("2026-01-31 23:59", "2026-12-31 23:58", "2026-11-30 23:59", "2026-12-31 23:59"),
        ("2030-05-20 00:00", "2026-05-21 00:00", "2026-05-20 00:00", "2026-06-20 00:00"),  # an anchor to come
    ],
)
def test_billing_periods_keep_the_day_of_their_anchor(anchor, instant, start, end):
    assert period(anchor, instant) == (start, end)


@given(instants, anchors)
def test_a_billing_period_begins_on_the_anchors_day_or_on_the_last_of_a_shorter_month(instant, by):
    by = by._replace(zone="UTC")
    start = to_datetime(window_at(WindowKind.BILLING_PERIOD, instant, by).start_ms)
    anchor = to_datetime(by.anchor_ms)
    assume(start.year > 1970)
    following = to_datetime(from_datetime(start) + 86_400_000)
    assert start.day == anchor.day or (start.day < anchor.day and following.month != start.month)
    assert (start.year * 12 + start.month - anchor.year * 12 - anchor.month) % by.months == 0


def local(kind: WindowKind, instant: str, zone: str, anchor: str = "1970-01-01 00:00", months: int = 1) -> list[str]:
    clock = ZoneInfo(zone)
    at_ms, anchor_ms = (from_datetime(datetime.fromisoformat(text).replace(tzinfo=clock)) for text in (instant, anchor))
    window = window_at(kind, at_ms, Calendar(anchor_ms, zone, months))
    edges = [to_datetime(edge).astimezone(clock).strftime("%Y-%m-%d %H:%M") for edge in window]
    return [*edges, f"{(window.end_ms - window.start_ms) / 3_600_000:g} h"]


@pytest.mark.parametrize(
    ("kind", "zone", "instant", "expected"),
    [
        ("day", "Europe/Berlin", "2026-03-29 12:00", ["2026-03-29 00:00", "2026-03-30 00:00", "23 h"]),
        ("day", "Europe/Berlin", "2026-10-25 12:00", ["2026-10-25 00:00", "2026-10-26 00:00", "25 h"]),
        ("day", "Australia/Lord_Howe", "2026-04-05 12:00", ["2026-04-05 00:00", "2026-04-06 00:00", "24.5 h"]),
        ("day", "Asia/Kolkata", "2026-03-29 12:00", ["2026-03-29 00:00", "2026-03-30 00:00", "24 h"]),
        # Clocks skip midnight: the day begins when they show 01:00.
        ("day", "America/Sao_Paulo", "2018-11-04 12:00", ["2018-11-04 01:00", "2018-11-05 00:00", "23 h"]),
        # Clocks show 00:00 to 01:00 twice.
        ("day", "America/Havana", "2026-11-01 12:00", ["2026-11-01 00:00", "2026-11-02 00:00", "25 h"]),
        ("day", "Pacific/Apia", "2011-12-31 12:00", ["2011-12-31 00:00", "2012-01-01 00:00", "24 h"]),
        ("week", "Europe/Berlin", "2026-03-29 12:00", ["2026-03-23 00:00", "2026-03-30 00:00", "167 h"]),
        ("month", "America/New_York", "2026-03-15 12:00", ["2026-03-01 00:00", "2026-04-01 00:00", "743 h"]),
    ],
)
def test_days_weeks_and_months_begin_on_the_clocks_of_the_zone(kind, zone, instant, expected):
    assert local(WindowKind(kind), instant, zone) == expected


@pytest.mark.parametrize(
    ("anchor", "months", "instant", "expected"),
    [
        ("2026-01-31 09:00", 1, "2026-03-30 12:00", ["2026-02-28 09:00", "2026-03-31 09:00"]),
        ("2024-02-29 00:00", 12, "2026-01-01 00:00", ["2025-02-28 00:00", "2026-02-28 00:00"]),
        ("2024-02-29 00:00", 12, "2028-02-29 00:00", ["2028-02-29 00:00", "2029-02-28 00:00"]),
        ("2026-01-31 00:00", 3, "2026-05-01 00:00", ["2026-04-30 00:00", "2026-07-31 00:00"]),
        # 02:30 does not exist on 29 March 2026 in Berlin: the period begins at the moment it would have been.
        ("2026-01-29 02:30", 1, "2026-03-29 12:00", ["2026-03-29 03:30", "2026-04-29 02:30"]),
    ],
)
def test_billing_periods_keep_the_time_of_day_of_their_zone(anchor, months, instant, expected):
    assert local(WindowKind.BILLING_PERIOD, instant, "Europe/Berlin", anchor, months)[:2] == expected


def test_a_lifetime_never_ends():
    assert window_at(WindowKind.LIFETIME, at("2026-01-01 00:00")) == Window(0, INSTANT_MS_MAX)


def test_a_request_has_no_span():
    with pytest.raises(ValueError, match="single call"):
        window_at(WindowKind.REQUEST, 0)
