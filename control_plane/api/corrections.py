"""Corrections over HTTP: past usage amended, voided, or entered afterwards; looked at first, or done."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter

from control_plane.api.bodies import Reason
from control_plane.api.context import Context
from control_plane.api.instants import Instant, instant_ms
from control_plane.api.parameters import Page, PageCursor, PageLimit, PathKey, key_cursor, page
from control_plane.api.verbs import puts, reads
from control_plane.core.corrections import NAME_MAX
from control_plane.operations.author import Author
from control_plane.operations.backfill_usage import EVENTS_MAX, Backfill, backfill_usage
from control_plane.operations.change_customer import require_customer
from control_plane.operations.correct_usage import Item, Kind, Order, Outcome, correct_usage
from control_plane.operations.enter_corrections import Effects
from control_plane.operations.price_missed import Missed
from control_plane.store import corrections
from control_plane.store.corrections import CorrectionRow
from control_plane.store.database import Connection
from protocol.events import Outcome as CallOutcome
from protocol.events import Subject, UsageSource
from protocol.ids import KEY_PATTERN, KEY_WORDS, Key, ModelName, Tags
from protocol.instants import rfc3339
from protocol.units import Amounts

PATH = "/v1/customers/{customer:str}"
TAGS = ["corrections"]
Name = Annotated[str, PathParameter(pattern=KEY_PATTERN, max_length=NAME_MAX, description=KEY_WORDS)]
Preview = Annotated[bool, QueryParameter(description="say what would change, and change nothing")]


class CorrectionWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call, by its event, that came to other amounts (``amend``), or that never was (``void``).

    Attributes:
        amounts, tokens: of ``amend``: the whole call as it should have been reported, a request unless it says
            otherwise. What rates make of it follows, by the prices that it had.
    """

    kind: Kind
    event: Key
    reason: Reason
    amounts: Amounts = {}
    tokens: Amounts = {}


class MissedEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call that no agent saw, as its caller would have reported it. ``at``: when it happened."""

    event: Key
    feature: Key
    at: Instant
    amounts: Amounts = {}
    tokens: Amounts = {}
    subject: Subject = Subject()
    tags: Tags = {}
    model: ModelName | None = None
    provider: Key | None = None
    usage_source: UsageSource = UsageSource.PROVIDER
    outcome: CallOutcome = CallOutcome.COMPLETE


class BackfillWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Calls that no agent saw, and why they are entered now."""

    events: Annotated[tuple[MissedEvent, ...], msgspec.Meta(min_length=1, max_length=EVENTS_MAX)]
    reason: Reason


class CorrectionItem(msgspec.Struct, frozen=True):
    """What came of a correction (with ``preview``: what would come of it): item by item, and which counters, sums and
    grants of credit it moves, by how much."""

    correction: str
    preview: bool
    items: tuple[Item, ...]
    effects: Effects


class MadeCorrection(msgspec.Struct, frozen=True):
    """A correction that was made. ``ordered``: what was asked for."""

    correction: str
    kind: str
    at: str
    actor: str
    reason: str
    ordered: Order | None
    items: tuple[Item, ...]
    effects: Effects


@puts(PATH + "/corrections/{correction:str}", CorrectionWrite, tags=TAGS)
def put_correction(
    customer: PathKey,
    correction: Name,
    data: JSONBody[CorrectionWrite],
    context: NamedDependency[Context],
    preview: Preview = False,
) -> CorrectionItem:
    """Correct one past call by a compensating entry. Each id corrects once; said again, it answers the same."""
    order = Order(data.kind, data.event, data.amounts, data.tokens, data.reason)

    def work(connection: Connection, author: Author) -> Outcome:
        return correct_usage(connection, customer, correction, order, author)

    return _item(correction, context.change(work, keep=not preview), preview=preview)


@puts(PATH + "/backfills/{correction:str}", BackfillWrite, tags=TAGS)
def put_backfill(
    customer: PathKey,
    correction: Name,
    data: JSONBody[BackfillWrite],
    context: NamedDependency[Context],
    preview: Preview = False,
) -> CorrectionItem:
    """Enter calls that no agent saw, each with its own result: ``accepted``, ``duplicate``, ``conflict``, ``rejected``
    or ``late``. Each id enters once; said again, it answers the same."""
    order = Backfill(tuple(_missed(at, one) for at, one in enumerate(data.events)), data.reason)

    def work(connection: Connection, author: Author) -> Outcome:
        return backfill_usage(connection, customer, correction, order, author)

    return _item(correction, context.change(work, keep=not preview), preview=preview)


@reads(PATH + "/corrections", tags=TAGS)
def list_corrections(
    customer: PathKey, context: NamedDependency[Context], limit: PageLimit = 100, cursor: PageCursor = None
) -> Page[MadeCorrection]:
    """Corrections by hand, backfills included, in order of id."""

    def look(connection: Connection) -> list[CorrectionRow]:
        require_customer(connection, customer)
        return corrections.after(connection, customer, key_cursor(cursor), limit + 1)

    return page(context.read(look), limit, _made, lambda row: row.correction)


def _missed(at: int, one: MissedEvent) -> Missed:
    return Missed(
        one.event,
        one.feature,
        instant_ms(one.at, f"events[{at}].at"),
        one.amounts,
        one.tokens,
        one.subject,
        one.tags,
        one.model,
        one.provider,
        one.usage_source,
        one.outcome,
    )


def _item(correction: str, outcome: Outcome, *, preview: bool) -> CorrectionItem:
    return CorrectionItem(correction, preview, outcome.items, outcome.effects)


def _made(row: CorrectionRow) -> MadeCorrection:
    outcome = msgspec.json.decode(row.outcome, type=Outcome)
    order = None if row.kind == "backfill" else msgspec.json.decode(row.ordered, type=Order)
    at = rfc3339(row.at_ms)
    return MadeCorrection(row.correction, row.kind, at, row.actor, row.reason, order, outcome.items, outcome.effects)


CORRECTION_HANDLERS = [put_correction, put_backfill, list_corrections]
