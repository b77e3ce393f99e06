"""Whatever happens to a subscription, in whatever order, it is what a simple model of it says."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from control_plane.core.arrangements import When
from control_plane.core.overrides import OverrideBody
from control_plane.core.plans import Bundle, PlanFeature, PlanLimit
from control_plane.operations.apply_catalog import publish_plan, put_feature
from control_plane.operations.author import Author
from control_plane.operations.change_customer import archive_customer, put_customer
from control_plane.operations.change_override import OverrideOrder, end_override, put_override
from control_plane.operations.change_subscription import AddOnOrder, SubscriptionOrder, order, require_subscription
from control_plane.operations.keep_entitlements import keep_due
from control_plane.operations.move_subscription import Action, Move, move_subscription
from control_plane.operations.refusals import Conflict
from control_plane.operations.resolve_entitlement import entitlement_of
from control_plane.store import customers, entitlements
from control_plane.store.catalog import ADD_ONS, FeatureRow
from control_plane.store.database import Database
from protocol.entitlements import FeatureKind
from protocol.windows import Calendar, WindowKind, window_at

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = 1_775_001_600_000
AMOUNTS = {"free": 10, "pro": 100, "max": 1_000}
EXTRA = 7
NEVER = 2**60
GIVING = ("active", "trialing", "past_due")

instants = st.one_of(st.just(When.NOW), st.just(When.PERIOD_END), st.integers(1, 60))
"""Now, at the period's end, or in so many days."""


@dataclass
class Model:
    """A subscription as anybody would draw it on paper: what it is, and until when."""

    plan: str = ""
    seats: int = 1
    extras: int = 0
    anchor_ms: int = 0
    trial_ends_ms: int = 0
    converts: bool = True
    paused_from_ms: int = NEVER
    paused_until_ms: int = NEVER
    unpaid_from_ms: int = NEVER
    past_due: bool = False
    cancelled_at_ms: int = NEVER
    next_plan: tuple[int, str] = (NEVER, "")
    next_seats: tuple[int, int] = (NEVER, 1)
    archived: bool = False

    def turn(self, now_ms: int) -> None:
        """What was to come has come."""
        if self.next_plan[0] <= now_ms:
            self.plan, self.next_plan = self.next_plan[1], (NEVER, "")
        if self.next_seats[0] <= now_ms:
            self.seats, self.next_seats = self.next_seats[1], (NEVER, 1)

    def status(self, now_ms: int) -> str:
        """What it is called."""
        if self.cancelled_at_ms <= now_ms:
            return "cancelled"
        trial_over = 0 < self.trial_ends_ms <= now_ms and not self.converts
        if trial_over or (self.past_due and self.unpaid_from_ms <= now_ms):
            return "expired"
        if self.paused_from_ms <= now_ms < self.paused_until_ms:
            return "paused"
        if self.past_due:
            return "past_due"
        return "trialing" if now_ms < self.trial_ends_ms else "active"

    def ended(self, now_ms: int) -> bool:
        return self.status(now_ms) in ("cancelled", "expired")

    def period_end_ms(self, now_ms: int) -> int:
        return window_at(WindowKind.BILLING_PERIOD, now_ms, Calendar(self.anchor_ms)).end_ms

    def amount(self) -> int:
        return AMOUNTS[self.plan] * self.seats + EXTRA * self.extras


class Lives(RuleBasedStateMachine):
    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "control-plane.db"
        shutil.copy(self.template, path)
        self.database = Database(f"sqlite:///{path}")
        self.now_ms = START_MS
        self.model = Model()
        self.version = 0
        self.agent: tuple[int, Any, int | None] = (0, None, None)
        self.bonus: list[tuple[str, int, int]] = []

    def teardown(self) -> None:
        self.database.dispose()
        self.folder.cleanup()

    @initialize(trial=st.integers(0, 30), converts=st.booleans())
    def begin(self, trial: int, converts: bool) -> None:
        self.catalog()
        if trial % 4:  # most lives begin at once, and with a trial
            self.subscribe("pro", trial, converts)

    def catalog(self) -> None:
        def work(connection: Any) -> None:
            put_feature(connection, FeatureRow("chat", "Chat", FeatureKind.METERED), self.author)
            for plan, amount in AMOUNTS.items():
                limit = PlanLimit("calls", "requests", amount, WindowKind.MONTH, per_seat=True)
                publish_plan(connection, plan, plan, Bundle((PlanFeature("chat"),), (limit,)), self.author)
            extra = PlanLimit("more-calls", "requests", EXTRA, WindowKind.MONTH)
            publish_plan(connection, "extra", "Extra", Bundle(limits=(extra,)), self.author, shelf=ADD_ONS)
            put_customer(connection, "acme", "Acme", self.author)

        self.database.run(work)

    @property
    def author(self) -> Author:
        return Author("test", self.now_ms)

    def when(self, said: When | int) -> tuple[When | int, int]:
        if said is When.NOW:
            return said, self.now_ms
        if said is When.PERIOD_END:
            return said, self.model.period_end_ms(self.now_ms)
        return self.now_ms + said * DAY_MS, self.now_ms + said * DAY_MS

    @property
    def begun(self) -> bool:
        return bool(self.model.plan)

    @rule(hours=st.sampled_from([1, 24, 24 * 4, 24 * 9, 24 * 31]), written=st.booleans())
    def time_passes(self, hours: int, written: bool) -> None:
        """Whether or not somebody writes down what changes by itself, answers are the same."""
        self.now_ms += hours * HOUR_MS
        self.model.turn(self.now_ms)
        if written:
            self.database.run(lambda connection: keep_due(connection, self.now_ms))

    @precondition(lambda self: not self.begun and not self.model.archived)
    @rule(plan=st.sampled_from(sorted(AMOUNTS)), trial=st.integers(0, 30), converts=st.booleans())
    def subscribe(self, plan: str, trial: int, converts: bool) -> None:
        ends_ms = self.now_ms + trial * DAY_MS if trial else None
        wanted = SubscriptionOrder(plan, trial_ends_ms=ends_ms, converts=converts)
        self.database.run(lambda connection: order(connection, "acme", wanted, self.author))
        self.model = Model(plan, anchor_ms=self.now_ms, trial_ends_ms=ends_ms or 0, converts=converts)

    @precondition(lambda self: self.begun and not self.model.archived)
    @rule(plan=st.sampled_from(sorted(AMOUNTS)), said=instants, seats=st.one_of(st.none(), st.integers(1, 9)))
    def change(self, plan: str, said: When | int, seats: int | None) -> None:
        when, at_ms = self.when(said)
        wanted = SubscriptionOrder(plan, seats=seats, when=when)
        self.database.run(lambda connection: order(connection, "acme", wanted, self.author))
        model = self.model
        if model.ended(self.now_ms):
            model.cancelled_at_ms, model.past_due, model.unpaid_from_ms = NEVER, False, NEVER
            model.trial_ends_ms = 0
            self.now_ms = max(self.now_ms, at_ms)  # it begins anew then, and until then nothing has changed
        model.next_plan = (at_ms, plan)
        if seats is not None:
            model.next_seats = (at_ms, seats)
        model.turn(self.now_ms)

    @precondition(lambda self: self.begun and not self.model.archived)
    @rule(extras=st.integers(0, 3))
    def add_ons(self, extras: int) -> None:
        if self.model.ended(self.now_ms):
            return
        bought = (AddOnOrder("extra", quantity=extras),) if extras else ()
        plan = self.model.plan
        wanted = SubscriptionOrder(plan, add_ons=bought)
        self.database.run(lambda connection: order(connection, "acme", wanted, self.author))
        self.model.extras, self.model.next_plan = extras, (NEVER, "")

    @precondition(lambda self: self.begun)
    @rule(move=st.sampled_from(Action), said=instants, days=st.integers(0, 20))
    def move(self, move: Action, said: When | int, days: int) -> None:
        when, at_ms = self.when(said if move in (Action.CANCEL, Action.PAUSE) else When.NOW)
        until_ms = at_ms + days * DAY_MS if move is Action.PAUSE and days else None
        step = Move(move, when, until_ms, days * DAY_MS)
        work = lambda connection: move_subscription(connection, "acme", step, self.author)  # noqa: E731
        if self._impossible(move):
            with pytest.raises(Conflict):
                self.database.run(work)
            return
        self.database.run(work)
        self._moved(move, said, at_ms, until_ms, days)

    def _impossible(self, move: Action) -> bool:
        model, now_ms = self.model, self.now_ms
        cancelled = model.cancelled_at_ms <= now_ms
        trial_over = 0 < model.trial_ends_ms <= now_ms and not model.converts
        match move:
            case Action.CANCEL:
                return False
            case Action.UNCANCEL:
                return cancelled
            case Action.PAY:
                return cancelled or trial_over
            case _:
                return model.ended(now_ms)

    def _moved(self, move: Action, said: When | int, at_ms: int, until_ms: int | None, days: int) -> None:
        model, now_ms = self.model, self.now_ms
        match move:
            case Action.CANCEL:
                if model.cancelled_at_ms > now_ms:
                    in_trial = said is When.PERIOD_END and model.trial_ends_ms > now_ms
                    model.cancelled_at_ms = model.trial_ends_ms if in_trial else at_ms
            case Action.UNCANCEL:
                model.cancelled_at_ms = NEVER
            case Action.PAUSE:
                paused_now = model.paused_from_ms <= now_ms < model.paused_until_ms
                model.paused_from_ms = model.paused_from_ms if paused_now else at_ms
                model.paused_until_ms = until_ms or NEVER
            case Action.RESUME:
                model.paused_from_ms = model.paused_until_ms = NEVER
            case Action.PAST_DUE:
                if not model.past_due:
                    model.past_due, model.unpaid_from_ms = True, now_ms + max(days * DAY_MS, 1)
            case Action.PAY:
                model.past_due, model.unpaid_from_ms = False, NEVER

    @rule(add=st.integers(1, 5), days=st.integers(1, 40), number=st.integers(0, 10**6))
    def override(self, add: int, days: int, number: int) -> None:
        name = f"bonus-{number}-{len(self.bonus)}"
        until_ms = self.now_ms + days * DAY_MS
        wanted = OverrideOrder(OverrideBody(limit="calls", add=add), "kindness", until_ms=until_ms)
        self.database.run(lambda connection: put_override(connection, "acme", name, wanted, self.author))
        self.bonus.append((name, add, until_ms))

    @precondition(lambda self: bool(self.bonus))
    @rule(at=st.integers(0, 100))
    def end_override(self, at: int) -> None:
        name, add, until_ms = self.bonus[at % len(self.bonus)]
        self.database.run(lambda connection: end_override(connection, "acme", name, self.author))
        self.bonus[at % len(self.bonus)] = (name, add, min(until_ms, self.now_ms))

    @precondition(lambda self: self.begun)
    @rule(said=instants)
    def cancel(self, said: When | int) -> None:
        self.move(Action.CANCEL, said, 0)

    @rule(chance=st.integers(0, 5))
    def archive_or_bring_back(self, chance: int) -> None:
        if chance and not self.model.archived:
            return  # else most lives would be spent there

        def work(connection: Any) -> None:
            if self.model.archived:
                put_customer(connection, "acme", "Acme", self.author)
            else:
                archive_customer(connection, "acme", self.author)

        self.database.run(work)
        self.model.archived = not self.model.archived

    @invariant()
    def answers_are_those_of_the_model(self) -> None:
        model = self.model
        found = self.database.read(lambda connection: entitlement_of(connection, "acme", self.now_ms))
        if found is None:
            return  # before the catalog
        if not self.begun:
            assert found.status.value == ("archived" if model.archived else "no_subscription")
            return
        status = model.status(self.now_ms)
        gives = status in GIVING
        assert (found.status.value == "active") == (gives and not model.archived)
        bonus = sum(add for _, add, until_ms in self.bonus if self.now_ms < until_ms)
        assert (found.plan, found.limits[0].amount) == (f"{model.plan}@1", model.amount() + bonus)
        life = self.database.read(lambda connection: require_subscription(connection, "acme", self.now_ms))
        assert life.terms.status.value == status
        if gives and not model.archived:
            end_ms = NEVER - 1 if found.ends_in_ms is None else self.now_ms + found.ends_in_ms
            assert model.status(end_ms - 1) in GIVING
            assert (model.status(end_ms) in GIVING) == (found.ends_in_ms is None)

    @rule()
    def an_agent_that_takes_newer_versions_knows_all_that_counts(self) -> None:
        """Once what time changes is written down: an agent is sent an entitlement only when its version has grown."""
        self.database.run(lambda connection: keep_due(connection, self.now_ms))
        found = self.database.read(lambda connection: entitlement_of(connection, "acme", self.now_ms))
        if found is None:
            return
        ends_ms = None if found.ends_in_ms is None else self.now_ms + found.ends_in_ms
        if found.version > self.agent[0]:
            self.agent = (found.version, (found.status, found.plan, found.limits), ends_ms)
        assert self.agent == (found.version, (found.status, found.plan, found.limits), ends_ms)

    @invariant()
    def versions_only_grow_and_each_is_on_record(self) -> None:
        known = self.database.read(lambda connection: customers.find(connection, "acme"))
        if known is None:
            return
        assert known.version >= self.version
        self.version = known.version
        newest = self.database.read(lambda connection: entitlements.newest(connection, "acme"))
        assert newest is not None
        assert newest.version == known.version


def test_any_life_of_a_subscription_is_what_the_model_says(sqlite_template: Path) -> None:
    Lives.template = sqlite_template
    run_state_machine_as_test(
        Lives,
        settings=settings(
            max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
