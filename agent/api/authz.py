"""The door for proxies that pass calls on and only ask: nginx, Envoy, Caddy, Traefik, HAProxy, and their kind.

They ask before (`/v1/authz`), by any method, with what they know of a call in headers and as much of its body as they
send; and some of them say afterwards what the answer was (`/v1/settle/{reservation}`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from agent.api.dispatch import Dispatch, Door
from agent.api.routes import ANSWER, AUTHZ, Asked, require_method
from agent.core.attribution import PREFIX
from agent.core.estimate import Estimates
from agent.core.passing import Passed, answer_of, counts, ended, passed, reserved, unsettled
from agent.core.undeclared import without_undeclared
from protocol.decisions import Code, Decision, Verdict
from protocol.ids import KEY_WORDS, is_key
from protocol.local_messages import ErrorReply, Record, Recorded, Release, Reply, Reserve, Settle
from protocol.violations import Violation

CALLS_MAX = 20_000
"""How many calls under way are remembered, oldest forgotten first: of those, what broke off is estimated less well."""

_METHOD = b"x-forwarded-method"
_URI = b"x-forwarded-uri"


class Authz:
    """Answers proxies; one for all their connections."""

    def __init__(self, dispatch: Dispatch, estimates: Estimates, random_id: Callable[[], str]) -> None:
        self._dispatch = dispatch
        self._estimates = estimates
        self._random_id = random_id
        self._calls: OrderedDict[str, Passed] = OrderedDict()

    def ask(self, asked: Asked, door: Door, number: int) -> Reply | None:
        """May this call be passed on? ``None``: ``door.late`` will be called. Raises: Violation: by a header's name."""
        headers = _once(asked)
        method, path = _about(asked, headers)
        if not counts(method, path, headers):
            return _FREE
        found = passed(path, headers, asked.body)
        request = reserved(f"authz-{self._random_id()}", found, self._estimates)
        msgspec.structs.force_setattr(request, "id", number)
        reply = self._dispatch(request, _Asking(self, request, found, door))
        if reply is not None:
            self.decided(request, found, reply)
        return reply

    def decided(self, request: Reserve, found: Passed, reply: Reply) -> None:
        """Remember a call that goes ahead; or count it at once, if nobody will say what it used."""
        if not isinstance(reply, Decision) or reply.decision is not Verdict.ALLOW:
            return
        if not found.settles:
            # Should the disk not take it: the reservation then ends by itself, and counts the same.
            self._dispatch(unsettled(request.reservation, found, dict(request.amounts)), _NOBODY)
            return
        self._calls[request.reservation] = found
        if len(self._calls) > CALLS_MAX:
            self._calls.popitem(last=False)

    def settle(self, asked: Asked, door: Door, number: int) -> Reply | None:
        """What the answer to a call was. Raises: Violation: by a header's name."""
        require_method(asked.method, b"POST")
        name = asked.path[len(ANSWER) :].decode("latin-1")
        if not is_key(name):
            raise Violation("reservation", f"is {ascii(name)[:80]}", KEY_WORDS)
        headers = _once(asked)
        answer = answer_of(headers, asked.body)
        found = self._calls.get(name)
        if found is None:  # it began before this agent did: proxies say again what they said of it
            found = passed(headers.get(_URI, b"").decode("latin-1"), headers, b"")
        said = list(ended(name, found, answer, self._estimates))
        reply: Reply | None = Recorded()  # nothing yet: it goes on, and its provider will say later
        for request in said:
            if isinstance(request, Record):
                self._say(request, _NOBODY)
            else:
                msgspec.structs.force_setattr(request, "id", number)
                reply = self._say(request, door)
        return reply

    def _say(self, request: Settle | Release | Record, door: Door) -> Reply | None:
        reply = self._dispatch(request, door)
        while not isinstance(request, Release) and isinstance(reply, ErrorReply):
            less = without_undeclared(request, reply.error.code, reply.error.field)
            if less is None:
                break
            request = less
            reply = self._dispatch(request, door)
        return reply


class _Asking:
    """Stands between a decision that had to wait and the connection that it goes to."""

    def __init__(self, authz: Authz, request: Reserve, found: Passed, door: Door) -> None:
        self._authz = authz
        self._request = request
        self._found = found
        self._door = door

    @property
    def gone(self) -> bool:
        return self._door.gone

    def late(self, request_id: int, reply: Reply) -> None:
        self._authz.decided(self._request, self._found, reply)
        self._door.late(request_id, reply)


class _Nobody:
    """Waits for no answer."""

    gone = False

    def late(self, request_id: int, reply: Reply) -> None:
        pass


_NOBODY = _Nobody()
_FREE = Decision(
    decision=Verdict.ALLOW, has_access=True, code=Code.OK, message="Not counted: it costs nothing.", feature=""
)


def _once(asked: Asked) -> dict[bytes, bytes]:
    """The headers by name. One of ours that is there twice may be a caller's beside the proxy's: neither is believed.

    Raises: Violation.
    """
    found: dict[bytes, bytes] = {}
    for name, value in asked.headers:
        if name in found and (name.startswith(PREFIX) or name in (_METHOD, _URI)):
            raise Violation(name.decode("latin-1"), "is there more than once", "the one that the proxy sets")
        found[name] = value
    return found


def _about(asked: Asked, headers: dict[bytes, bytes]) -> tuple[str, str]:
    """Method and path of the request that is asked about: of this one, or as said in headers at the bare path."""
    path = asked.path[len(AUTHZ) :] + (b"?" + asked.query if asked.query else b"")
    if asked.path != AUTHZ:
        return asked.method.decode(), path.decode("latin-1")
    if PREFIX + b"amounts" not in headers:
        for name in (_METHOD, _URI):
            if not headers.get(name):
                expected = "what is asked about; or its path after /v1/authz, by its own method"
                raise Violation(name.decode(), "is missing", expected)
    return headers.get(_METHOD, b"").decode("latin-1"), headers.get(_URI, b"").decode("latin-1")
