"""Breaks one rule and says what came of it: the first line of DESIGN.md that breaks, and the first overspend."""

from __future__ import annotations

from dataclasses import dataclass

from tests.model.explore import Verdict, explore
from tests.model.rules import Broken
from tests.model.worlds import Case, Ends

STATES_MAX = 200_000
"""How far an overspend is looked for that nobody expects."""


@dataclass(frozen=True)
class Judged:
    """What a broken rule led to. ``line``: until any line broke; ``use``: until too much was used, where asked for."""

    line: Verdict
    use: Verdict | None

    def is_as_expected(self, ends: Ends) -> bool:
        """Whether the rule is needed for exactly what it is said to be needed for."""
        match ends:
            case Ends.NOTHING:
                return self.line.complete
            case Ends.OVERSPENT:
                return bool(self.line.wrong) and (self.use is None or self.use.wrong.startswith("used"))
            case Ends.BOOKS:
                return self.line.wrong.startswith("pool") and (self.use is None or not self.use.wrong)
            case Ends.HELD:
                return bool(self.line.wrong)

    @property
    def trace(self) -> tuple[str, ...]:
        """The most telling way to what is wrong."""
        return self.use.trace if self.use and self.use.trace else self.line.trace


def judge(broken: Broken, case: Case, *, patient: bool) -> Judged:
    """Visit the world without the rule.

    Args:
        patient: look for use beyond the limit, too, where that takes long.
    """
    world = case.world._replace(broken=broken)
    line = explore(world)
    asked = case.ends in {Ends.OVERSPENT, Ends.BOOKS} and (patient or not case.is_slow)
    return Judged(line, explore(world, overspent_only=True, states_max=STATES_MAX) if asked else None)
