"""Asks the Allotment agent on this host whether a customer may use an LLM feature now, and tells it what was used.

blocking       ``Client``, for threads
asynchronous   ``AsyncClient``, for asyncio and Trio
sdks           ``meter(OpenAI())``: the official SDKs, metered by one line
attribution    ``with attributed(...)``: whose the model calls are that are made here
transports     around an SDK's own: asked before, watched meanwhile
streams        answers on their way to an SDK
observed       a model call as its agent is told of it
server_events  what is changed of such a stream, and of its request
metered        ``with client.metered(...)``: reserve, then end the reservation on every way out
flights        a call in flight, and the rules by which it ends
requests       the requests, one function each
answers        what the agent answers, as frozen values
errors         everything that can go wrong
problems       refusals and failures as HTTP answers
integrations   inside what other people wrote: ASGI applications, LangChain, LiteLLM's proxy
attempts       deadlines, repetition, and what becomes of a reply
connections    blocking connections and their pool
pipelines      one async connection shared by many calls
runtimes       what is needed of asyncio or Trio
wire           frames and msgpack
"""

from __future__ import annotations

from allotment.answers import Decision, LimitState, Recorded, Reservation, StatusReport, Taken, UsageReport
from allotment.asynchronous import AsyncClient
from allotment.attribution import attributed
from allotment.blocking import Client
from allotment.errors import (
    AgentError,
    AgentUnavailable,
    AllotmentError,
    Blocked,
    Refused,
    RequestInvalid,
    ReservationConflict,
    ReservationEnded,
    ReservationNotFound,
    Throttled,
)
from allotment.metered import AsyncMeteredCall, MeteredCall
from allotment.requests import Call
from allotment.sdks import meter

__all__ = [
    "AgentError",
    "AgentUnavailable",
    "AllotmentError",
    "AsyncClient",
    "AsyncMeteredCall",
    "Blocked",
    "Call",
    "Client",
    "Decision",
    "LimitState",
    "MeteredCall",
    "Recorded",
    "Refused",
    "RequestInvalid",
    "Reservation",
    "ReservationConflict",
    "ReservationEnded",
    "ReservationNotFound",
    "StatusReport",
    "Taken",
    "Throttled",
    "UsageReport",
    "attributed",
    "meter",
]
