"""What agents say over HTTP: enrol, sync, and one hanging watch (protocol.uplink_messages)."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Annotated, Any

from anyio import to_thread
from litestar import Request, Response, get, post
from litestar.exceptions import HTTPException
from litestar.params import JSONBody, QueryParameter

from control_plane.access import AGENTS, JOINING, actor_of
from control_plane.api.bodies import StrictBody
from control_plane.api.crowds import turns
from control_plane.api.metrics import Metrics
from control_plane.clock import random_id, random_secret
from control_plane.operations.check_token import refused
from control_plane.operations.enroll_agent import Draws, enroll_agent
from control_plane.operations.refusals import Conflict
from control_plane.operations.sync_agent import Synced, TurnedAway
from control_plane.operations.sync_together import SyncDesk
from control_plane.operations.watch_changes import ChangeFeed
from protocol.codec import encode_msgpack
from protocol.uplink_messages import (
    ENROLL_PATH,
    MSGPACK,
    SYNC_BYTES_MAX,
    SYNC_PATH,
    WATCH_PATH,
    WATCH_WAIT_MS_MAX,
    EnrollReply,
    EnrollRequest,
)
from protocol.violations import Violation

TAGS = ["agents' uplink"]
JOINING_AT_ONCE_MAX = 4
JOINING_WAITING_MAX = 512
"""An agent that gave up waiting would join twice."""

CURSOR_MAX = 2**62

WatchCursor = Annotated[int, QueryParameter(ge=-1, le=CURSOR_MAX, description="of the watch before; -1 at first")]
WatchWait = Annotated[int, QueryParameter(ge=0, le=WATCH_WAIT_MS_MAX, description="how long to wait at most, ms")]
WatchEntitlements = Annotated[bool, QueryParameter(description="whether changed entitlements are to come along")]


@post(
    ENROLL_PATH,
    opt=JOINING,
    tags=TAGS,
    dto=StrictBody[EnrollRequest],
    return_dto=None,
    security=[{}],
)
async def enroll(request: Request[Any, Any, Any], data: JSONBody[EnrollRequest]) -> EnrollReply:
    """Trade a join token for an identity of one's own; its token is shown this once."""
    state = request.app.state
    limiter = turns(state, "joining", JOINING_AT_ONCE_MAX, JOINING_WAITING_MAX, "agents")
    return await to_thread.run_sync(_enroll, state, data, limiter=limiter)


@post(
    SYNC_PATH,
    opt=AGENTS,
    tags=TAGS,
    status_code=200,
    media_type=MSGPACK,
    request_max_body_size=SYNC_BYTES_MAX,
)
async def sync(request: Request[Any, Any, Any]) -> Response[bytes]:
    """One idempotent exchange (msgpack): reports, asks and events up; grants, recalls and entitlements down."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != MSGPACK:
        raise HTTPException(status_code=415, detail=f"This path takes msgpack: expected content-type {MSGPACK}.")
    state = request.app.state
    if "sync_desk" not in state:
        state.sync_desk = SyncDesk(state.database, state.clock, partial(_count, state.metrics))
    desk: SyncDesk = state.sync_desk
    desk.check_room()
    answer = await desk.sync(_agent(request), await request.body())
    if isinstance(answer.outcome, TurnedAway):
        raise _turned_away(answer.outcome)
    outcome = answer.outcome
    if outcome.news:
        state.feed.nudge()
    if outcome.late:
        detail = (
            "What was said counts, but a newer start of this journal has spoken: two agents live on copies of one "
            "disk, and this one must stop. Start it with an empty data directory."
        )
        raise Conflict("journal_quarantined", detail, "journal")
    return Response(answer.body, media_type=MSGPACK)


@get(WATCH_PATH, opt=AGENTS, tags=TAGS, media_type=MSGPACK)
async def watch(
    request: Request[Any, Any, Any],
    cursor: WatchCursor,
    wait_ms: WatchWait = 0,
    entitlements: WatchEntitlements = False,
) -> Response[bytes]:
    """Wait until something may have changed since the cursor, or for a while (msgpack)."""
    feed: ChangeFeed = request.app.state.feed
    arrived_ms = request.app.state.clock.now_ms() if entitlements else None
    reply = await feed.wait(_agent(request), cursor, wait_ms, arrived_ms)
    return Response(encode_msgpack(reply), media_type=MSGPACK)


def _enroll(state: Any, wanted: EnrollRequest) -> EnrollReply:
    draws = Draws(random_id(), random_id(), random_secret())
    now_ms = state.clock.now_ms()
    reply: EnrollReply = state.database.run(lambda connection: enroll_agent(connection, wanted, draws, now_ms))
    return reply


def _count(metrics: Metrics, outcome: Synced) -> None:
    results = Counter(one.code for one in outcome.reply.event_problems) + Counter(accepted=len(outcome.accepted))
    metrics.count("agents", results, outcome.accepted)


def _turned_away(outcome: TurnedAway) -> Exception:
    match outcome.why:
        case "snapshot_required":
            expected = "true in the first sync of a start"
            return Violation("snapshot", "is false, but this start is not known", expected, code="snapshot_required")
        case "quarantined":
            detail = (
                "This journal was copied or rolled back, or another agent uses it; it is quarantined, and what its "
                "leases may have paid for stays charged. Start the agent with an empty data directory."
            )
            return Conflict("journal_quarantined", detail, "journal")
        case _:
            return refused()


def _agent(request: Request[Any, Any, Any]) -> str:
    agent = actor_of(request).agent
    if agent is None:
        raise refused()
    return agent


UPLINK_HANDLERS: list[Any] = [enroll, sync, watch]
