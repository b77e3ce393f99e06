"""The control plane and the agents as processes of their own, with real tokens: started, killed, started again."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

import allotment
from examples.quickstart.settings import STATE, Settings

BIN = Path(sys.executable).parent
READY_S = 30.0


class FleetClosingError(Exception):
    """Nothing is started or killed any more: everything is being stopped."""


class Fleet:
    """Everything that runs. Leave its ``with`` block and all of it is gone, whichever thread was starting what.

    Under a lock, so that none is ever running without being known here.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.url = f"http://127.0.0.1:{_free_port()}"
        self.token_file = STATE / "admin.token"
        self._join_token = ""
        # Socket paths must be short, wherever this repository lies.
        self._sockets = Path(tempfile.gettempdir()) / f"allotment-{secrets.token_hex(4)}"

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closing.set()
            running = list(self._processes.values())
        for process in reversed(running):
            process.terminate()
        for process in running:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def start_control_plane(self) -> None:
        """Start it, make an admin token and a join token with its own command, and wait until it is ready."""
        shutil.rmtree(STATE, ignore_errors=True)
        STATE.mkdir(parents=True)
        self._sockets.mkdir(mode=0o700)
        token = self._control_plane("create-token", "--role", "admin", "--name", "quickstart")
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(token)
        self._join_token = self._control_plane(
            "create-token", "--role", "join", "--name", "quickstart", "--uses", str(self._settings.agents)
        )
        self._start("control-plane", [str(BIN / "allotment-control-plane"), "serve"], self._control_plane_environment())
        _wait("the control plane", lambda: httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200, self._died)

    def start_agent(self, number: int) -> None:
        """Start one agent (again): same journal, same sockets."""
        folder = STATE / f"agent-{number + 1}"
        environment = {
            "ALLOTMENT_CONTROL_PLANE_URL": self.url,
            "ALLOTMENT_AGENT_NAME": f"agent-{number + 1}",
            "ALLOTMENT_JOIN_TOKEN": self._join_token,
            "ALLOTMENT_DATA_DIR": str(folder.resolve()),
            "ALLOTMENT_SOCKET_DIR": str(self.socket_dir(number)),
        }
        self._start(f"agent-{number + 1}", [str(BIN / "allotment-agent")], environment)

    def wait_for_agent(self, number: int) -> float:
        """Seconds until the agent answers and can decide."""
        began = time.monotonic()

        def ready() -> bool:
            with allotment.Client(self.socket_path(number), timeout_s=1) as client:
                return client.status().state == "ready"

        _wait(f"agent {number + 1}", ready, self._died)
        return time.monotonic() - began

    def kill_agent(self, number: int) -> None:
        """SIGKILL: no goodbye, no flush. Raises FleetClosingError where everything is being stopped anyway."""
        with self._lock:
            if self._closing.is_set():
                raise FleetClosingError
            process = self._processes.pop(f"agent-{number + 1}")
            process.send_signal(signal.SIGKILL)
        process.wait()

    def rest(self, seconds: float | None) -> None:
        """Wait, but not longer than the fleet runs."""
        self._closing.wait(seconds)

    def socket_dir(self, number: int) -> Path:
        """Where the agent's sockets are."""
        return self._sockets / f"agent-{number + 1}"

    def socket_path(self, number: int) -> str:
        """Where applications speak to it."""
        return str(self.socket_dir(number) / "agent.sock")

    def _died(self) -> str | None:
        if self._closing.is_set():
            return "everything is being stopped"
        with self._lock:
            running = dict(self._processes)
        for name, process in running.items():
            if process.poll() is not None:
                return f"{name} exited with {process.returncode}; see {STATE / name}.log"
        return None

    def _control_plane_environment(self) -> dict[str, str]:
        return {
            "ALLOTMENT_DATABASE_URL": self._settings.database_url,
            "ALLOTMENT_HOST": "127.0.0.1",
            "ALLOTMENT_PORT": self.url.rsplit(":", 1)[1],
        }

    def _control_plane(self, *arguments: str) -> str:
        done = subprocess.run(
            [BIN / "allotment-control-plane", *arguments],
            env={**os.environ, **self._control_plane_environment()},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"allotment-control-plane {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout.strip()

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        with self._lock, (STATE / f"{name}.log").open("ab") as log:
            if self._closing.is_set():
                raise FleetClosingError
            self._processes[name] = subprocess.Popen(
                command, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
            )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(what: str, ready: object, died: object) -> None:
    assert callable(ready)
    assert callable(died)
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        try:
            if ready():
                return
        except (httpx.HTTPError, allotment.AllotmentError):
            pass  # not there yet
        if trouble := died():
            sys.exit(trouble)
        time.sleep(0.05)
    sys.exit(f"{what} was not ready within {READY_S:g} seconds; see {STATE}/*.log")
