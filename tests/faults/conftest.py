"""One real control plane for all, and real agents as they are needed: started, killed, starved, and looked at."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from allotment import Client, Decision
from tests.faults.programs import Agent, ControlPlane, a_free_port, until


@dataclass
class Session:
    """Where everything of this run lies; short, because paths of sockets must be."""

    root: Path
    planes: list[ControlPlane] = field(default_factory=list)
    agents: list[Agent] = field(default_factory=list)

    def secrets(self) -> set[str]:
        """The secret part of every token that this run has seen."""
        tokens = {token for plane in self.planes for token in (plane.admin_token, plane.join_token)}
        for path in self.root.rglob("identity.json"):
            with contextlib.suppress(ValueError, OSError):
                tokens.add(json.loads(path.read_text())["token"])
        return {token.split("_", 3)[3] for token in tokens}

    def logs(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self.root.rglob("*.log"))


@pytest.fixture(scope="session")
def run() -> Iterator[Session]:
    """The run of all these tests; at its end, no log may hold a secret, and no agent's an unforeseen fault."""
    with tempfile.TemporaryDirectory(prefix="alf") as folder:
        session = Session(Path(folder))
        yield session
        logs = session.logs()
        assert session.agents
        for secret in session.secrets():
            assert secret not in logs
        logs = "".join(path.read_text(errors="replace") for path in session.root.rglob("agent.log"))
        fault = re.search(r"Traceback|Exception ignored|AssertionError|KeyError", logs)
        assert fault is None, logs[max(0, fault.start() - 500) : fault.end() + 5_000]


@pytest.fixture(scope="session")
def plane(run: Session) -> Iterator[ControlPlane]:
    """The control plane that all tests share; each brings its own customers."""
    one = ControlPlane(run.root / "plane")
    run.planes.append(one)
    try:
        one.start().load_catalog()
        yield one
    finally:
        one.stop()


@pytest.fixture
def own_plane(run: Session) -> Iterator[ControlPlane]:
    """A control plane of the test's own, to be killed."""
    one = ControlPlane(run.root / f"p{secrets.token_hex(3)}")
    run.planes.append(one)
    try:
        one.start().load_catalog()
        yield one
    finally:
        one.stop()


@pytest.fixture
def no_plane(run: Session) -> ControlPlane:
    """A control plane that is not there."""
    one = ControlPlane(run.root / f"n{secrets.token_hex(3)}")
    run.planes.append(one)
    return one


MakeAgent = Callable[..., Agent]


@pytest.fixture
def make_agent(run: Session) -> Iterator[MakeAgent]:
    """Makes agents, not yet started; all are killed in the end."""
    made: list[Agent] = []

    def make(plane: ControlPlane, **fields: Any) -> Agent:
        number = secrets.token_hex(3)
        agent = Agent(run.root / number, plane, f"agent-{number}", **fields)
        made.append(agent)
        run.agents.append(agent)
        return agent

    yield make
    for agent in made:
        if agent.program is not None:
            agent.kill()


@pytest.fixture(scope="module")
def two_agents(run: Session, plane: ControlPlane) -> Iterator[list[Agent]]:
    """Two running agents that the tests of a file share; each brings its own customers."""
    made = [
        Agent(run.root / number, plane, f"agent-{number}") for number in (secrets.token_hex(3), secrets.token_hex(3))
    ]
    run.agents.extend(made)
    try:
        for agent in made:
            agent.spawn()
        yield [agent.answers() for agent in made]
    finally:
        for agent in made:
            agent.kill()


def reserve_and_settle(client: Client, customer: str, tokens: int) -> Decision:
    """One whole call."""
    decision = client.reserve(customer, "chat", amounts={"output_tokens": tokens})
    if decision.reservation is not None:
        client.settle(decision.reservation.id, amounts={"output_tokens": tokens})
    return decision


@pytest.fixture(scope="session")
def call() -> Callable[[Client, str, int], Decision]:
    return reserve_and_settle


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    return until


@pytest.fixture
def free_port() -> int:
    """A loopback port that nobody listens on now."""
    return a_free_port()


@pytest.fixture(scope="session")
def copy_tree() -> Callable[[Path, Path], Any]:
    return shutil.copytree
