"""Whatever is used late, corrected, entered afterwards and closed, in whatever order: every statement, counter and
threshold is what a simple model says, no closed statement changes, and the books are right."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.background.make_meters import make_some
from control_plane.core.aggregates import Aggregate, Aggregation, encode
from control_plane.core.plans import Bundle, PlanFeature, PlanLimit
from control_plane.core.statements import Statement
from control_plane.operations.apply_catalog import publish_plan, put_feature, put_meter
from control_plane.operations.audit_books import check_books
from control_plane.operations.author import Author
from control_plane.operations.backfill_usage import Backfill, Missed, backfill_usage
from control_plane.operations.change_customer import put_customer
from control_plane.operations.change_subscription import SubscriptionOrder, order
from control_plane.operations.close_period import close_period, read_statement
from control_plane.operations.correct_usage import Kind, Order, correct_usage
from control_plane.operations.read_balances import BalancesQuery, read_balances
from control_plane.operations.sync_agent import Synced, sync_agent
from control_plane.store import agents, notices
from control_plane.store.catalog import FeatureRow, MeterRow
from control_plane.store.database import Connection, Database
from protocol.codec import encode_msgpack
from protocol.entitlements import FeatureKind
from protocol.events import EventBatch, UsageEvent
from protocol.uplink_messages import SyncRequest
from protocol.windows import Calendar, WindowKind, window_at

DAY_MS = 86_400_000
START_MS = 1_775_001_600_000  # 2026-04-01
GRACE_MS = 34 * DAY_MS
BY = Calendar(START_MS)
AMOUNT = 100
PERCENTS = (50, 100)

calls = st.integers(0, 5)
days = st.integers(0, 40)
tokens = st.sampled_from([0, 1, 25, 49, 50, 60])  # so that thresholds are often reached exactly
steps = st.lists(
    st.one_of(
        st.tuples(st.just("use"), days, tokens),
        st.tuples(st.just("backfill"), days, tokens),
        st.tuples(st.just("amend"), calls, tokens),
        st.tuples(st.just("void"), calls),
        st.tuples(st.just("close")),
        st.tuples(st.just("wait"), st.integers(1, 25)),
        st.tuples(st.just("declare"), st.sampled_from(list(Aggregation))),
        st.tuples(st.just("make")),
    ),
    min_size=1,
    max_size=14,
)


def period_of(at_ms: int) -> int:
    return window_at(WindowKind.BILLING_PERIOD, at_ms, BY).start_ms


@dataclass
class Call:
    counted_ms: int
    tokens: int


@dataclass
class Books:
    """The product on a database of its own, and the model beside it."""

    database: Database
    now_ms: int = START_MS + 45 * DAY_MS
    seq: int = 0
    number: int = 0
    closed_until_ms: int = 0
    names: list[str] = field(default_factory=list)
    model: dict[str, Call] = field(default_factory=dict)
    sums: dict[int, int] = field(default_factory=dict)
    frozen: dict[int, Statement] = field(default_factory=dict)
    beyond: set[int] = field(default_factory=set)
    told: list[tuple[str, int]] = field(default_factory=list)

    @property
    def author(self) -> Author:
        return Author("test", self.now_ms)

    def begin(self) -> None:
        limit = PlanLimit("all", "input_tokens", AMOUNT, WindowKind.LIFETIME, thresholds=PERCENTS)
        period = PlanLimit("period", "input_tokens", 10**6, WindowKind.BILLING_PERIOD)

        def work(connection: Connection) -> None:
            put_feature(connection, FeatureRow("chat", "Chat", FeatureKind.METERED), self.author)
            publish_plan(connection, "pro", "Pro", Bundle((PlanFeature("chat"),), (limit, period)), self.author)
            put_customer(connection, "acme", "Acme", self.author)
            order(connection, "acme", SubscriptionOrder("pro", calendar=BY), self.author)
            agents.add(connection, "agent-1", "agent-1", self.now_ms)

        self.database.run(work)
        self.declare(Aggregation.LATEST)

    def moved(self, counted_ms: int, more: int) -> None:
        """The model: so much more counts then; thresholds follow."""
        start_ms = period_of(counted_ms)
        self.sums[start_ms] = self.sums.get(start_ms, 0) + more
        total = sum(self.sums.values())
        now = {percent for percent in PERCENTS if total > 0 and total * 100 >= percent * AMOUNT}
        self.told += [("crossed", percent) for percent in sorted(now - self.beyond)]
        self.told += [("recovered", percent) for percent in sorted(self.beyond - now)]
        self.beyond = now

    def appear(self, at_ms: int, said: int) -> str:
        name = f"call-{len(self.names)}"
        self.names.append(name)
        if at_ms >= self.now_ms - GRACE_MS:
            self.model[name] = Call(max(at_ms, self.closed_until_ms), said)
            self.moved(self.model[name].counted_ms, said)
        return name

    def use(self, ago: int, said: int) -> None:
        at_ms = self.now_ms - ago * DAY_MS
        event = UsageEvent(self.appear(at_ms, said), "acme", "chat", at_ms, {"requests": 1, "input_tokens": said})
        body = encode_msgpack([event])
        self.seq += 1
        batch = EventBatch(1, self.seq, 1, crc32(body), body)
        request = SyncRequest("journal", 1, "nonce", snapshot=self.seq == 1, batches=(batch,))
        outcome = self.database.run(lambda connection: sync_agent(connection, "agent-1", request, self.now_ms))
        assert isinstance(outcome, Synced)

    def backfill(self, ago: int, said: int) -> None:
        at_ms = self.now_ms - ago * DAY_MS
        missed = Missed(self.appear(at_ms, said), "chat", at_ms, {"input_tokens": said})
        name = self.next_name()
        self.database.run(lambda connection: backfill_usage(connection, "acme", name, Backfill((missed,)), self.author))

    def correct(self, which: int, kind: Kind, said: int) -> None:
        name = f"call-{which}"
        if name not in self.model:
            return
        call, correction = self.model[name], self.next_name()
        wanted = Order(kind, name, {"input_tokens": said} if kind is Kind.AMEND else {})
        for _ in range(2):
            self.database.run(lambda connection: correct_usage(connection, "acme", correction, wanted, self.author))
        if said != call.tokens:
            self.moved(max(call.counted_ms, self.closed_until_ms), said - call.tokens)
            call.tokens = said

    def close(self) -> None:
        start_ms = self.closed_until_ms or period_of(period_of(self.now_ms) - 1)
        end_ms = window_at(WindowKind.BILLING_PERIOD, start_ms, BY).end_ms
        if self.now_ms < end_ms:
            return
        self.database.run(lambda connection: close_period(connection, "acme", start_ms, self.author))
        self.closed_until_ms = end_ms
        self.frozen[start_ms] = self.statement(start_ms)

    def next_name(self) -> str:
        self.number += 1
        return f"correction-{self.number}"

    def statement(self, start_ms: int) -> Statement:
        return self.database.read(lambda connection: read_statement(connection, "acme", start_ms, self.now_ms)[0])

    def do(self, step: Any) -> None:
        match step:
            case ("use", ago, said):
                self.use(ago, said)
            case ("backfill", ago, said):
                self.backfill(ago, said)
            case ("amend", which, said):
                self.correct(which, Kind.AMEND, said)
            case ("void", which):
                self.correct(which, Kind.VOID, 0)
            case ("close",):
                self.close()
            case ("declare", aggregation):
                self.declare(aggregation)
            case ("make",):
                self.make()
            case ("wait", some):
                self.now_ms += some * DAY_MS

    def declare(self, aggregation: Aggregation) -> None:
        of = {Aggregation.COUNT: None, Aggregation.UNIQUE_COUNT: "user"}.get(aggregation, "input_tokens")
        text = encode(Aggregate(aggregation, of, {"feature": ("chat",)}))
        row = MeterRow(f"by-{aggregation.value}", "tokens", "", aggregate=text)
        self.database.run(lambda connection: put_meter(connection, row, self.author))

    def make(self) -> None:
        while make_some(self.database):
            pass

    def check(self) -> None:
        self.make()
        for start_ms in {*self.sums, *self.frozen}:
            lines = {line.meter: line.quantity for line in self.statement(start_ms).usage}
            assert lines.get("input_tokens", 0) == self.sums.get(start_ms, 0)
        for start_ms, statement in self.frozen.items():
            assert self.statement(start_ms) == statement
        query = BalancesQuery({}, None, 100)
        found = self.database.read(lambda connection: read_balances(connection, "acme", query, self.now_ms))
        used = {one.limit.key: one.used for one in found}
        assert used["all"] == sum(self.sums.values())
        assert used["period"] == self.sums.get(period_of(self.now_ms), 0)
        rows = self.database.read(lambda connection: notices.after(connection, 0, 1_000))
        told = [(row.kind.rpartition("_")[2], row.body["percent"]) for row in rows if row.kind.startswith("limit.")]
        assert told == self.told
        assert self.database.read(check_books) == []


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps)
def test_any_corrections_keep_the_books(tmp_path_factory: Any, sqlite_template: Path, taken: list[Any]) -> None:
    path = tmp_path_factory.mktemp("books") / "control-plane.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    try:
        books = Books(database)
        books.begin()
        for step in taken:
            books.do(step)
        books.check()
    finally:
        database.dispose()
