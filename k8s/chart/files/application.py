"""The example application: asks the agent beside it every few seconds whether its customer may go on."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import threading


class AgentConnection(http.client.HTTPConnection):
    """HTTP over the agent's Unix socket; a new connection a question, so that a restarted agent is found again."""

    def __init__(self, path: str) -> None:
        super().__init__("agent", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(path: str, question: dict[str, object]) -> str:
    """One line about one check: the verdict and its reason, or what went wrong."""
    connection = AgentConnection(path)
    try:
        connection.request("POST", "/v1/check", json.dumps(question), {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"no answer: {error}"
    finally:
        connection.close()
    return f"{answer.get('decision', 'problem')}: {answer.get('message') or answer.get('detail')}"


def main() -> None:
    """Ask until told to stop."""
    question: dict[str, object] = {
        "call": {"customer": os.environ["CUSTOMER"], "feature": os.environ["FEATURE"]},
        "amounts": {os.environ["METER"]: 1},
    }
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    while not stopped.is_set():
        sys.stdout.write(ask(os.environ["SOCKET"], question) + "\n")
        sys.stdout.flush()
        stopped.wait(float(os.environ["EVERY_S"]))


if __name__ == "__main__":
    main()
