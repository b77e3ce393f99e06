"""How the sockets come to be: never with another mode, never over a living agent, always over a dead one's rest."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from agent.api.sockets import PATH_BYTES_MAX, SocketTakenError, listen_loopback, listen_unix


@contextlib.contextmanager
def listening(path: Path, mode: int = 0o660):
    with contextlib.closing(listen_unix(path, mode)) as sock:
        yield sock


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o620])
def test_mode_is_as_configured_whatever_the_umask(tmp_path, mode) -> None:
    before = os.umask(0o077)
    try:
        with listening(tmp_path / "s", mode):
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == mode
            assert connects(tmp_path / "s")
    finally:
        os.umask(before)


def test_nobody_ever_sees_the_socket_with_another_mode(tmp_path) -> None:
    """Looked at from another thread all the while: the path is not there, or it is there with its mode."""
    seen: set[int] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):
                seen.add(stat.S_IMODE((tmp_path / "s").stat().st_mode))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(100):
            with listening(tmp_path / "s", 0o620):
                pass
            (tmp_path / "s").unlink()
    finally:
        done.set()
        watcher.join()
    assert seen <= {0o620}


def test_leftover_of_a_dead_agent_is_replaced_in_one_step(tmp_path) -> None:
    with listening(tmp_path / "s"):
        pass
    assert (tmp_path / "s").is_socket()
    assert not connects(tmp_path / "s")
    with listening(tmp_path / "s"):
        assert connects(tmp_path / "s")
    assert [path.name for path in tmp_path.iterdir()] == ["s"], "nothing is left behind"


def test_living_agent_is_not_replaced(tmp_path) -> None:
    with listening(tmp_path / "s"):
        with pytest.raises(SocketTakenError, match=r"another agent answers on .*ALLOTMENT_SOCKET_DIR"):
            listen_unix(tmp_path / "s", 0o660)
        assert connects(tmp_path / "s")


def test_living_agent_too_busy_to_answer_is_not_replaced(tmp_path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as waiting:
        busy.bind(str(tmp_path / "s"))
        busy.listen(0)
        for _ in range(2):
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(str(tmp_path / "s"))
        inode = (tmp_path / "s").stat().st_ino
        with pytest.raises(SocketTakenError):
            listen_unix(tmp_path / "s", 0o660)
        assert (tmp_path / "s").stat().st_ino == inode


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, os.mkfifo], ids=["folder", "file", "fifo"])
def test_what_is_no_socket_is_left_alone(tmp_path, make) -> None:
    make(tmp_path / "s")
    with pytest.raises(SocketTakenError, match="is not a socket"):
        listen_unix(tmp_path / "s", 0o660)
    assert not (tmp_path / "s").is_socket()


def test_path_that_no_client_could_name_is_refused_with_the_variable(tmp_path) -> None:
    short = tmp_path / ("x" * (PATH_BYTES_MAX - len(bytes(tmp_path)) - 3))
    with listening(short / "s"):
        assert len(bytes(short / "s")) == PATH_BYTES_MAX
        assert connects(short / "s")
    with pytest.raises(SocketTakenError, match=r"longer than 107 bytes.*ALLOTMENT_SOCKET_DIR"):
        listen_unix(short / "ss", 0o660)
    wide = tmp_path / ("é" * 40)
    with pytest.raises(SocketTakenError, match="longer"):
        listen_unix(wide / "é" / "s", 0o660)


def test_folder_of_the_socket_is_made_when_it_is_not_there(tmp_path) -> None:
    with listening(tmp_path / "run" / "allotment" / "s"):
        assert connects(tmp_path / "run" / "allotment" / "s")


def test_port_that_is_taken_is_named_with_the_variable() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SocketTakenError, match=f"port {port} .*ALLOTMENT_HTTP_PORT"):
            listen_loopback(port)


def test_port_is_reachable_from_this_machine_alone() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with contextlib.closing(listen_loopback(port)) as sock:
        assert sock.getsockname() == ("127.0.0.1", port)
