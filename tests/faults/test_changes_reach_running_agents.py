"""Real agents, a real control plane: what an admin changes is what callers on every host meet about a second later."""

from __future__ import annotations

import time

SOON_S = 5.0


def amount_of(client, customer: str) -> int | None:
    return client.check(customer, "chat", amounts={"output_tokens": 1}).amount


def test_plan_upgrade_and_downgrade_reach_a_running_agent_without_being_asked(plane, make_agent, wait_until) -> None:
    plane.plan("small", ("tokens-a-day", "output_tokens", 100, "day"))
    plane.plan("large", ("tokens-a-day", "output_tokens", 1_000, "day"))
    customer = plane.customer("small")
    agent = make_agent(plane).start().serves(customer)
    with agent.client() as client:
        used = client.reserve(customer, "chat", amounts={"output_tokens": 60})
        client.settle(used.reservation.id, amounts={"output_tokens": 60})
        assert not client.reserve(customer, "chat", amounts={"output_tokens": 60}).allowed
        plane.subscribe(customer, "large")
        started = time.monotonic()
        wait_until("the upgrade is known", lambda: amount_of(client, customer) == 1_000, SOON_S)
        assert time.monotonic() - started < SOON_S
        larger = client.reserve(customer, "chat", amounts={"output_tokens": 800})
        assert larger.allowed, "what was refused under the old plan is asked for anew, at once"
        client.settle(larger.reservation.id, amounts={"output_tokens": 800})
        plane.subscribe(customer, "small")
        wait_until("the downgrade is known", lambda: amount_of(client, customer) == 100, SOON_S)
        refusal = client.reserve(customer, "chat", amounts={"output_tokens": 1})
        assert (refusal.allowed, refusal.code, refusal.remaining) == (False, "usage_limit_reached", 0)
    agent.uploaded()
    assert plane.used(customer) == 860


def test_pause_resume_and_cancel_reach_a_running_agent(plane, make_agent, wait_until) -> None:
    customer = plane.customer()
    agent = make_agent(plane).start().serves(customer)
    with agent.client() as client:
        running = client.reserve(customer, "chat", amounts={"output_tokens": 5})
        plane.subscribe(customer, "roomy", "paused")
        refused = wait_until(
            "the pause is known", lambda: [d for d in [client.check(customer, "chat")] if not d.allowed], SOON_S
        )[0]
        assert refused.code == "subscription_paused"
        client.settle(running.reservation.id, amounts={"output_tokens": 5})
        plane.subscribe(customer, "roomy")
        wait_until("it goes on", lambda: client.check(customer, "chat").allowed, SOON_S)
        plane.request("DELETE", f"/v1/customers/{customer}/subscription")
        wait_until("the end is known", lambda: client.check(customer, "chat").code == "no_active_subscription", SOON_S)
    agent.uploaded()
    assert plane.used(customer) == 5


def test_limit_that_a_new_plan_no_longer_has_is_neither_kept_nor_asked_for_for_ever(
    plane, make_agent, wait_until
) -> None:
    plane.plan("both", ("tokens-a-day", "output_tokens", 50, "day"), ("requests-a-day", "requests", 1_000, "day"))
    plane.plan("requests-only", ("requests-a-day", "requests", 1_000, "day"))
    customer = plane.customer("both")
    agent = make_agent(plane).start().serves(customer)
    with agent.client() as client:
        held = client.reserve(customer, "chat", amounts={"output_tokens": 50})
        assert not client.reserve(customer, "chat", amounts={"output_tokens": 1}, deadline_ms=0).allowed
        plane.subscribe(customer, "requests-only")
        wait_until(
            "tokens are free", lambda: client.reserve(customer, "chat", amounts={"output_tokens": 500}).allowed, SOON_S
        )
        client.settle(held.reservation.id, amounts={"output_tokens": 50})
        before = client.status().counters["syncs"]
        started = time.monotonic()
        wait_until("half a second has passed", lambda: time.monotonic() - started > 0.5)
        assert client.status().counters["syncs"] - before < 10, "no storm of exchanges"


def test_customer_made_after_it_was_asked_about_is_found_soon(plane, make_agent, wait_until) -> None:
    agent = make_agent(plane).start()
    with agent.client() as client:
        assert client.check("customer-not-yet", "chat").code == "customer_not_found"
        plane.put("/v1/customers/customer-not-yet", {"name": "late"})
        plane.subscribe("customer-not-yet", "roomy")
        wait_until("it is found", lambda: client.check("customer-not-yet", "chat").allowed, 2 * SOON_S)


def test_first_call_of_a_customer_is_answered_within_its_own_deadline_and_counts(plane, make_agent, call) -> None:
    agent = make_agent(plane).start()
    with agent.client() as client:
        for _ in range(3):
            customer = plane.customer()
            started = time.monotonic()
            assert call(client, customer, 7).allowed
            assert time.monotonic() - started < 2.5
            agent.uploaded()
            assert plane.used(customer) == 7


def test_each_user_has_a_limit_of_their_own_on_every_host_together(plane, make_agent, call) -> None:
    plane.plan("per-user", ("requests-a-user", "requests", 3, "day", {"scope": "user"}))
    customer = plane.customer("per-user")
    agents = [make_agent(plane).spawn() for _ in range(2)]
    for agent in agents:
        agent.answers()
    allowed = {"u1": 0, "u2": 0, None: 0}
    for number in range(8):
        for user in allowed:
            with agents[number % 2].client() as client:
                decision = client.reserve(customer, "chat", **({"user": user} if user else {}))
                if decision.allowed:
                    client.settle(decision.reservation.id)
                    allowed[user] += 1
    assert allowed == {"u1": 3, "u2": 3, None: 3}


def test_overage_goes_to_its_escrowed_end_and_no_further(plane, make_agent) -> None:
    plane.plan("soft", ("requests-a-month", "requests", 4, "month", {"at_end": "overage", "overage_max": 3}))
    customer = plane.customer("soft")
    agent = make_agent(plane).start()
    with agent.client() as client:
        codes = []
        for _ in range(9):
            decision = client.reserve(customer, "chat")
            codes.append(decision.code)
            if decision.allowed:
                client.settle(decision.reservation.id)
    assert codes == ["ok"] * 4 + ["soft_limit_exceeded"] * 3 + ["usage_limit_reached"] * 2
    agent.uploaded()
    assert plane.used(customer, "requests") == 7


def test_few_calls_shared_by_three_hosts_are_all_usable_and_not_one_more(plane, make_agent) -> None:
    plane.plan("few", ("calls-a-month", "requests", 10, "month"))
    customer = plane.customer("few")
    agents = [make_agent(plane).spawn() for _ in range(3)]
    clients = [agent.answers().client() for agent in agents]
    allowed = 0
    refusals = 0
    for number in range(60):
        client = clients[number % 3]
        decision = client.reserve(customer, "chat", deadline_ms=3_000)
        if decision.allowed:
            client.settle(decision.reservation.id)
            allowed += 1
        else:
            assert decision.code in {"usage_limit_reached", "lease_unavailable"}
            refusals += 1
            if allowed == 10 and refusals >= 6:
                break
    for client in clients:
        client.close()
    for agent in agents:
        agent.uploaded()
    assert allowed == 10
    assert plane.used(customer, "requests") == 10


def test_revoked_agent_refuses_within_seconds_and_keeps_what_it_was_told(plane, make_agent, wait_until, call) -> None:
    customer = plane.customer()
    agent = make_agent(plane).start().serves(customer)
    with agent.client() as client:
        assert call(client, customer, 5).allowed
        agent.uploaded()
        running = client.reserve(customer, "chat", amounts={"output_tokens": 9})
        plane.request("DELETE", f"/v1/agents/{agent.identity()['agent']}")
        refused = wait_until(
            "it refuses", lambda: [d for d in [call(client, customer, 1)] if not d.allowed], 2 * SOON_S, every_s=0.1
        )[0]
        assert refused.code == "lease_unavailable"
        assert "revoked" in refused.message
        client.settle(running.reservation.id, amounts={"output_tokens": 9})
        kept = client.status()
        assert kept.outbox_events > 0
        assert kept.control_plane["state"] == "refused"
    assert agent.stop() == 0
    agent.start()
    assert agent.status().outbox_events >= kept.outbox_events, "kept on disk, for whoever looks into it"


def test_revoked_agent_that_has_nothing_to_do_hears_of_it_through_its_watch(plane, make_agent, wait_until) -> None:
    agent = make_agent(plane).start()
    wait_until("it is connected", lambda: agent.status().control_plane["state"] == "connected")
    plane.request("DELETE", f"/v1/agents/{agent.identity()['agent']}")
    wait_until("it knows", lambda: agent.status().control_plane["state"] == "refused", 2 * SOON_S)
