"""Syncs that wait at once share a transaction on SQLite, and what is wrong with one of them undoes no other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from control_plane.operations.sync_agent import Synced
from control_plane.operations.sync_together import SyncDesk
from protocol.events import Subject
from protocol.uplink_messages import CustomerSync, FirstCall, SyncRequest
from protocol.violations import Violation


def first_words(agent, *, boot=1):
    call = FirstCall(f"first-{agent.name}", "chat", Subject(), {"requests": 1})
    return SyncRequest(agent.journal, boot, agent.nonce, (CustomerSync("acme", 0, (call,)),), snapshot=True)


def bring(desk, world, requests):
    """All at once, from threads; what each was told, exceptions included."""
    together = threading.Barrier(len(requests))

    def one(agent, said):
        together.wait(10)
        try:
            return desk.sync(agent.name, said, world.clock.now_ms())
        except Violation as wrong:
            return wrong

    with ThreadPoolExecutor(len(requests)) as threads:
        return list(threads.map(lambda pair: one(*pair), requests))


def test_everybody_is_answered_and_no_limit_is_passed(world, database):
    world.customer("acme", world.limit(amount=30))
    agents = world.agents(24)
    answers = bring(SyncDesk(database), world, [(agent, first_words(agent)) for agent in agents])
    assert all(isinstance(answer, Synced) for answer in answers)
    granted = [grant for answer in answers for grant in answer.reply.grants]
    assert {grant.lease.rsplit(".", 1)[0] for grant in granted} <= {f"first-{agent.name}" for agent in agents}
    assert 0 < sum(grant.amount for grant in granted) <= 30
    assert world.books() == []


def test_what_is_wrong_with_one_undoes_no_other(world, database):
    world.customer("acme", world.limit(amount=1_000))
    agents = world.agents(12)
    requests = [(agent, first_words(agent, boot=2**31 if at == 5 else 1)) for at, agent in enumerate(agents)]
    answers = bring(SyncDesk(database), world, requests)
    assert isinstance(answers[5], Violation)
    assert answers[5].field == "boot"
    assert all(isinstance(answer, Synced) for at, answer in enumerate(answers) if at != 5)
    assert world.books() == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_on_sqlite_those_that_wait_share_a_commit(world, database, monkeypatch):
    world.customer("acme", world.limit(amount=1_000))
    agents, desk, transactions = world.agents(24), SyncDesk(database), []
    run, go_on = database.run, threading.Event()
    monkeypatch.setattr(database, "run", lambda work: transactions.append(work) or run(work))

    def keep_the_writer():
        with database.transaction():
            go_on.wait(10)

    with ThreadPoolExecutor(25) as threads:
        kept = threads.submit(keep_the_writer)
        asked = [threads.submit(desk.sync, one.name, first_words(one), world.clock.now_ms()) for one in agents]
        while len(desk._line) < len(agents) - 1:  # all but the one that leads
            go_on.wait(0.001)
        go_on.set()
        kept.result(10)
        assert all(isinstance(one.result(10), Synced) for one in asked)
    assert len(transactions) == 2


def test_the_answer_is_the_same_as_alone(world, database):
    world.customer("acme", world.limit(amount=1_000))
    agent = world.agents(1)[0]
    alone = world.sync(agent.name, first_words(agent))
    again = SyncDesk(database).sync(agent.name, first_words(agent), world.clock.now_ms())
    assert msgspec.to_builtins(again.reply) == msgspec.to_builtins(alone.reply)
