"""The one way to say that input was wrong: which field, what was wrong with it, and what would be right."""

from __future__ import annotations


class Violation(Exception):  # noqa: N818 - the word of the design; it is said of a peer, not of us
    """The peer sent something it may not send. It is the peer's fault, never ours.

    Args:
        field: path of the offending field (``amounts.input_tokens``), or ``""`` for the message as a whole.
        problem: what was wrong, in words.
        expected: what would have been right, in words.
        code: a stable machine-readable name of the rule (``invalid_request`` unless a rule has a name of its own).
    """

    def __init__(self, field: str, problem: str, expected: str = "", code: str = "invalid_request") -> None:
        super().__init__(field, problem, expected, code)
        self.field = field
        self.problem = problem
        self.expected = expected
        self.code = code

    @property
    def message(self) -> str:
        """One sentence for people: ``amounts.input_tokens: is negative; expected 0 to 2**53-1``."""
        head = f"{self.field}: {self.problem}" if self.field else self.problem
        return f"{head}; expected {self.expected}" if self.expected else head

    def __str__(self) -> str:
        return self.message
