"""The programs as somebody from outside sees them: started, asked, killed, and what they said."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from agent.core.pace import PAUSE_MS_MAX
from allotment import Client, StatusReport

WITHIN_S = PAUSE_MS_MAX / 1_000 + 15  # longer than a busy agent waits for more to report
START_S = 60.0  # on a machine that does much else
BIN = Path(sys.executable).parent
FEATURE = {"feature": "chat"}
HUGE = 10**12
NOT_PACKAGED = ("numpy", "pandas", "rich")
"""What the agent's image does not hold, and libraries of the agent load wherever they find it."""
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the authorities that plain HTTP does not need takes a while


def until(what: str, holds: Callable[[], Any], within_s: float = WITHIN_S, every_s: float = 0.02) -> Any:
    """What ``holds`` gives once it is true; looked at again and again, for a bounded time."""
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(every_s)
    return found


def new_token(role: str) -> str:
    return f"alt_{role}_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@functools.cache
def as_packaged() -> str:
    """A folder for ``PYTHONPATH``: with it, an agent finds of the tests' libraries what it finds in its image."""
    folder = Path(tempfile.mkdtemp(prefix="allotment-packaged-", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in NOT_PACKAGED:
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError('not packaged', name={name!r})\n")
    return str(folder)


@dataclass
class Program:
    """One process of ours and everything that it says."""

    command: list[str]
    log: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    before: Callable[[], None] | None = None
    cwd: Path | None = None

    def spawn(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={**os.environ, **self.environment}, cwd=self.cwd,
                preexec_fn=self.before,  # noqa: PLW1509 - limits are set there, and nothing else
            )  # fmt: skip

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        if self.alive:
            self.process.kill()
            self.process.wait(10)

    def stop(self, within_s: float = 15.0) -> int:
        """SIGTERM, and its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def ends(self, within_s: float = WITHIN_S) -> int:
        """Its exit status, once it has ended by itself."""
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running: {self.said()[-2_000:]}") from None

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@dataclass
class ControlPlane:
    """The control plane as its admin sees it."""

    folder: Path
    port: int = field(default_factory=a_free_port)
    admin_token: str = field(default_factory=lambda: new_token("admin"))
    join_token: str = field(default_factory=lambda: new_token("join"))
    program: Program | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> ControlPlane:
        """Start it, again if need be, on the same database and port; wait until it is ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for role, token in (("admin", self.admin_token), ("join", self.join_token)):
            (self.folder / f"{role}.token").write_text(token)
        self.program = Program(
            [str(BIN / "allotment-control-plane"), "serve"],
            self.folder / "control-plane.log",
            {
                "ALLOTMENT_DATABASE_URL": f"sqlite:///{self.folder / 'control-plane.db'}",
                "ALLOTMENT_HOST": "127.0.0.1",
                "ALLOTMENT_PORT": str(self.port),
                "ALLOTMENT_ADMIN_TOKEN_FILE": str(self.folder / "admin.token"),
                "ALLOTMENT_JOIN_TOKEN_FILE": str(self.folder / "join.token"),
            },
        )
        self.program.spawn()
        until("the control plane is ready", self._ready, START_S)
        return self

    def _ready(self) -> bool:
        assert self.program.alive, self.program.said()[-2_000:]
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/readyz", timeout=2, verify=NO_TLS).status_code == 200
        return False

    def request(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"authorization": f"Bearer {self.admin_token}"}
        answer = httpx.request(method, self.url + path, json=body, headers=headers, timeout=15, verify=NO_TLS)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer.json() if answer.content else None

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def put(self, path: str, body: Any) -> Any:
        return self.request("PUT", path, body)

    def items(self, path: str) -> list[Any]:
        """A whole list, page by page."""
        found: list[Any] = []
        cursor = ""
        while True:
            page = self.get(
                f"{path}{'&' if '?' in path else '?'}limit=1000{f'&cursor={quote(cursor)}' if cursor else ''}"
            )
            found += page["items"]
            cursor = page.get("next_cursor") or ""
            if not cursor:
                return found

    def load_catalog(self) -> None:
        self.put("/v1/features/chat", {"name": "Chat", "kind": "metered"})
        self.plan(
            "roomy", ("tokens-a-day", "output_tokens", HUGE, "day"), ("requests-a-month", "requests", HUGE, "month")
        )

    def plan(self, plan: str, *limits: tuple[Any, ...], **more_of_plan: Any) -> None:
        """A plan of the feature ``chat`` with limits of (key, meter, amount, window, more fields)."""
        named = [
            {"key": key, "meter": meter, "amount": amount, "window": window, **(more[0] if more else {})}
            for key, meter, amount, window, *more in limits
        ]
        self.put(f"/v1/plans/{plan}", {"name": plan, "features": [FEATURE], "limits": named, **more_of_plan})

    def customer(self, plan: str = "roomy") -> str:
        """A new customer on a plan."""
        name = f"customer-{secrets.token_hex(4)}"
        self.put(f"/v1/customers/{name}", {"name": name})
        self.subscribe(name, plan)
        return name

    def subscribe(self, customer: str, plan: str, status: str = "active") -> None:
        self.put(f"/v1/customers/{customer}/subscription", {"plan": plan, "status": status})

    def used(self, customer: str, meter: str = "output_tokens") -> int:
        """What the ledger says was used."""
        items = self.get(f"/v1/customers/{customer}/usage")["items"]
        return next((item["quantity"] for item in items if item["meter"] == meter), 0)

    def events(self, customer: str) -> list[Any]:
        return self.items(f"/v1/customers/{customer}/events")

    def lent(self, customer: str) -> int:
        """What is out on leases, free or held, over all limits."""
        return sum(item["lent"] + item["in_flight"] for item in self.get(f"/v1/customers/{customer}/balances")["items"])

    def stop(self) -> None:
        if self.program is not None:
            self.program.kill()


@dataclass
class Agent:
    """One agent: its directories, its process, and how to ask it."""

    folder: Path
    plane: ControlPlane
    name: str
    more: dict[str, str] = field(default_factory=dict)
    data: Path | None = None
    sockets: Path | None = None
    program: Program | None = None
    before: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.data = self.data or self.folder / "data"
        self.sockets = self.sockets or self.folder

    @property
    def frames(self) -> Path:
        return self.sockets / "agent.sock"

    @property
    def http(self) -> Path:
        return self.sockets / "http.sock"

    def spawn(self) -> Agent:
        self.folder.mkdir(exist_ok=True)
        self.program = Program(
            [str(BIN / "allotment-agent")],
            self.folder / "agent.log",
            {
                "ALLOTMENT_CONTROL_PLANE_URL": self.plane.url,
                "ALLOTMENT_AGENT_NAME": self.name,
                "ALLOTMENT_JOIN_TOKEN": self.plane.join_token,
                "ALLOTMENT_DATA_DIR": str(self.data),
                "ALLOTMENT_SOCKET_DIR": str(self.sockets),
                "PYTHONPATH": os.pathsep.join(filter(None, (as_packaged(), os.environ.get("PYTHONPATH")))),
                **self.more,
            },
            before=self.before,
        )
        self.program.spawn()
        return self

    def start(self) -> Agent:
        """Start it, again if need be, and wait until it answers."""
        return self.spawn().answers()

    def answers(self) -> Agent:
        """Wait until it does."""
        until("the agent answers", self._answers, START_S)
        return self

    def _answers(self) -> bool:
        assert self.program.alive, f"ended with {self.program.process.returncode}: {self.program.said()[-2_000:]}"
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.frames)) == 0

    def client(self, timeout_s: float = 10.0) -> Client:
        return Client(str(self.frames), timeout_s=timeout_s)

    def status(self) -> StatusReport:
        with self.client() as client:
            return client.status()

    def serves(self, customer: str) -> Agent:
        """Wait until this customer is served here from a lease."""
        with self.client() as client:
            until(
                f"{customer} is served", lambda: client.check(customer, "chat", amounts={"output_tokens": 10}).allowed
            )
        return self

    def uploaded(self) -> Agent:
        """Wait until the control plane has confirmed every event."""
        until("every event is confirmed", lambda: self.status().outbox_events == 0)
        return self

    def told(self, holds: Callable[[], Any]) -> Any:
        """Wait until the control plane knows. News alone waits for more; who asks for a stranger sends it along."""

        def known() -> Any:
            found = holds()
            if not found:
                with self.client() as client:
                    client.check(f"stranger-{secrets.token_hex(6)}", "chat")
            return found

        return until("the control plane knows", known, every_s=0.1)

    def identity(self) -> dict[str, str]:
        return json.loads((self.data / "identity.json").read_text())

    def kill(self) -> None:
        self.program.kill()

    def stop(self) -> int:
        return self.program.stop()

    def over_http(self, method: str, path: str, body: Any = None, timeout_s: float = 10) -> httpx.Response:
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.http), verify=NO_TLS), timeout=timeout_s
        ) as client:
            return client.request(method, f"http://localhost{path}", json=body)
