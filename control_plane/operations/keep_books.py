"""The books of one transaction: allowances held and changed, leases moved, and a ledger entry for every movement."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from control_plane.core import rates
from control_plane.core.allocation import worth_announcing
from control_plane.core.kinds import Kind, counted
from control_plane.core.lease_life import Life, Movement, Status
from control_plane.core.rates import Share
from control_plane.operations.accounts import Account
from control_plane.operations.unit_of_work import UnitOfWork
from control_plane.store import allowances, changes, leases, ledger, rollups
from control_plane.store.allowances import Key
from control_plane.store.changes import Change
from control_plane.store.database import Connection
from control_plane.store.ledger import Entry
from protocol.leases import burst_left

SOMEBODY_WAITS_MS = 10_000
"""Capacity that comes back is announced when somebody was refused or recalled so lately."""


class Books:
    """Everything that a transaction, or one of several syncs in it, changes on allowances and leases; written by
    :meth:`save`, once.

    Attributes:
        unit: what is written with it.
        ceiling_of: the most that an allowance may lend now; ``None``: nobody has looked.
    """

    def __init__(self, connection: Connection, now_ms: int, unit: UnitOfWork | None = None) -> None:
        self.connection = connection
        self.now_ms = now_ms
        self.unit = unit or UnitOfWork(connection)
        self.accounts: dict[Key, Account] = {}
        self._entries: list[Entry] = []
        self._moved: dict[tuple[str, str], leases.Row] = {}
        self._lent: list[leases.Row] = []
        self._changes: dict[Change, None] = {}
        self.ceiling_of: Callable[[Key], int | None] = lambda _: None

    def open(self, windows: Mapping[Key, int]) -> None:
        """Hold these allowances, in order, making those that do not exist. To be called once, with all of them.

        Args:
            windows: the end of each one's window.
        """
        accounts = self.unit.accounts
        wanted = windows.keys() - accounts.keys()
        found = list(allowances.find(self.connection, wanted))
        missing = wanted - {row.key for row in found}
        seeds = self._seeds({key: windows[key] for key in missing})
        rows = [allowances.Row(key, windows[key], 0, seeds.get(key, 0), 0, 0) for key in missing]
        added = allowances.add_missing(self.connection, rows)
        if missing or self.connection.dialect.name != "sqlite":  # there, nobody else writes meanwhile
            found = list(allowances.find(self.connection, wanted, lock=True))
        accounts.update((row.key, Account(*row)) for row in found)
        for key in windows:
            self.accounts[key] = accounts[key]
            accounts[key].freed = 0
        for key, amount in sorted(seeds.items()):
            if amount and key in added:
                self._entries.append(Entry(key, ledger.DIRECT, amount, "seed"))

    def _seeds(self, missing: Mapping[Key, int]) -> dict[Key, int]:
        """What new counters start from: use that was counted in their window before they existed.

        What a customer used is known to the minute, and so exact also where a billing period begins in the middle of an
        hour. Of subjects and tags sums are kept by the hour, and only hours that lie wholly inside the window count:
        what the period before used in it is not taken over, and what was used in its own part of that hour before the
        counter existed is not counted. Windows of a minute start at nothing.
        """
        coarse = [key for key in missing if _may_be_seeded(key.counter)]
        if not coarse:
            return {}
        used = rollups.customers_with_any(self.connection, {key.customer for key in coarse})
        return {key: self._used_before(key, missing[key]) for key in coarse if key.customer in used}

    def _used_before(self, key: Key, window_end_ms: int) -> int:
        what = counted(key.counter)
        return rollups.used(
            self.connection,
            key.customer,
            what.meter,
            key.window_start_ms,
            window_end_ms,
            feature=what.feature,
            dimension=what.dimension,
            value=key.scope_value,
        )

    def debit(self, key: Key, amount: int, cause: str, event: str | None = None, lease: str | None = None) -> None:
        """Charge (or with a negative amount, give back) without a lease."""
        account = self.accounts[key]
        account.direct += amount
        account.changed = True
        account.freed += max(0, -amount)
        self._entries.append(Entry(key, ledger.DIRECT, amount, cause, lease=lease, event=event))

    def govern(self, key: Key, amount: int, burst: int) -> Account:
        """The account of a rate, under what the plan says of it now."""
        account = self.accounts[key]
        if account.level_at_ms:
            account.pool = rates.govern(account.pool, amount, burst, self.now_ms)
        else:
            account.pool = rates.new_pool(amount, burst, counted(key.counter).period_ms, self.now_ms)
        return account

    def lend(self, row: leases.Row, cause: str) -> leases.Row:
        """Cut a new lease from its allowance. Returns it: a share of a rate with what is in its bucket."""
        account = self.accounts[row.key]
        if row.burst:
            account.pool, level = rates.lend(account.pool, Share(row.granted, row.burst), self.now_ms)
            row = row._replace(level=level)
        else:
            account.outstanding += row.granted
        account.changed = True
        self._lent.append(row)
        self._entries.append(Entry(row.key, ledger.GRANT, row.granted, cause, lease=row.lease))
        return row

    def take_in(self, row: leases.Row) -> None:
        """A lease that was granted, and forgotten with the database's latest state, is charged again, at once."""
        account = self.accounts[row.key]
        account.outstanding += row.granted
        account.changed = True
        leases.add(self.connection, [row])
        self.unit.know(row)
        self._entries.append(Entry(row.key, ledger.GRANT, row.granted, "restored", lease=row.lease))

    def move(self, row: leases.Row, life: Life, movement: Movement, level: int = 0) -> leases.Row:
        """Take a lease one step on: its row, its allowance and the ledger together.

        Args:
            level: of a share of a rate that comes back: what is saved up in it.
        """
        account = self.accounts[row.key]
        back = movement.returned + movement.released
        if row.burst and back:
            bursts = [burst_left(row.granted, row.burst, cap) for cap in (row.cap, life.cap)]
            account.pool = rates.take_back(account.pool, Share(back, bursts[0] - bursts[1]), level, self.now_ms)
        else:
            account.outstanding -= back
        if movement.returned:
            self._entries.append(Entry(row.key, ledger.RETURN, movement.returned, movement.cause, lease=row.lease))
        if movement.released or movement.posted:
            account.posted += movement.posted
            entry = Entry(row.key, ledger.POST, movement.posted, movement.cause, movement.released, row.lease)
            self._entries.append(entry)
        if movement.returned or movement.released or movement.posted:
            account.changed = True
        account.freed += max(0, back - movement.posted)
        closes = life.status is Status.CLOSED and row.closed_at_ms is None
        moved = row._replace(
            cap=life.cap,
            settled=life.settled,
            in_flight=life.in_flight,
            unreported=life.unreported,
            status=life.status.value,
            keep=life.keep,
            closed_at_ms=self.now_ms if closes else row.closed_at_ms,
        )
        self.unit.move(row, moved)
        return self.change(moved)

    def change(self, row: leases.Row) -> leases.Row:
        """Remember a changed lease."""
        self._moved[row.customer, row.lease] = row
        return row

    def announce(self, change: Change) -> None:
        """Tell the watches, once a transaction."""
        self._changes[change] = None

    def flush_leases(self) -> None:
        """Write the changed leases now, so that sums over leases see them."""
        leases.save(self.connection, list(self._moved.values()))
        self._moved.clear()

    def hand_over(self) -> bool:
        """All that was done here is done: the unit of work will write it. Returns whether there is news for the
        watches."""
        self.flush_leases()
        self.unit.lend(self._lent)
        self.unit.enter(self._entries, self.now_ms)
        for account in self.accounts.values():
            if not worth_announcing(account.freed, account.taken):
                continue
            if self.now_ms - account.recalled_at_ms <= SOMEBODY_WAITS_MS and self._has_room(account):
                self.announce(Change(account.key.customer, changes.RETURNED))
        self.unit.announce(self._changes, self.now_ms)
        return bool(self._changes)

    def save(self) -> bool:
        """Write everything. Returns whether there is news for the watches."""
        news = self.hand_over()
        self.unit.write()
        return news

    def _has_room(self, account: Account) -> bool:
        """Whether what came back can be lent. After a downgrade, or the end of a subscription, it cannot: hundreds of
        agents would be told of what each of them returns, and find nothing."""
        ceiling = self.ceiling_of(account.key)
        quota = counted(account.key.counter).kind is Kind.QUOTA
        return ceiling is None or not quota or account.available(ceiling) > 0

    def publish(self) -> None:
        """Write the news: the very last statements of the transaction."""
        self.unit.announce(self._changes, self.now_ms)
        self.unit.publish()


def _may_be_seeded(counter: str) -> bool:
    what = counted(counter)
    # Sums are kept by user and by role, not by both: a counter of one role's calls alone starts at nothing. So does a
    # balance: its grants are for what is used from now on.
    return what.kind is Kind.QUOTA and what.window not in ("minute", "grants") and not what.role


def life_of(row: leases.Row) -> Life:
    """A lease's numbers, as the core sees them."""
    return Life(row.granted, row.cap, row.settled, row.in_flight, row.unreported, Status(row.status), row.keep)
