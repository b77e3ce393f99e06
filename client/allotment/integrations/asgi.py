"""An ASGI middleware that opens routes by feature: what a customer's plan does not allow never reaches the application.

Needs no framework: Starlette, FastAPI, Litestar, Django and Quart all speak ASGI.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from allotment.answers import Decision
from allotment.asynchronous import AsyncClient
from allotment.attribution import attributed
from allotment.errors import AllotmentError, Refused
from allotment.metered import AsyncMeteredCall
from allotment.problems import Problem, problem, problem_of, ratelimit

_log = logging.getLogger("allotment")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Read = Callable[[Scope], str | Awaitable[str | None] | None]

POLICY_VIOLATION = 1008
"""Why a WebSocket is closed that its customer may not open."""


class Gate:
    """Lets a request through when its customer may use the feature of its route, and answers it otherwise.

    Args:
        app: the application behind it.
        routes: the feature of each path. A path stands for itself and all below it; of several, the longest counts.
            Other paths are open.
        customer: whose request it is: the name of a header, or a function of the ASGI scope, plain or async, that
            gives the customer, or None where nobody is known. A header is only as good as whoever sets it: name one
            that the proxy in front sets, or let a function read what the application's own authentication found.
        user: who acts inside the customer, said in the same way; optional.
        count: whether a request counts as one of the meter ``requests``, held while it runs. Without, the gate only
            looks whether one more would be allowed.
        client: who asks the agent; closed with the application.

    What the application answers with an error (from 400 on), or not at all, is not counted, unless it says what it
    used: ``scope["allotment"].report(tokens=...)``; ``scope["allotment"]`` is the call in flight of
    ``AsyncClient.metered`` where requests are counted, and the decision where they are not.

    Model calls that the application makes meanwhile are this customer's and user's (``allotment.attributed``).

    A refusal is answered with problem details: 429 with Retry-After, 402, or 403; without the agent 503 with
    Retry-After, because nobody could tell. A WebSocket is refused before it opens. Preflights (OPTIONS) pass.
    """

    def __init__(
        self,
        app: Application,
        routes: Mapping[str, str],
        *,
        customer: str | Read,
        user: str | Read | None = None,
        count: bool = True,
        client: AsyncClient | None = None,
    ) -> None:
        for path in routes:
            if not path.startswith("/"):
                raise ValueError(f"routes: {path!r} is not a path; paths begin with a slash, as in '/summarize'")
        self._app = app
        self._features = sorted(((_plain(path), feature) for path, feature in routes.items()), reverse=True)
        self._customer = _reader(customer)
        self._user = _reader(user) if user is not None else None
        self._said_by = f"header {customer}" if isinstance(customer, str) else "the application"
        self._count = count
        self._client = client or AsyncClient()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, one WebSocket, or the life of the application."""
        if scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, send)
            finally:
                await self._client.aclose()
            return
        feature = None if scope.get("method") == "OPTIONS" else self._feature(scope)
        if feature is None:
            await self._app(scope, receive, send)
            return
        door = _Door(scope, receive, send)
        customer = await _asked(self._customer, scope)
        if not customer:
            await door.refuse(_nobody(self._said_by))
            return
        user = await _asked(self._user, scope) if self._user is not None else None
        if self._count:
            await self._counted(door, customer, feature, user)
        else:
            await self._checked(door, customer, feature, user)

    async def _counted(self, door: _Door, customer: str, feature: str, user: str | None) -> None:
        call = self._client.metered(customer, feature, user=user, raise_on_refusal=True)
        try:
            await call.__aenter__()
        except AllotmentError as error:
            await door.refuse(_told(error))
            return
        ended: BaseException | None = None
        try:
            with attributed(customer=customer, user=user):
                await door.open(self._app, call, call.decision)
        except BaseException as error:
            ended = error
            raise
        finally:
            await _end(call, door, ended)

    async def _checked(self, door: _Door, customer: str, feature: str, user: str | None) -> None:
        try:
            decision = (await self._client.check(customer, feature, user=user)).raise_for_refusal()
        except AllotmentError as error:
            await door.refuse(_told(error))
            return
        with attributed(customer=customer, user=user):
            await door.open(self._app, decision, decision)

    def _feature(self, scope: Scope) -> str | None:
        """The feature of the route, by the path as the application sees it: no other spelling goes around the gate."""
        path: str = scope["path"]
        root = scope.get("root_path", "")
        if root and (path == root or path.startswith(f"{root}/")):
            path = path[len(root) :]
        path = _plain(path)
        for route, feature in self._features:
            if path == route or path.startswith(f"{route}/"):
                return feature
        return None


class _Door:
    """One request or WebSocket: refuses it, or opens it and looks at how the application answers."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._limits: list[tuple[bytes, bytes]] = []
        self._status = 0

    @property
    def served(self) -> bool:
        """The application has answered, and with no error."""
        return 0 < self._status < 400

    async def open(self, app: Application, told: AsyncMeteredCall | Decision, decision: Decision) -> None:
        """Let the application answer."""
        self._limits = _encoded(ratelimit(decision))
        await app({**self._scope, "allotment": told}, self._receive, self._watch)

    async def refuse(self, said: Problem) -> None:
        """Answer instead of the application."""
        kind = "http.response"
        if self._scope["type"] == "websocket":
            if "websocket.http.response" not in (self._scope.get("extensions") or {}):
                await self._send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": said.body["code"]})
                return
            kind = "websocket.http.response"
        body = json.dumps(said.body).encode()
        headers = [*_encoded(said.headers), (b"content-length", b"%d" % len(body))]
        await self._send({"type": f"{kind}.start", "status": said.status, "headers": headers})
        await self._send({"type": f"{kind}.body", "body": body})

    async def _watch(self, message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.accept"):
            self._status = message.get("status", 101)
            headers = list(message.get("headers", ()))
            if not any(bytes(name).lower() == b"ratelimit" for name, _ in headers):
                message = {**message, "headers": [*headers, *self._limits]}
        await self._send(message)


async def _end(call: AsyncMeteredCall, door: _Door, error: BaseException | None) -> None:
    """The reservation ends; an answer that has been given is not taken back because nobody could be told of it."""
    if not door.served:
        call.not_sent()
    elif not call.reported:
        call.report()  # one request, and nothing else
    try:
        await call.__aexit__(type(error) if error is not None else None, error, None)
    except AllotmentError as problem:
        _log.error("allotment: reservation %s could not be ended: %s", call.reservation, problem)


def _plain(path: str) -> str:
    """Without doubled slashes and the last one: what some routers take for the same."""
    return re.sub("/+", "/", path).rstrip("/")


def _reader(who: str | Read) -> Read:
    if not isinstance(who, str):
        return who
    wanted = who.lower().encode("latin-1")

    def read(scope: Scope) -> str | None:
        found = [value for name, value in scope["headers"] if name.lower() == wanted]
        return str(found[0].decode("latin-1")) if len(found) == 1 else None

    return read


async def _asked(read: Read, scope: Scope) -> str | None:
    found = read(scope)
    return await found if inspect.isawaitable(found) else found


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def _nobody(said_by: str) -> Problem:
    return problem(403, "customer_unknown", f"nobody is known whose request this is; the {said_by} must say")


def _told(error: AllotmentError) -> Problem:
    if not isinstance(error, Refused):
        _log.warning("allotment: a request could not be decided: %s", error)
    return problem_of(error)
