"""Credits over their whole life: granted, lent, burned in order, expired, voided, rolled over, overdrawn and repaid."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.core.credits import Category
from control_plane.core.plans import PlanGrant
from control_plane.operations.refusals import Conflict
from control_plane.operations.resolve_entitlement import calendar_of
from protocol.windows import WindowKind, window_at

DAY_MS = 86_400_000


def day(purse: Any, number: float) -> int:
    return purse.clock.now_ms() + round(number * DAY_MS)


def period_end(purse: Any) -> int:
    now_ms = purse.clock.now_ms()
    calendar = purse.database.read(lambda connection: calendar_of(connection, "acme", now_ms))
    return window_at(WindowKind.BILLING_PERIOD, now_ms, calendar).end_ms


def test_without_a_grant_nothing_is_lent(purse: Any) -> None:
    purse.plan()
    assert purse.borrow(1) is None
    purse.grant("gift", 10)
    assert purse.borrow(11) is None
    assert purse.borrow(10) is not None
    assert purse.borrow(1) is None, "a grant is lent once"


def test_use_burns_grants_in_the_published_order(purse: Any) -> None:
    purse.plan()
    purse.grant("bought", 100)
    purse.grant("soon", 50, until_ms=day(purse, 2))
    purse.grant("gift", 50, until_ms=day(purse, 2), category=Category.PROMOTIONAL)
    purse.grant("later", 70, from_ms=day(purse, 1))
    assert purse.balance().settled == 200, "what is to come does not count yet"
    purse.use(70)
    assert purse.left() == {"gift": 0, "soon": 30, "bought": 100, "later": 70}
    purse.use(100)
    assert purse.left() == {"gift": 0, "soon": 0, "bought": 30, "later": 70}
    assert purse.accounts() == {
        "grant:bought": 30,
        "grant:later": 70,
        "issued": -270,
        "used": 170,
    }
    assert purse.books() == []


def test_a_balance_is_settled_less_what_calls_hold(purse: Any) -> None:
    purse.plan()
    purse.grant("gift", 100)
    lease = purse.borrow(60)
    purse.report(lease, 60, 25)
    balance = purse.balance()
    assert (balance.settled, balance.reserved, balance.remaining) == (75, 0, 75)
    assert purse.left() == {"gift": 75}, "what a lease has settled is burned as soon as it is told"


def test_what_is_left_at_the_end_is_forfeited_and_what_was_lent_is_not(purse: Any) -> None:
    purse.plan()
    purse.grant("month", 100, until_ms=day(purse, 30))
    lease = purse.borrow(40)
    purse.clock.set(day(purse, 30))
    purse.turn()
    assert purse.accounts() == {"expired": 100, "issued": -100}
    assert purse.borrow(1) is None
    purse.clock.advance(1_000)
    purse.report(lease, 40, 30, closing=True)  # used a moment before the end, and told of after it
    assert purse.accounts() == {"expired": 70, "issued": -100, "used": 30}
    purse.turn()
    purse.grant("next", 50)
    assert (purse.balance().settled, purse.left()) == (50, {"next": 50})
    assert purse.borrow(51) is None
    assert purse.borrow(50) is not None


def test_a_late_event_burns_the_grant_that_counted_when_it_happened(purse: Any) -> None:
    purse.plan()
    purse.grant("old", 100, until_ms=day(purse, 1))
    at_ms = purse.clock.now_ms()
    purse.clock.set(day(purse, 2))
    purse.turn()
    purse.grant("new", 100)
    purse.use(30, at_ms=at_ms)
    assert purse.left() == {"new": 100}
    assert purse.accounts() == {"expired": 70, "grant:new": 100, "issued": -200, "used": 30}


def test_a_void_grant_gives_nothing_more_and_its_use_stays(purse: Any) -> None:
    purse.plan()
    purse.grant("mistake", 1_000)
    purse.use(10)
    purse.void("mistake")
    purse.void("mistake")
    assert purse.borrow(1) is None
    assert purse.accounts() == {"issued": -1_000, "used": 10, "voided": 990}


def test_granting_twice_grants_once_and_other_words_are_refused(purse: Any) -> None:
    purse.plan()
    purse.grant("gift", 10)
    purse.grant("gift", 10)
    with pytest.raises(Conflict, match="says something else"):
        purse.grant("gift", 11)
    assert purse.balance().settled == 10


def test_a_grant_comes_again_in_each_window_and_rolls_over(purse: Any) -> None:
    purse.plan()
    purse.grant("monthly", 100, every=WindowKind.BILLING_PERIOD, rollover_max=30)
    purse.use(20)
    purse.clock.set(period_end(purse))
    purse.turn()
    names = list(purse.left())
    assert [name.partition("~")[0] for name in names] == ["monthly.rollover", "monthly"]
    assert list(purse.left().values()) == [30, 100]
    purse.use(40)
    assert list(purse.left().values()) == [0, 90], "what was rolled over burns first"
    purse.clock.set(period_end(purse))
    purse.turn()
    assert list(purse.left().values()) == [30, 100], "and does not roll over once more"
    assert sum(purse.accounts().values()) == 0


def test_windows_that_nobody_saw_end_are_made_up_for(purse: Any) -> None:
    purse.plan()
    purse.grant("daily", 10, every=WindowKind.DAY)
    purse.clock.set(day(purse, 5))
    purse.turn()
    assert list(purse.left().values()) == [10]
    assert purse.accounts()["expired"] == 50


def test_a_plan_gives_its_credit_anew_in_each_period_while_it_is_paid(purse: Any) -> None:
    included = PlanGrant("included", "credits", 100, rollover_max=1_000, priority=3)
    purse.plan(included)
    assert list(purse.left().values()) == [100]
    purse.plan(included)
    assert list(purse.left().values()) == [100], "said twice, given once"
    purse.use(10)
    purse.clock.set(period_end(purse))
    purse.turn()
    assert list(purse.left().values()) == [90, 100]


def test_an_upgrade_gives_the_difference_and_a_downgrade_takes_nothing_back(purse: Any) -> None:
    purse.plan(PlanGrant("included", "credits", 100))
    purse.use(60)
    purse.plan(PlanGrant("included", "credits", 500), plan="large")
    assert purse.balance().settled == 440, "what was used is carried over"
    purse.plan(PlanGrant("included", "credits", 100), plan="small")
    assert purse.balance().settled == 440
    purse.clock.set(period_end(purse))
    purse.turn()
    assert purse.balance().settled == 100


def test_an_overdraft_is_only_where_it_was_chosen_and_the_next_grant_pays_for_it(purse: Any) -> None:
    purse.plan(overdraft=20)
    purse.grant("gift", 10)
    lease = purse.borrow(30)
    assert lease is not None
    assert purse.borrow(1) is None
    purse.report(lease, 30, 30, closing=True)
    assert (purse.balance().settled, purse.balance().overdrawn) == (-20, 20)
    purse.grant("bought", 100)
    purse.turn()
    assert (purse.balance().settled, purse.balance().overdrawn) == (80, 0)
    assert purse.borrow(101) is None
    assert purse.borrow(100) is not None


def test_a_correction_gives_back_what_was_burned(purse: Any) -> None:
    purse.plan()
    purse.grant("gift", 100)
    event = purse.use(40)
    purse.use(-15, corrects=event)
    assert purse.left() == {"gift": 75}
    assert purse.accounts() == {"grant:gift": 75, "issued": -100, "used": 25}
