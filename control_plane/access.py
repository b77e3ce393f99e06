"""Who may do what: every route names the roles it admits, and one guard turns everybody else away."""

from __future__ import annotations

import base64
import binascii
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from anyio import to_thread
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from control_plane.clock import Clock
from control_plane.core.tokens import Presented, Role, parse
from control_plane.operations.check_token import LAST_USED_COARSE_MS, Actor, identify, note_uses, refused
from control_plane.operations.refusals import Forbidden
from control_plane.store import tokens
from control_plane.store.database import Database

# What a route declares as its `opt`. A route without one is open to nobody.
ADMINS: dict[str, Any] = {"roles": frozenset({Role.ADMIN})}
READERS: dict[str, Any] = {"roles": frozenset({Role.ADMIN, Role.SUPPORT})}
SENDERS: dict[str, Any] = {"roles": frozenset({Role.ADMIN, Role.INGEST})}
WATCHERS: dict[str, Any] = {"roles": frozenset({Role.ADMIN, Role.SUPPORT, Role.METRICS})}
AGENTS: dict[str, Any] = {"roles": frozenset({Role.AGENT})}
JOINING: dict[str, Any] = {"roles": frozenset({Role.JOIN}), "token_in_body": True}
EVERYBODY: dict[str, Any] = {"roles": frozenset(), "open": True}

BELIEVED_MS = 5_000
"""How long a token that was good may be believed without asking the database: a revocation takes at most so long."""
SEEN_MAX = 10_000
SEEN_FOR_MS = 120_000
"""For how long after its last use a token is checked in the background. Agents that only watch speak once a minute."""


@dataclass(slots=True)
class _Seen:
    """A token that was good when it was last checked. ``noted_at_ms``: its last use as the database has it."""

    actor: Actor
    checked_at_ms: int
    used_at_ms: int
    noted_at_ms: int


class Doorkeeper:
    """Identifies callers, with a bounded memory of those seen lately.

    The background checks all of them with one query, and notes their uses in one transaction: hundreds of agents that
    all speak after a silence must not each wait for the database before they are heard.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._seen: OrderedDict[tuple[str, bytes], _Seen] = OrderedDict()
        self._lock = threading.Lock()  # the event loop looks and adds, threads check and forget

    async def identify(self, presented: Presented) -> Actor:
        """Raises: Unauthenticated: nobody we know."""
        now_ms = self._clock.now_ms()
        key = (presented.token, presented.secret_sha256)
        found = self._seen.get(key)
        if found and 0 <= now_ms - found.checked_at_ms < BELIEVED_MS and not _expired(found.actor, now_ms):
            found.used_at_ms = now_ms
            return found.actor
        actor, noted_at_ms = await to_thread.run_sync(self._ask_database, presented, now_ms)
        with self._lock:
            self._seen[key] = _Seen(actor, now_ms, now_ms, noted_at_ms)
            if len(self._seen) > SEEN_MAX:
                self._seen.popitem(last=False)
        return actor

    def forget(self, token: str) -> None:
        """It was revoked here: other replicas learn of it within ``BELIEVED_MS``."""
        self._forget(lambda seen: seen.actor.token == token)

    def forget_agent(self, agent: str) -> None:
        """Its tokens were revoked here."""
        self._forget(lambda seen: seen.actor.agent == agent)

    def _forget(self, is_meant: Callable[[_Seen], bool]) -> None:
        with self._lock:
            for key in [key for key, seen in self._seen.items() if is_meant(seen)]:
                del self._seen[key]

    def _ask_database(self, presented: Presented, now_ms: int) -> tuple[Actor, int]:
        return self._database.read(lambda connection: identify(connection, presented, now_ms))

    def check_again(self) -> None:
        """Ask the database which of the tokens seen lately are still good; forget the others.

        Raises: DatabaseUnavailable: those that were believed soon are not.
        """
        now_ms = self._clock.now_ms()
        self._forget(lambda seen: now_ms - seen.used_at_ms >= SEEN_FOR_MS)
        with self._lock:
            seen = list(self._seen.values())
        names = {one.actor.token for one in seen}
        good = self._database.read(lambda connection: tokens.not_revoked(connection, names))
        for one in seen:
            if one.actor.token in good:
                one.checked_at_ms = now_ms
        revoked = names - good
        if revoked:
            self._forget(lambda one: one.actor.token in revoked)

    def write_down(self) -> None:
        """Note when tokens were last used. Raises: DatabaseUnavailable: they are noted next time."""
        with self._lock:
            used = [one for one in self._seen.values() if one.used_at_ms - one.noted_at_ms >= LAST_USED_COARSE_MS]
        if used:
            uses = {one.actor.token: one.used_at_ms for one in used}
            self._database.run(lambda connection: note_uses(connection, uses))
            for one in used:
                one.noted_at_ms = uses[one.actor.token]


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
