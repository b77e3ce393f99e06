"""An entitlement says what customer, subscription, plan, add-ons and overrides together allow, at any instant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.combining import Combine
from control_plane.core.entitlements import CatalogRules, Facts, ends_at_ms, next_change_ms, resolve
from control_plane.core.overrides import Override, OverrideBody
from control_plane.core.plans import PlanBody, PlanLimit
from control_plane.core.subscriptions import AddOn, Change, Payment, SubscriptionStatus, Track, Trial
from protocol.entitlements import CustomerStatus, Feature, FeatureKind, Limit, RoleTerms, limits_on_path
from protocol.windows import Calendar, WindowKind

DAY_MS = 86_400_000
APRIL = 1_775_001_600_000  # 2026-04-01T00:00:00Z: thirty days
LIMIT = PlanLimit("a", "requests", 10, WindowKind.DAY)
PLAN = PlanBody(limits=(LIMIT,), features=(Feature("chat", FeatureKind.METERED),))


def limit_with(**fields: Any) -> PlanLimit:
    return msgspec.structs.replace(LIMIT, **fields)


def facts(*changes: tuple[Track, Any, int], plan: PlanBody = PLAN, **more: Any) -> Facts:
    begun = (Change(Track.PLAN, ("pro", 3), APRIL), Change(Track.CALENDAR, Calendar(APRIL), APRIL))
    told = tuple(Change(*change, serial) for serial, change in enumerate(changes, start=1))
    return Facts(changes=(*begun, *told), plans={("pro", 3): plan}, **more)


def at(day: float) -> int:
    return APRIL + round(day * DAY_MS)


def amount(found: Facts, day: float, key: str = "a") -> int | None:
    return next(limit.amount for limit in resolve(found, at(day)).limits if limit.key == key)


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        ([], SubscriptionStatus.ACTIVE, CustomerStatus.ACTIVE),
        ([(Track.TRIAL, Trial.RUNNING, APRIL)], SubscriptionStatus.TRIALING, CustomerStatus.ACTIVE),
        ([(Track.TRIAL, Trial.ENDED, APRIL)], SubscriptionStatus.EXPIRED, CustomerStatus.TRIAL_ENDED),
        ([(Track.TRIAL, Trial.CONVERTED, APRIL)], SubscriptionStatus.ACTIVE, CustomerStatus.ACTIVE),
        ([(Track.PAYMENT, Payment.PAST_DUE, APRIL)], SubscriptionStatus.PAST_DUE, CustomerStatus.ACTIVE),
        ([(Track.PAYMENT, Payment.UNPAID, APRIL)], SubscriptionStatus.EXPIRED, CustomerStatus.EXPIRED),
        ([(Track.TERM, True, APRIL)], SubscriptionStatus.EXPIRED, CustomerStatus.EXPIRED),
        ([(Track.PAUSE, True, APRIL)], SubscriptionStatus.PAUSED, CustomerStatus.PAUSED),
        ([(Track.CANCELLATION, True, APRIL)], SubscriptionStatus.CANCELLED, CustomerStatus.CANCELLED),
        (
            [(Track.PAUSE, True, APRIL), (Track.CANCELLATION, True, APRIL)],
            SubscriptionStatus.CANCELLED,
            CustomerStatus.CANCELLED,
        ),
    ],
)
def test_the_status_is_what_counts_first(changes: Any, status: Any, told: CustomerStatus) -> None:
    document = resolve(facts(*changes), APRIL)
    assert (document.subscription, document.status) == (status.value, told)
    assert document.limits == (Limit("a", "requests", 10, WindowKind.DAY),), "late usage is still counted"


def test_before_the_first_plan_and_without_one_there_is_nothing() -> None:
    assert resolve(facts(), APRIL - 1).status is CustomerStatus.NO_SUBSCRIPTION
    assert resolve(Facts(), APRIL).status is CustomerStatus.NO_SUBSCRIPTION
    assert resolve(Facts(archived=True), APRIL).status is CustomerStatus.ARCHIVED
    assert resolve(facts(archived=True), APRIL).status is CustomerStatus.ARCHIVED


def test_the_document_names_its_plan_version_and_every_meter() -> None:
    entitlement = resolve(facts(), APRIL).entitlement("acme", 7, ("images", "requests"), 5)
    assert (entitlement.customer, entitlement.version, entitlement.plan) == ("acme", 7, "pro@3")
    assert (entitlement.meters, entitlement.ends_in_ms) == (("images", "requests"), 5)


def test_a_pause_leaves_the_end_of_the_trial_where_it_was() -> None:
    trial = ((Track.TRIAL, Trial.RUNNING, APRIL), (Track.TRIAL, Trial.ENDED, at(14)))
    found = facts(*trial, (Track.PAUSE, True, at(1)), (Track.PAUSE, False, at(3)))
    seen = [resolve(found, at(day)).subscription for day in (0, 1, 2.9, 3, 13.9, 14)]
    assert seen == ["trialing", "paused", "paused", "trialing", "trialing", "expired"]
    assert (ends_at_ms(found, at(0)), ends_at_ms(found, at(4)), ends_at_ms(found, at(2))) == (at(1), at(14), None)
    assert [next_change_ms(found, at(day)) for day in (0, 1, 3, 14)] == [at(1), at(3), at(14), None]


ADD_ON = PlanBody(
    limits=(PlanLimit("more", "requests", 4, WindowKind.DAY),), features=(Feature("sso", FeatureKind.BOOLEAN),)
)
BOUGHT = (Track.ADD_ONS, (AddOn("extra", 1, 3),), at(2))


@pytest.mark.parametrize(("rule", "expected"), [(Combine.SUM, 22), (Combine.MAX, 10), (Combine.MIN, 4)])
def test_add_ons_are_combined_by_the_rule_that_is_declared(rule: Combine, expected: int) -> None:
    rules = CatalogRules({"meter:requests": rule})
    found = facts(BOUGHT, add_ons={("extra", 1): ADD_ON}, rules=rules)
    assert (amount(found, 1), amount(found, 2)) == (10, expected)
    document = resolve(found, at(2))
    assert [feature.key for feature in document.features] == ["chat", "sso"]
    assert [one.source for one in document.sources["a"]] == ["plan:pro@3", "add_on:extra@1"]


def test_unlimited_is_the_largest_of_all() -> None:
    unlimited = PlanBody(limits=(PlanLimit("more", "requests", None, WindowKind.DAY),))
    for rule, expected in ((Combine.SUM, None), (Combine.MAX, None), (Combine.MIN, 10)):
        rules = CatalogRules({"meter:requests": rule})
        assert amount(facts(BOUGHT, add_ons={("extra", 1): unlimited}, rules=rules), 2) == expected


def test_limits_by_the_seat_are_multiplied_by_the_seats() -> None:
    plan = PlanBody(limits=(limit_with(per_seat=True), PlanLimit("b", "images", 7, WindowKind.DAY)))
    found = facts((Track.SEATS, 5, at(1)), plan=plan)
    assert (amount(found, 0), amount(found, 1), amount(found, 1, "b")) == (10, 50, 7)


def override(name: str, serial: int, from_day: float = 0, until_day: float | None = None, **body: Any) -> Override:
    until_ms = None if until_day is None else at(until_day)
    return Override(name, OverrideBody(**body), at(from_day), until_ms, serial)


def test_overrides_count_between_their_instants_and_the_newest_amount_wins() -> None:
    found = facts(
        overrides=(
            override("more", 1, limit="a", amount=100),
            override("newer", 2, from_day=2, until_day=4, limit="a", amount=50),
            override("bonus", 3, from_day=3, limit="a", add=5),
            override("less", 4, from_day=6, limit="a", add=-1_000),
            override("all", 5, from_day=7, limit="a", unlimited=True),
        )
    )
    assert [amount(found, day) for day in (0, 1, 2, 3, 4, 6, 7)] == [100, 100, 50, 55, 105, 0, None]
    assert next_change_ms(found, at(2)) == at(3)


def test_an_override_that_switches_off_wins_over_all_that_switch_on() -> None:
    off, on = override("off", 1, feature="chat", enabled=False), override("on", 2, feature="chat", enabled=True)
    for given_ones in ((off, on), (on, off)):
        (feature,) = resolve(facts(overrides=given_ones), APRIL).features
        assert not feature.enabled
    (feature,) = resolve(facts(overrides=(on,), rules=CatalogRules(disabled=frozenset({"chat"}))), APRIL).features
    assert not feature.enabled, "switched off for everybody"


def test_roles_have_amounts_and_features_of_their_own() -> None:
    plan = PlanBody(
        limits=(limit_with(by_role={"admin": 100, "bot": None}),),
        features=(Feature("chat", FeatureKind.STATIC, value="small", by_role={"admin": RoleTerms(value="large")}),),
    )
    document = resolve(facts(plan=plan), APRIL)
    found = {
        role: [(limit.key, limit.amount) for limit in limits_on_path(document.limits, "chat", {"requests": 1}, role)]
        for role in (None, "member", "admin", "bot")
    }
    assert found == {None: [("a", 10)], "member": [("a", 10)], "admin": [("a@admin", 100)], "bot": [("a@bot", None)]}
    assert len({limit.counter for limit in document.limits}) == 3
    (feature,) = document.features
    assert [feature.terms(role).value for role in (None, "member", "admin")] == ["small", "small", "large"]


def test_a_shadow_limit_is_not_told_to_agents() -> None:
    document = resolve(facts(plan=PlanBody(limits=(limit_with(shadow=True),))), APRIL)
    assert (document.limits, [limit.key for limit in document.shadow]) == ((), ["a"])


def monthly(given_amount: int) -> PlanBody:
    return PlanBody(limits=(limit_with(window=WindowKind.BILLING_PERIOD, amount=given_amount, prorate=True),))


def upgraded(offset_ms: int, before: int, after: int) -> Facts:
    found = facts((Track.PLAN, ("large", 1), APRIL + offset_ms), plan=monthly(before))
    return replace(found, plans={**found.plans, ("large", 1): monthly(after)})


def test_an_upgrade_in_the_middle_gives_of_each_plan_its_part_of_the_window() -> None:
    found = upgraded(15 * DAY_MS, 300, 900)
    assert [amount(found, day) for day in (0, 14.9, 15, 29.9, 30)] == [300, 300, 600, 600, 900]
    assert next_change_ms(found, at(16)) == at(30), "the next window is a whole one"


@given(st.integers(0, 30 * DAY_MS - 1), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_prorated_amount_lies_between_those_of_both_plans(offset: int, before: int, after: int) -> None:
    (limit,) = resolve(upgraded(offset, before, after), APRIL + offset).limits
    assert limit.amount is not None
    assert min(before, after) <= limit.amount <= max(before, after)
