"""The command line: ``allotment-agent`` runs the agent, ``allotment-agent health`` asks a running one how it is."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sqlite3
import sys

from agent.settings import Settings, from_environment
from protocol.violations import Violation

EX_UNAVAILABLE = 69
EX_IOERR = 74
EX_TEMPFAIL = 75
EX_CONFIG = 78
PROBE_S = 2.0


def main() -> None:
    """Entry point of the console script."""
    parser = argparse.ArgumentParser(
        prog="allotment-agent",
        description="The per-host agent of Allotment. It is configured by the environment.",
        epilog="ALLOTMENT_CONTROL_PLANE_URL (required); ALLOTMENT_JOIN_TOKEN or ALLOTMENT_JOIN_TOKEN_FILE (to enrol, "
        "at the first start); ALLOTMENT_AGENT_NAME, ALLOTMENT_DATA_DIR, ALLOTMENT_SOCKET_DIR, ALLOTMENT_SOCKET_MODE, "
        "ALLOTMENT_HTTP_PORT, ALLOTMENT_CA_FILE, ALLOTMENT_CONNECTIONS_MAX. For the metering proxy: "
        "ALLOTMENT_PROXY_PORT, ALLOTMENT_PROXY_UPSTREAMS, ALLOTMENT_PROXY_KEYS_FILE, ALLOTMENT_PROXY_FEATURE, "
        "ALLOTMENT_PROXY_ESTIMATE, ALLOTMENT_PROXY_RATELIMIT.",
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=["run", "health"],
        default="run",
        help="run (default), or health: exit 0 when ready",
    )
    parser.add_argument("--alive", action="store_true", help="health: exit 0 as soon as the agent answers at all")
    asked = parser.parse_args()
    command = asked.command
    try:
        settings = from_environment(os.environ)
    except Violation as wrong:
        sys.exit(_said(wrong.message, EX_CONFIG))
    sys.exit(_health(settings, "/healthz" if asked.alive else "/readyz") if command == "health" else _run(settings))


def _run(settings: Settings) -> int:
    import stamina

    from agent.api.sockets import SocketTakenError
    from agent.main import run
    from agent.store.data_dir import DirectoryTakenError
    from agent.store.identity import IdentityDamagedError
    from agent.store.journal import DiskFullError, JournalDamagedError
    from agent.uplink import QuarantinedError

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stamina.instrumentation.set_on_retry_hooks([])  # its own would be imported at the first retry
    try:
        run(settings)
    except Violation as wrong:
        return _said(wrong.message, EX_CONFIG)
    except (DirectoryTakenError, SocketTakenError) as taken:
        return _said(str(taken), EX_TEMPFAIL)
    except QuarantinedError as refusal:
        return _said(
            f"this journal must not be used again ({refusal}); it has been set aside, start again", EX_TEMPFAIL
        )
    except (sqlite3.Error, DiskFullError, JournalDamagedError, IdentityDamagedError, OSError) as broken:
        return _said(f"stopped: {broken}", EX_IOERR)
    return 0


def _health(settings: Settings, target: str) -> int:
    """Ask a running agent whether it can decide, over its HTTP socket."""
    path = settings.socket_dir / "http.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(PROBE_S)
        try:
            line.connect(str(path))
            line.sendall(b"GET %b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n" % target.encode())
            answer = line.recv(4_096)
        except OSError as error:
            return _said(f"no agent answers on {path}: {error}", EX_UNAVAILABLE)
    if answer.startswith(b"HTTP/1.1 200"):
        return 0
    return _said("the agent is starting: it has not yet spoken with its control plane", EX_UNAVAILABLE)


def _said(text: str, status: int) -> int:
    print(f"allotment-agent: {text}", file=sys.stderr)  # noqa: T201 - the command line speaks to people
    return status


if __name__ == "__main__":
    main()
