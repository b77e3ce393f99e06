"""Whatever is lent, returned, lowered or left to the clock: all hosts together never admit more than the rate."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.core import rates
from control_plane.core.rates import NO_SHARE, Pool, Share
from protocol.leases import burst_left

PERIOD_MS = 60_000


@dataclass
class Holder:
    """One share at its agent, with the token bucket that the agent keeps; its arithmetic is written anew here."""

    granted: Share
    level: int
    from_ms: int
    cap: int = 0
    grown: int = 0  # of the next unit, in units times the period

    def __post_init__(self) -> None:
        self.cap = self.granted.amount

    @property
    def share(self) -> Share:
        return Share(self.cap, burst_left(self.granted.amount, self.granted.burst, self.cap))

    def pass_time(self, now_ms: int) -> None:
        gained, self.grown = divmod(self.grown + (now_ms - self.from_ms) * self.cap, PERIOD_MS)
        self.level, self.from_ms = self.level + gained, now_ms
        if self.level >= self.share.burst:
            self.level, self.grown = self.share.burst, 0

    def admit(self, amount: int) -> int:
        taken = min(amount, self.level)
        self.level -= taken
        return taken


@dataclass
class Fleet:
    """Everything that happens to one rate, and all that is admitted."""

    pool: Pool
    now_ms: int
    holders: list[Holder] = field(default_factory=list)
    admitted: list[tuple[int, int]] = field(default_factory=list)
    amount_max: int = 0
    burst_max: int = 0

    def step(self, what: str, pick: int, number: int, wait_ms: int) -> None:
        self.now_ms += wait_ms
        holder = self.holders[pick % len(self.holders)] if self.holders else None
        if what == "lend":
            fair = rates.fair_shares(self.pool.amount, {str(at): number for at in range(1 + pick % 4)})["0"]
            offered = rates.offer(self.pool, NO_SHARE, fair, number % 7).share
            if offered is not None:
                self.pool, level = rates.lend(self.pool, offered, self.now_ms)
                # It arrives a while later: until then nobody fills its bucket.
                self.holders.append(Holder(offered, level, self.now_ms + number * 10))
        elif what == "govern":
            self.pool = rates.govern(self.pool, 1 + number, 1 + pick, self.now_ms)
            self.amount_max = max(self.amount_max, 1 + number)
            self.burst_max = max(self.burst_max, 1 + pick)
        elif holder is None or holder.from_ms > self.now_ms:
            return
        elif what == "use":
            holder.pass_time(self.now_ms)
            self.admitted.append((self.now_ms, holder.admit(number)))
        elif what == "close":
            holder.pass_time(self.now_ms)
            self.holders.remove(holder)
            late_ms = self.now_ms + number  # the news travels
            self.pool = rates.take_back(self.pool, holder.share, holder.level, late_ms)
            self.now_ms = late_ms
        elif what == "fall silent":
            self.holders.remove(holder)
            self.now_ms += PERIOD_MS
            self.pool = rates.take_back(self.pool, holder.share, 0, self.now_ms)
        elif what == "lower":
            self._lower(holder, number)

    def _lower(self, holder: Holder, keep: int) -> None:
        holder.pass_time(self.now_ms)
        before, holder.cap = holder.share, min(holder.cap, keep)
        over = max(0, holder.level - holder.share.burst)
        holder.level -= over
        back = Share(before.amount - holder.share.amount, before.burst - holder.share.burst)
        if back.amount:
            self.pool = rates.take_back(self.pool, back, over, self.now_ms)

    def check(self) -> None:
        assert self.pool.lent.amount == sum(holder.cap for holder in self.holders)
        assert self.pool.lent.burst == sum(holder.share.burst for holder in self.holders)
        assert 0 <= self.pool.level <= max(0, self.pool.free.burst)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["lend", "lend", "use", "use", "use", "close", "fall silent", "lower"]),
        st.integers(0, 30),
        st.integers(0, 120),
        st.sampled_from([0, 1, 7, 130, 999, 5_000, 59_000, 200_000]),
    ),
    max_size=40,
)


def within_the_rate(fleet: Fleet, amount: int, burst: int) -> None:
    for first, (begin_ms, _) in enumerate(fleet.admitted):
        total = 0
        for at_ms, taken in fleet.admitted[first:]:
            total += taken
            assert total * PERIOD_MS <= burst * PERIOD_MS + amount * (at_ms - begin_ms)


@given(amount=st.integers(1, 100), burst=st.integers(1, 60), steps=STEPS)
@settings(max_examples=200, deadline=None)
def test_no_span_of_time_admits_more_than_the_burst_and_the_rate(
    amount: int, burst: int, steps: list[tuple[str, int, int, int]]
) -> None:
    fleet = Fleet(rates.new_pool(amount, burst, PERIOD_MS, 1_000), 1_000)
    for step in steps:
        fleet.step(*step)
        fleet.check()
        assert fleet.pool.lent.amount <= amount
        assert fleet.pool.lent.burst <= burst
    within_the_rate(fleet, amount, burst)


CHANGES = st.tuples(st.just("govern"), st.integers(0, 30), st.integers(0, 120), st.sampled_from([0, 7, 5_000]))


@given(steps=st.lists(st.one_of(STEPS.map(lambda steps: steps[:3]), CHANGES.map(lambda one: [one])), max_size=15))
@settings(max_examples=100, deadline=None)
def test_a_plan_that_changes_admits_no_more_than_the_largest_of_its_rates(
    steps: list[list[tuple[str, int, int, int]]],
) -> None:
    fleet = Fleet(rates.new_pool(20, 10, PERIOD_MS, 0), 0, amount_max=20, burst_max=10)
    for step in (step for some in steps for step in some):
        fleet.step(*step)
        fleet.check()
    within_the_rate(fleet, fleet.amount_max, fleet.burst_max)


@given(amount=st.integers(1, 200), times=st.lists(st.integers(0, 3_000), min_size=1, max_size=50))
def test_a_bucket_that_is_looked_at_often_fills_as_fast_as_one_that_is_not(amount: int, times: list[int]) -> None:
    often = once = Pool(amount, 10_000, PERIOD_MS, NO_SHARE, 0, 0)
    now_ms = 0
    for time_ms in times:
        now_ms += time_ms
        often = rates.fill(often, now_ms)
    once = rates.fill(once, now_ms)
    assert once.level - 1 <= often.level <= once.level


def test_a_clock_that_is_set_back_fills_nothing() -> None:
    pool = rates.fill(Pool(60, 10, PERIOD_MS, NO_SHARE, 0, 50_000), 40_000)
    assert (pool.level, pool.at_ms) == (0, 50_000)


def test_one_who_is_alone_gets_the_whole_rate_and_all_that_is_saved_up() -> None:
    pool = rates.new_pool(60, 10, PERIOD_MS, 0)
    offered = rates.offer(pool, NO_SHARE, rates.fair_shares(60, {"a": 3})["a"], need=1)
    assert offered == rates.Offer(Share(60, 10), NO_SHARE)
    assert offered.share is not None
    lent, level = rates.lend(pool, offered.share, 0)
    assert (level, lent.free) == (10, Share(0, 0))


@given(
    amount=st.integers(0, 1_000),
    wanted=st.dictionaries(st.text("abcdefgh", min_size=1, max_size=2), st.integers(0, 400), min_size=1),
)
def test_fair_shares_give_away_everything_meet_small_wishes_and_level_the_large(
    amount: int, wanted: dict[str, int]
) -> None:
    fair = rates.fair_shares(amount, wanted)
    assert sum(fair.values()) == amount
    short = [agent for agent in wanted if fair[agent] < wanted[agent]]
    for agent in short:
        assert all(fair[other] <= fair[agent] + 1 for other in wanted)


def test_a_call_larger_than_a_fair_share_of_the_burst_takes_what_it_needs_from_the_others() -> None:
    pool = rates.new_pool(100, 100, PERIOD_MS, 0)
    pool, _ = rates.lend(pool, Share(100, 100), 0)
    offered = rates.offer(pool, NO_SHARE, 50, need=80)
    assert offered.share is None
    assert offered.lacking == Share(80, 80)
    keep = rates.keep_after_recall({"b": Share(100, 100)}, {"a": 50, "b": 50}, offered.lacking)
    assert keep == {"b": 20}


def test_holders_above_their_fair_share_give_down_to_it_and_the_others_keep_theirs() -> None:
    held = {"b": Share(70, 70), "c": Share(30, 30)}
    fair = rates.fair_shares(100, {"a": 100, "b": 100, "c": 100})
    assert sorted(fair.values()) == [33, 33, 34]
    assert rates.keep_after_recall(held, fair, Share(33, 33)) == {"b": fair["b"]}


def test_what_a_report_says_was_saved_up_counts_no_further_than_the_burst_that_comes_back() -> None:
    pool, _ = rates.lend(rates.new_pool(60, 10, PERIOD_MS, 0), Share(60, 10), 0)
    assert rates.take_back(pool, Share(60, 10), 1_000_000, 0).level == 10
    assert rates.take_back(pool, Share(30, 5), 3, 0).level == 3
