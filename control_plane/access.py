"""Who may do what: every route names the roles it admits, and one guard turns everybody else away."""

from __future__ import annotations

import base64
import binascii
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from anyio import to_thread
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from control_plane.clock import Clock
from control_plane.core.tokens import Presented, Role, parse
from control_plane.operations.check_token import Actor, identify, note_uses, refused
from control_plane.operations.refusals import Forbidden
from control_plane.store.database import Database

# What a route declares as its `opt`. A route without one is open to nobody.
ADMINS: dict[str, Any] = {"roles": frozenset({Role.ADMIN})}
READERS: dict[str, Any] = {"roles": frozenset({Role.ADMIN, Role.SUPPORT})}
AGENTS: dict[str, Any] = {"roles": frozenset({Role.AGENT})}
JOINING: dict[str, Any] = {"roles": frozenset({Role.JOIN}), "token_in_body": True}
EVERYBODY: dict[str, Any] = {"roles": frozenset(), "open": True}

CACHED_MS = 5_000
"""How long a token that was good may be believed without asking the database: a revocation takes at most so long."""
CACHED_MAX = 10_000


class Doorkeeper:
    """Identifies callers, with a bounded memory of those it has just seen."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._seen: OrderedDict[tuple[str, bytes], tuple[Actor, int]] = OrderedDict()
        self._used: dict[str, int] = {}
        self._lock = threading.Lock()  # the event loop looks and adds, threads forget and write down

    async def identify(self, presented: Presented) -> Actor:
        """Raises: Unauthenticated: nobody we know."""
        now_ms = self._clock.now_ms()
        key = (presented.token, presented.secret_sha256)
        found = self._seen.get(key)
        if found and 0 <= now_ms - found[1] < CACHED_MS and not _expired(found[0], now_ms):
            return found[0]
        actor = await to_thread.run_sync(self._ask_database, presented, now_ms)
        with self._lock:
            self._seen[key] = (actor, now_ms)
            if len(self._seen) > CACHED_MAX:
                self._seen.popitem(last=False)
        return actor

    def forget(self, token: str) -> None:
        """It was revoked here: other replicas learn of it within ``CACHED_MS``."""
        self._forget(lambda actor: actor.token == token)

    def forget_agent(self, agent: str) -> None:
        """Its tokens were revoked here."""
        self._forget(lambda actor: actor.agent == agent)

    def _forget(self, is_meant: Callable[[Actor], bool]) -> None:
        with self._lock:
            for key in [key for key, (actor, _) in self._seen.items() if is_meant(actor)]:
                del self._seen[key]

    def _ask_database(self, presented: Presented, now_ms: int) -> Actor:
        actor, stale = self._database.read(lambda connection: identify(connection, presented, now_ms))
        if stale:
            with self._lock:
                self._used[actor.token] = now_ms
        return actor

    def write_down(self) -> None:
        """Note when tokens were last used: now and then, all at once, because hundreds of agents that all speak after a
        silence must not each wait for the disk.

        Raises: DatabaseUnavailable: they are noted next time.
        """
        with self._lock:
            used = dict(self._used)
        if not used:
            return
        self._database.run(lambda connection: note_uses(connection, used))
        with self._lock:
            self._used = {token: at_ms for token, at_ms in self._used.items() if used.get(token) != at_ms}


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Admit who shows a token of a role that the route admits.

    Raises: Unauthenticated, Forbidden.
    """
    if handler.opt.get("open") or handler.opt.get("token_in_body"):
        return
    presented = _presented(connection.headers.get("authorization", ""))
    if presented is None:
        raise refused()
    doorkeeper: Doorkeeper = connection.app.state.doorkeeper
    actor = await doorkeeper.identify(presented)
    if actor.role not in handler.opt.get("roles", frozenset()):
        raise Forbidden("forbidden", f"A token with the role {actor.role.value!r} may not do this.")
    connection.scope["auth"] = actor


def actor_of(request: Request[Any, Any, Any]) -> Actor:
    """Who is asking, as the guard found out."""
    actor: Actor = request.scope["auth"]
    return actor


def _presented(header: str) -> Presented | None:
    scheme, _, value = header.partition(" ")
    match scheme.lower():
        case "bearer":
            return parse(value.strip())
        case "basic":
            try:
                user_and_password = base64.b64decode(value, validate=True).decode()
            except (binascii.Error, ValueError):
                return None
            return parse(user_and_password.partition(":")[2])
        case _:
            return None


def _expired(actor: Actor, now_ms: int) -> bool:
    return actor.expires_at_ms is not None and now_ms >= actor.expires_at_ms
