"""SIGKILL at random moments, the very first start included: what was acknowledged is in the ledger, once."""

from __future__ import annotations

import contextlib
import random
import threading
import time
import uuid
from functools import partial

from allotment import AgentUnavailable, AllotmentError, Call

ROUNDS = 3
CALLERS = 4


class Caller(threading.Thread):
    """Reserves and settles without a pause, and remembers what it was told."""

    def __init__(self, agent, customer: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.agent = agent
        self.customer = customer
        self.draw = random.Random(seed)
        self.settled: dict[str, int] = {}
        self.unanswered: dict[str, int] = {}
        self.enough = threading.Event()

    def run(self) -> None:
        with self.agent.client(timeout_s=15) as client:
            while not self.enough.is_set():
                tokens = self.draw.randint(1, 50)
                try:
                    decision = client.reserve(self.customer, "chat", amounts={"output_tokens": tokens})
                except AllotmentError:
                    continue
                if not decision.allowed:
                    continue
                name = decision.reservation.id
                self.unanswered[name] = tokens
                with contextlib.suppress(AllotmentError):
                    client.settle(name, amounts={"output_tokens": tokens}, call=Call(self.customer, "chat"))
                    self.settled[name] = self.unanswered.pop(name)

    def say_the_rest(self) -> None:
        """What got no answer is said again under the same id, as the client library does."""
        with self.agent.client() as client:
            for name, tokens in list(self.unanswered.items()):
                client.settle(name, amounts={"output_tokens": tokens}, call=Call(self.customer, "chat"))
                self.settled[name] = self.unanswered.pop(name)


def settled_by(callers: list[Caller], enough: int) -> bool:
    return sum(len(caller.settled) for caller in callers) > enough


def test_killed_under_load_again_and_again_it_loses_nothing_and_counts_nothing_twice(
    plane, make_agent, wait_until
) -> None:
    draw = random.Random(20)
    customer = plane.customer()
    agent = make_agent(plane).start().serves(customer)
    callers = [Caller(agent, customer, seed) for seed in range(CALLERS)]
    for caller in callers:
        caller.start()
    for _ in range(ROUNDS):
        enough = sum(len(caller.settled) for caller in callers) + 50
        wait_until("calls are going on", partial(settled_by, callers, enough))
        time.sleep(draw.uniform(0, 0.2))  # a moment by chance, not a wait for something
        agent.kill()
        agent.start()
    for caller in callers:
        caller.enough.set()
    for caller in callers:
        caller.join(30)
        caller.say_the_rest()
    agent.uploaded()
    told = {name: tokens for caller in callers for name, tokens in caller.settled.items()}
    found = [event["event"] for event in plane.events(customer)]
    assert len(found) == len(set(found)), "nothing twice"
    assert set(told) <= set(found), "nothing lost"
    assert plane.used(customer) == sum(told.values())
    assert agent.status().journal, agent.status()


def test_killed_during_its_very_first_start_it_starts_the_next_time(plane, make_agent, wait_until, call) -> None:
    draw = random.Random(2)
    agent = make_agent(plane)
    for _ in range(8):
        agent.spawn()
        files = [agent.data / name for name in ("agent.lock", "agent.db", "agent.db-wal", "identity.json")]
        wanted = draw.choice(files)
        deadline = time.monotonic() + 10
        while not wanted.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.02))  # a moment by chance
        agent.kill()
    agent.start()
    customer = plane.customer()
    with agent.client() as client:
        assert call(client, customer, 5).allowed
    agent.uploaded()
    assert plane.used(customer) == 5
    assert "set aside" not in agent.program.said()
    assert not list(agent.data.glob("agent.db.damaged*"))


def test_settle_of_a_call_that_was_in_flight_when_the_agent_died_counts_once(plane, make_agent) -> None:
    customer = plane.customer()
    agent = make_agent(plane).start().serves(customer)
    with agent.client() as client:
        held = client.reserve(customer, "chat", amounts={"output_tokens": 40})
        assert held.allowed
        agent.kill()
        agent.start()
        for _ in range(2):
            client.settle(held.reservation.id, amounts={"output_tokens": 33}, call=Call(customer, "chat"))
    agent.uploaded()
    assert plane.used(customer) == 33
    assert len(plane.events(customer)) == 1


def test_record_said_again_after_the_agent_died_counts_once(plane, make_agent) -> None:
    customer = plane.customer()
    agent = make_agent(plane).start().serves(customer)
    name = uuid.uuid4().hex
    with agent.client() as client:
        client.record(customer, "chat", event=name, amounts={"output_tokens": 4})
        agent.kill()
        agent.start()
        again = client.record(customer, "chat", event=name, amounts={"output_tokens": 4})
    agent.uploaded()
    assert plane.used(customer) == 4
    assert again.event == name
    with agent.client() as client:
        agent.kill()
        with contextlib.suppress(AgentUnavailable):
            client.check(customer, "chat", timeout_s=0.2)
