"""A catalog file: applied as a whole or not at all, with a preview that says what changes and for whom."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from control_plane.core.catalog_file import CatalogFile
from control_plane.operations.apply_file import Outcome, apply_file
from control_plane.operations.author import Author
from control_plane.store.database import Database

FILE: dict[str, Any] = {
    "meters": {"credits": {"unit": "credit"}, "images": {"unit": "image", "description": "made"}},
    "features": {"chat": {"name": "Chat", "kind": "metered"}, "export": {"name": "Export", "kind": "boolean"}},
    "price_books": {
        "standard": {"currency": "USD", "overrides": [{"model": "m", "tokens": {"input": 10, "output": 20}}]}
    },
    "plans": {
        "pro": {
            "name": "Pro",
            "features": [{"feature": "chat"}],
            "limits": [
                {"key": "day", "meter": "requests", "amount": 10, "window": "day", "feature": "chat"},
                {"key": "pool", "meter": "credits", "amount": 100, "window": "month"},
            ],
            "price_books": [{"book": "standard", "models": ["m"], "meter": "credits"}],
        }
    },
    "add_ons": {
        "more": {
            "name": "More",
            "features": [{"feature": "chat"}],
            "limits": [{"key": "more", "meter": "requests", "amount": 5, "window": "day", "feature": "chat"}],
        }
    },
}  # fmt: skip


def changed(**paths: Any) -> dict[str, Any]:
    """The file with other values at ``section__key__field`` (a number is the place in a list)."""
    file = copy.deepcopy(FILE)
    for path, value in paths.items():
        *inner, last = [int(name) if name.isdigit() else name for name in path.split("__")]
        here: Any = file
        for name in inner:
            here = here[name]
        here[last] = value
    return file


def told(applied: dict[str, Any]) -> dict[str, str]:
    return {f"{one['section']}.{one['key']}": one["outcome"] for one in applied["entries"]}


def entry(applied: dict[str, Any], path: str) -> dict[str, Any]:
    return next(one for one in applied["entries"] if f"{one['section']}.{one['key']}" == path)


def preview(admin: Any, file: dict[str, Any]) -> Any:
    return admin.put("/v1/catalog?dry_run=true", file)


def subscribe(admin: Any, customer: str, **order: Any) -> None:
    admin.put(f"/v1/customers/{customer}", {"name": customer})
    admin.put(f"/v1/customers/{customer}/subscription", {"plan": "pro", **order})


def test_a_file_is_applied_once_and_then_changes_nothing(admin: Any) -> None:
    first = admin.put("/v1/catalog", FILE)
    assert (first["new"], first["changed"], first["unchanged"]) == (7, 0, 0)
    audit = len(admin.get("/v1/audit-log?limit=1000")["items"])
    again = admin.put("/v1/catalog", FILE)
    assert (again["new"], again["changed"], again["unchanged"]) == (0, 0, 7)
    assert set(told(again).values()) == {"unchanged"}
    assert entry(again, "plans.pro")["version"] == 1
    assert len(admin.get("/v1/audit-log?limit=1000")["items"]) == audit


def test_a_preview_says_the_same_and_changes_nothing(admin: Any) -> None:
    audit = admin.get("/v1/audit-log")
    seen = preview(admin, FILE)
    assert seen["dry_run"] is True
    assert admin.get("/v1/plans")["items"] == []
    assert admin.get("/v1/audit-log") == audit
    assert {**admin.put("/v1/catalog", FILE), "dry_run": True} == seen


def test_changes_are_told_field_by_field_with_names_for_entries_of_lists(admin: Any) -> None:
    admin.put("/v1/catalog", FILE)
    file = changed(plans__pro__limits__0__amount=20, plans__pro__name="Professional")
    file["plans"]["pro"]["features"].append({"feature": "export"})
    del file["plans"]["pro"]["limits"][1]
    pro = entry(preview(admin, file), "plans.pro")
    assert (pro["outcome"], pro["version"]) == ("changed", 2)
    assert {one["field"]: (one["before"], one["after"]) for one in pro["changes"]} == {
        "name": ("Pro", "Professional"),
        "features[export]": (None, {"feature": "export"}),
        "limits[day].amount": (10, 20),
        "limits[pool]": ({"key": "pool", "meter": "credits", "amount": 100, "window": "month"}, None),
    }


def test_another_order_is_a_change_that_is_named(admin: Any) -> None:
    admin.put("/v1/catalog", FILE)
    file = changed()
    file["plans"]["pro"]["limits"].reverse()
    (change,) = entry(preview(admin, file), "plans.pro")["changes"]
    assert change == {"field": "limits (their order)", "before": ["day", "pool"], "after": ["pool", "day"]}


def test_plans_follow_the_price_book_that_the_same_file_changes(admin: Any) -> None:
    admin.put("/v1/catalog", FILE)
    applied = admin.put("/v1/catalog", changed(price_books__standard__markup_bp=500))
    assert entry(applied, "price_books.standard")["changes"] == [{"field": "markup_bp", "before": 0, "after": 500}]
    (change,) = entry(applied, "plans.pro")["changes"]
    assert change == {"field": "price_books[standard credits *].version", "before": 1, "after": 2}
    assert told(applied)["add_ons.more"] == "unchanged"


def test_it_says_who_has_which_version_and_they_keep_it(admin: Any) -> None:
    admin.put("/v1/catalog", FILE)
    for customer in ("a", "b"):
        subscribe(admin, customer)
    admin.put("/v1/catalog", changed(plans__pro__limits__0__amount=20))
    subscribe(admin, "c", add_ons=[{"add_on": "more", "quantity": 2}])
    subscribe(admin, "gone")
    admin.delete("/v1/customers/gone/subscription")
    seen = preview(admin, changed(plans__pro__limits__0__amount=30))
    assert entry(seen, "plans.pro")["subscribers"] == [{"version": 1, "customers": 2}, {"version": 2, "customers": 1}]
    assert entry(seen, "add_ons.more")["subscribers"] == [{"version": 1, "customers": 1}]
    admin.put("/v1/catalog", changed(plans__pro__limits__0__amount=30))
    assert [admin.get(f"/v1/customers/{one}/subscription")["version"] for one in "abc"] == [1, 1, 2]


def test_it_says_how_many_customers_a_rule_of_the_catalog_touches(admin: Any) -> None:
    admin.put("/v1/catalog", FILE)
    for customer in ("a", "b"):
        subscribe(admin, customer)
    subscribe(admin, "c", add_ons=[{"add_on": "more"}])
    assert entry(preview(admin, changed(features__chat__disabled=True)), "features.chat")["customers"] == 3
    assert entry(preview(admin, changed(features__chat__combine="max")), "features.chat")["customers"] == 1
    assert entry(preview(admin, changed(features__chat__name="Talk")), "features.chat")["customers"] == 0
    assert entry(preview(admin, changed(features__export__disabled=True)), "features.export")["customers"] == 0


def test_what_the_file_does_not_name_stays(admin: Any) -> None:
    admin.put("/v1/catalog", FILE)
    assert admin.put("/v1/catalog", {})["entries"] == []
    assert [one["plan"] for one in admin.get("/v1/plans")["items"]] == ["pro"]
    assert admin.put("/v1/catalog", {"plans": FILE["plans"]})["unchanged"] == 1


WRONG: list[tuple[dict[str, Any], int, str, str]] = [
    ({"plans__pro__limits__1__meter": "nope"}, 400, "plans.pro.limits[1].meter", "names the unknown meter 'nope'"),
    ({"plans__pro__limits__0__window": "fortnight"}, 400, "plans.pro.limits[0].window", "one of request, in_flight"),
    ({"plans__pro__limits__0__amounts": 3}, 400, "plans.pro.limits[0].amounts", "is not a field"),
    ({"plans__pro__price_books__0__book": "none"}, 404, "plans.pro.price_books[0].book", "no price book 'none'"),
    ({"add_ons__more__features__0__feature": "x"}, 400, "add_ons.more.features[0].feature", "unknown feature 'x'"),
    ({"meters__requests": {"unit": "request"}}, 409, "meters.requests", "is built in"),
    ({"price_books__standard__overrides__0__tokens": {"reasoning": 1}}, 400,
     "price_books.standard.overrides[0].tokens", "a price for 'output'"),
    ({"features__chat__kind": "gadget"}, 400, "features.chat.kind", "one of boolean, static, metered"),
]  # fmt: skip


@pytest.mark.parametrize(("paths", "status", "field", "said"), WRONG)
def test_what_is_wrong_is_named_by_its_path_in_the_file_and_nothing_is_applied(
    admin: Any, paths: dict[str, Any], status: int, field: str, said: str
) -> None:
    audit = admin.get("/v1/audit-log")
    answer = admin("PUT", "/v1/catalog", json=changed(**paths))
    assert (answer.status_code, answer.json()["field"]) == (status, field), answer.text
    assert said in answer.json()["detail"]
    assert admin.get("/v1/features")["items"] == []
    assert admin.get("/v1/audit-log") == audit


def test_what_never_changes_is_refused_with_its_path(admin: Any) -> None:
    admin.put("/v1/catalog", FILE)
    for paths, field in (
        ({"features__chat__kind": "boolean"}, "features.chat.kind"),
        ({"meters__images__unit": "picture"}, "meters.images.unit"),
        ({"price_books__standard__currency": "EUR"}, "price_books.standard.currency"),
    ):
        answer = admin("PUT", "/v1/catalog", json=changed(**paths))
        assert (answer.status_code, answer.json()["field"]) == (409, field)


def test_only_admins_apply_and_readers_read(support: Any) -> None:
    assert support("PUT", "/v1/catalog", json={}).status_code == 403
    assert support.get("/v1/catalog")["plans"] == {}


def test_an_edit_of_what_somebody_else_has_changed_is_refused(admin: Any) -> None:
    admin.put("/v1/catalog", FILE)
    tag = admin("GET", "/v1/catalog").headers["etag"]
    first = admin("PUT", "/v1/catalog", json=changed(plans__pro__name="Mine"), headers={"If-Match": tag})
    assert first.status_code == 200
    stale = admin("PUT", "/v1/catalog", json=changed(plans__pro__name="Theirs"), headers={"If-Match": tag})
    assert stale.status_code == 412
    assert admin.get("/v1/plans/pro")["name"] == "Mine"


def test_many_who_apply_the_same_at_once_make_one_version(database: Database, clock: Any) -> None:
    file, author = msgspec.convert(FILE, CatalogFile), Author("test", clock.now_ms())
    with ThreadPoolExecutor(4) as threads:
        done = [threads.submit(database.run, lambda connection: apply_file(connection, file, [], author))
                for _ in range(4)]  # fmt: skip
        outcomes = [{entry.outcome for entry in one.result()} for one in done]
    assert sorted(outcomes, key=str).count({Outcome.NEW}) == 1
    assert {entry.version for one in done for entry in one.result()} == {None, 1}
