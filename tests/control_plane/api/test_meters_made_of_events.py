"""Meters that are made of events: declared, read by time and group, corrected, made of what was there before."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.background.make_meters import make_some
from control_plane.operations.audit_books import check_books
from protocol.instants import rfc3339

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
PATH = "/v1/customers/acme"
METERS: dict[str, dict[str, Any]] = {
    "calls": {"unit": "calls", "aggregation": "count", "group_by": ["user", "tag:team"]},
    "largest": {"unit": "images", "aggregation": "max", "of": "images", "group_by": ["model"]},
    "newest": {"unit": "images", "aggregation": "latest", "of": "images"},
    "people": {"unit": "users", "aggregation": "unique_count", "of": "user", "group_by": ["tag:team"]},
    "red-images": {"unit": "images", "of": "images", "filter": {"tag:team": ["red"]}, "group_by": ["user"]},
}
CALLS = [  # hours from midnight, user, team, model, images
    (0, "ann", "red", "m-1", 3),
    (1, "bob", "red", "m-2", 9),
    (1, "ann", "blue", "m-1", 1),
    (25, "ann", None, "m-1", 5),
    (26, None, "red", "m-2", 4),
]


class Story:
    """A customer whose calls are entered by hand."""

    def __init__(self, admin: Any, clock: Any, database: Any) -> None:
        self.admin = admin
        self.database = database
        self.midnight_ms = clock.now_ms() // DAY_MS * DAY_MS
        clock.set(self.midnight_ms + 3 * DAY_MS)
        admin.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
        admin.put("/v1/meters/images", {"unit": "images"})
        admin.put("/v1/plans/pro", {"name": "Pro", "features": [{"feature": "chat"}]})
        admin.put("/v1/customers/acme", {"name": "Acme"})
        admin.put(PATH + "/subscription", {"plan": "pro"})

    def declare(self) -> None:
        for meter, terms in METERS.items():
            self.admin.put(f"/v1/meters/{meter}", terms)

    def calls(self, name: str = "first", some: list[Any] | None = None) -> None:
        events = [
            {
                "event": f"{name}-{at}",
                "feature": "chat",
                "at": rfc3339(self.midnight_ms + hour * HOUR_MS + at * 1_000),
                "amounts": {"images": images},
                "model": model,
                "subject": {"user": user} if user else {},
                "tags": {"team": team} if team else {},
            }
            for at, (hour, user, team, model, images) in enumerate(CALLS if some is None else some)
        ]
        self.admin.put(f"{PATH}/backfills/{name}", {"events": events, "reason": "missed"})

    def correct(self, name: str, event: str, images: int | None) -> None:
        terms = {"kind": "void"} if images is None else {"kind": "amend", "amounts": {"images": images}}
        self.admin.put(f"{PATH}/corrections/{name}", {"event": event, "reason": "wrong"} | terms)

    def make(self) -> None:
        while make_some(self.database):
            pass

    def read(self, meter: str, **query: Any) -> list[tuple[Any, ...]]:
        span = {"from": rfc3339(self.midnight_ms), "to": rfc3339(self.midnight_ms + 2 * DAY_MS)}
        found = self.admin.get(f"{PATH}/meters/{meter}", params=span | query)
        assert found["whole"] is True
        assert not self.database.read(check_books)
        return [
            (*([self.hour(item["start"])] if item["start"] else []), *item["group"].values(), item["value"])
            for item in found["items"]
        ]

    def hour(self, start: str) -> int:
        hours = {rfc3339(self.midnight_ms + hour * HOUR_MS): hour for hour in range(48)}
        return hours[start]


@pytest.fixture
def story(admin: Any, clock: Any, database: Any) -> Story:
    return Story(admin, clock, database)


def expect_all(story: Story) -> None:
    assert story.read("calls") == [(5,)]
    assert story.read("calls", group_by="user") == [("", 1), ("ann", 3), ("bob", 1)]
    assert story.read("calls", grain="day", group_by="tag:team") == [
        (0, "blue", 1), (0, "red", 2), (24, "", 1), (24, "red", 1),
    ]  # fmt: skip
    assert story.read("calls", user="ann", tag="team:red") == [(1,)]
    assert story.read("largest") == [(9,)]
    assert story.read("largest", grain="hour", group_by="model") == [
        (0, "m-1", 3), (1, "m-1", 1), (1, "m-2", 9), (25, "m-1", 5), (26, "m-2", 4),
    ]  # fmt: skip
    assert story.read("newest", grain="day") == [(0, 1), (24, 4)]
    assert story.read("people") == [(2,)]
    assert story.read("people", grain="day") == [(0, 2), (24, 1)]
    assert story.read("people", grain="day", group_by="tag:team") == [(0, "blue", 1), (0, "red", 2), (24, "", 1)]
    assert story.read("red-images", group_by="user") == [("", 4), ("ann", 3), ("bob", 9)]


def test_what_comes_in_is_told_by_time_and_group(story: Story) -> None:
    story.declare()
    story.make()
    story.calls("first", CALLS[:3])
    story.calls("second", CALLS[3:])
    expect_all(story)


def test_a_meter_declared_late_is_made_of_what_was_there(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.operations.make_meters.EVENTS_MAX", 2)
    story.admin.put("/v1/customers/before", {"name": "Before"})
    story.calls()
    story.declare()
    assert story.admin.get(f"{PATH}/meters/calls")["whole"] is False
    story.make()
    expect_all(story)


def test_a_meter_is_made_while_more_comes_in(story: Story) -> None:
    story.calls("first", CALLS[:3])
    story.declare()
    story.calls("second", CALLS[3:])
    story.make()
    expect_all(story)


def test_meters_follow_corrections(story: Story) -> None:
    story.declare()
    story.calls()
    story.make()
    story.admin.put(
        f"{PATH}/corrections/smaller", {"kind": "amend", "event": "first-1", "amounts": {"images": 2}, "reason": "r"}
    )
    assert story.admin.get(f"{PATH}/meters/largest")["whole"] is False
    story.make()
    assert story.read("largest") == [(5,)]
    assert story.read("red-images") == [(3 + 2 + 4,)]
    assert story.read("calls") == [(5,)]
    story.admin.put(f"{PATH}/corrections/never-was", {"kind": "void", "event": "first-1", "reason": "r"})
    story.admin.put(
        f"{PATH}/corrections/larger", {"kind": "amend", "event": "first-2", "amounts": {"images": 7}, "reason": "r"}
    )
    story.make()
    assert story.read("people", grain="day") == [(0, 1), (24, 1)]
    assert story.read("calls", grain="day") == [(0, 2), (24, 2)]
    assert story.read("newest", grain="day") == [(0, 7), (24, 4)]
    assert story.read("red-images", group_by="user") == [("", 4), ("ann", 3), ("bob", 0)]


def test_pages_go_on_where_they_ended(story: Story) -> None:
    story.declare()
    story.make()
    story.calls()
    span = {"from": rfc3339(story.midnight_ms), "to": rfc3339(story.midnight_ms + 2 * DAY_MS)}
    for meter, group_by in (("largest", "model"), ("calls", "user"), ("newest", None)):
        asked = span | {"grain": "hour"} | ({"group_by": group_by} if group_by else {})
        whole = story.admin.get(f"{PATH}/meters/{meter}", params=asked)["items"]
        pages, cursor = [], None
        while True:
            found = story.admin.get(
                f"{PATH}/meters/{meter}", params=asked | {"limit": 2} | ({"cursor": cursor} if cursor else {})
            )
            pages += found["items"]
            cursor = found["next_cursor"]
            if cursor is None:
                break
        assert len(whole) > 3
        assert pages == whole


def test_what_is_kept_and_differs_is_named(story: Story) -> None:
    story.declare()
    story.make()
    story.calls()
    sql = "UPDATE meter_values SET quantity = quantity + 1 WHERE meter = 'largest' AND group_1 = 'm-2' AND quantity = 9"
    story.database.run(lambda connection: connection.exec_driver_sql(sql))
    found = story.admin.get("/v1/reconciliation", params={"customer": "acme"})
    assert [item["part"] for item in found["items"]] == ["meters and events"]
    assert "what is kept and events differ: 10 and 9" in found["items"][0]["text"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"group_by": "model"}, "group_by"),
        ({"group_by": "user,user"}, "group_by"),
        ({"group_by": "nonsense"}, "group_by"),
        ({"role": "admin"}, "role"),
        ({"zone": "Asia/Kolkata", "grain": "day"}, "zone"),
        ({"zone": "Nowhere/Town"}, "zone"),
        ({"cursor": "WyJhIl0"}, "cursor"),
        ({"from": "yesterday"}, "from"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(story: Story, query: dict[str, str], field: str) -> None:
    story.declare()
    answer = story.admin("GET", f"{PATH}/meters/calls", params=query)
    assert answer.status_code == 400
    assert answer.json()["field"] == field


def test_declarations_never_change_and_limits_need_what_is_reported(story: Story) -> None:
    story.declare()
    story.declare()
    listed = {item["meter"]: item for item in story.admin.get("/v1/meters")["items"]}
    assert listed["people"]["reported"] is False
    assert (listed["people"]["aggregation"], listed["people"]["of"]) == ("unique_count", "user")
    changed = story.admin("PUT", "/v1/meters/people", json=METERS["people"] | {"of": "role"})
    assert (changed.status_code, changed.json()["code"]) == (409, "meter_aggregation_fixed")
    unknown = story.admin("PUT", "/v1/meters/deep", json={"unit": "x", "aggregation": "max", "of": "people"})
    assert (unknown.status_code, unknown.json()["field"]) == (400, "of")
    limit = {"key": "seats", "meter": "people", "amount": 3, "window": "month"}
    plan = {"name": "Pro", "features": [{"feature": "chat"}], "limits": [limit]}
    refused = story.admin("PUT", "/v1/plans/pro", json=plan)
    assert (refused.status_code, refused.json()["field"]) == (400, "limits[0].meter")
    assert "made of events" in refused.json()["detail"]
    assert story.admin("GET", f"{PATH}/meters/images").json()["code"] == "meter_reported"
    assert story.admin("GET", f"{PATH}/meters/nothing").status_code == 404
    event = {"event": "e", "feature": "chat", "at": rfc3339(story.midnight_ms), "amounts": {"people": 1}}
    entered = story.admin.put(f"{PATH}/backfills/odd", {"events": [event], "reason": "odd"})
    assert entered["items"][0]["result"] == "rejected"


def test_a_catalog_file_declares_them_and_is_exported_back(story: Story) -> None:
    story.declare()
    exported = story.admin.get("/v1/catalog")
    assert exported["meters"]["red-images"]["filter"] == {"tag:team": ["red"]}
    again = story.admin("PUT", "/v1/catalog", json=exported)
    assert {entry["outcome"] for entry in again.json()["entries"]} == {"unchanged"}
