"""The real program: it starts, is driven over HTTP, refuses what it must, and stops when told to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from click.testing import CliRunner

from control_plane.cli.commands import main
from control_plane.clock import SystemClock, random_id, random_secret
from control_plane.core.tokens import Role
from control_plane.operations.issue_token import TokenOrder, issue
from control_plane.store.database import Database
from protocol.codec import encode_msgpack
from protocol.uplink_messages import ENROLL_PATH, MSGPACK, SYNC_PATH, WATCH_PATH, SyncReply, SyncRequest, WatchReply

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "control_plane"]
PATIENCE_S = 30


def environment(database_url: str, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ALLOTMENT_")}
    return {**kept, "ALLOTMENT_DATABASE_URL": database_url, "ALLOTMENT_PORT": "0", "PYTHONUNBUFFERED": "1", **more}


def run(database_url: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=environment(database_url, **more),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


class Program:
    """A serving control plane."""

    def __init__(self, database_url: str, log: Path, **more: str) -> None:
        self._log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [*COMMAND, "serve"],
                cwd=ROOT,
                env=environment(database_url, **more),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        self.greeting = self.process.stdout.readline()  # ends when the program does, so it cannot hang for ever
        found = re.search(r"https?://\S+:\d+", self.greeting)
        assert found, (self.greeting, log.read_text())
        self.url = found.group()

    def stop(self) -> tuple[int, float]:
        """SIGTERM; returns the exit status and how long it took, seconds."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE_S), time.monotonic() - begun

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture
def program(database_url: str, tmp_path: Path) -> Iterator[Program]:
    program = Program(database_url, tmp_path / "log")
    yield program
    program.end()


def token(database_url: str, role: Role) -> str:
    """A new token, made beside the running program."""
    database = Database(database_url)
    _, text = database.run(
        lambda connection: issue(
            connection,
            TokenOrder(role, "test"),
            random_id(),
            random_secret(),
            actor="test",
            now_ms=SystemClock().now_ms(),
        )
    )
    database.dispose()
    return text


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def enrolled(http: httpx.Client, join: str) -> dict[str, str]:
    """An agent that has joined and synced once: what it authenticates with."""
    reply = http.post(ENROLL_PATH, json={"join_token": join, "name": "agent-a"})
    assert reply.is_success, reply.text
    header = bearer(reply.json()["token"])
    hello = encode_msgpack(SyncRequest("journal-1", 1, "nonce-1", snapshot=True))
    synced = http.post(SYNC_PATH, content=hello, headers={**header, "Content-Type": MSGPACK})
    assert synced.is_success, synced.text
    msgspec.msgpack.decode(synced.content, type=SyncReply)
    return header


def watch(http: httpx.Client, header: dict[str, str], cursor: int, wait_ms: int) -> WatchReply:
    answer = http.get(WATCH_PATH, params={"cursor": cursor, "wait_ms": wait_ms}, headers=header, timeout=60)
    assert answer.is_success, answer.text
    return msgspec.msgpack.decode(answer.content, type=WatchReply)


def test_it_serves_people_and_agents_and_stops_at_once_although_a_watch_hangs(
    program: Program, database_url: str
) -> None:
    made = run(database_url, "create-token", "--role", "admin", "--name", "test")
    assert made.returncode == 0, made.stderr
    admin, join = made.stdout.strip(), token(database_url, Role.JOIN)
    with httpx.Client(base_url=program.url, timeout=PATIENCE_S) as http:
        assert http.get("/readyz").json() == {"status": "ok"}
        assert http.get("/schema/swagger", auth=("browser", admin)).status_code == 200
        agent = enrolled(http, join)
        first = watch(http, agent, -1, 0)
        woken: list[WatchReply] = []
        watching = threading.Thread(target=lambda: woken.append(watch(http, agent, first.cursor, 20_000)))
        watching.start()
        put = http.put("/v1/customers/acme", json={"name": "Acme"}, headers=bearer(admin))
        assert put.is_success, put.text
        watching.join(timeout=PATIENCE_S)
        assert woken[0].customers == ("acme",)

        hanging: list[WatchReply] = []
        left = threading.Thread(target=lambda: hanging.append(watch(http, agent, woken[0].cursor, 50_000)))
        left.start()
        while not _is_listening_for(http, admin):
            pass
        status, took_s = program.stop()
        left.join(timeout=PATIENCE_S)
        assert (status, took_s < 5) == (0, True)
        assert hanging[0].customers == ()
    for secret in (admin, join, agent["Authorization"]):
        assert secret[-43:] not in program.log
    lines = [msgspec.json.decode(line) for line in program.log.splitlines()]
    assert [line["path"] for line in lines if line.get("logger") == "allotment.access"][:1] == ["/v1/agents/enroll"]
    assert not [line for line in lines if line["level"] == "error"]


def _is_listening_for(http: httpx.Client, admin: str) -> bool:
    """One more round trip, so that the watch before it has surely arrived."""
    return http.get("/v1/agents", headers=bearer(admin)).is_success


def test_a_second_control_plane_on_the_same_file_says_so_and_ends(sqlite_url: str, tmp_path: Path) -> None:
    first = Program(sqlite_url, tmp_path / "log")
    try:
        second = run(sqlite_url, "serve")
        assert second.returncode == 1
        assert "another control plane is running on" in second.stderr
        assert first.stop()[0] == 0
    finally:
        first.end()
    again = Program(sqlite_url, tmp_path / "log")
    again.stop()
    again.end()


def test_killed_control_planes_leave_nothing_in_the_way(sqlite_url: str, tmp_path: Path) -> None:
    first = Program(sqlite_url, tmp_path / "log")
    first.process.kill()
    first.end()
    again = Program(sqlite_url, tmp_path / "log")
    try:
        assert httpx.get(f"{again.url}/readyz").status_code == 200
    finally:
        again.end()


def test_two_control_planes_serve_one_postgresql_and_a_change_on_one_wakes_watches_on_the_other(
    postgresql_url: str, tmp_path: Path
) -> None:
    programs = [Program(postgresql_url, tmp_path / name) for name in ("one", "two")]
    try:
        admin, join = token(postgresql_url, Role.ADMIN), token(postgresql_url, Role.JOIN)
        with httpx.Client(base_url=programs[0].url) as one, httpx.Client(base_url=programs[1].url) as two:
            agent = enrolled(one, join)
            first = watch(two, agent, -1, 0)
            woken: list[WatchReply] = []
            watching = threading.Thread(target=lambda: woken.append(watch(two, agent, first.cursor, 20_000)))
            watching.start()
            assert one.put("/v1/customers/acme", json={"name": "Acme"}, headers=bearer(admin)).is_success
            watching.join(timeout=PATIENCE_S)
            assert woken[0].customers == ("acme",)
        assert [program.stop()[0] for program in programs] == [0, 0]
    finally:
        for program in programs:
            program.end()


def test_tokens_of_the_operator_are_taken_in_once(sqlite_url: str, tmp_path: Path) -> None:
    admin = "alt_admin_0123456789ab_" + "a" * 43
    (tmp_path / "token").write_text(admin + "\n")
    setting = {"ALLOTMENT_ADMIN_TOKEN_FILE": str(tmp_path / "token")}
    for _ in range(2):
        program = Program(sqlite_url, tmp_path / "log", **setting)
        try:
            answer = httpx.get(f"{program.url}/v1/tokens", headers=bearer(admin))
            assert [item["token"] for item in answer.json()["items"]] == ["0123456789ab"]
        finally:
            program.stop()
            program.end()
    (tmp_path / "token").write_text(admin[:-1] + "b")
    refused = run(sqlite_url, "serve", **setting)
    assert refused.returncode == 1
    assert "ALLOTMENT_ADMIN_TOKEN_FILE" in refused.stderr
    assert "a" * 43 not in refused.stderr


@pytest.mark.parametrize(
    ("url", "more", "said"),
    [
        ("mysql://u:s3cret@h/d", {}, "ALLOTMENT_DATABASE_URL"),
        ("sqlite:////proc/nowhere/x.db", {}, "ALLOTMENT_DATABASE_URL"),
        ("postgresql://u:s3cret@127.0.0.1:1/d", {}, "cannot be used at the moment"),
        ("sqlite:///{tmp}/x.db", {"ALLOTMENT_PORT": "many"}, "ALLOTMENT_PORT"),
        ("sqlite:///{tmp}/x.db", {"ALLOTMENT_HOST": "192.0.2.1"}, "cannot listen on 192.0.2.1"),
    ],
)
def test_what_an_operator_got_wrong_is_one_line(url: str, more: dict[str, Any], said: str, tmp_path: Path) -> None:
    setting = environment(url.format(tmp=tmp_path), **more)
    refused = CliRunner().invoke(main, ["serve"], env=setting)
    assert refused.exit_code == 1
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "s3cret" not in refused.stderr


def test_a_new_database_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "control-plane.db"
    migrated = CliRunner().invoke(main, ["migrate"], env=environment(f"sqlite:///{path}"))
    assert (migrated.exit_code, migrated.output) == (0, "The schema is current.\n")
    assert path.stat().st_mode & 0o777 == 0o600
