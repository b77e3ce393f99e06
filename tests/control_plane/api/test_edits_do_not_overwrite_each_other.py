"""Who edits what somebody else has changed meanwhile is told so: ETag, If-Match, If-None-Match."""

from __future__ import annotations

from typing import Any

import pytest

PATHS = {
    "/v1/features/chat": {"name": "Chat", "kind": "metered"},
    "/v1/plans/pro": {"name": "Pro", "features": [{"feature": "chat"}]},
    "/v1/add-ons/extra": {"name": "Extra"},
    "/v1/customers/acme": {"name": "Acme"},
    "/v1/customers/acme/subscription": {"plan": "pro"},
    "/v1/customers/acme/overrides/more": {"feature": "chat", "enabled": True, "reason": "kindness"},
}
CHANGED = {
    "/v1/features/chat": {"name": "Talk", "kind": "metered"},
    "/v1/plans/pro": {"name": "Pro plus"},
    "/v1/add-ons/extra": {"name": "More"},
    "/v1/customers/acme": {"name": "Acme Inc."},
    "/v1/customers/acme/subscription": {"plan": "pro", "seats": 3},
}


@pytest.fixture
def made(admin: Any) -> Any:
    for path, body in PATHS.items():
        admin.put(path, body)
    return admin


@pytest.mark.parametrize("path", sorted(CHANGED))
def test_an_edit_of_what_has_changed_is_refused_and_of_what_has_not_is_done(made: Any, path: str) -> None:
    tag = made("GET", path).headers["etag"]
    assert made("GET", path).headers["etag"] == tag
    done = made("PUT", path, json=CHANGED[path], headers={"If-Match": tag})
    assert done.status_code == 200
    assert done.headers["etag"] == made("GET", path).headers["etag"] != tag
    late = made("PUT", path, json=PATHS[path], headers={"If-Match": f'{tag}, "other"'})
    assert (late.status_code, late.json()["code"], late.json()["field"]) == (412, "stale", "If-Match")
    assert made("GET", path).headers["etag"] == done.headers["etag"], "nothing was changed"
    assert made("PUT", path, json=PATHS[path], headers={"If-Match": "*"}).status_code == 200


@pytest.mark.parametrize("path", sorted(PATHS))
def test_making_what_is_there_already_is_refused_where_it_must_be_new(made: Any, path: str) -> None:
    again = made("PUT", path, json=PATHS[path], headers={"If-None-Match": "*"})
    assert (again.status_code, again.json()["code"]) == (412, "exists")


def test_what_is_not_there_is_made_only_where_nothing_was_expected(admin: Any) -> None:
    body = {"name": "Acme"}
    assert admin("PUT", "/v1/customers/acme", json=body, headers={"If-Match": "*"}).status_code == 412
    assert admin("GET", "/v1/customers/acme").status_code == 404
    assert admin("PUT", "/v1/customers/acme", json=body, headers={"If-None-Match": "*"}).status_code == 200


def test_steps_and_ends_look_as_well(made: Any) -> None:
    stale = {"If-Match": '"0"'}
    moves = made("POST", "/v1/customers/acme/subscription/moves", json={"action": "pause"}, headers=stale)
    assert moves.status_code == 412
    assert made("DELETE", "/v1/customers/acme/subscription", headers=stale).status_code == 412
    assert made("DELETE", "/v1/customers/acme", headers=stale).status_code == 412
    assert made.get("/v1/customers/acme/subscription")["status"] == "active"


def test_a_precondition_that_cannot_be_looked_at_is_never_passed_over(made: Any) -> None:
    refused = made("POST", "/v1/tokens", json={"role": "support", "name": "x"}, headers={"If-Match": "*"})
    assert (refused.status_code, refused.json()["field"]) == (400, "If-Match")
