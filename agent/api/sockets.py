"""Makes the listening sockets appear: with the right mode from the first moment, and over what a dead agent left."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

from agent.api.listeners import BACKLOG

FRAMES_NAME = "agent.sock"
HTTP_NAME = "http.sock"
PATH_BYTES_MAX = 107


class SocketTakenError(Exception):
    """A living agent answers there already, or the path cannot be a socket's."""


def listen_unix(path: Path, mode: int) -> socket.socket:
    """A listening Unix socket at ``path``.

    It is bound in a private folder, given its mode, and only then moved into place, so that nobody can ever connect to
    it with another mode, and a file left behind by a dead agent is replaced in one step.

    Raises:
        SocketTakenError: somebody listens there, or the path is too long.
    """
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise SocketTakenError(f"{path} is longer than {PATH_BYTES_MAX} bytes; choose a shorter ALLOTMENT_SOCKET_DIR")
    if path.exists() and not path.is_socket():
        raise SocketTakenError(
            f"{path} exists and is not a socket; move it away or choose another ALLOTMENT_SOCKET_DIR"
        )
    if _answers(path):
        raise SocketTakenError(f"another agent answers on {path}; give each agent its own ALLOTMENT_SOCKET_DIR")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as private:
        fresh = Path(private) / "s"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Bound by a path relative to an open folder: the long way round would not fit into a socket address.
        folder = os.open(private, os.O_RDONLY | os.O_DIRECTORY)
        try:
            sock.bind(f"/proc/self/fd/{folder}/s")
        finally:
            os.close(folder)
        fresh.chmod(mode)
        sock.listen(BACKLOG)
        fresh.replace(path)
    return sock


def listen_loopback(port: int, variable: str = "ALLOTMENT_HTTP_PORT") -> socket.socket:
    """A listening TCP socket that only this machine can reach.

    Raises:
        SocketTakenError: somebody listens on that port.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", port))
    except OSError as error:
        sock.close()
        raise SocketTakenError(f"port {port} cannot be had ({error}); choose another {variable}") from None
    sock.listen(BACKLOG)
    return sock


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return False
        except OSError:
            return True  # too busy to take us, or not for us: somebody is there
        return True
