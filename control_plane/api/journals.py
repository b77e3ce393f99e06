"""Journals of agents over HTTP: ways out of quarantine and limbo, for admins who have found out what happened."""

from __future__ import annotations

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody

from control_plane.api.bodies import Reason
from control_plane.api.context import Context
from control_plane.api.parameters import PathKey
from control_plane.api.verbs import acts
from control_plane.operations.author import Author
from control_plane.operations.release_journal import release_journal, require_journal
from control_plane.operations.write_off_lease import write_off_journal
from control_plane.store.database import Connection

TAGS = ["agents"]
PATH = "/v1/agents/{agent:str}/journals/{journal:str}"


class ReasonWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why, for the audit log."""

    reason: Reason


class Released(msgspec.Struct, frozen=True):
    """``released``: by this request; false when the journal was not in quarantine."""

    agent: str
    journal: str
    released: bool


class WrittenOff(msgspec.Struct, frozen=True):
    """``leases``: how many were closed by this request."""

    agent: str
    journal: str
    leases: int


@acts(f"{PATH}/release", ReasonWrite, tags=TAGS)
def release(
    agent: PathKey, journal: PathKey, data: JSONBody[ReasonWrite], context: NamedDependency[Context]
) -> Released:
    """Believe a journal in quarantine again, because only one copy of it lives. Its leases stay charged until its agent
    speaks of them. Should another copy speak, it is quarantined again."""
    released = context.change(
        lambda connection, author: release_journal(connection, agent, journal, data.reason, author)
    )
    return Released(agent, journal, released)


@acts(f"{PATH}/write-off", ReasonWrite, tags=TAGS)
def write_off(
    agent: PathKey, journal: PathKey, data: JSONBody[ReasonWrite], context: NamedDependency[Context]
) -> WrittenOff:
    """Close every lease of a journal whose holder is silent, each charged with what was reported of it."""

    def work(connection: Connection, author: Author) -> int:
        require_journal(connection, agent, journal)
        return write_off_journal(connection, agent, journal, data.reason, author)

    return WrittenOff(agent, journal, context.change(work))


JOURNAL_HANDLERS = [release, write_off]
