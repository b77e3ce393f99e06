"""Adjustments over HTTP: what people charge or give back by hand."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar.di import NamedDependency
from litestar.params import JSONBody

from control_plane.api.bodies import Reason
from control_plane.api.context import Context
from control_plane.api.parameters import OptionalKey, PathKey
from control_plane.api.verbs import puts
from control_plane.operations.adjust_allowance import adjust_allowance
from protocol.ids import Key
from protocol.units import QUANTITY_MAX

Signed = Annotated[int, msgspec.Meta(ge=-QUANTITY_MAX, le=QUANTITY_MAX)]


class AdjustmentWrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to add to the use of a limit in its present window; negative amounts give back.

    Attributes:
        scope_value: whose counter, of a limit that is kept per user, workspace and so on; empty for the customer's own.
    """

    limit: Key
    amount: Signed
    reason: Reason
    scope_value: OptionalKey = ""


class AdjustmentItem(msgspec.Struct, frozen=True):
    """``added``: by this request; false when this adjustment had been made before."""

    adjustment: str
    added: bool


@puts("/v1/customers/{customer:str}/adjustments/{adjustment:str}", AdjustmentWrite, tags=["customers"])
def adjust(
    customer: PathKey, adjustment: PathKey, data: JSONBody[AdjustmentWrite], context: NamedDependency[Context]
) -> AdjustmentItem:
    """Charge a limit by hand, or give back; each id counts once. It goes to the ledger and the audit log."""
    added = context.change(
        lambda connection, author: adjust_allowance(
            connection, customer, adjustment, data.limit, data.scope_value, data.amount, data.reason, author
        )
    )
    return AdjustmentItem(adjustment, added)


ADJUSTMENT_HANDLERS = [adjust]
