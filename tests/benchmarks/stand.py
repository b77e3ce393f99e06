"""A real control plane on a fresh SQLite file and real agents enrolled with it, loaded over its REST interface."""

from __future__ import annotations

import json
import secrets
import socket
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import calls
import processes
from processes import Running

from protocol.codec import MsgpackDecoder, encode_msgpack
from protocol.decisions import Decision
from protocol.framing import FrameReader, frame
from protocol.local_messages import Call, Check, Reply, Request, Status, StatusReport

HUGE = 4_000_000_000_000
"""Each limit: large enough that no call here is ever refused and that leases are large."""

_decode = MsgpackDecoder[Reply](Reply)  # type: ignore[arg-type]


def new_token(role: str) -> str:
    """A token in the form that the control plane takes from a file."""
    return f"alt_{role}_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"


@dataclass
class ControlPlane:
    """The control plane as an admin sees it."""

    url: str
    admin_token: str
    join_token: str
    process: Running = field(repr=False)

    def put(self, path: str, body: dict[str, Any]) -> Any:
        """PUT a document; the answer, decoded."""
        return self._request("PUT", path, body)

    def get(self, path: str) -> Any:
        """GET, decoded."""
        return self._request("GET", path, None)

    def get_all(self, path: str) -> list[Any]:
        """All items of a list, page by page."""
        items: list[Any] = []
        cursor = ""
        while True:
            joint = "&" if "?" in path else "?"
            page = self.get(f"{path}{joint}limit=1000" + (f"&cursor={quote(cursor)}" if cursor else ""))
            items += page["items"]
            cursor = page.get("next_cursor") or ""
            if not cursor:
                return items

    def _request(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        request = urllib.request.Request(self.url + path, method=method, headers={
            "Authorization": f"Bearer {self.admin_token}", "Content-Type": "application/json",
        }, data=None if body is None else json.dumps(body).encode())  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise self.process.trouble(f"{method} {path}: {error.code} {error.read().decode()[:800]}") from None


def program(name: str) -> str:
    """A console script of the virtual environment that runs us."""
    return str(Path(sys.executable).parent / name)


def start_control_plane(
    directory: Path, core: int | None = None, niceness: int = 0, database_url: str | None = None
) -> ControlPlane:
    """Start it, on a fresh SQLite file unless a database is given, and wait until it is ready. The caller ends
    ``process``."""
    port = processes.free_port()
    tokens = {role: new_token(role) for role in ("admin", "join")}
    for role, token in tokens.items():
        (directory / f"{role}.token").write_text(token + "\n")
    command = ["nice", "-n", str(niceness), program("allotment-control-plane"), "serve"]
    process = processes.start("control-plane", command, directory, {
        "ALLOTMENT_DATABASE_URL": database_url or f"sqlite:///{directory / 'control-plane.db'}",
        "ALLOTMENT_HOST": "127.0.0.1",
        "ALLOTMENT_PORT": str(port),
        "ALLOTMENT_ADMIN_TOKEN_FILE": str(directory / "admin.token"),
        "ALLOTMENT_JOIN_TOKEN_FILE": str(directory / "join.token"),
    }, core)  # fmt: skip
    plane = ControlPlane(f"http://127.0.0.1:{port}", tokens["admin"], tokens["join"], process)
    try:
        processes.wait_until("the control plane is ready", lambda: _ready(plane.url), of=process)
    except processes.TroubleError:
        process.end()
        raise
    return plane


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def load_catalog(plane: ControlPlane, customers: int) -> None:
    """One plan with three limits on the path of every call, and customers on it."""
    plane.put(f"/v1/features/{calls.FEATURE}", {"name": "Chat", "kind": "metered"})
    limits = [
        {"key": f"{meter}-a-{window}", "meter": meter, "amount": HUGE, "window": window}
        for meter, window in zip(calls.METERS, ("day", "month", "month"), strict=True)
    ]
    plane.put("/v1/plans/bench", {"name": "Bench", "features": [{"feature": calls.FEATURE}], "limits": limits})
    for number in range(customers):
        name = calls.customer(number)
        plane.put(f"/v1/customers/{name}", {"name": name})
        plane.put(f"/v1/customers/{name}/subscription", {"plan": "bench", "status": "active"})


@dataclass
class Agent:
    """One agent: ``directory`` holds its journal and its log, ``sockets`` (a short path) its sockets; ``settings`` are
    more variables of its environment."""

    name: str
    directory: Path
    sockets: Path
    plane: ControlPlane
    core: int | None = None
    settings: dict[str, str] = field(default_factory=dict)
    started: Running | None = None

    @property
    def process(self) -> Running:
        """The process that was started last."""
        assert self.started is not None, "not started"
        return self.started

    def end(self) -> None:
        """Stop it, if it runs."""
        if self.started is not None:
            self.started.end()

    @property
    def frames(self) -> Path:
        """The socket that speaks frames."""
        return self.sockets / "agent.sock"

    def start(self) -> Running:
        """Start it, again if need be, on the same data directory; wait until it answers."""
        self.spawn()
        processes.wait_until("the agent answers", lambda: processes.answers_on(self.frames), of=self.process)
        return self.process

    def spawn(self) -> None:
        """Start it and wait for nothing."""
        for one in (self.directory, self.sockets):
            one.mkdir(parents=True, exist_ok=True)
        self.started = processes.start(f"agent-{self.name}", [program("allotment-agent")], self.directory, {
            "ALLOTMENT_CONTROL_PLANE_URL": self.plane.url,
            "ALLOTMENT_AGENT_NAME": self.name,
            "ALLOTMENT_JOIN_TOKEN": self.plane.join_token,
            "ALLOTMENT_DATA_DIR": str(self.directory / "data"),
            "ALLOTMENT_SOCKET_DIR": str(self.sockets),
            **self.settings,
        }, self.core)  # fmt: skip

    def wait_for_leases(self, within_s: float = 30.0) -> None:
        """Until every customer of the calls may be served from here."""
        held = dict(zip(calls.METERS, calls.HELD, strict=True))

        def served(who: str) -> bool:
            reply = ask(self.frames, Check(call=Call(customer=who, feature=calls.FEATURE), amounts=held))
            return isinstance(reply, Decision) and reply.has_access

        for number in range(calls.CUSTOMERS):
            who = calls.customer(number)
            processes.wait_until(f"{who} is served", partial(served, who), within_s, self.process)

    def status(self) -> StatusReport:
        """What it says of itself."""
        reply = ask(self.frames, Status())
        assert isinstance(reply, StatusReport), reply
        return reply

    def wait_for_upload(self, within_s: float) -> None:
        """Until the control plane has confirmed every event that lies on the agent's disk."""
        processes.wait_until(
            "the agent's events are with the control plane",
            lambda: self.status().outbox_events == 0, within_s, self.process, every_s=0.1,
        )  # fmt: skip


def ask(path: Path, request: Request, within_s: float = 10.0) -> Reply:
    """One request over a connection of its own."""
    reader = FrameReader()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(within_s)
        connection.connect(str(path))
        connection.sendall(frame(encode_msgpack(request)))
        while True:
            chunk = connection.recv(65_536)
            if not chunk:
                raise processes.TroubleError(f"{path} closed the connection without an answer")
            for body in reader.feed(chunk):
                return _decode(body)
