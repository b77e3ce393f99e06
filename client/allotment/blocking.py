"""The blocking client: one object for all threads of a process, safe across forks."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TypeVar, Unpack

from allotment import requests
from allotment.answers import Answer, Decision, Recorded, StatusReport, UsageReport
from allotment.attempts import TIMEOUT_S, Backoff, TryAgain, outcome, time_allowed_s
from allotment.connections import Pool, StaleConnection
from allotment.errors import RequestInvalid
from allotment.metered import MeteredCall
from allotment.requests import CheckOptions, RecordOptions, Request, ReserveOptions, SettleOptions, UsageOptions

A = TypeVar("A", bound=Answer)

SOCKET_PATH = "/run/allotment/agent.sock"


def default_socket_path() -> str:
    """``$ALLOTMENT_SOCKET``, or where the agent puts its socket."""
    return os.environ.get("ALLOTMENT_SOCKET", SOCKET_PATH)


class Client:
    """Asks the agent on this host. Every call has a deadline, and survives an agent that restarts meanwhile.

    Args:
        socket_path: the agent's socket; ``$ALLOTMENT_SOCKET``, or ``/run/allotment/agent.sock``.
        timeout_s: how long a call may take in all, reconnecting and repeating included.

    Every method but ``close`` may raise:
        AgentUnavailable: no usable answer within the deadline.
        AgentError: the agent refuses the request as wrong: RequestInvalid, ReservationNotFound, ReservationConflict ...
    """

    def __init__(self, socket_path: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        self.socket_path = socket_path or default_socket_path()
        self.timeout_s = timeout_s
        self._pool = Pool(self.socket_path)

    def check(
        self, customer: str, feature: str, *, timeout_s: float | None = None, **options: Unpack[CheckOptions]
    ) -> Decision:
        """May this call go ahead? Holds nothing."""
        return self.ask(requests.check(customer, feature, **options), Decision, timeout_s)

    def reserve(
        self, customer: str, feature: str, *, timeout_s: float | None = None, **options: Unpack[ReserveOptions]
    ) -> Decision:
        """Hold ``amounts`` for a call in flight; ``decision.reservation.id`` is what to settle. See ``metered``."""
        return self.ask(requests.reserve(*requests.split_reserve(customer, feature, options)), Decision, timeout_s)

    def extend(
        self,
        reservation: str,
        amounts: Mapping[str, int],
        *,
        ttl_ms: int | None = None,
        deadline_ms: int = 0,
        timeout_s: float | None = None,
    ) -> Decision:
        """Hold so that ``amounts`` are held in all: the total, not the step, so that repeats are harmless."""
        return self.ask(requests.extend(reservation, amounts, ttl_ms, deadline_ms), Decision, timeout_s)

    def settle(self, reservation: str, *, timeout_s: float | None = None, **used: Unpack[SettleOptions]) -> Recorded:
        """What a reservation really used. Said again with other numbers it is a correction."""
        return self.ask(requests.settle(reservation, **used), Recorded, timeout_s)

    def release(self, reservation: str, *, timeout_s: float | None = None) -> Recorded:
        """The call did not happen: give back what is held."""
        return self.ask(requests.release(reservation), Recorded, timeout_s)

    def record(
        self, customer: str, feature: str, *, timeout_s: float | None = None, **options: Unpack[RecordOptions]
    ) -> Recorded:
        """Usage that nobody reserved; it is counted whether or not it fits. ``recorded.event`` is its id."""
        return self.ask(requests.record(customer, feature, **options), Recorded, timeout_s)

    def usage(self, customer: str, *, timeout_s: float | None = None, **options: Unpack[UsageOptions]) -> UsageReport:
        """How the limits of a customer stand: for a widget that shows what is left."""
        return self.ask(requests.usage(customer, **options), UsageReport, timeout_s)

    def status(self, *, timeout_s: float | None = None) -> StatusReport:
        """How the agent itself is."""
        return self.ask(requests.status(), StatusReport, timeout_s)

    def metered(
        self,
        customer: str,
        feature: str,
        *,
        raise_on_refusal: bool = False,
        timeout_s: float | None = None,
        **options: Unpack[ReserveOptions],
    ) -> MeteredCall:
        """Reserve on entering a ``with`` block and end the reservation once, however the block is left.

        With ``raise_on_refusal`` a refusal raises Throttled or Blocked; without, look at ``call.allowed``.
        """
        return MeteredCall(self, *requests.split_reserve(customer, feature, options), raise_on_refusal, timeout_s)

    def close(self) -> None:
        """Close the connections. What other threads have under way ends first."""
        self._pool.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def ask(self, request: Request, kind: type[A], timeout_s: float | None = None) -> A:
        """Send a request until it is answered: what all the others do."""
        within_s = time_allowed_s(request, timeout_s, self.timeout_s)
        deadline = time.monotonic() + within_s
        backoff = Backoff(self.socket_path, within_s)
        while True:
            try:
                return self._attempt(request, kind, deadline)
            except StaleConnection:
                self._pool.drop_idle()  # they are all as old
            except (OSError, TryAgain) as problem:
                time.sleep(backoff.delay_s(problem, deadline - time.monotonic()))

    def _attempt(self, request: Request, kind: type[A], deadline: float) -> A:
        connection = self._pool.take(deadline - time.monotonic())
        try:
            reply = connection.exchange(request, deadline)
        except BaseException as error:
            if isinstance(error, RequestInvalid):
                self._pool.give_back(connection)  # nothing was sent
            else:
                connection.close()
            raise
        self._pool.give_back(connection)
        return outcome(reply, kind)
