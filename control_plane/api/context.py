"""What a handler works with: the database, the time of the request, and who is asking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from litestar import Request

from control_plane.access import Doorkeeper, actor_of
from control_plane.operations.author import Author
from control_plane.store.database import Connection, Database

T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """One request's."""

    database: Database
    doorkeeper: Doorkeeper
    author: Author

    @property
    def now_ms(self) -> int:
        """When the request is said to happen, milliseconds UTC."""
        return self.author.now_ms

    def change(self, operation: Callable[[Connection, Author], T]) -> T:
        """Do an operation that changes something, in one transaction."""
        return self.database.run(lambda connection: operation(connection, self.author))

    def read(self, look: Callable[[Connection], T]) -> T:
        """Read one consistent state."""
        return self.database.read(look)


def provide_context(request: Request[Any, Any, Any]) -> Context:
    """The context of a request that the guard has admitted."""
    state = request.app.state
    author = Author(actor_of(request).token, state.clock.now_ms())
    return Context(state.database, state.doorkeeper, author)
