"""How long a call may take, how often it is tried, and what becomes of a reply: rules of both clients, no I/O."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, TypeVar

from allotment.answers import Answer, read_answer
from allotment.errors import AgentUnavailable, agent_error
from allotment.requests import Request
from allotment.wire import AnswerInvalid

TIMEOUT_S = 5.0
"""How long a call may take in all, unless client or call say otherwise."""

CLOSING_TIMEOUT_S = 2.0
"""How long ending a reservation may hold up an exception or a cancellation that is on its way."""

AGENT_WAITS_MS = 2_000
"""How long the agent may wait for room unless told otherwise (the default of ``deadline_ms`` on the wire)."""

BACKOFF_FIRST_S = 0.005
BACKOFF_MAX_S = 0.25
LEFT_MIN_S = 0.002
"""With less time than this left, another attempt is not worth beginning."""

A = TypeVar("A", bound=Answer)


class TryAgain(Exception):  # noqa: N818
    """The agent said that the same request under the same id may succeed."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def time_allowed_s(request: Request, timeout_s: float | None, usual_s: float) -> float:
    """How long the call may take, and makes the agent's own wait fit into it.

    Without ``timeout_s`` a call gets the usual time, or a second more than it lets the agent wait. With it, an agent
    that was not told how long to wait is told four fifths of it, so that its answer still arrives.
    """
    if not request.waits:
        return usual_s if timeout_s is None else timeout_s
    waits_ms = request.fields.get("deadline_ms")
    allowed_s = usual_s if timeout_s is None else timeout_s
    if waits_ms is None:
        if allowed_s * 800 < AGENT_WAITS_MS:
            request.fields["deadline_ms"] = max(0, int(allowed_s * 800))
    elif timeout_s is None and isinstance(waits_ms, int):
        return max(usual_s, waits_ms / 1000 + 1)
    return allowed_s


def outcome(reply: Mapping[str, Any], kind: type[A]) -> A:
    """The answer that a reply holds.

    Raises:
        TryAgain: the agent asks for the same request once more.
        AgentError: the agent refuses the request as wrong.
        AnswerInvalid: the reply does not fit the request.
    """
    if reply.get("kind") == "error":
        problem = reply.get("error")
        if not isinstance(problem, dict):
            raise AnswerInvalid("the agent's error says nothing")
        code, message = str(problem.get("code", "")), str(problem.get("message", ""))
        if reply.get("retry"):
            raise TryAgain(code, message)
        raise agent_error(message, code, problem.get("field"))
    try:
        answer = read_answer(reply)
    except ValueError as error:
        raise AnswerInvalid(str(error)) from None
    if type(answer) is not kind:
        raise AnswerInvalid(f"the agent answered with a {type(answer).__name__} where a {kind.__name__} belongs")
    return answer


class Backoff:
    """When to try again: at growing, jittered intervals, within what is left of the deadline."""

    __slots__ = ("_failures", "_problem", "_within_s", "path")

    def __init__(self, path: str, within_s: float) -> None:
        self.path = path
        self._within_s = within_s
        self._failures = 0
        self._problem: Exception | None = None

    def delay_s(self, problem: Exception, left_s: float) -> float:
        """How long to wait before the next attempt.

        Raises:
            AgentUnavailable: there is no time left, or trying again cannot help.
        """
        if self._problem is None or not isinstance(problem, TimeoutError):
            self._problem = problem  # that time ran out in the end tells less than what had gone wrong before
        if left_s < LEFT_MIN_S or _hopeless(problem):
            raise self._unavailable(self._problem) from problem
        full_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * float(1 << min(self._failures, 10)))
        self._failures += 1
        pause_s = full_s * (0.5 + secrets.randbelow(1000) / 2000)  # who failed together does not return together
        return min(pause_s, left_s / 2)

    def _unavailable(self, problem: Exception) -> AgentUnavailable:
        match problem:
            case TryAgain():
                return AgentUnavailable(f"the agent still says, after {self._within_s:g} s: {problem}", problem.code)
            case AnswerInvalid():
                return AgentUnavailable(f"the agent at {self.path} is not understood: {problem}", "answer_invalid")
            case TimeoutError():
                return AgentUnavailable(
                    f"no answer from the agent at {self.path} within {self._within_s:g} s; what was asked may or may "
                    "not have happened: saying it again under the same id is safe",
                    "no_answer",
                )
            case _:
                return AgentUnavailable(f"no agent at {self.path} within {self._within_s:g} s: {problem}")


def _hopeless(problem: Exception) -> bool:
    """Not allowed to connect, or a path that no socket can have: waiting changes neither."""
    return isinstance(problem, PermissionError) or (type(problem) is OSError and problem.errno is None)
