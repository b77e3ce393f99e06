"""A plan says what is charged of calls whose provider has not said what they used; its add-ons go by that."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.core.catalog import authored, compose_plan, decode_plan, encode_plan
from control_plane.core.entitlements import Facts, resolve
from control_plane.core.plans import Bundle
from control_plane.core.subscriptions import Change, Track
from protocol.events import UnfinishedCalls
from protocol.windows import Calendar


@pytest.mark.parametrize("policy", list(UnfinishedCalls))
def test_agents_are_told_what_the_plan_says(policy: UnfinishedCalls) -> None:
    body = decode_plan(encode_plan(compose_plan(Bundle(unfinished_calls=policy), {}, set())))
    assert authored(body).unfinished_calls is policy
    begun = (Change(Track.PLAN, ("pro", 1), 0), Change(Track.CALENDAR, Calendar(0), 0))
    facts = Facts(changes=begun, plans={("pro", 1): body})
    assert resolve(facts, 1).entitlement("acme", 1, ()).unfinished_calls is policy


def test_a_plan_of_before_charges_estimates(admin: Any) -> None:
    assert decode_plan('{"limits":[]}').unfinished_calls is UnfinishedCalls.ESTIMATED


def test_it_is_published_and_read_back_and_is_a_new_version(admin: Any) -> None:
    admin.put("/v1/plans/pro", {"name": "Pro"})
    assert admin.put("/v1/plans/pro", {"name": "Pro", "unfinished_calls": "prompt"})["version"] == 2
    assert admin.get("/v1/plans/pro")["unfinished_calls"] == "prompt"
    assert admin.put("/v1/plans/pro", {"name": "Pro", "unfinished_calls": "prompt"})["version"] == 2


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [("/v1/plans/pro", "free", "unfinished_calls"), ("/v1/add-ons/more", "nothing", "unfinished_calls")],
    ids=["no such policy", "an add-on has none"],
)
def test_what_cannot_be_is_refused(admin: Any, path: str, value: str, told: str) -> None:
    refused = admin("PUT", path, json={"name": "X", "unfinished_calls": value})
    assert (refused.status_code, refused.json()["field"]) == (400, told)
