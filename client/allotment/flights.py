"""A call in flight: what was decided, held and reported, and the one request that ends it, however its block is left.

The rules, in the order in which they apply:

1. Refused: nothing is held, so nothing is ended.
2. ``report()`` was called: settled with the last report. Its outcome is the one reported, else by how the block was
   left: ``complete``, ``error`` (an exception) or ``aborted`` (cancellation, KeyboardInterrupt, GeneratorExit: whatever
   is no ``Exception``).
3. ``not_sent()`` was called: released.
4. Left by an exception or cancellation: settled with what was reserved, without the ``output_tokens``; the request may
   have reached the provider, but how far its answer had come is not known. ``usage_source`` is ``estimated``.
5. Left normally without a word: settled with everything that was held, ``complete``, ``estimated``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Unpack

from allotment import requests
from allotment.answers import Decision, Recorded
from allotment.errors import AllotmentError
from allotment.requests import Call, Request, Used

_log = logging.getLogger("allotment")

OUTPUT_TOKENS = "output_tokens"


class Flight:
    """What the blocking and the async call in flight share; does no I/O.

    Attributes:
        reservation: the id under which it is held, and of the usage event that it becomes.
        held: what is held now, by meter.
        recorded: what the agent wrote down when the block was left; None before.
    """

    def __init__(self, call: Call, reservation: str, amounts: Mapping[str, int]) -> None:
        self.call = call
        self.reservation = reservation
        self.held = dict(amounts)
        self.recorded: Recorded | None = None
        self._decision: Decision | None = None
        self._report: dict[str, Any] | None = None
        self._not_sent = False
        self._unanswered: Request | None = None

    @property
    def decision(self) -> Decision:
        """What the agent decided when the block was entered."""
        if self._decision is None:
            raise RuntimeError("nothing is decided before the block is entered")
        return self._decision

    @property
    def allowed(self) -> bool:
        """The call may go ahead."""
        return self.decision.allowed

    def report(self, *, model: str | None = None, **used: Unpack[Used]) -> None:
        """Say what was used: it is settled when the block is left. Said again, the last word counts.

        Give ``tokens`` by token class as the provider reports them, or ``amounts`` by meter. A stream may report what
        it has counted so far after each piece, with ``usage_source="estimated"``, so that it is right if it breaks off.
        """
        self._report = {**used, "model": model}

    @property
    def reported(self) -> bool:
        """Something was reported."""
        return self._report is not None

    def not_sent(self) -> None:
        """Say that the provider was never asked: what is held is given back and nothing is counted."""
        self._not_sent = True

    def _decided(self, decision: Decision) -> None:
        self._decision = decision
        if decision.reservation is not None:
            self.held = dict(decision.reservation.amounts)

    def _wider(self, more: Mapping[str, int]) -> dict[str, int]:
        return self.held | {meter: self.held.get(meter, 0) + step for meter, step in more.items()}

    def _ending(self, error: BaseException | None) -> Request | None:
        """The request that ends it; None where nothing is held."""
        if self._decision is None or not self._decision.allowed:
            return None
        left = "complete" if error is None else "error" if isinstance(error, Exception) else "aborted"
        if self._report is not None:
            return requests.settle(self.reservation, **{"outcome": left, **self._report, "call": self.call})
        if self._not_sent:
            return requests.release(self.reservation)
        return self._estimate(left)

    def _estimate(self, outcome: str) -> Request:
        amounts = self.held
        if outcome != "complete":
            amounts = {meter: amount for meter, amount in amounts.items() if meter != OUTPUT_TOKENS}
        return requests.settle(
            self.reservation, amounts=amounts, usage_source="estimated", outcome=outcome, call=self.call
        )

    def _not_ended(self, error: BaseException, problem: AllotmentError) -> None:
        """An exception is on its way, so the failure to end the reservation is told beside it, not instead of it."""
        said = f"allotment: reservation {self.reservation} could not be ended: {problem}"
        error.add_note(said)
        _log.warning("%s", said)
