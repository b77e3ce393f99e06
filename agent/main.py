"""Gives a running agent its doors and its signals, and runs it until it is told to stop."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - looking up a host would import it, when there may be no file to spare
import gc
import logging
import resource
import signal
from functools import partial
from pathlib import Path

import trio

from agent.api import frames, http
from agent.api.authz import Authz
from agent.api.frames import FramesDoor
from agent.api.http import HttpDoor
from agent.api.listeners import Listeners
from agent.api.sockets import FRAMES_NAME, HTTP_NAME, listen_loopback, listen_unix
from agent.clock import SystemClock
from agent.proxy.opening import make_proxy
from agent.running import Agent
from agent.settings import Settings
from agent.store import data_dir
from protocol.violations import Violation

PROXY_DRAIN_S = 10.0
"""How long model calls under way may go on after the agent was told to stop; Kubernetes gives it half a minute."""

OWN_FILES = 48
"""Open files that are not callers' connections: journal, listeners, the control plane, and some to spare."""

log = logging.getLogger("agent")


def run(settings: Settings) -> None:
    """Run one agent until it is told to stop.

    Raises:
        DirectoryTakenError, SocketTakenError: another agent is there already.
        QuarantinedError: the journal has been set aside; start again.
        Violation: a directory that cannot be used, by the name of its variable.
    """
    try:
        data_dir.claim(settings.data_dir)
    except OSError as error:
        raise _unusable("ALLOTMENT_DATA_DIR", settings.data_dir, error) from None
    clock = SystemClock()
    listeners = Listeners(clock.monotonic_ms, _connections_possible(settings.connections_max))
    agent = Agent(settings, clock, listeners)
    listeners.idle = agent.books.idle
    try:
        trio.run(_serve, agent, settings, listeners, clock)
    except BaseExceptionGroup as group:
        raise _first_of(group) from group


async def _serve(agent: Agent, settings: Settings, listeners: Listeners, clock: SystemClock) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:  # from before anybody can reach us
        proxy = proxied = None
        if settings.proxy is not None:  # its callers, too, find it open once they see the frames' socket
            proxy = make_proxy(
                settings.proxy, agent.dispatch, clock.random_id, agent.books.estimates, agent.books.answers
            )
            proxied = listen_loopback(settings.proxy.port, "ALLOTMENT_PROXY_PORT")
        _open_doors(agent, settings, listeners, clock)
        gc.collect()
        gc.set_threshold(20_000, 20, 50)
        gc.freeze()  # what is here now stays; a full collection over it would stall calls for tens of milliseconds
        log.info("serving on %s (journal %s, boot %d)", settings.socket_dir, agent.books.journal, agent.books.boot)
        async with trio.open_nursery() as nursery:
            if proxy is not None and proxied is not None:
                nursery.start_soon(proxy.run, proxied)

            async def told_to_stop() -> None:
                await signals.__anext__()
                if proxy is not None:
                    await proxy.drain(PROXY_DRAIN_S)

            await agent.run(told_to_stop)
            nursery.cancel_scope.cancel()


def _open_doors(agent: Agent, settings: Settings, listeners: Listeners, clock: SystemClock) -> None:
    """Open every door; the frames' last, so that whoever sees that one finds the others open too."""
    make_http = partial(
        HttpDoor, agent.dispatch, Authz(agent.dispatch, agent.books.estimates, clock.random_id), agent.is_ready
    )
    if settings.http_port:
        listeners.listen(listen_loopback(settings.http_port), partial(make_http, guarded=True), http.BUSY)
    try:
        on_http = listen_unix(settings.socket_dir / HTTP_NAME, settings.socket_mode)
        on_frames = listen_unix(settings.socket_dir / FRAMES_NAME, settings.socket_mode)
    except OSError as error:
        raise _unusable("ALLOTMENT_SOCKET_DIR", settings.socket_dir, error) from None
    listeners.listen(on_http, partial(make_http, guarded=False), http.BUSY)
    listeners.listen(on_frames, partial(FramesDoor, agent.dispatch), frames.BUSY)


def _unusable(variable: str, path: Path, error: OSError) -> Violation:
    return Violation(
        variable, f"names {path}, which cannot be used: {error.strerror}", "a directory this user may write"
    )


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first fault in a group: one broken loop ends the agent, and the others are cancelled with it."""
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


def _connections_possible(wanted: int) -> int:
    """How many connections this process may hold: it raises its own limit of open files as far as it is let, and keeps
    some for the journal and for the control plane, whatever its callers open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OWN_FILES
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    possible = max(1, min(wanted, max(soft, allowed) - OWN_FILES))
    if possible < wanted:
        log.warning("the limit of open files allows %d connections, not %d", possible, wanted)
    return possible
