"""What a handler works with: the database, the time of the request, and who is asking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from litestar import Request

from control_plane.access import Doorkeeper, actor_of
from control_plane.api.preconditions import Preconditions, preconditions_of
from control_plane.operations.author import Author
from control_plane.operations.refusals import NotFound
from control_plane.store import customers
from control_plane.store.database import Connection, Database
from protocol.violations import Violation

T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """One request's."""

    database: Database
    doorkeeper: Doorkeeper
    author: Author
    preconditions: Preconditions = Preconditions()

    @property
    def now_ms(self) -> int:
        """When the request is said to happen, milliseconds UTC."""
        return self.author.now_ms

    def change(
        self,
        operation: Callable[[Connection, Author], T],
        shown: Callable[[Connection], object] | None = None,
        of: str = "",
        *,
        keep: bool = True,
    ) -> T:
        """Do an operation that changes something, in one transaction.

        Args:
            shown: what GET answers of it now, for If-Match and If-None-Match; raises NotFound where there is nothing.
            of: the customer whose it is: held, so that nobody changes it between the look and the change.
            keep: without it all is taken back at the end: what it would do.

        Raises: Stale: it is not what the request expects. Violation: it expects something where nothing can be said.
        """
        if self.preconditions.given and shown is None:
            raise Violation("If-Match", "cannot be looked at here", "no If-Match or If-None-Match")

        def work(connection: Connection) -> T:
            if shown is not None and self.preconditions.given:
                if of:
                    customers.hold(connection, [of])
                self.preconditions.check(_present(connection, shown))
            return operation(connection, self.author)

        return self.database.run(work, keep=keep)

    def read(self, look: Callable[[Connection], T]) -> T:
        """Read one consistent state."""
        return self.database.read(look)


def _present(connection: Connection, shown: Callable[[Connection], object]) -> object | None:
    try:
        return shown(connection)
    except NotFound:
        return None


def provide_context(request: Request[Any, Any, Any]) -> Context:
    """The context of a request that the guard has admitted."""
    state = request.app.state
    author = Author(actor_of(request).token, state.clock.now_ms())
    return Context(state.database, state.doorkeeper, author, preconditions_of(request))
