""" "Look again", said cheaply from plain functions and waited for by one loop."""

from __future__ import annotations

import trio


class Wake:
    """A flag that one task waits for. Setting it twice before it is seen is the same as setting it once."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        """Something is to be done."""
        if not self._event.is_set():
            self._event.set()

    async def wait(self) -> None:
        """Return once it has been set, and clear it."""
        await self._event.wait()
        self._event = trio.Event()

    async def wait_at_most(self, seconds: float) -> None:
        """Return once it has been set, or after so long."""
        with trio.move_on_after(seconds):
            await self.wait()
