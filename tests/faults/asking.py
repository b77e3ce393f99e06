"""Proxies that others wrote, as `examples/` configures them: started in front of the provider, beside the agent."""

from __future__ import annotations

import shutil
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.programs import Program, a_free_port, until

EXAMPLES = Path(__file__).parents[2] / "examples"
BIN = Path(sys.executable).parent
CUSTOMERS = 40


@dataclass
class Kind:
    """One kind of proxy.

    Attributes:
        name: of its folder in `examples/`.
        command: what runs it in the foreground, in a copy of that folder.
        keys: the file with API keys, and what its lines for one customer are.
        settles: whether it says what an answer used; sees_aborts: also of one that broke off.
        closed: what callers are told while no agent answers.
    """

    name: str
    command: list[str]
    keys: tuple[str, str]
    settles: bool = False
    sees_aborts: bool = False
    closed: int = 503


KINDS = [
    Kind(
        "nginx",
        ["nginx", "-p", ".", "-c", "nginx.conf", "-g", "daemon off; user root;"],
        ("keys.map", '"Bearer key-of-{0}" {0};\n'),
    ),
    Kind(
        "nginx-lua",
        ["nginx", "-p", ".", "-c", "nginx.conf", "-g", "daemon off; user root;"],
        ("keys.map", '"Bearer key-of-{0}" {0};\n'),
        settles=True,
        sees_aborts=True,
    ),
]


@dataclass
class Proxy:
    """One running proxy. Its customers' API keys are ``key-of-<customer>``."""

    kind: Kind
    folder: Path
    port: int = field(default_factory=a_free_port)
    program: Program | None = None
    customers: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spawn(self, agent_socket: Path, provider_url: str) -> None:
        """Run the example as it is, but for where the agent, the provider and the proxy itself are."""
        shutil.copytree(EXAMPLES / self.kind.name, self.folder)
        self.customers = [f"{self.kind.name}-{number}" for number in range(CUSTOMERS)]
        name, line = self.kind.keys
        (self.folder / name).write_text("".join(line.format(customer) for customer in self.customers))
        for path in self.folder.iterdir():
            text = path.read_text()
            for said, meant in (
                ("/run/allotment/http.sock", str(agent_socket)),
                ("127.0.0.1:9000", provider_url.removeprefix("http://")),
                ("127.0.0.1:8080", f"127.0.0.1:{self.port}"),
            ):
                text = text.replace(said, meant)
            path.write_text(text)
        self.program = Program(self.kind.command, self.folder / "out.log", {}, cwd=self.folder)
        self.program.spawn()

    def answers(self) -> None:
        """Wait until it does."""
        until(f"{self.kind.name} listens", self._listens)

    def _listens(self) -> bool:
        assert self.program is not None
        assert self.program.alive, self.program.said()[-3_000:]
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
