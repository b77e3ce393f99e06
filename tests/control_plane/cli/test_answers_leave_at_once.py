"""The listening socket: what is accepted on it sends small packets at once."""

from __future__ import annotations

import socket

from control_plane.cli.serve import _listen
from control_plane.settings import from_environment


def test_accepted_connections_do_not_wait_for_receipts() -> None:
    settings = from_environment({"ALLOTMENT_HOST": "127.0.0.1", "ALLOTMENT_PORT": "0"})
    with (
        _listen(settings) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
