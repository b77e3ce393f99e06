"""Syncs that wait at once share a transaction on SQLite, and what is wrong with one of them undoes no other."""

from __future__ import annotations

import threading

import anyio
import msgspec
import pytest

from control_plane.operations.refusals import Busy
from control_plane.operations.sync_agent import Synced
from control_plane.operations.sync_together import TOGETHER_MAX, WAITING_MAX, SyncDesk
from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.events import Subject
from protocol.uplink_messages import CustomerSync, FirstCall, SyncReply, SyncRequest
from protocol.violations import Violation

read = MsgpackDecoder(SyncReply)


def first_words(agent, *, boot=1):
    call = FirstCall(f"first-{agent.name}", "chat", Subject(), {"requests": 1})
    return SyncRequest(agent.journal, boot, agent.nonce, (CustomerSync("acme", 0, (call,)),), snapshot=True)


class Desk:
    """A desk and what it is brought."""

    def __init__(self, world, database):
        self.heard = []
        self.desk = SyncDesk(database, world.clock, self.heard.append)

    async def bring(self, requests):
        """All at once; what each was told, exceptions included."""
        answers = [None] * len(requests)

        async def one(at, agent, said):
            try:
                answers[at] = await self.desk.sync(agent.name, encode_msgpack(said))
            except Violation as wrong:
                answers[at] = wrong

        async with anyio.create_task_group() as tasks:
            for at, (agent, said) in enumerate(requests):
                tasks.start_soon(one, at, agent, said)
        return answers


@pytest.fixture
def desk(world, database):
    world.customer("acme", world.limit(amount=1_000))
    return Desk(world, database)


def test_everybody_is_answered_and_no_limit_is_passed(world, database):
    world.customer("acme", world.limit(amount=30))
    agents = world.agents(24)
    answers = anyio.run(Desk(world, database).bring, [(agent, first_words(agent)) for agent in agents])
    granted = [grant for answer in answers for grant in read(answer.body).grants]
    assert {grant.lease.rsplit(".", 1)[0] for grant in granted} <= {f"first-{agent.name}" for agent in agents}
    assert 0 < sum(grant.amount for grant in granted) <= 30
    assert world.books() == []


def test_what_is_wrong_with_one_undoes_no_other(world, desk):
    agents = world.agents(12)
    requests = [(agent, first_words(agent, boot=2**31 if at == 5 else 1)) for at, agent in enumerate(agents)]
    answers = anyio.run(desk.bring, requests)
    assert isinstance(answers[5], Violation)
    assert answers[5].field == "boot"
    assert all(isinstance(answer.outcome, Synced) for at, answer in enumerate(answers) if at != 5)
    assert len(desk.heard) == 11
    assert world.books() == []


def test_nonsense_among_them_is_told_to_who_said_it(world, desk):
    agents = world.agents(3)

    async def bring():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(desk.desk.sync, agents[0].name, encode_msgpack(first_words(agents[0])))
            with pytest.raises(Violation):
                await desk.desk.sync(agents[1].name, b"\xc1")
            tasks.start_soon(desk.desk.sync, agents[2].name, encode_msgpack(first_words(agents[2])))

    anyio.run(bring)
    assert len(desk.heard) == 2


def note_transactions(database, monkeypatch):
    """How many agents were answered in each transaction; the first waits until it is told to go on."""
    sizes, go_on, run = [], threading.Event(), database.run

    def noted(work):
        sizes.append(len(work.keywords["syncs"]))
        go_on.wait(10)
        return run(work)

    monkeypatch.setattr(database, "run", noted)
    return sizes, go_on


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_on_sqlite_those_that_wait_share_a_commit(world, desk, database, monkeypatch):
    agents = world.agents(TOGETHER_MAX + 3)
    sizes, go_on = note_transactions(database, monkeypatch)

    async def bring():
        async with anyio.create_task_group() as tasks:
            for agent in agents:
                tasks.start_soon(desk.desk.sync, agent.name, encode_msgpack(first_words(agent)))
            await anyio.wait_all_tasks_blocked()
            go_on.set()

    anyio.run(bring)
    assert sizes == [1, TOGETHER_MAX, 2]
    assert len(desk.heard) == len(agents)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_an_agent_says_twice_is_answered_one_after_the_other(world, desk, database, monkeypatch):
    agents = world.agents(2)
    sizes, go_on = note_transactions(database, monkeypatch)
    said = [(agent, first_words(agent)) for agent in (agents[0], agents[1], agents[1], agents[1])]

    async def bring():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(desk.bring, said)
            await anyio.wait_all_tasks_blocked()
            go_on.set()

    anyio.run(bring)
    assert sizes == [1, 1, 1, 1]
    assert world.books() == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("who", range(4))
def test_whoever_is_called_off_while_it_waits_keeps_nobody_waiting(world, desk, database, monkeypatch, who):
    agents = world.agents(4)
    _, go_on = note_transactions(database, monkeypatch)

    async def bring():
        scopes = [anyio.CancelScope() for _ in agents]

        async def one(agent, scope):
            with scope:
                await desk.desk.sync(agent.name, encode_msgpack(first_words(agent)))

        async with anyio.create_task_group() as tasks:
            for agent, scope in zip(agents, scopes, strict=True):
                tasks.start_soon(one, agent, scope)
            await anyio.wait_all_tasks_blocked()
            scopes[who].cancel()
            if who == 1:  # the next that would lead
                scopes[2].cancel()
            go_on.set()
        with anyio.fail_after(10):
            again = await desk.bring([(agents[3], first_words(agents[3]))])
        assert isinstance(again[0].outcome, Synced)

    anyio.run(bring)
    assert world.books() == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_leader_and_a_follower_called_off_before_their_thread_begins_keep_nobody_waiting(
    world, desk, database, monkeypatch
):
    agents = world.agents(5)
    _, go_on = note_transactions(database, monkeypatch)
    go_on.set()
    scopes, take = [], SyncDesk._next

    def take_and_call_off(self):
        batch = take(self)
        if len(batch) > 1:
            scopes[2].cancel()
            scopes[1].cancel()
        return batch

    async def one(agent, scope):
        with scope:
            await desk.desk.sync(agent.name, encode_msgpack(first_words(agent)))

    async def bring():
        scopes.extend(anyio.CancelScope() for _ in agents)
        monkeypatch.setattr(SyncDesk, "_next", take_and_call_off)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for agent, scope in zip(agents, scopes, strict=True):
                    tasks.start_soon(one, agent, scope)
            monkeypatch.setattr(SyncDesk, "_next", take)
            await desk.bring([(agents[1], first_words(agents[1]))])

    anyio.run(bring)
    assert len(desk.heard) == 4  # but for the follower that was called off


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_goes_wrong_after_the_commit_is_told_to_whom_it_was_about(world, desk, database, monkeypatch):
    agents = world.agents(4)
    sizes, go_on = note_transactions(database, monkeypatch)

    def hear(outcome):
        if len(desk.heard) == 2:
            desk.heard.append(None)
            raise Violation("amounts", "cannot be counted", "something else")
        desk.heard.append(outcome)

    desk.desk._heard = hear
    answers = []

    async def bring():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collect)
            await anyio.wait_all_tasks_blocked()
            go_on.set()

    async def collect():
        answers.extend(await desk.bring([(agent, first_words(agent)) for agent in agents]))

    anyio.run(bring)
    assert sizes == [1, 3]
    assert [isinstance(answer, Violation) for answer in answers] == [False, False, True, False]


def test_the_answer_is_the_same_as_alone(world, desk):
    agent = world.agents(1)[0]
    alone = world.sync(agent.name, first_words(agent))
    again = anyio.run(desk.bring, [(agent, first_words(agent))])[0]
    assert read(again.body) == msgspec.convert(msgspec.to_builtins(alone.reply), SyncReply)


def test_who_comes_when_hundreds_wait_is_told_to_come_again(desk):
    desk.desk._line.extend([None] * (WAITING_MAX - 1))
    desk.desk.check_room()
    desk.desk._line.append(None)
    with pytest.raises(Busy):
        desk.desk.check_room()
