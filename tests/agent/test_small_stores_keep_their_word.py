"""The small things on an agent's disk: lock, identity, ballast, the index of the outbox; and "look again"."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from agent.background.wake import Wake
from agent.store import ballast as ballast_module
from agent.store import data_dir, identity
from agent.store.ballast import Ballast
from agent.store.journal import BatchRow, Write, open_journal
from agent.store.outbox import Outbox
from protocol.uplink_messages import EnrollReply


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_directory_is_private_and_one_agents_at_a_time(tmp_path) -> None:
    folder = tmp_path / "deep" / "data"
    lock = data_dir.claim(folder)
    assert (mode(folder), mode(folder / data_dir.LOCK_NAME)) == (0o700, 0o600)
    with pytest.raises(data_dir.DirectoryTakenError, match=rf"process {os.getpid()}\) .*ALLOTMENT_DATA_DIR"):
        data_dir.claim(folder)
    os.close(lock)
    os.close(data_dir.claim(folder))


def test_an_agent_sees_before_it_writes_that_another_has_started_on_its_directory(tmp_path) -> None:
    """As on a shared disk that keeps no locks."""
    first = data_dir.claim(tmp_path)
    journal = open_journal(tmp_path)
    journal.write(Write(entitlements=[("acme", b"1")]))
    os.close(first)  # as if it had never been seen
    os.close(data_dir.claim(tmp_path))
    with pytest.raises(data_dir.DirectoryTakenError, match="another agent has started"):
        journal.write(Write(entitlements=[("acme", b"2")]))
    assert journal.contents().entitlements == [("acme", b"1")]
    journal.close()


def test_lock_is_not_inherited_by_children(tmp_path) -> None:
    lock = data_dir.claim(tmp_path)
    assert not os.get_inheritable(lock)
    os.close(lock)


def test_identity_is_private_whole_and_the_last_one(tmp_path) -> None:
    assert identity.load(tmp_path) is None
    for number in (1, 2):
        identity.save(tmp_path, EnrollReply(f"agent-{number}", "alt_agent_0123456789ab_secret"))
    assert identity.load(tmp_path).agent == "agent-2"
    assert mode(tmp_path / identity.FILE_NAME) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [identity.FILE_NAME]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"agent": "a"}', b"\xff\xfe", b'{"agent": "-", "token": "12345678"}']
)
def test_identity_that_cannot_be_read_says_what_to_do(tmp_path, body) -> None:
    (tmp_path / identity.FILE_NAME).write_bytes(body)
    with pytest.raises(identity.IdentityDamagedError, match=r"identity\.json is damaged .* remove it"):
        identity.load(tmp_path)


def test_identity_half_written_when_the_disk_is_full_is_not_taken_for_one(tmp_path, monkeypatch) -> None:
    identity.save(tmp_path, EnrollReply("agent-1", "alt_agent_0123456789ab_secret"))
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, body: real(descriptor, body[:10]))
    with pytest.raises(OSError, match="only a part"):
        identity.save(tmp_path, EnrollReply("agent-2", "alt_agent_0123456789ab_secret"))
    monkeypatch.undo()
    assert identity.load(tmp_path).agent == "agent-1"


def test_ballast_is_real_bytes_and_is_taken_up_only_where_there_is_room(tmp_path, monkeypatch) -> None:
    ballast = Ballast(tmp_path)
    assert not ballast.aboard
    ballast.drop()
    ballast.take_up()
    assert ballast.aboard
    file = tmp_path / ballast_module.FILE_NAME
    assert file.stat().st_blocks * 512 >= ballast_module.BALLAST_BYTES, "not a hole"
    before = file.stat().st_ino
    ballast.take_up()
    assert file.stat().st_ino == before
    ballast.drop()
    assert not ballast.aboard
    monkeypatch.setattr(ballast_module, "BALLAST_BYTES", 1 << 60)
    ballast.take_up()
    assert not ballast.aboard


def test_ballast_that_does_not_fit_is_no_fault(tmp_path) -> None:
    Ballast(tmp_path / "gone").take_up()
    Ballast(tmp_path / "gone").drop()


@given(
    sizes=st.lists(st.tuples(st.integers(1, 2), st.integers(1, 50), st.integers(1, 400)), max_size=20),
    confirms=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 600)), max_size=10),
    bytes_max=st.integers(1, 1_000),
    batches_max=st.integers(1, 5),
)
def test_outbox_counts_what_waits_and_asks_again_for_what_a_lower_mark_wants(
    sizes, confirms, bytes_max, batches_max
) -> None:
    outbox, written, marks, at = Outbox(), [], {}, {1: 1, 2: 1}
    for boot, events, size in sorted(sizes):
        written.append((boot, at[boot], events, size))
        outbox.put(BatchRow(boot, at[boot], events, 0, b"x" * size, 0))
        at[boot] += events
    for boot, seq in confirms:
        before = outbox.events
        freed = outbox.confirm(boot, seq)
        assert freed == max(0, before - outbox.events)
        marks[boot] = seq
    waiting = [batch for batch in written if batch[1] + batch[2] - 1 > marks.get(batch[0], 0)]
    assert outbox.events == sum(batch[2] for batch in waiting)
    assert len(outbox) == len(waiting)
    keys = outbox.next_keys(bytes_max, batches_max)
    assert keys == [(boot, first) for boot, first, *_ in waiting[: len(keys)]], "in the order they were written"
    assert bool(keys) == bool(waiting), "at least one, however large"
    assert len(keys) <= batches_max
    assert len(keys) <= 1 or sum(batch[3] for batch in waiting[: len(keys)]) <= bytes_max


def test_looking_again_is_said_once_and_heard_once() -> None:
    async def story() -> None:
        wake = Wake()
        wake.set()
        wake.set()
        await wake.wait()
        with trio.move_on_after(0.01) as waited:
            await wake.wait()
        assert waited.cancelled_caught
        await wake.wait_at_most(0.01)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wake.wait)
            await trio.testing.wait_all_tasks_blocked()
            wake.set()

    trio.run(story)
