"""Everything that can go wrong between an application and its agent, under one base class."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from allotment.answers import Decision


class AllotmentError(Exception):
    """Base of all errors of this library."""


class AgentUnavailable(AllotmentError):  # noqa: N818 - it says what is, as ConnectionRefused does
    """No usable answer came from the agent within the deadline.

    What was asked may or may not have happened. Saying it again under the same reservation or event id is always safe.
    A reservation that nobody ends is ended by the agent when its ``ttl_ms`` has passed.

    Attributes:
        code: ``unreachable`` (no connection), ``no_answer`` (sent, unanswered), ``answer_invalid``, or the code of the
            last answer that asked to try again (``overloaded``, ``not_recorded``, ``draining``).
    """

    def __init__(self, message: str, code: str = "unreachable") -> None:
        super().__init__(message)
        self.code = code


class AgentError(AllotmentError):
    """The agent understood that something is wrong and said what.

    Attributes:
        code: stable name of what is wrong.
        field: path of the field that it is about, where there is one (``amounts.input_tokens``).
    """

    def __init__(self, message: str, code: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.field = field


class RequestInvalid(AgentError):  # noqa: N818
    """The request breaks a rule of the wire; ``field`` names where. Asking again as it is cannot help."""


class ReservationNotFound(AgentError):  # noqa: N818
    """The agent knows no such reservation, and was not told whose call it was."""


class ReservationConflict(AgentError):  # noqa: N818
    """The id is in use for another call."""


class ReservationEnded(AgentError):  # noqa: N818
    """The reservation was settled, released, or ran out before."""


class Refused(AllotmentError):  # noqa: N818
    """The agent said no; ``decision`` says why. Raised only where raising was asked for."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.message)
        self.decision = decision


class Throttled(Refused):
    """Not now: ask again after ``decision.retry_after_ms``."""


class Blocked(Refused):
    """Not until something changes: the window, the plan, or what is asked for."""


_BY_CODE: dict[str, type[AgentError]] = {
    "invalid_request": RequestInvalid,
    "frame_invalid": RequestInvalid,
    "unknown_operation": RequestInvalid,
    "meter_not_found": RequestInvalid,
    "reservation_not_found": ReservationNotFound,
    "reservation_conflict": ReservationConflict,
    "reservation_ended": ReservationEnded,
}


def agent_error(message: str, code: str, field: str | None) -> AgentError:
    """The error of an error reply."""
    return _BY_CODE.get(code, AgentError)(message, code, field)
