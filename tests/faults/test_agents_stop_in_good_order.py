"""SIGTERM: what waits is answered, what is on disk is sent, what was lent goes home, and the exit status is 0."""

from __future__ import annotations

import signal
import threading
import time


def test_stopping_agent_sends_everything_and_gives_every_lease_back(plane, make_agent, call) -> None:
    customer = plane.customer()
    agent = make_agent(plane).start().serves(customer)
    with agent.client() as client:
        for _ in range(20):
            assert call(client, customer, 3).allowed
    started = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - started < 5.0
    assert plane.used(customer) == 60
    assert plane.lent(customer) == 0
    assert [lease for lease in plane.items(f"/v1/customers/{customer}/leases") if lease["status"] != "closed"] == []


def test_stopping_under_load_answers_everybody_and_loses_nothing(plane, make_agent, wait_until) -> None:
    customer = plane.customer()
    agent = make_agent(plane).start().serves(customer)
    told: list[str] = []
    begun = threading.Event()

    def record(thread: int) -> None:
        with agent.client(timeout_s=0.5) as client:
            for number in range(10_000):
                try:
                    told.append(client.record(customer, "chat", event=f"e{thread}-{number}").event)
                except Exception:  # noqa: BLE001 - whatever it is, it is no acknowledgement
                    return
                begun.set()

    threads = [threading.Thread(target=record, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    assert begun.wait(10)
    wait_until("records are going on", lambda: len(told) > 100)
    started = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - started < 6.0, "callers that go on asking do not keep it from stopping"
    for thread in threads:
        thread.join(10)
    agent.start().uploaded()
    assert set(told) <= {event["event"] for event in plane.events(customer)}


def test_what_a_call_in_flight_holds_is_kept_for_it_across_a_restart(plane, make_agent) -> None:
    customer = plane.customer()
    agent = make_agent(plane).start().serves(customer)
    with agent.client() as client:
        held = client.reserve(customer, "chat", amounts={"output_tokens": 25})
        assert agent.stop() == 0
        agent.start()
        settled = client.settle(held.reservation.id, amounts={"output_tokens": 20})
        assert settled.amounts["output_tokens"] == 20
    agent.uploaded()
    assert plane.used(customer) == 20


def test_stopping_without_a_control_plane_is_quick_and_keeps_everything(own_plane, make_agent) -> None:
    customer = own_plane.customer()
    agent = make_agent(own_plane).start().serves(customer)
    own_plane.stop()
    with agent.client() as client:
        client.record(customer, "chat", event="e1", amounts={"output_tokens": 4})
    started = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - started < 12.0
    assert "1 events on disk wait for the next start" in agent.program.said()
    own_plane.start()
    agent.start().uploaded()
    assert own_plane.used(customer) == 4


def test_interrupt_from_a_terminal_stops_it_as_well(plane, make_agent) -> None:
    agent = make_agent(plane).start()
    agent.program.process.send_signal(signal.SIGINT)
    assert agent.program.ends() == 0
    assert "Traceback" not in agent.program.said()


def test_agent_that_never_was_enrolled_stops_at_once(no_plane, make_agent) -> None:
    agent = make_agent(no_plane).start()
    started = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - started < 2.0
