"""Disks that are full, gone, damaged or copied: no false acknowledgement, nothing deleted, recovery without a hand."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from allotment import AgentUnavailable, AllotmentError

EX_IOERR = 74
EX_TEMPFAIL = 75
MIB = 1024 * 1024


@pytest.fixture
def small_disk(run) -> Iterator[Path]:
    """A file system of 8 MiB of its own: a tmpfs, which needs root; else the test says that it could not be had."""
    path = run.root / f"disk-{os.urandom(3).hex()}"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(path)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs may be mounted here: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True, capture_output=True)


def fill(path: Path) -> None:
    """Until not one more byte fits."""
    with (path / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        for size in (MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    filler.write(b"\0" * size)


def test_full_disk_acknowledges_nothing_and_recovers_by_itself(small_disk, own_plane, make_agent, wait_until) -> None:
    customer = own_plane.customer()
    agent = make_agent(own_plane, data=small_disk / "data").start().serves(customer)
    own_plane.stop()  # so that the outbox cannot be emptied meanwhile
    told: list[str] = []
    refused: list[str] = []
    kinds: set[type] = set()
    tags = {f"tag-{n}": "x" * 120 for n in range(8)}
    with agent.client(timeout_s=3) as client:
        client.record(customer, "chat", event="before", amounts={"output_tokens": 1})
        told.append("before")
        fill(small_disk)
        for number in range(4_000):
            try:
                client.record(
                    customer, "chat", event=f"e{number}", amounts={"output_tokens": 1}, tags=tags, timeout_s=0.3
                )
            except AllotmentError as error:
                refused.append(f"e{number}")
                kinds.add(type(error))
                if len(refused) == 3:
                    break
            else:
                told.append(f"e{number}")
                if not number % 50:
                    fill(small_disk)
        assert len(refused) == 3, f"never full, {len(told)} were told"
        assert kinds == {AgentUnavailable}
        assert client.status().state == "storage_full"
        answer = agent.over_http(
            "POST", "/v1/record", {"event": "over-http", "call": {"customer": customer, "feature": "chat"}}
        )
        assert (answer.status_code, answer.json()["code"]) == (503, "not_recorded")
        assert answer.headers["retry-after"]
        big = client.reserve(customer, "chat", amounts={"output_tokens": 10**9}, deadline_ms=0)
        assert not big.allowed, "what the journal does not cover is not allowed"
        assert agent.program.alive
        (small_disk / "filler").unlink()
        wait_until("there is room again", lambda: client.status().state != "storage_full")
        for name in refused:
            client.record(customer, "chat", event=name, amounts={"output_tokens": 1}, tags=tags)
            told.append(name)
    agent.kill()
    agent.start()
    own_plane.start()
    agent.uploaded()
    found = [event["event"] for event in own_plane.events(customer)]
    assert len(found) == len(set(found))
    assert set(told) <= set(found), "what was acknowledged is there"
    assert set(found) <= {*told, "over-http"}
    assert "Traceback" not in agent.program.said()


def test_agent_killed_on_a_full_disk_starts_on_the_full_disk(small_disk, plane, make_agent, wait_until) -> None:
    customer = plane.customer()
    agent = make_agent(plane, data=small_disk / "data").start().serves(customer)
    fill(small_disk)
    agent.kill()
    agent.start()
    (small_disk / "filler").unlink()
    with agent.client() as client:
        wait_until("it serves", lambda: client.reserve(customer, "chat").allowed)


def test_disk_that_is_broken_stops_the_agent_with_the_status_of_an_input_output_error(plane, make_agent) -> None:
    """A limit on the size of files is what anybody can set: writes fail with EFBIG, which is not a full disk."""
    customer = plane.customer()
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (3 * MIB, resource.RLIM_INFINITY))
    agent = make_agent(plane, before=limit).start().serves(customer)
    told = []
    resource.prlimit(agent.program.pid, resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
    with agent.client(timeout_s=1) as client, contextlib.suppress(AllotmentError):
        for number in range(10_000):
            client.record(customer, "chat", event=f"e{number}", amounts={"output_tokens": 1})
            told.append(f"e{number}")
    assert agent.program.ends() == EX_IOERR
    assert "stopped: " in agent.program.said()
    agent.before = None
    agent.start().uploaded()
    assert set(told) <= {event["event"] for event in plane.events(customer)}


@pytest.mark.parametrize("how", ["deleted", "replaced", "moved with its directory"])
def test_journal_that_vanishes_under_a_running_agent_stops_it_before_it_acknowledges(plane, make_agent, how) -> None:
    customer = plane.customer()
    agent = make_agent(plane).start().serves(customer)
    journal = agent.data / "agent.db"
    if how == "deleted":
        journal.unlink()
    elif how == "replaced":
        shutil.copy(journal, agent.data / "copy")
        (agent.data / "copy").replace(journal)
    else:
        agent.data.rename(agent.folder / "elsewhere")
    with agent.client(timeout_s=1) as client, pytest.raises(AllotmentError):
        client.record(customer, "chat", event="e1", amounts={"output_tokens": 1})
    assert agent.program.ends() == EX_IOERR
    assert "was removed or replaced while in use" in agent.program.said()
    assert "Traceback" not in agent.program.said()


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def another(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA application_id=4242")
        other.execute("CREATE TABLE notes (x)")
        other.commit()


DAMAGES = {
    "zeroed header": lambda path: overwrite(path, 0, b"\0" * 100),
    "garbage": lambda path: path.write_bytes(os.urandom(20_000)),
    "middle overwritten": lambda path: overwrite(path, 4_096, b"\xaa" * (path.stat().st_size - 4_096)),
    "text": lambda path: path.write_text("this is not a database, but somebody's notes\n" * 100),
    "another application's database": another,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_journal_is_set_aside_and_the_agent_begins_anew(plane, make_agent, call, name) -> None:
    customer = plane.customer()
    agent = make_agent(plane).start().serves(customer)
    before = agent.status()
    assert agent.stop() == 0
    for extra in ("-wal", "-shm"):
        (agent.data / f"agent.db{extra}").unlink(missing_ok=True)
    DAMAGES[name](agent.data / "agent.db")
    damaged = (agent.data / "agent.db").read_bytes()
    agent.start()
    after = agent.status()
    assert after.agent == before.agent
    assert after.journal != before.journal
    assert after.boot == 1
    (kept,) = agent.data.glob("agent.db.damaged-*")
    assert kept.read_bytes() == damaged, "kept as it was"
    assert str(kept) in agent.program.said()
    with agent.client() as client:
        assert call(client, customer, 2).allowed
    agent.uploaded()


def test_identity_that_is_damaged_is_named_and_not_guessed(plane, make_agent) -> None:
    agent = make_agent(plane).start()
    assert agent.stop() == 0
    (agent.data / "identity.json").write_text('{"agent": "agent-1", "tok')
    agent.spawn()
    assert agent.program.ends() == EX_IOERR
    assert "identity.json is damaged" in agent.program.said()
    assert "Traceback" not in agent.program.said()
    (agent.data / "identity.json").unlink()
    agent.start()


def test_copied_disk_is_found_out_and_neither_copy_uses_it_any_longer(plane, make_agent, call, wait_until) -> None:
    customer = plane.customer()
    first = make_agent(plane).start().serves(customer)
    with first.client() as client:
        assert call(client, customer, 5).allowed
    first.uploaded()
    assert first.stop() == 0
    second = make_agent(plane)
    second.folder.mkdir()
    shutil.copytree(first.data, second.data)
    first.start()
    wait_until("it is heard", lambda: first.status().counters["syncs"] > 0)
    second.spawn()
    assert second.program.ends() == EX_TEMPFAIL
    assert "must not be used again" in second.program.said()
    assert list(second.data.glob("agent.db.quarantined-*")), "kept, not deleted"
    with first.client(timeout_s=2) as client, contextlib.suppress(AllotmentError):
        for _ in range(50):
            call(client, customer, 1)
    assert first.program.ends() == EX_TEMPFAIL
    first.start()
    with first.client() as client:
        wait_until("it serves again, with a journal of its own", lambda: call(client, customer, 1).allowed)
    assert "Traceback" not in first.program.said() + second.program.said()


def test_original_that_lives_on_beside_a_copy_of_its_disk_is_stopped(plane, make_agent, call, wait_until) -> None:
    customer = plane.customer()
    first = make_agent(plane).start().serves(customer)
    second = make_agent(plane)
    second.folder.mkdir()
    shutil.copytree(first.data, second.data)
    second.start()
    wait_until("the copy is heard", lambda: second.status().counters["syncs"] > 0)
    with first.client(timeout_s=2) as client, contextlib.suppress(AllotmentError):
        for _ in range(200):
            call(client, customer, 1)
    assert first.program.ends() == EX_TEMPFAIL
    with second.client() as client:
        assert call(client, customer, 1).allowed
    assert "two agents live on copies of one disk" in first.program.said()
