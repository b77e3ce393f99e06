"""Whatever limits a call touches, of whatever kinds and scopes: it gets room on all of them, or nothing anywhere."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.core.kinds import Kind, kind_of
from control_plane.operations.audit_books import check_books
from control_plane.store import allowances
from control_plane.store.database import Database
from protocol.entitlements import Limit, Scope, limits_on_path, scope_value
from protocol.events import Subject
from protocol.leases import LeaseReport
from protocol.windows import WindowKind

_numbers = itertools.count(1)
METERS = ("requests", "input_tokens")
limits_of_a_plan = st.lists(
    st.builds(
        lambda meter, amount, window, scope, smooth: Limit(
            f"l{next(_numbers)}",
            meter,
            amount,
            window,
            scope=scope,
            scope_tag="team" if scope is Scope.TAG else None,
            smooth=smooth and window is WindowKind.MINUTE,
        ),
        st.sampled_from(METERS),
        st.integers(1, 60),
        st.sampled_from([WindowKind.MINUTE, WindowKind.DAY, WindowKind.LIFETIME, WindowKind.IN_FLIGHT]),
        st.sampled_from(list(Scope)),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda limit: limit.counter,
)
calls = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.fixed_dictionaries({"requests": st.integers(0, 30), "input_tokens": st.integers(0, 80)}),
        st.sampled_from(["ann", "bob", None]),
        st.sampled_from(["red", "blue", None]),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@given(plan=limits_of_a_plan, story=calls)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_call_gets_room_everywhere_or_nowhere_and_no_counter_passes_its_limit(
    sqlite_template: Path, tmp_path: Path, new_world: Any, plan: list[Limit], story: list[Any]
) -> None:
    path = tmp_path / f"{next(_numbers)}.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    try:
        world = new_world(database)
        world.customer("acme", *plan)
        agents = world.agents(3)
        for who, amounts, user, team, gives_back in story:
            subject = {"user": user, "workspace": user, "role": team, "api_key": team}
            tags = {"team": team} if team else {}
            reply = agents[who].first_call("acme", amounts, tags=tags, **subject)
            _all_or_none(plan, amounts, Subject(**subject), tags, reply)
            _within_limits(database, plan)
            if gives_back:
                agents[who].report(*(LeaseReport(grant.lease, 0, 0, closed=True) for grant in reply.grants))
        assert database.read(check_books) == []
    finally:
        database.dispose()


def _all_or_none(
    plan: list[Limit], amounts: dict[str, int], subject: Subject, tags: dict[str, str], reply: Any
) -> None:
    path = [limit for limit in limits_on_path(tuple(plan), "chat", amounts, None) if amounts[limit.meter]]
    places = {(limit.counter, scope_value(limit, subject, tags)) for limit in path}
    granted = {(grant.counter, grant.scope_value) for grant in reply.grants}
    denied = {(denial.counter, denial.scope_value) for denial in reply.denials}
    assert denied <= places
    if denied & places:
        assert granted == set()
    else:
        # Who holds a share of a rate already gets no second one.
        assert {place for place in places if kind_of(place[0]) is not Kind.RATE} <= granted
        for grant in reply.grants:
            if grant.per_ms == 0:
                assert grant.amount >= amounts[grant.counter.split("/")[1]]


def _within_limits(database: Database, plan: list[Limit]) -> None:
    amounts = {limit.counter: limit.amount for limit in plan}
    for row in database.read(lambda connection: list(allowances.all_rows(connection))):
        limit = amounts[row.key.counter]
        assert limit is not None
        assert 0 <= row.posted + row.direct + row.outstanding <= limit
