"""Learning mode: after the database was restored to an older state, agents say what they hold before more is lent.

It begins when an operator says so (``allotment-control-plane restored``), or when an agent says what the database
should know and does not: a lease of its own seal, events confirmed beyond those it has, a start that it never heard of.
Each beginning is a new generation, whose name is in every answer; an agent that hears a new name tells everything anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.core import learning
from control_plane.store import agents, allowances, audit_log, changes, custody
from control_plane.store.changes import Change
from control_plane.store.custody import Generation
from control_plane.store.database import Connection

RETRY_MS = 1_000
"""When an ask that was refused for learning may come again."""

CLAIM_AGAIN_MS = 3_600_000
"""A mere claim of one agent makes the control plane listen at most once in so long; a seal does so each time."""


@dataclass(slots=True)
class Trust:
    """What decides whom to believe, in one exchange.

    Attributes:
        generation: the database's; a new one if this exchange shows that it was restored.
        key: what grants are sealed with.
        registered: the newest generation in which the asking agent has said all that it holds.
        said: the name of the generation that the agent has heard of.
    """

    generation: Generation
    key: bytes | None
    registered: int
    said: str

    @property
    def is_news(self) -> bool:
        """Whether what the database does not know cannot be explained by the restore that is known: the agent has heard
        of this generation and had told all in it, or nothing was ever restored."""
        known = self.generation
        return self.said == known.name and (self.registered == known.generation or known.cause == custody.MADE)


def say_restored(connection: Connection, actor: str, detail: str, now_ms: int) -> Generation:
    """An operator says that the database was restored to an older state: listen before lending."""
    begun, wake = _begin(connection, custody.TOLD, None, detail, now_ms)
    audit_log.append(connection, now_ms, actor, "database.restored", begun.name, {"reason": detail})
    changes.append(connection, wake, now_ms)
    return begun


def notice_restore(
    connection: Connection, trust: Trust, agent: str, detail: str, now_ms: int, *, sealed: bool
) -> list[Change]:
    """The agent says what the database should know and does not: if no restore that is known explains it, listen.

    Args:
        sealed: it shows our own seal; otherwise it is a claim.

    Returns: what is to be announced, so that everybody tells anew at once.
    """
    known = trust.generation
    claimed_before = known.cause == custody.NOTICED and known.agent == agent
    just_now = now_ms - known.begun_at_ms < CLAIM_AGAIN_MS
    if not trust.is_news or (not sealed and claimed_before and just_now):
        return []
    trust.generation, wake = _begin(connection, custody.NOTICED, agent, detail, now_ms)
    body = {"because": detail}
    audit_log.append(connection, now_ms, agent, "database.restore_noticed", trust.generation.name, body)
    return wake


def end_learning(connection: Connection, now_ms: int) -> int:
    """End it when everybody expected has told all, or was waited for long enough; one of the sweeps, and never a batch
    of one: returns 0."""
    known = custody.present(connection).generation
    if known.ended_at_ms is not None:
        return 0
    missing = custody.missing(connection, known)
    over = learning.is_over(now_ms, known.until_ms, known.at_most_until_ms, missing)
    if over and custody.end_learning(connection, known.generation, now_ms):
        body = {"missing": missing}
        audit_log.append(connection, now_ms, "control-plane", "database.learning_ended", known.name, body)
    return 0


def _begin(
    connection: Connection, cause: str, agent: str | None, detail: str, now_ms: int
) -> tuple[Generation, list[Change]]:
    known = custody.present(connection).generation
    since_ms = learning.expected_since_ms(now_ms, custody.newest_before(connection, now_ms - learning.STALE_MS))
    begun = Generation(
        generation=known.generation + 1,
        name=f"{known.generation + 1}-{now_ms}",
        begun_at_ms=now_ms,
        cause=cause,
        agent=agent,
        detail=detail,
        expected_since_ms=since_ms,
        until_ms=now_ms + learning.LISTEN_MS,
        at_most_until_ms=now_ms + max(known.learning_max_ms, learning.LISTEN_MS),
        ended_at_ms=None,
        learning_max_ms=known.learning_max_ms,
        grace_ms=known.grace_ms,
    )
    custody.begin(connection, begun)
    allowances.empty_buckets(connection, now_ms)
    # A recall makes an agent sync at once: then it hears the name of the new generation, and tells everything.
    expected = agents.to_be_waited_for(connection, since_ms)
    return begun, [Change("", changes.RECALL, agent) for agent in expected]
