"""The lease protocol in every state of small worlds: the rules of DESIGN.md section 3 hold, and each rule is needed."""

from __future__ import annotations

import pytest

from tests.model.explore import explore
from tests.model.judge import judge
from tests.model.rules import Broken
from tests.model.state import World
from tests.model.worlds import CASES, COPIED, COST_OF_A_COPY, COST_OF_A_ROLLBACK, HOLDS, Case, Ends


@pytest.mark.parametrize("world", HOLDS.values(), ids=HOLDS.keys())
def test_nothing_is_used_beyond_the_limit_in_any_state(world: World) -> None:
    found = explore(world)
    assert found.complete, "\n".join((found.wrong, *found.trace))
    assert found.excess == 0


@pytest.mark.parametrize("world", COPIED.values(), ids=COPIED.keys())
def test_a_copied_disk_costs_no_more_than_its_bound(world: World) -> None:
    found = explore(world)
    assert found.complete, "\n".join((found.wrong, *found.trace))


@pytest.mark.parametrize("world", [COST_OF_A_COPY, COST_OF_A_ROLLBACK], ids=["copied", "rolled back"])
def test_the_bound_of_a_copied_disk_is_no_larger_than_what_can_happen(world: World) -> None:
    assert explore(world, overspent_only=True).wrong.startswith("used")


@pytest.mark.parametrize(("broken", "case"), CASES.items(), ids=[broken.name.lower() for broken in CASES])
def test_a_broken_rule_leads_to_what_it_guards_against(broken: Broken, case: Case) -> None:
    judged = judge(broken, case, patient=False)
    assert judged.is_as_expected(case.ends), judged
    assert bool(judged.trace) == (case.ends is not Ends.NOTHING)


def test_every_rule_is_broken_once() -> None:
    assert set(CASES) == set(Broken) - {Broken.NONE}
