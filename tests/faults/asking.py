"""Proxies that others wrote, as `examples/` configures them: started in front of the provider, beside the agent."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.programs import Program, a_free_port, until

EXAMPLES = Path(__file__).parents[2] / "examples"
BIN = Path(sys.executable).parent
CUSTOMERS = 40
PACKAGES = "nginx libnginx-mod-http-lua haproxy"
"""What Debian calls those that no Python package brings; `.ci/run` installs them."""

NGINX_FILES = " ".join(f"{name}_temp_path {name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
"""So that nginx needs no directory of the system's."""


@dataclass
class Kind:
    """One kind of proxy.

    Attributes:
        name: of its folder in `examples/`.
        command: what runs it in the foreground, in a copy of that folder.
        keys: the file that says whose each API key is.
        settles: whether it says what an answer used; sees_aborts: also of one that broke off.
        closed: what callers are told while no agent answers.
    """

    name: str
    command: list[str]
    keys: str
    settles: bool = False
    sees_aborts: bool = False
    closed: int = 503


KINDS = [
    Kind(
        "nginx",
        ["nginx", "-p", ".", "-c", "nginx.conf", "-g", "daemon off; user root;"],
        "keys.map",
    ),
    Kind(
        "nginx-lua",
        ["nginx", "-p", ".", "-c", "nginx.conf", "-g", "daemon off; user root;"],
        "keys.map",
        settles=True,
        sees_aborts=True,
    ),
    Kind(
        "envoy",
        [str(BIN / "envoy"), "-c", "envoy.yaml", "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warn"],
        "whose.lua",
        settles=True,
    ),
    Kind("haproxy", ["haproxy", "-db", "-f", "haproxy.cfg"], "keys.map", settles=True, sees_aborts=True),
    Kind("caddy", [str(BIN / "caddy"), "run"], "Caddyfile"),
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
        name, *arguments = self.kind.command
        command = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
        assert command is not None, f"{name} is missing: apt-get install {PACKAGES}"
        shutil.copytree(EXAMPLES / self.kind.name, self.folder)
        self.customers = self.customers or [f"{self.kind.name}-{number}" for number in range(CUSTOMERS)]
        keys = self.folder / self.kind.keys
        lines = keys.read_text().splitlines(keepends=True)
        more = [line.replace("acme", customer) for customer in self.customers for line in lines if "acme" in line]
        first = next(at for at, line in enumerate(lines) if "acme" in line)
        others = [line for line in lines[first:] if "acme" not in line and "globex" not in line]
        keys.write_text("".join([*lines[:first], *more, *others]))
        for path in self.folder.iterdir():
            text = path.read_text()
            for said, meant in (
                ("/run/allotment/http.sock", str(agent_socket)),
                ("\nhttp {", "\nhttp { " + NGINX_FILES),
                ("127.0.0.1:9000", provider_url.removeprefix("http://")),
                ("127.0.0.1:8080", f"127.0.0.1:{self.port}"),
                ("port_value: 9000", f"port_value: {provider_url.rpartition(':')[2]}"),
                ("port_value: 8080", f"port_value: {self.port}"),
            ):
                text = text.replace(said, meant)
            path.write_text(text)
        self.program = Program([command, *arguments], self.folder / "out.log", {}, cwd=self.folder)
        self.program.spawn()

    def answers(self) -> None:
        """Wait until it does."""
        until(f"{self.kind.name} listens", self._listens)

    def _listens(self) -> bool:
        assert self.program is not None
        assert self.program.alive, self.program.said()[-3_000:]
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
