"""Trades a join token for an agent's identity and its own token."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.core.tokens import Role
from control_plane.operations.check_token import use_join_token
from control_plane.operations.issue_token import TokenOrder, issue
from control_plane.store import agents, audit_log
from control_plane.store.database import Connection
from protocol.uplink_messages import EnrollReply, EnrollRequest


@dataclass(frozen=True, slots=True)
class Draws:
    """What is drawn at random for a new agent: the id of the agent, and both halves of its token."""

    agent: str
    token: str
    secret: str


def enroll_agent(connection: Connection, request: EnrollRequest, draws: Draws, now_ms: int) -> EnrollReply:
    """Enrol; the token in the answer is shown this once.

    Raises: Unauthenticated: the join token is not good, or used up.
    """
    joined_with = use_join_token(connection, request.join_token, now_ms)
    agent = f"agent-{draws.agent}"
    agents.add(connection, agent, request.name, now_ms)
    order = TokenOrder(Role.AGENT, request.name, agent=agent)
    _, text = issue(connection, order, draws.token, draws.secret, joined_with, now_ms)
    audit_log.append(connection, now_ms, joined_with, "agent.enroll", agent, {"name": request.name})
    return EnrollReply(agent, text)
