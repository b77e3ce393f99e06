"""Who is measured: the bare echo, Redis deciding the same in Lua (without and with a durable log), and the agent."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import calls
import processes
import provision
from calls import Step
from processes import Running
from stand import HUGE, Agent

ECHO, REDIS, REDIS_DURABLE, AGENT, AGENT_CHECK = "echo", "redis-lua", "redis-lua-durable", "agent", "agent-check"

EXPLAINED = {
    ECHO: "sends every frame back; C, epoll; the floor",
    REDIS: "three limits and a reservation in Lua; nothing on disk",
    REDIS_DURABLE: "the same, appendfsync always: every reserve and settle on disk",
    AGENT: "reserve (from memory) and settle (acknowledged when on disk)",
    AGENT_CHECK: "the agent answering `check`: decisions alone, no disk",
}


@dataclass(frozen=True)
class Contender:
    """One server, and how to ask it.

    Attributes:
        new_calls: the calls of a fresh run; an argument that no other run has goes into its reservation ids.
        settle_down: waits, after a run, until the server has no work left over from it.
    """

    name: str
    socket: Path
    process: Running
    steps: tuple[str, ...]
    new_calls: Callable[[str], list[list[Step]]]
    resp: bool = False
    settle_down: Callable[[], None] = lambda: None

    def write_calls(self, path: Path) -> None:
        """Write the calls of a fresh run for the load generator."""
        calls.write(path, self.new_calls(f"run{secrets.token_hex(4)}"), resp=self.resp)


@contextlib.contextmanager
def echo(program: Path, sockets: Path, logs: Path) -> Iterator[Contender]:
    """The bare echo in C, which is asked the very frames that the agent is asked."""
    socket = sockets / "echo.sock"
    with processes.running(ECHO, [str(program), str(socket)], logs, core=processes.SERVER_CORE) as process:
        processes.wait_until("echo listens", lambda: processes.answers_on(socket), of=process)
        operations = ("reserve", "settle")
        yield Contender(
            ECHO, socket, process, operations,
            lambda run: calls.agent_calls(run, operations=operations, checked=False),
        )  # fmt: skip


@contextlib.contextmanager
def redis(program: Path, sockets: Path, directory: Path, *, durable: bool) -> Iterator[Contender]:
    """Redis on a Unix socket, its counters filled and its scripts loaded."""
    name = REDIS_DURABLE if durable else REDIS
    socket = sockets / f"{name}.sock"
    (directory / name).mkdir(parents=True)
    log = ["--appendonly", "yes", "--appendfsync", "always"] if durable else ["--appendonly", "no"]
    where = ["--port", "0", "--unixsocket", str(socket), "--dir", str(directory / name), "--save", ""]
    core = processes.SERVER_CORE
    with processes.running(name, [str(program), *where, *log], directory, core=core) as process:
        processes.wait_until("Redis listens", lambda: processes.answers_on(socket), of=process)
        reserve, settle = load_scripts(socket)
        yield Contender(
            name, socket, process, ("reserve", "settle"),
            lambda run: calls.redis_calls(run, reserve, settle), resp=True,
        )  # fmt: skip


def load_scripts(socket: Path) -> tuple[str, str]:
    """Fill the counters and load both scripts; the scripts' digests."""
    from redis import Redis

    with Redis(unix_socket_path=str(socket)) as connection:
        for number in range(calls.CUSTOMERS):
            for key in calls.redis_keys("", calls.customer(number))[:3]:
                connection.set(key, HUGE)
        digests = [connection.script_load((provision.HERE / f"{one}.lua").read_text()) for one in ("reserve", "settle")]
    return str(digests[0]), str(digests[1])


def agent(one: Agent) -> list[Contender]:
    """The running agent, twice: with the whole reserve and settle, and with checks alone."""

    def upload() -> None:
        one.wait_for_upload(60.0)

    full = ("reserve", "settle")
    return [
        Contender(AGENT, one.frames, one.process, full, lambda run: calls.agent_calls(run, operations=full),
                  settle_down=upload),
        Contender(AGENT_CHECK, one.frames, one.process, ("check",),
                  lambda run: calls.agent_calls(run, operations=("check",))),
    ]  # fmt: skip
