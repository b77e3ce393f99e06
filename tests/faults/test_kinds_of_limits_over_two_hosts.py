"""Two real agents and a real control plane: slots, rates, credit pools and calls that finish hold over both hosts."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

SMOOTH = {"smooth": True, "burst": 40}
HALF = [{"meter": "credits", "weights": {"output_tokens": 500_000}}]


@pytest.fixture
def two_hosts(plane, two_agents):
    """A customer on a plan with the limits given, and clients of two agents; so many of them know it."""

    def make(*limits, rates=(), know=2):
        plane.put("/v1/meters/credits", {"unit": "credit"})
        plan = f"plan-{secrets.token_hex(4)}"
        named = [
            {"key": key, "meter": meter, "amount": amount, "window": window, **more}
            for key, meter, amount, window, more in limits
        ]
        body = {"name": plan, "features": [{"feature": "chat"}], "limits": named, "rates": list(rates)}
        plane.put(f"/v1/plans/{plan}", body)
        customer = plane.customer(plan)
        for agent in two_agents[:know]:
            agent.serves(customer)
        return customer, [clients.enter_context(agent.client()) for agent in two_agents]

    with ExitStack() as clients:
        yield make


def test_slots_are_shared_by_hosts_and_come_back_when_calls_end(two_hosts) -> None:
    customer, (one, two) = two_hosts(("parallel", "requests", 4, "in_flight", {}))
    held = [one.reserve(customer, "chat", deadline_ms=5_000) for _ in range(4)]
    assert all(decision.allowed for decision in held)
    started = time.monotonic()
    refused = two.reserve(customer, "chat", deadline_ms=300)
    assert (refused.code, refused.limiting, refused.retry_after_ms) == ("rate_limited", "parallel", 1_000)
    assert "calls in flight (limit 'parallel')" in refused.message
    assert time.monotonic() - started < 3.0
    for decision in held[:3]:
        one.settle(decision.reservation.id, amounts={"output_tokens": 5})
    assert two.reserve(customer, "chat", deadline_ms=10_000).allowed, "what is free there is called back for here"
    one.settle(held[3].reservation.id)


def test_second_host_gets_its_share_of_a_rate_within_its_deadline(two_hosts) -> None:
    customer, (one, two) = two_hosts(("smooth", "output_tokens", 2_400, "minute", SMOOTH))
    first = one.reserve(customer, "chat", amounts={"output_tokens": 20}, deadline_ms=5_000)
    assert first.allowed
    assert two.reserve(customer, "chat", amounts={"output_tokens": 5}, deadline_ms=5_000).allowed


def test_two_hosts_together_never_pass_a_rate(two_hosts) -> None:
    customer, clients = two_hosts(("smooth", "output_tokens", 2_400, "minute", SMOOTH))

    def spend(client) -> int:
        admitted = 0
        while time.monotonic() < ends:
            decision = client.reserve(customer, "chat", amounts={"output_tokens": 4}, deadline_ms=50)
            if decision.allowed:
                admitted += 4
                client.settle(decision.reservation.id, amounts={"output_tokens": 4})
            else:
                assert decision.code in ("rate_limited", "lease_unavailable")
        return admitted

    started = time.monotonic()
    ends = started + 6.0
    with ThreadPoolExecutor(2) as pool:
        admitted = list(pool.map(spend, clients))
    took_s = time.monotonic() - started
    assert sum(admitted) <= 40 + 40 * took_s
    assert sum(admitted) >= 0.5 * 40 * 6.0, "and most of it is used"


def test_pool_of_credits_is_never_passed_and_the_ledger_says_the_same(two_hosts, plane, wait_until) -> None:
    customer, clients = two_hosts(("pool", "credits", 101, "lifetime", {}), rates=HALF)
    counted = 0
    for number in range(60):
        client = clients[number % 2]
        decision = client.reserve(customer, "chat", amounts={"output_tokens": 7}, deadline_ms=2_000)
        if decision.allowed:
            counted += client.settle(decision.reservation.id, amounts={"output_tokens": 7}).amounts["credits"]
    assert counted == 100, "25 calls of 3.5 credits, each rounded up once"
    wait_until("the ledger has all of it", lambda: plane.used(customer, "credits") == 100)


def test_call_in_flight_finishes_beyond_the_limit_where_a_new_one_may_not_begin(two_hosts, wait_until) -> None:
    finish = {"in_flight": "finish", "overage_max": 50}
    customer, (one, two) = two_hosts(("tokens", "output_tokens", 100, "day", finish))
    stream = one.reserve(customer, "chat", amounts={"output_tokens": 100}, deadline_ms=5_000)
    assert stream.allowed
    assert two.reserve(customer, "chat", amounts={"output_tokens": 1}, deadline_ms=3_000).code == "usage_limit_reached"
    assert one.extend(stream.reservation.id, {"output_tokens": 140}, deadline_ms=5_000).allowed
    assert not one.reserve(customer, "chat", amounts={"output_tokens": 1}, deadline_ms=500).allowed
    beyond = one.extend(stream.reservation.id, {"output_tokens": 151}, deadline_ms=500)
    assert beyond.code == "requested_usage_exceeds_limit"
    assert one.settle(stream.reservation.id, amounts={"output_tokens": 140}).amounts["output_tokens"] == 140


def test_batch_calls_leave_the_floor_on_every_host(two_hosts) -> None:
    """The floor is kept by what is lent. What a host has on lease serves any call, so the second comes afterwards."""
    customer, (one, two) = two_hosts(("tokens", "output_tokens", 100, "day", {"batch_floor": 40}), know=1)
    assert one.reserve(customer, "chat", amounts={"output_tokens": 60}, priority="batch", deadline_ms=8_000).allowed
    refused = two.reserve(customer, "chat", amounts={"output_tokens": 10}, priority="batch", deadline_ms=8_000)
    assert refused.code == "usage_limit_reached"
    assert two.reserve(customer, "chat", amounts={"output_tokens": 30}, deadline_ms=8_000).allowed
